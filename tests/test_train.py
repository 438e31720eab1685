"""Whole runs in miniature: what they write, how they resume, how they stop, what they refuse."""

import argparse
import collections
import dataclasses
import datetime
import json
import os
import shutil
import signal
import subprocess
import threading

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.loop_helpers import leaves
from tests.small_run import TASKS, small_config, write_data
from xlmjax import auto_prepare, languages
from xlmjax import train as train_module
from xlmjax.commands import eval as eval_command
from xlmjax.commands import train as train_command
from xlmjax.commands.train import verify_resume
from xlmjax.configs import base
from xlmjax.configuration import load_config
from xlmjax.data.mixture import open_groups
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.evaluation import Perplexity
from xlmjax.experiment import build_experiment, start_jax, token_counts
from xlmjax.objectives import OBJECTIVES, MaskedLanguageModel, Objective
from xlmjax.parallel import distributed
from xlmjax.report.runs import read_runs, series
from xlmjax.report.sections import make_page
from xlmjax.storage_errors import StorageError
from xlmjax.train import train
from xlmjax.training.checkpoint import saved_steps
from xlmjax.training.diagnosis import NonFiniteError

ALONE = dict.fromkeys(("coordinator", "num_processes", "process_id"))  # flags of one process


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Stores, and compiled programs kept over the runs of this file."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    yield folder
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """An undisturbed run with evaluations."""
    workdir = tmp_path_factory.mktemp("straight")
    config = small_config(data)
    config.evals.held_out = base.perplexity(tuple(TASKS), every=4, rows=16)
    return config, workdir, train(config, workdir)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_metrics_have_their_names(straight):
    _, workdir, result = straight
    assert int(result.state.step) == 6
    logged = [line for line in lines(workdir) if "train/loss" in line]
    assert [line["step"] for line in logged] == [2, 4, 6]
    names = set().union(*logged)
    for name in ("train/loss", "train/mlm.en/loss", "train/tlm.en_fr/accuracy", "train/fr/loss"):
        assert name in names
    for name in ("tokens_per_second", "padded_tokens_per_second", "predicted_tokens_per_second"):
        assert all(line[f"perf/{name}"] > 0 for line in logged)
    for line in logged:
        shares = [x for name, x in line.items() if name.startswith(("perf/share_", "perf/goodput"))]
        assert sum(shares) == pytest.approx(1.0)
        assert line["perf/goodput"] > 0
    assert "perf/mfu" not in names  # the peak of this CPU is not in the table
    assert logged[-1]["perf/tokens_per_second"] < logged[-1]["perf/padded_tokens_per_second"]
    assert logged[-1]["optim/learning_rate"] == pytest.approx(1e-2)
    assert not [name for name in names if "/de/" in name]  # no weight, no line


def test_a_report_is_made_of_what_a_run_writes(straight):
    _, workdir, _ = straight
    [run] = read_runs([str(workdir)])
    assert run.description["code"]
    assert not run.mixture_note
    [group] = run.mixtures
    tasks = [name for names in TASKS.values() for name in names]
    assert [task.name for task in group.tasks] == tasks
    counted = series(run.training, "targets")["task"]
    by_task = {name: np.nansum(counted[name]) for name in tasks}
    total = sum(np.nansum(x) for x in series(run.training, "targets")["language"].values())
    assert sum(by_task.values()) == total > 0
    page = make_page([run], datetime.datetime(2026, 1, 2)).render()
    assert "share of targets by task" in page
    assert "Evaluation: held_out" in page


def test_evaluations_run_when_due_and_last_and_are_written(straight):
    _, workdir, _ = straight
    scored = [line for line in lines(workdir) if "train/loss" not in line]
    assert [line["step"] for line in scored] == [4, 6]
    assert sorted(path.name for path in (workdir / "eval").iterdir()) == [
        "held_out-4.json",
        "held_out-6.json",
    ]
    written = json.loads((workdir / "eval" / "held_out-6.json").read_text())
    assert written["protocol"]["tasks"]["tlm.en_fr"]["examples"] == 17
    for name, value in written["values"].items():
        assert scored[-1][f"eval/held_out/{name}"] == value


