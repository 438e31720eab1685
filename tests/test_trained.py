"""`xlmjax.load(workdir)`: the three lines of a notebook."""

import json
import shutil

import jax
import numpy as np
import pytest

import xlmjax
from tests.small_run import small_config, write_data
from xlmjax import languages
from xlmjax.description import write_description
from xlmjax.embedding import Embedder
from xlmjax.experiment import build_experiment
from xlmjax.training.checkpoint import Checkpoints
from xlmjax.training.checkpoint_settings import CheckpointConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    experiment = build_experiment(small_config(folder))
    with jax.set_mesh(experiment.mesh):
        state = experiment.spec.create(jax.random.key(0))
        checkpoints = Checkpoints(folder / "run", CheckpointConfig(), experiment.identity)
        checkpoints.save(state)
        checkpoints.close()
    write_description(folder / "run", experiment, 0)
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    return xlmjax.load(folder / "run")


def test_vectors_are_those_of_the_embedder(folder, trained):
    texts = ["bana kora", "ba"]
    expected = Embedder.load(small_config(folder), folder / "run").embed(texts, ["en", "fr"])
    np.testing.assert_array_equal(trained.embed(texts, ["en", "fr"]), expected)


def test_a_workdir_can_be_moved_and_used_from_anywhere(folder, trained, tmp_path, monkeypatch):
    shutil.copytree(folder / "run", tmp_path / "moved")
    content = json.loads((tmp_path / "moved" / "config.json").read_text())
    content["config"]["data"]["vocabulary"] = "runs/v.model"  # of the folder where it was made
    (tmp_path / "moved" / "config.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    moved = xlmjax.load("moved")
    np.testing.assert_array_equal(moved.embed(["bana"], "en"), trained.embed(["bana"], "en"))
    (tmp_path / "moved" / "vocabulary.model").unlink()
    with pytest.raises(ValueError, match=rf"runs/v.model: no such file.* begin in {tmp_path}"):
        xlmjax.load("moved")


def test_masks_are_filled_with_the_likeliest_pieces(trained):
    vocabulary, model = trained.experiment.vocabulary, jax.device_get(trained.model)
    before, after = vocabulary.encode("bana"), vocabulary.encode("kora")
    tokens = [vocabulary.eos, *before, vocabulary.mask, *after, vocabulary.mask, vocabulary.eos]
    row = np.array([tokens], np.int32)
    language = np.full_like(row, languages.get("fr").id)
    states = model.encode(row, np.arange(len(tokens))[None], np.ones_like(row), language)
    logits = np.asarray(model.logits(states))[0][row[0] == vocabulary.mask]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    expected[:, list(vocabulary.special_ids)] = 0

    found = trained.fill_mask("bana <mask> kora <mask>", "fr", top=len(vocabulary.pieces))
    assert {vocabulary.pieces[i] for i in vocabulary.special_ids} == {
        guess.piece for guess in found[0] if guess.probability == 0
    }
    found = trained.fill_mask("bana <mask> kora <mask>", "fr", top=3)
    assert [len(guesses) for guesses in found] == [3, 3]
    for guesses, probabilities in zip(found, expected, strict=True):
        best = np.argsort(-probabilities)[:3]
        assert [guess.piece for guess in guesses] == [vocabulary.pieces[i] for i in best]
        np.testing.assert_allclose([g.probability for g in guesses], probabilities[best], rtol=1e-4)


@pytest.mark.parametrize(
    ("text", "language", "message"),
    [
        ("bana kora", "en", "write <mask>"),
        ("bana <mask>", "xx", "language='xx' is not one of the model's: en, fr"),
        ("bana <mask>", "de", "language='de' is not one of the model's: en, fr"),
        ("ba " * 40 + "<mask>", "en", "model.max_positions=32"),
    ],
)
def test_what_cannot_be_filled_is_refused(trained, text, language, message):
    with pytest.raises(ValueError, match=message):
        trained.fill_mask(text, language)


def test_a_model_that_predicts_the_next_word_fills_no_masks(folder):
    causal = xlmjax.load(folder / "run", overrides=["--config.objectives.mlm.name=causal_lm"])
    with pytest.raises(ValueError, match="this one predicts the next word"):
        causal.fill_mask("bana <mask>", "en")


def test_a_text_alone_is_no_list_of_texts(trained):
    with pytest.raises(ValueError, match=r"texts='bana': give a list of texts, \['bana'\]"):
        trained.embed("bana", "en")


def test_an_encoder_does_not_translate(trained):
    with pytest.raises(ValueError, match="decoder"):
        trained.translate(["bana"], "en", "fr")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config.json: no such file"):
        xlmjax.load(tmp_path)
