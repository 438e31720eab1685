"""`Translator` and `xlmjax translate`: order, empty lines, pipes, and errors."""

import dataclasses
import io
import os
import pprint
import signal
import subprocess
import sys
import types

import jax
import pytest

from tests.small_run import write_data
from tests.translation_helpers import expected, translator_config, use_fake
from xlmjax import cli
from xlmjax.configs import base
from xlmjax.data.vocabulary import SentencePieceVocabulary, Vocabulary
from xlmjax.evaluation.translator import CUT, EMPTY, DecodingConfig
from xlmjax.experiment import build_experiment
from xlmjax.training.checkpoint import Checkpoints
from xlmjax.training.checkpoint_settings import CheckpointConfig
from xlmjax.translation import Translator

TEXTS = ["bana kora", "", "ba", " gira  lira dun ", "\t", "nura nera dora bora lo", "ba"]
LONG = "ba " * 40  # of 42 tokens, where the positions are 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    config = translator_config(folder)
    experiment = build_experiment(config)
    with jax.set_mesh(experiment.mesh):
        state = experiment.spec.create(jax.random.key(0))
        checkpoints = Checkpoints(folder / "run", CheckpointConfig(), experiment.identity)
        for step in (0, 1):
            array = jax.device_put(state.step + step, state.step.sharding)
            checkpoints.save(dataclasses.replace(state, step=array))
        checkpoints.close()
    (folder / "config.py").write_text(
        "from ml_collections import ConfigDict\n\n\ndef get_config(arg=''):\n"
        f"    return ConfigDict({pprint.pformat(config.to_dict())})\n"
    )
    return folder


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    use_fake(monkeypatch)


def load(folder, flat=None, rows=64, **decoding):
    config = translator_config(folder, **(flat or {}))
    return Translator.load(config, folder / "run", rows=rows, decoding=DecodingConfig(**decoding))


def answer(folder, text, extra=0):
    vocabulary = Vocabulary.load(folder / "vocabulary.model")
    tokens = vocabulary.encode(" ".join(text.split()))
    return vocabulary.decode(expected(tokens, "en", "fr", extra))


@pytest.mark.slow
def test_translations_are_in_the_order_of_the_texts_and_empty_where_there_is_none(folder):
    translator = load(folder)
    found = translator.translate(TEXTS, "en", "fr")
    assert found == [answer(folder, text) for text in TEXTS]
    assert found[1] == found[4] == ""
    assert translator.counts[EMPTY] == 2
    assert translator.translate([], "en", "fr") == []


@pytest.mark.parametrize(("rows", "mesh"), [(1, {}), (24, {"mesh__fsdp": 4, "mesh__tensor": 2})])
def test_translations_depend_on_neither_rows_nor_mesh(folder, rows, mesh):
    assert load(folder, mesh, rows).translate(TEXTS, "en", "fr") == [
        answer(folder, text) for text in TEXTS
    ]


def test_the_n_best_are_scored(folder):
    found = load(folder, method="beam", beams=4, n_best=3).n_best(TEXTS, "en", "fr")
    for text, best in zip(TEXTS, found, strict=True):
        assert [one.text for one in best] == [answer(folder, text, extra) for extra in range(3)]
        scores = [one.score for one in best]
        assert scores == sorted(scores, reverse=True)


def test_a_translation_is_one_line(folder, monkeypatch):
    """Byte pieces may spell any character."""
    translator = load(folder)
    decode = SentencePieceVocabulary.decode
    monkeypatch.setattr(
        SentencePieceVocabulary, "decode", lambda self, ids: decode(self, ids).replace(" ", "\n")
    )
    assert all("\n" not in text for text in translator.translate(TEXTS, "en", "fr"))


def test_long_texts_are_an_error_unless_cut_and_counted(folder):
    message = r"sentence 12 has 42 tokens, delimiters included, more than 32 \(max_length, or model"
    with pytest.raises(ValueError, match=message):
        load(folder).translate(["ba", "", LONG], "en", "fr", first_number=10)
    translator = load(folder, over_limit="cut")
    assert translator.translate([LONG], "en", "fr") == [answer(folder, "ba " * 30)]
    assert translator.counts[CUT] == 1


def test_wrong_options_are_refused(folder):
    with pytest.raises(ValueError, match=r"'de' is a target language without a decoder embedding"):
        load(folder).translate(["ba"], "en", "de")
    with pytest.raises(ValueError, match=r"rows=0 must be 1 or more"):
        load(folder, rows=0)
    with pytest.raises(ValueError, match="holds no checkpoint"):
        Translator.load(translator_config(folder), folder / "run", 7)
    message = r"checkpoint.average=3, but .* holds 2 checkpoints"
    with pytest.raises(ValueError, match=message):
        load(folder, {"checkpoint__average": 3})
    assert load(folder, {"checkpoint__average": 2}).translate(["ba"], "en", "fr")