def test_the_workdir_describes_the_run(straight):
    config, workdir, _ = straight
    written = json.loads((workdir / "config.json").read_text())
    assert written["config"]["train"]["rows"] == config.train.rows
    assert written["versions"]["jax"] == jax.__version__
    assert written["mesh"] == {"replica": 1, "data": 8, "fsdp": 1, "tensor": 1}
    table = written["parameters"]["embeddings/tokens"]
    assert table["shape"] == [60, 16]
    assert table["axes"] == ["vocab", "embed"]


def test_a_stopped_run_goes_on_bit_for_bit_and_its_log_reads_as_one(straight, tmp_path, caplog):
    config, workdir, expected = straight
    train(config, tmp_path, stop_after=5)  # the last checkpoint is of step 4
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "train/loss": 0}\n{"step": 6, "tra')
    result = train(config, tmp_path)
    resumed = leaves(result.state)
    for name, value in leaves(expected.state).items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)

    def without_clock(folder):
        return [
            {name: value for name, value in line.items() if not name.startswith("perf/")}
            for line in lines(folder)
        ]

    assert without_clock(tmp_path) == without_clock(workdir)
    assert "compiled again" not in caplog.text
    again = train(config, tmp_path)  # a finished run has nothing left to do
    assert int(again.state.step) == 6
    assert without_clock(tmp_path) == without_clock(workdir)


@pytest.mark.slow
def test_verify_resume_proves_it_and_would_notice(data, tmp_path, monkeypatch):
    config = small_config(data)
    assert "arrays bit-identical after 6 steps" in verify_resume(config, tmp_path, 6)
    restore = train_module.initial_state

    def forgetful(checkpoints, *args):
        state, origin = restore(checkpoints, *args)
        if int(state.step):
            state.opt_state = jax.tree.map(jnp.zeros_like, state.opt_state)
        return state, origin

    monkeypatch.setattr(train_module, "initial_state", forgetful)
    with pytest.raises(ValueError, match=r"a resumed run differs from a straight one in .*model/"):
        verify_resume(config, tmp_path, 6)


def signalled(monkeypatch, number, at, times=1):
    """Make training send itself a signal while it reads the batch of a step."""
    original = train_module.prefetched

    def interrupted(*args):
        for step, batches in original(*args):
            if step == at:
                for _ in range(times):
                    os.kill(os.getpid(), number)
            yield step, batches

    monkeypatch.setattr(train_module, "prefetched", interrupted)


def test_sigterm_saves_and_stops_and_the_same_command_goes_on(straight, tmp_path, monkeypatch):
    config, _, expected = straight
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        signalled(monkeypatch, signal.SIGTERM, 2, times=2)
        result = train(config, tmp_path)
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler  # given back
    finally:
        signal.signal(signal.SIGTERM, before)
    assert result.preempted
    assert int(result.state.step) == 3
    assert (tmp_path / "checkpoints" / "3").is_dir()
    monkeypatch.undo()
    finished = train(config, tmp_path)
    assert not finished.preempted
    resumed = leaves(finished.state)
    for name, value in leaves(expected.state).items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)


@pytest.mark.parametrize(("at", "saved"), [(0, set()), (2, {"2", "3"})])
def test_ctrl_c_saves_what_is_new_and_interrupts(straight, tmp_path, monkeypatch, capfd, at, saved):
    config, *_ = straight
    signalled(monkeypatch, signal.SIGINT, at)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    names = {x.name for x in (tmp_path / "checkpoints").iterdir()}
    assert {name for name in names if name.isdigit()} == saved  # every second step, and the third
    assert ("Ctrl-C again ends at once" in capfd.readouterr().err) == bool(saved)


@pytest.mark.parametrize(
    ("place", "where"), [("initial_state", "restore"), ("PreemptionWatch", "setup")]
)
def test_a_start_that_hangs_before_its_first_step_says_where(
    data, tmp_path, monkeypatch, place, where
):
    ended = threading.Event()

    def end_process(sentence):
        if f"no progress for 1 s in {where} after step 0" in sentence:
            ended.set()

    def blocked(*args):
        raise TimeoutError("released" if ended.wait(20) else "nobody watched")

    monkeypatch.setattr(distributed, "end_process", end_process)
    monkeypatch.setattr(train_module, place, blocked)
    config = small_config(data, train__watchdog_seconds=0.1, train__watchdog_exit=True)
    with pytest.raises(TimeoutError, match="released"):
        train(config, tmp_path)
    assert "in blocked" in (tmp_path / "hang-0-process0.txt").read_text()


