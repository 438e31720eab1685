"""The command line: help, overrides, and errors that name the field and the remedy."""

import json
import logging
import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest
from ml_collections import ConfigDict

from xlmjax import cli
from xlmjax.configs import base
from xlmjax.configuration import ConfigError, config_names, load_config, to_json


def test_the_version_names_packages_and_devices(capsys, monkeypatch):
    assert cli.main(["--version"]) == 0
    versions, devices = capsys.readouterr().out.splitlines()
    assert versions.startswith("xlmjax ")
    assert f"jax {jax.__version__}" in versions
    assert devices == f"devices: {jax.device_count()} cpu"
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "one,two")  # where it would wait for the others
    assert cli.main(["--version"]) == 0
    assert "those of a TPU pod" in capsys.readouterr().out


def test_help_names_every_command(capsys):
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in cli.COMMANDS)


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "--config" in printed
    assert len(printed.splitlines()) > 8


def test_what_the_package_logs_is_shown_once(capsys, monkeypatch):
    def run(name, args, others):
        logging.getLogger("xlmjax.ops.attention").info("attention: xla")
        logging.getLogger("xlmjax.data").debug("nothing for users")
        return 0

    root = logging.StreamHandler()  # as a library may add it
    logging.getLogger().addHandler(root)
    monkeypatch.setattr(cli, "_run_command", run)
    try:
        assert cli.main(["bench"]) == 0
    finally:
        logging.getLogger().removeHandler(root)
    assert capsys.readouterr().err == "attention: xla\n"
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert cli.main(["bench"]) == 0
    assert not capsys.readouterr().err
    assert not logging.getLogger("xlmjax").handlers


def test_an_unknown_command_is_refused(capsys):
    assert cli.main(["trian"]) == 2
    assert "'trian'" in capsys.readouterr().err


@pytest.mark.parametrize("name", config_names())
def test_every_config_loads(name):
    if name != "sizes":
        assert load_config(name).train.num_steps > 0


def test_overrides_keep_types():
    config = load_config(
        "base",
        [
            "--config.train.num_steps=7",
            "--config.data.languages=en",
            "--config.data.languages=fr",
            "--config.optimizer.learning_rate=1",
        ],
    )
    assert config.train.num_steps == 7
    assert config.data.languages == ("en", "fr")
    assert config.optimizer.learning_rate == 1.0


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("bas", "", "unknown config 'bas'. Did you mean 'base'"),
        ("nowhere/mine.py", "", "nowhere/mine.py: no such file"),
        ("base", "--config.train.num_step=7", 'Did you mean "num_steps"'),
        ("base", "--config.train.rows=abc", "invalid literal for int() with base 10: 'abc'"),
        ("base", "--config.train.num_steps=many", "many"),
        ("base", "--config.train.num_steps", "--config.train.num_steps=VALUE"),
        ("base", "--steps=7", "unknown argument '--steps=7'"),
        ("wiki15:rot=x", "", "config argument 'rot=x' is not one of: objective=mlm_tlm, root=data"),
        ("wiki15:size=huge", "", "size='huge' is unknown; known: tiny, mini"),
        ("wiki15:pairs=all", "", "pairs='all' is unknown; known: english, every"),
    ],
)
def test_wrong_configs_are_refused_by_name(name, override, message, capsys):
    with pytest.raises(ConfigError) as error:
        load_config(name, [override] if override else [])
    assert message in str(error.value)
    assert "Traceback" not in str(error.value)
    assert cli.main(["plan", f"--config={name}", *([override] if override else [])]) == 2
    assert message in capsys.readouterr().err


KEPT = (
    "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:"
    "glibc.malloc.top_pad=268435456:glibc.malloc.trim_threshold=1099511627776"
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, KEPT),
        ({"GLIBC_TUNABLES": "glibc.cpu.x=2"}, f"glibc.cpu.x=2:{KEPT}"),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, "glibc.malloc.hugetlb=0"),
    ],
)
def test_memory_is_kept_unless_the_user_chose(before, after):
    environment = {"HOME": "/root", **before}
    assert cli.with_kept_memory(environment) == {"HOME": "/root", "GLIBC_TUNABLES": after}


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")
def test_a_process_that_keeps_its_memory_does_not_ask_the_kernel_for_it_again():
    program = """
import resource
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for size in range(8, 72, 8):
        bytearray(size << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
    counts = {}
    for kept in (True, False):
        plain = {name: x for name, x in os.environ.items() if name != "GLIBC_TUNABLES"}
        environment = cli.with_kept_memory(plain) if kept else plain
        command = [sys.executable, "-c", program]
        out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        counts[kept] = int(out.stdout)
    assert counts[True] < 100 < counts[False]


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")
def test_the_command_starts_again_once_as_the_same_process():
    program = (
        "import os, sys, xlmjax.cli as cli; print(os.getpid(), flush=True);"
        "cli.main = lambda: print(sys.argv[1:], os.environ['GLIBC_TUNABLES']);"
        "cli._ACCELERATORS = (); cli.entry()"
    )
    environment = {name: x for name, x in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", program, "bench", "--x=a b"]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    first, second, last = out.stdout.splitlines()
    assert first == second
    assert last == f"['bench', '--x=a b'] {KEPT}"


CONFIG_FILE = """
from xlmjax.configs import base


