"""`Embedder` and `xlmjax embed`: order, empty lines, independence of batches, and errors."""

import io
import pprint
import sys
import types

import jax
import numpy as np
import pytest

from tests.small_run import small_config, write_data
from xlmjax import cli, languages
from xlmjax.embedding import EMPTY, TRUNCATED, Embedder
from xlmjax.experiment import build_experiment
from xlmjax.training.checkpoint import Checkpoints
from xlmjax.training.checkpoint_settings import CheckpointConfig

TEXTS = ["bana kora", "", "ba", " gira  lira dun ", "\t", "nura nera dora bora lo", "ba"]
CODES = ["en", "en", "fr", "fr", "", "en", "en"]
LONG = "ba " * 40  # of 42 tokens, where the positions are 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    config = small_config(folder)
    experiment = build_experiment(config)
    with jax.set_mesh(experiment.mesh):
        state = experiment.spec.create(jax.random.key(0))
        checkpoints = Checkpoints(folder / "run", CheckpointConfig(), experiment.identity)
        checkpoints.save(state)
        checkpoints.close()
    (folder / "config.py").write_text(
        "from ml_collections import ConfigDict\n\n\ndef get_config(arg=''):\n"
        f"    return ConfigDict({pprint.pformat(config.to_dict())})\n"
    )
    return folder


def load(folder, flat=None, **options):
    return Embedder.load(small_config(folder, **(flat or {})), folder / "run", **options)


@pytest.fixture(scope="module")
def embedder(folder):
    return load(folder)


@pytest.fixture(scope="module")
def vectors(embedder):
    return embedder.embed(TEXTS, CODES)


@pytest.fixture(scope="module")
def reference(folder, embedder):
    """Return the vector of one text by the model alone, in a row of its own length."""
    model = jax.device_get(embedder._model)
    vocabulary = build_experiment(small_config(folder)).vocabulary

    def vector(text, code, layer=-1, pooling="mean"):
        tokens = np.array([[1, *vocabulary.encode(text), 1]], np.int32)
        places = np.arange(tokens.shape[1], dtype=np.int32)[None]
        language = np.full_like(tokens, languages.get(code).id)
        states = model.encode(tokens, places, np.ones_like(tokens), language, layer=layer)[0]
        return np.asarray(states.mean(axis=0) if pooling == "mean" else states[0])

    return vector


def test_vectors_are_in_the_order_of_the_texts_and_zero_where_there_is_none(vectors, reference):
    assert vectors.dtype == np.float32
    assert vectors.shape == (7, 16)
    for index, (text, code) in enumerate(zip(TEXTS, CODES, strict=True)):
        clean = " ".join(text.split())
        expected = reference(clean, code) if clean else np.zeros(16)
        np.testing.assert_allclose(vectors[index], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(vectors[2] - vectors[6]).max() > 1e-3  # one text, two languages


@pytest.mark.parametrize(("layer", "pooling"), [(0, "mean"), (1, "first"), (-2, "mean")])
def test_layer_and_pooling_are_those_asked_for(folder, reference, layer, pooling):
    found = load(folder, layer=layer, pooling=pooling).embed(["nura nera", "ba"], "fr")
    for vector, text in zip(found, ("nura nera", "ba"), strict=True):
        expected = reference(text, "fr", layer, pooling)
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "mesh"), [(1, {}), (24, {"mesh__fsdp": 4, "mesh__tensor": 2}), (3, {"mesh__data": 8})]
)
def test_vectors_depend_on_neither_rows_nor_mesh(folder, vectors, rows, mesh):
    found = load(folder, mesh, rows=rows).embed(TEXTS, CODES)
    np.testing.assert_allclose(found, vectors, rtol=1e-5, atol=1e-6)


def test_vectors_do_not_depend_on_what_else_is_embedded(embedder, vectors):
    for chosen in ([5], [6, 0], [2, 1, 3]):
        texts, codes = [TEXTS[i] for i in chosen], [CODES[i] for i in chosen]
        found = embedder.embed(texts, codes)
        np.testing.assert_allclose(found, vectors[chosen], rtol=1e-5, atol=1e-6)
    assert embedder.embed([], "en").shape == (0, 16)
    assert not embedder.embed(["", " "], "en").any()


def test_empty_texts_are_counted(folder):
    embedder = load(folder)
    embedder.embed(TEXTS, CODES)
    embedder.embed(["", "ba"], "en")
    assert embedder.counts[EMPTY] == 3
    assert embedder.counts[TRUNCATED] == 0