def scores(workdir, evaluator="held_out"):
    return [x for x in lines(workdir) if any(n.startswith(f"eval/{evaluator}/") for n in x)]


def test_a_run_asked_to_stop_while_it_evaluates_has_saved_and_the_next_start_evaluates(
    straight, tmp_path, monkeypatch
):
    config, workdir, _ = straight
    original, yielded = Perplexity.evaluate, []

    def evaluate(self, model):
        for name, value in original(self, model):
            yielded.append(name)
            if len(yielded) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield name, value

    monkeypatch.setattr(Perplexity, "evaluate", evaluate)
    assert train(config, tmp_path).preempted
    assert len(yielded) == 2  # it ends there, not after the evaluation
    assert max(saved_steps(tmp_path)) == 4
    assert not (tmp_path / "eval" / "held_out-4.json").exists()
    assert not scores(tmp_path)
    monkeypatch.undo()
    train(config, tmp_path)
    assert scores(tmp_path) == scores(workdir)
    assert [line["step"] for line in scores(tmp_path)] == [4, 6]


def test_a_last_evaluation_that_was_stopped_is_made_by_the_next_start(
    straight, tmp_path, monkeypatch
):
    config, workdir, _ = straight
    original = train_module.evaluate

    def evaluate(due, state, step, *others):
        if step == 6:
            raise RuntimeError("killed")
        return original(due, state, step, *others)

    monkeypatch.setattr(train_module, "evaluate", evaluate)
    with pytest.raises(RuntimeError, match="killed"):
        train(config, tmp_path)
    monkeypatch.undo()
    train(config, tmp_path)
    assert scores(tmp_path) == scores(workdir)


def test_kept_by_a_metric_a_run_saves_when_asked_to_stop_while_it_evaluates(
    data, tmp_path, monkeypatch
):
    config = small_config(data)
    config.evals.held_out = base.perplexity(tuple(TASKS), every=4, rows=16)
    config.checkpoint.best_metric = "eval/held_out/mlm/average/loss"
    config.checkpoint.every = 4
    original, asked = Perplexity.evaluate, []

    def evaluate(self, model):
        for name, value in original(self, model):
            if not asked:
                asked.append(name)
                os.kill(os.getpid(), signal.SIGTERM)
            yield name, value

    monkeypatch.setattr(Perplexity, "evaluate", evaluate)
    result = train(config, tmp_path)
    assert result.preempted
    assert saved_steps(tmp_path) == [int(result.state.step)]
    assert not train(config, tmp_path).preempted
    assert [line["step"] for line in scores(tmp_path)] == [4, 6]


def test_compiled_programs_are_kept_where_the_environment_or_the_config_says(data):
    before = jax.config.values["jax_compilation_cache_dir"]
    config = small_config(data, train__compilation_cache="gs://bucket/compiled")
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        assert start_jax(config) == "gs://bucket/compiled"
        jax.config.update("jax_compilation_cache_dir", "/elsewhere")  # as from the environment
        assert start_jax(config) == "/elsewhere"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@dataclasses.dataclass(frozen=True)
class Poisoned(Objective):
    """Masked language modelling that is NaN on rows 19 and 21, where these are not padding."""

    inner: MaskedLanguageModel

    @classmethod
    def from_config(cls, *args, **options):
        return cls(MaskedLanguageModel.from_config(*args, **options))

    def loss(self, model, batch, key, step, deterministic=False):
        output = self.inner.loss(model, batch, key, step, deterministic)
        bad = (batch["row_ids"] == 19) | (batch["row_ids"] == 21)
        bad = jnp.any(bad & jnp.any(batch["segment_ids"] != 0, axis=1))
        return dataclasses.replace(output, sum=jnp.where(bad, jnp.nan, output.sum))


@pytest.fixture
def poisoned(data, monkeypatch):
    monkeypatch.setitem(OBJECTIVES._entries, "poisoned", Poisoned)
    config = small_config(data, checkpoint__every=1, log__every=1)
    config.objectives.mlm.name = "poisoned"
    return config