def get_config(arg=""):
    config = base.get_config()
    {line}
    return config
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("config.data.lowercas = True", r"mine.py:7: .*lowercas.*Did you mean.*lowercase"),
        ("config.train.num_step = 7", r"mine.py:7: .*Did you mean.*num_steps"),
        ("config.model.embed_dims = 32", r"mine.py:7: .*Did you mean.*embed_dim"),
        ("config.data.mixing.alfa = 0.3", r"mine.py:7: .*alfa.*alpha"),
        ("config.objectives.mlm.rat = 1", r"mine.py:7: .*rat.*"),
        ("config.data.langs.foo = 3", r"mine.py:7: .*langs"),
        ("config.evals.x = base.perplexity(tasks=('mlm',), evry=3)", r"base.py:\d+: .*evry.*every"),
        ("import nowhere_to_be_found", r"mine.py:7: No module named"),
        ("return = 3", r"mine.py:7: invalid syntax"),
    ],
)
def test_a_slip_in_a_config_file_is_told_with_its_line(tmp_path, line, message):
    path = tmp_path / "mine.py"
    path.write_text(CONFIG_FILE.format(line=line))
    with pytest.raises(ConfigError, match=message):
        load_config(str(path))


def test_a_config_file_may_add_objectives_and_evaluators(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        CONFIG_FILE.format(line="config.objectives.clm = base.objective('causal_lm', share=0.5)")
    )
    assert load_config(str(path)).objectives.clm.share == 0.5


def test_a_workdir_from_before_a_field_has_its_default(tmp_path):
    config = load_config("wiki15")
    config.evals.unlock()
    config.evals.score = base.translation(("mt.en_sw",))
    config.evals.mine = ConfigDict({"name": "registered_by_a_module", "tasks": ("mlm.en",)})
    saved = json.loads(to_json(config))
    del saved["evals"]["retrieval"]["centered"], saved["objectives"]["mlm"]["rate"]
    del saved["evals"]["score"]["decoding"]["beams"], saved["model"]["pooling"]
    saved["evals"]["retrieval"]["max_pairs"] = 7
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"config": saved}))
    expected = config.copy_and_resolve_references()
    expected.objectives.mlm.rate = ((0, 0.15),)
    expected.evals.retrieval.max_pairs = 7
    assert load_config(str(path)).to_dict() == expected.to_dict()
    found = load_config(str(path), ["--config.evals.retrieval.centered=True"])
    assert found.evals.retrieval.centered


def test_the_config_of_the_readme_loads(tmp_path):
    text = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
    [code] = [x for x in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "get_config" in x]
    path = tmp_path / "mine.py"
    path.write_text(code)
    config = load_config(str(path))
    assert config.data.pairs == ("en-sw",)
    assert config.evals.perplexity.tasks == ("mlm", "tlm")


def test_want_of_memory_is_told_with_what_to_change(monkeypatch, capsys):
    from xlmjax.commands import plan

    def run(config, args):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore")

    monkeypatch.setattr(plan, "run", run)
    assert cli.main(["plan"]) == 2
    said = capsys.readouterr().err
    assert "out of memory (RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.)" in said
    assert "train.microbatches" in said


def test_eval_takes_the_config_of_the_run_unless_it_is_given_one(monkeypatch, tmp_path, capsys):
    from xlmjax.commands import eval as command

    config, seen = load_config("demo"), []
    config.seed = 12
    (tmp_path / "config.json").write_text(json.dumps({"config": config.to_dict()}))
    monkeypatch.setattr(command, "score", lambda config, workdir, step: seen.append(config))
    arguments = ["eval", f"--workdir={tmp_path}", "--config.train.rows=7"]
    assert cli.main(arguments) == cli.main([*arguments, "--config=demo"]) == 0
    assert [(config.seed, config.train.rows) for config in seen] == [(12, 7), (0, 7)]
    assert cli.main(["eval", f"--workdir={tmp_path}/none"]) == 2
    assert f"--config={tmp_path}/none/config.json: no such file" in capsys.readouterr().err


def test_eval_takes_a_workdir_on_a_bucket_as_it_is(monkeypatch):
    from xlmjax.commands import eval as command

    seen = []
    monkeypatch.setattr(command, "score", lambda config, workdir, step: seen.append(str(workdir)))
    assert cli.main(["eval", "--config=demo", "--workdir=gs://bucket/run"]) == 0
    assert seen == ["gs://bucket/run"]