def test_long_texts_are_an_error_unless_truncated_and_counted(folder, embedder):
    message = r"sentence 12 has 42 tokens, delimiters included, more than model.max_positions=32"
    with pytest.raises(ValueError, match=message):
        embedder.embed(["ba", "", LONG], "en", first_number=10)
    cutting = load(folder, truncate=True)
    found = cutting.embed([LONG, "ba", "ba " * 30], "en")
    assert cutting.counts[TRUNCATED] == 1
    np.testing.assert_allclose(found[0], found[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ("de", r"sentence 1: language 'de' is not one of the model's: en, fr"),
        (["en", "xx"], r"sentence 2: language 'xx' is not one"),
        (["en"], r"2 texts and 1 languages: give one a text, or one for all"),
    ],
)
def test_wrong_languages_are_refused(embedder, codes, message):
    with pytest.raises(ValueError, match=message):
        embedder.embed(["ba", "gi"], codes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 3}, r"layer=3: the model has model.num_layers=2"),
        ({"pooling": "max"}, r"pooling='max' is unknown; known: mean, first"),
        ({"rows": 0}, r"rows=0 must be 1 or more"),
        ({"step": 7}, r"holds no checkpoint"),
    ],
)
def test_wrong_options_are_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        load(folder, **options)


def run(folder, monkeypatch, text, *options, out="vectors.npy"):
    stdin = types.SimpleNamespace(buffer=io.BytesIO(text))
    monkeypatch.setattr(sys, "stdin", stdin)
    where = [f"--config={folder / 'config.py'}", f"--workdir={folder / 'run'}"]
    return cli.main(["embed", *where, f"--out={folder / out}", *options])


TAGGED = "".join(
    f"{code}\t{text}\n" if text.strip() else "\n" for code, text in zip(CODES, TEXTS, strict=True)
)
FORMS = {
    "tagged": (TAGGED, []),
    "tagged, no last line end, CRLF": (TAGGED[:-1].replace("\n", "\r\n"), []),
    "list": ("\n".join(text.strip() for text in TEXTS) + "\n", ["--languages=CODES"]),
}


@pytest.mark.parametrize(("text", "options"), FORMS.values(), ids=FORMS)
def test_the_command_writes_what_the_embedder_returns(
    folder, monkeypatch, capsys, vectors, text, options
):
    monkeypatch.setattr("xlmjax.commands.embed.CHUNK", 3)
    (folder / "codes").write_text("\n".join(CODES) + "\n")
    options = [option.replace("CODES", str(folder / "codes")) for option in options]
    assert run(folder, monkeypatch, text.encode(), *options) == 0
    found = np.load(folder / "vectors.npy")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, vectors, rtol=1e-5, atol=1e-6)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "7 vectors of width 16; empty lines (zeros): 2, truncated: 0" in printed.err
    assert not (folder / "vectors.npy.partial").exists()


def test_options_of_the_command_reach_the_embedder(folder, monkeypatch, capsys):
    options = (
        "--language=fr",
        "--layer=1",
        "--pooling=first",
        "--rows=8",
        "--truncate",
        "--step=0",
    )
    assert run(folder, monkeypatch, f"ba gi\n{LONG}\n".encode(), *options) == 0
    direct = load(folder, layer=1, pooling="first", truncate=True).embed(["ba gi", LONG], "fr")
    np.testing.assert_allclose(np.load(folder / "vectors.npy"), direct, rtol=1e-5, atol=1e-6)
    assert "truncated: 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (b"en\tba\nba\n", [], "stdin:2: no tab in 'ba'; lines are LANG<tab>TEXT unless"),
        (b"ba\nb\xff\n", ["--language=en"], "stdin:2: not UTF-8 (byte 0xff"),
        (b"de\tba\n", [], "sentence 1: language 'de' is not one of the model's"),
        (b"ba\n", ["--languages=nowhere"], "--languages=nowhere: no such file"),
        (b"ba\n" * 8, ["--languages=CODES"], "--languages has 7 lines, stdin more"),
        (b"ba\n" * 6, ["--languages=CODES"], "--languages has 7 lines, stdin 6"),
        (b"gi\n" + LONG.encode(), ["--language=en"], "sentence 2 has 42 tokens"),
        (b"ba\n", ["--language=en", "--layer=9"], "layer=9: the model has"),
    ],
)
def test_errors_of_the_command_leave_no_file(folder, monkeypatch, capsys, text, options, message):
    (folder / "codes").write_text("en\n" * 7)
    options = [option.replace("CODES", str(folder / "codes")) for option in options]
    assert run(folder, monkeypatch, text, *options, out="none.npy") == 2
    assert message in capsys.readouterr().err
    assert not list(folder.glob("none.npy*"))


def test_no_input_gives_no_vectors(folder, monkeypatch):
    assert run(folder, monkeypatch, b"", "--language=en") == 0
    assert np.load(folder / "vectors.npy").shape == (0, 16)