def test_a_nan_stops_the_run_names_the_rows_and_saves_nothing_bad(poisoned, tmp_path):
    with pytest.raises(NonFiniteError, match=r"step 2: loss nan.*cause: rows \(mlm: \[19, 21\]\)"):
        train(poisoned, tmp_path)
    written = json.loads((tmp_path / "nonfinite-2.json").read_text())
    assert written["rows"] == {"mlm": [19, 21]}
    assert written["tasks"]["mlm"] == ["mlm.en", "mlm.fr", "tlm.en_fr"]
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert steps == [1, 2]


@pytest.mark.slow
def test_a_nan_is_skipped_and_counted_where_configured(poisoned, tmp_path):
    poisoned.optimizer.skip_nonfinite = True
    result = train(poisoned, tmp_path)
    assert int(result.state.step) == 6
    counts = [line["optim/nonfinite_steps"] for line in lines(tmp_path)]
    assert counts == [0, 0, 1, 0, 0, 0]
    assert "train/loss" not in lines(tmp_path)[2]
    for value in leaves(result.state).values():
        assert np.isfinite(value).all()


@pytest.mark.slow
def test_two_groups_share_the_rows_and_the_log_tells_them_apart(data, tmp_path):
    config = small_config(data, train__rows=16, train__num_steps=2)
    config.objectives.clm = base.objective("causal_lm", share=1.0)
    config.objectives.clm.mixture = ("mlm",)
    config.objectives.mlm.mixture = ("tlm",)
    train(config, tmp_path)
    (line,) = lines(tmp_path)
    names = {name for name in line if name.startswith("train/") and name.endswith("loss")}
    assert {
        "train/loss",
        "train/clm/loss",
        "train/mlm/tlm.en_fr/loss",
        "train/clm/fr/loss",
    } <= names
    total = line["train/clm/loss"] + line["train/mlm/loss"]
    assert line["train/loss"] == pytest.approx(total, rel=0.05)


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"train__length": 40}, "train.length=40 is longer than model.max_positions=32"),
        ({"train__rows": 12}, r"train.rows=12 is not divisible by .*= 8: use 16"),
        ({"train__microbatches": 2}, r"train.rows=8 .*train.microbatches=2 = 16"),
        ({"train__num_steps": 0}, "train.num_steps=0 must be 1 or more"),
        ({"mesh__fsdp": 3}, "does not divide 8 devices"),
        ({"log__progress": "loud"}, "log.progress='loud' is unknown; known: auto, bar"),
        ({"checkpoint__best_metric": "loss"}, "'loss' is of no evaluator of config.evals"),
        (
            {"checkpoint__best_metric": "eval/held_out/mlm/average/speed"},
            "average/speed': whether the lowest or the highest is the best is known of loss, perp",
        ),
        (
            {"checkpoint__best_metric": "eval/held_out/mlm/average/loss", "checkpoint__every": 3},
            "checkpoint.every=3 is no multiple of evals.held_out.every",
        ),
        (  # before hours of preparing
            {"checkpoint__best_metric": "loss", "data__stores": "nowhere"},
            "'loss' is of no evaluator of config.evals",
        ),
        ({"data__vocabulary": "nowhere.model"}, "nowhere.model: no such file"),
        (
            {"data__stores": "nowhere"},
            r"data.stores='nowhere' lacks mlm/train, tlm/train: run `xlm",
        ),
        ({"train__num_cpu_devices": 4}, "train.num_cpu_devices=4 comes too late"),
        (
            {"data__languages": ("en",), "data__mixture": ("mlm.en", "mlm.fr")},
            "fr, which data.languages does not list",
        ),
        ({"data__languages": ("en", "fr", "sw")}, "lacks mlm/train: run `xlmjax prepare`"),
        ({"data__pairs": ()}, "lacks tlm/train: run `xlmjax prepare`"),
        (
            {"data__languages": ("en", "xx")},
            r"data.languages=\('en', 'xx'\): unknown language 'xx'",
        ),
        (
            {"objectives__mlm__name": "mlm"},
            "objectives.mlm.name='mlm' is unknown; known: back_translation, causal_lm,",
        ),
        (
            {"objectives__mlm__weight": ((0, 1.0), (9, -0.1))},
            r"objectives.mlm.weight = \(\(0, 1.0\), \(9, -0.1\)\): give numbers of 0 or more",
        ),
        ({"mesh__tensor": 8}, "'vocab' has size 60, which mesh.tensor=8 = 8 does not divide"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(data, tmp_path, flat, message):
    config = small_config(data, **flat)
    if "checkpoint__best_metric" in flat:
        config.evals.held_out = base.perplexity(("mlm",), rows=8, every=2)
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_rows_of_the_language_table_are_in_alphabetical_order(data):
    """As XLM's, whatever the order of data.languages: checkpoints rely on it."""
    for codes in (("fr", "en"), ("en", "fr")):
        experiment = build_experiment(small_config(data, data__languages=codes))
        assert experiment.model.language_ids == languages.ids(("en", "fr"))


def test_an_unknown_evaluator_is_refused(data, tmp_path):
    config = small_config(data)
    config.evals.x = base.perplexity(("mlm",), rows=8)
    config.evals.x.name = "xnlu"
    with pytest.raises(ValueError, match=r"evals.x.name='xnlu' is unknown; known: classification"):
        train(config, tmp_path)


def test_a_checkpoint_of_another_architecture_is_refused(straight, tmp_path):
    config, workdir, _ = straight
    other = small_config(tmp_path, model__num_layers=3)
    other.data = config.data
    with pytest.raises(ValueError, match=r"model.num_layers is 2 there and 3 here"):
        train(other, workdir)


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"train__rows": 16}, r"rows by objective is \{'mlm': 8\} there and \{'mlm': 16\} here"),
        ({"seed": 9}, "seed is 0 there and 9 here"),
        ({"train__length": 20}, "train.length is 24 there and 20 here"),
        ({"data__mixture": ("mlm",)}, r"tasks by objective is .*checkpoint.same_data=False"),
        ({"data__mixing__alpha": 0.3}, "data.mixing is .*'alpha': 0.7"),
        ({"data__layout__text": "pack"}, "data.layout is .*'text': 'stream'"),
    ],
)
def test_a_run_does_not_go_on_with_other_data(straight, data, flat, message):
    _, workdir, _ = straight
    with pytest.raises(ValueError, match=message):
        train(small_config(data, **flat), workdir)