@pytest.mark.slow
def test_eval_scores_the_mean_of_checkpoints(folder, capsys):
    command = ["eval", f"--config={folder / 'scored.py'}", f"--workdir={folder / 'run'}"]
    config = translator_config(folder)
    config.evals.held_out = base.perplexity(("mlm",), rows=8)
    (folder / "scored.py").write_text(
        "from ml_collections import ConfigDict\n\n\ndef get_config(arg=''):\n"
        f"    return ConfigDict({pprint.pformat(config.to_dict())})\n"
    )
    assert cli.main(command) == 0
    single = capsys.readouterr().out
    assert cli.main([*command, "--config.checkpoint.average=2"]) == 0
    assert capsys.readouterr().out == single  # of two equal checkpoints
    places = sorted(path.name for path in (folder / "run" / "eval").iterdir())
    assert places == ["held_out-1-average2.json", "held_out-1.json"]
    assert cli.main([*command, "--config.checkpoint.average=3"]) == 2
    assert "checkpoint.average=3, but" in capsys.readouterr().err
    sweep = ["--config.sweep.seeds=(0, 1)", "--config.checkpoint.average=2"]
    assert cli.main([*command, *sweep]) == 2
    assert "checkpoint.average=2 is of one run" in capsys.readouterr().err


# The command.


def run(folder, monkeypatch, text, *options):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(text)))
    where = [f"--config={folder / 'config.py'}", f"--workdir={folder / 'run'}"]
    return cli.main(["translate", *where, "--src=en", "--tgt=fr", *options])


STDIN = "".join(f"{text}\n" for text in TEXTS)


@pytest.mark.parametrize("text", [STDIN, STDIN[:-1].replace("\n", "\r\n")], ids=["LF", "CRLF"])
def test_a_line_in_is_a_line_out(folder, monkeypatch, capfdbinary, text):
    assert run(folder, monkeypatch, text.encode(), "--chunk=3") == 0
    printed = capfdbinary.readouterr()
    assert printed.out.decode() == "".join(f"{answer(folder, text)}\n" for text in TEXTS)
    assert b"7 sentences, cut: 0; translations that are empty: 2, as long" in printed.err
    assert printed.err.count(b"a second") == 3


def test_n_best_lines_have_number_score_and_text(folder, monkeypatch, capfdbinary):
    options = ("--beams=3", "--n-best=2", "--chunk=2")
    assert run(folder, monkeypatch, b"ba gi\n\nnura\n", *options) == 0
    lines = [line.split("\t") for line in capfdbinary.readouterr().out.decode().splitlines()]
    assert [line[0] for line in lines] == ["1", "1", "2", "2", "3", "3"]
    assert [line[2] for line in lines] == [
        answer(folder, text, extra) for text in ("ba gi", "", "nura") for extra in (0, 1)
    ]
    assert float(lines[0][1]) > float(lines[1][1])
    assert float(lines[2][1]) == 0


def test_samples_do_not_depend_on_chunks(folder, monkeypatch, capfdbinary):
    text = b"ba gi\nba gi\nnura\n\nba\n"
    outputs = []
    for options in (["--chunk=1"], [], ["--seed=5"]):
        assert run(folder, monkeypatch, text, "--temperature=0.7", *options) == 0
        outputs.append(capfdbinary.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (b"ba\nb\xff\n", [], "stdin:2: not UTF-8 (byte 0xff"),
        (b"ba\n", ["--tgt=de"], "'de' is a target language without a decoder embedding"),
        (b"ba\n" + LONG.encode(), [], "sentence 2 has 42 tokens"),
        (b"ba\n", ["--beams=61"], "beams=61: the vocabulary has only 60 words"),
        (b"ba\n", ["--beams=-1"], "beams=-1 must be 1 or more"),
        (b"ba\n", ["--beams=2", "--temperature=1"], "--beams and --temperature are two ways"),
        (b"ba\n", ["--n-best=2"], "n_best=2 is more than the hypotheses that greedy finds"),
        (b"ba\n", ["--chunk=0"], "--chunk=0 must be 1 or more"),
        (b"ba\n", ["--step=9"], "holds no checkpoint"),
    ],
)
def test_errors_of_the_command(folder, monkeypatch, capfd, text, options, message):
    assert run(folder, monkeypatch, text, *options) == 2
    assert message in capfd.readouterr().err


def test_no_input_gives_no_output(folder, monkeypatch, capfdbinary):
    assert run(folder, monkeypatch, b"") == 0
    assert capfdbinary.readouterr().out == b""


PROGRAM = """
import sys, jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
from tests.translation_helpers import generate
from xlmjax import cli
from xlmjax.evaluation import translator
translator.generate = generate
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("end", ["closed pipe", "interrupt"])
@pytest.mark.slow
def test_what_reads_may_stop_and_chunks_come_while_the_input_is_open(folder, end):
    command = [f"--config={folder / 'config.py'}", f"--workdir={folder / 'run'}", "--chunk=2"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "translate", *command, "--src=en", "--tgt=fr"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(base.__file__.rpartition("/configs/")[0])},
    )
    try:
        process.stdin.write(b"ba gi\nnura\n")
        process.stdin.flush()
        assert process.stdout.readline().decode() == f"{answer(folder, 'ba gi')}\n"
        assert process.stdout.readline().decode() == f"{answer(folder, 'nura')}\n"
        if end == "closed pipe":
            process.stdout.close()
            process.stdin.write(b"ba\nba\n" * 4)
            process.stdin.close()
        else:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == (141 if end == "closed pipe" else 130)
        errors = process.stderr.read().decode()
    finally:
        process.kill()
    assert "Traceback" not in errors
    assert "Broken pipe" not in errors