@pytest.mark.slow
def test_a_run_goes_on_with_text_that_was_prepared_again_only_if_told(data, tmp_path):
    stores = tmp_path / "data"
    shutil.copytree(data, stores)
    config = small_config(stores, train__num_steps=2)
    train(config, tmp_path / "run")
    manifest = stores / "stores" / "mlm.en" / "train" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("made up", "other text"))
    more = small_config(stores, train__num_steps=4)
    with pytest.raises(
        ValueError, match=r"the store of mlm.en is 'made up' there and 'other text'"
    ):
        train(more, tmp_path / "run")
    more.checkpoint.same_data = False
    assert int(train(more, tmp_path / "run").state.step) == 4
    written = json.loads((tmp_path / "run" / "config-2.json").read_text())
    assert written["config"]["train"]["num_steps"] == 4
    first = json.loads((tmp_path / "run" / "config.json").read_text())
    assert first["config"]["train"]["num_steps"] == 2


def test_eval_scores_a_checkpoint_on_another_mesh(straight, tmp_path, capsys):
    config, workdir, _ = straight
    other = small_config(tmp_path, mesh__fsdp=2, mesh__tensor=2)
    other.data, other.evals = config.data, config.evals
    eval_command.run(other, argparse.Namespace(workdir=str(workdir), step=-1, **ALONE))
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    expected = {name: x for name, x in lines(workdir)[-1].items() if name.startswith("eval/")}
    assert printed.keys() == expected.keys()
    for name, value in expected.items():
        assert float(printed[name]) == pytest.approx(value, rel=1e-4)
    with pytest.raises(ValueError, match=r"--workdir='.*checkpoints/5' holds no checkpoint"):
        eval_command.run(other, argparse.Namespace(workdir=str(workdir), step=5, **ALONE))


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (train_module.Result(None, preempted=True), 143),
        (NonFiniteError("step 2: loss nan"), "xlmjax train: step 2: loss nan"),
        (StorageError("the bucket is out of reach"), 75),
    ],
)
def test_the_exit_code_tells_how_a_run_ended(monkeypatch, outcome, code):
    def ends(config, workdir):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(train_module, "train", ends)
    with pytest.raises(SystemExit) as caught:
        train_command.run(
            base.get_config(),
            argparse.Namespace(workdir="x", verify_resume=0, traceback=False, **ALONE),
        )
    assert caught.value.code == code


def test_storage_out_of_reach_asks_to_be_started_again(straight, tmp_path, monkeypatch, capsys):
    config, workdir, _ = straight
    shutil.copytree(workdir, tmp_path / "run")

    def fail(*args, **kwargs):
        raise TimeoutError("no answer")

    monkeypatch.setattr(ocp.JsonCheckpointHandler, "restore", fail)
    before = saved_steps(workdir)
    arguments = argparse.Namespace(
        workdir=str(tmp_path / "run"), verify_resume=0, traceback=False, **ALONE
    )
    with pytest.raises(SystemExit) as caught:
        train_command.run(config, arguments)
    assert caught.value.code == 75
    assert "cannot be read: TimeoutError: no answer. This may pass" in capsys.readouterr().err
    assert saved_steps(tmp_path / "run") == before


def test_missing_stores_are_prepared_in_a_child_process(data, tmp_path, monkeypatch):
    config = small_config(tmp_path, data__auto_prepare=True, optimizer__decay_mask=((".*", True),))
    config.evals.held_out = base.perplexity(("tlm",))
    assert auto_prepare.missing_stores(config) == ["mlm/train", "tlm/train", "tlm/validation"]
    asked = []

    def child(command, env, check):
        path = command[-1].removeprefix("--config=")
        asked.append((command[1:4], env["JAX_PLATFORMS"], load_config(path).to_dict()))
        shutil.copytree(data / "stores", tmp_path / "stores")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(auto_prepare.subprocess, "run", child)
    auto_prepare.ensure_stores(config)
    auto_prepare.ensure_stores(config)  # nothing is missing any more
    assert asked == [(["-m", "xlmjax.cli", "prepare"], "cpu", config.to_dict())]
    shutil.rmtree(tmp_path / "stores" / "mlm.fr" / "train")
    assert auto_prepare.missing_stores(config) == ["mlm.fr/train"]


def test_a_preparation_that_fails_stops_the_run(tmp_path, monkeypatch):
    def child(command, env, check):
        return subprocess.CompletedProcess(command, 2)

    monkeypatch.setattr(auto_prepare.subprocess, "run", child)
    with pytest.raises(ValueError, match=r"preparing mlm/train, tlm/train failed with exit code 2"):
        auto_prepare.ensure_stores(small_config(tmp_path, data__auto_prepare=True))


def test_tokens_are_counted_by_language(data):
    config = small_config(data)
    experiment = build_experiment(config)
    (group,) = open_groups(config, experiment.vocabulary)
    counts = token_counts(group, experiment.vocabulary)
    expected = collections.Counter()
    for task in group.mixture.tasks:
        for feature, number in task.store.manifest.tokens.items():
            expected[task.store.manifest.features[feature].language] += number
    assert {code: found.sum() for code, found in counts.items()} == expected
    assert len(expected) > 1
    assert not any(found[:5].any() for found in counts.values())


def test_a_mixture_that_brings_rates_keeps_them(data, tmp_path):
    """Those of a user's own seqio mixture, whatever data.mixing says."""
    shutil.copytree(data / "stores", tmp_path / "stores")
    path = tmp_path / "stores" / "mixture.json"
    known = json.loads(path.read_text())
    known["mine"] = {"tasks": ["mlm.en", "mlm.fr"], "rates": [3.0, 1.0]}
    path.write_text(json.dumps(known))
    config = small_config(data, data__stores=str(tmp_path / "stores"), data__mixture=("mine",))
    vocabulary = Vocabulary.load(config.data.vocabulary)
    [group] = open_groups(config, vocabulary)
    np.testing.assert_allclose(group.mixture.schedule.rates_at(0), [0.75, 0.25])
    config.data.mixture = ("mine", "tlm")
    with pytest.raises(ValueError, match=r"'mine' is a seqio mixture with rates of its own"):
        open_groups(config, vocabulary)


def test_stores_in_a_bucket_are_refused(data):
    config = small_config(data, data__stores="gs://bucket/stores")
    with pytest.raises(ValueError, match=r"data.stores='gs://bucket/stores': .*memory-mapped"):
        open_groups(config, Vocabulary.load(config.data.vocabulary))
