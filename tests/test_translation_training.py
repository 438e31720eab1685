"""Translation by `train`: every objective in one step, both halves from a pretrained encoder."""

import contextlib
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.small_run import write_data
from tests.translation_helpers import translator_config, write_text, write_translations
from xlmjax.configs import base
from xlmjax.experiment import build_experiment
from xlmjax.train import train
from xlmjax.training import initialization
from xlmjax.training.checkpoint import Checkpoints
from xlmjax.training.checkpoint_settings import CheckpointConfig
from xlmjax.training.initialization import initial_state
from xlmjax.training.state import named_leaves, nest

WAYS = ("mt.en_fr", "mt.fr_en")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    rng = np.random.default_rng(4)
    for split, count in (("train", 60), ("validation", 9)):
        sides = [[rng.integers(5, 60, 1 + i % 7).tolist() for i in range(count)] for _ in "ab"]
        lines = ["ba da " * (1 + i % 3) for i in range(count)]
        for (a, b), sentences in zip((("en", "fr"), ("fr", "en")), sides, strict=True):
            write_translations(folder, a, b, sentences, lines, split)
            write_text(folder, a, sentences, split)
    return folder


def config_of(folder, **flat):
    """Return a config with every objective that a translator can have."""
    config = translator_config(folder, **flat)
    config.model.dropout = 0.1
    config.objectives = {}
    text = ("ae.en", "ae.fr")
    config.objectives.mlm = base.objective("masked_lm", mixture=("mlm", "tlm"))
    config.objectives.mt = base.objective("translation", mixture=WAYS, label_smoothing=0.1)
    config.objectives.ae = base.objective("denoising", mixture=text, layout="pack")
    config.objectives.bt = base.objective(
        "back_translation",
        mixture=text,
        layout="pack",
        length=16,
        sentences=2,
        sentence_length=9,
        steps=("en-fr-en", "fr-en-fr"),
        min_count=2,
        weight=((0, 0.0), (2, 1.0)),
    )
    return config


@pytest.mark.slow
def test_every_objective_in_one_step_and_a_resumed_run_is_the_same(folder, tmp_path):
    config = config_of(folder, train__num_steps=4, train__rows=32)
    config.evals.mt = base.translation(WAYS, every=2, rows=8, max_lines=5)
    config.evals.trip = base.round_trip(("ae.en", "ae.fr"), ("en-fr-en",), every=2, rows=8)
    config.evals.mt.decoding.method = "beam"
    config.checkpoint.best_metric = "eval/trip/average/bleu"
    whole = train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", stop_after=3)
    resumed = train(config, tmp_path / "parts")
    assert int(resumed.state.step) == 4
    for name, leaf in named_leaves(whole.state).items():
        np.testing.assert_array_equal(leaf, named_leaves(resumed.state)[name], err_msg=name)
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    found = {name for line in lines for name in json.loads(line)}
    for task in ("mt.en_fr", "ae.en", "mlm.fr", "tlm.en_fr"):
        assert any(task in name for name in found)
    assert {"eval/mt/mt.en_fr/bleu", "eval/trip/en-fr-en/chrf"} <= found
    hypotheses = (tmp_path / "whole/eval/mt-4/mt.fr_en.hyp.txt").read_text().splitlines()
    assert len(hypotheses) == 5
    assert (tmp_path / "whole/eval/mt-4/mt.fr_en.ref.txt").read_text().startswith("ba da")


def start(config, workdir):
    """Return the state that a run begins with, and the sentence that says where it is from."""
    experiment = build_experiment(config)
    settings = CheckpointConfig.from_config(config.checkpoint)
    checkpoints = Checkpoints(workdir, settings, experiment.identity)
    with contextlib.closing(checkpoints), jax.set_mesh(experiment.mesh):
        return initial_state(
            checkpoints,
            settings,
            experiment.identity,
            experiment.spec,
            jax.random.key(1),
            experiment.vocabulary,
        )


@pytest.fixture(scope="module")
def encoder(folder):
    config = translator_config(folder, train__num_steps=2, model__decoder_layers=0)
    return folder / "mlm", train(config, folder / "mlm").state.model


@pytest.mark.slow
def test_both_halves_take_all_that_a_pretrained_encoder_has(folder, encoder, tmp_path):
    place, pretrained = encoder
    config = config_of(folder, model__decoder_layers=2, checkpoint__init_from=str(place))
    state, report = start(config, tmp_path)
    theirs = named_leaves(pretrained)
    for half in (state.model.encoder, state.model.decoder):
        ours = named_leaves(half)
        for name, leaf in theirs.items():
            np.testing.assert_array_equal(ours[name], leaf, err_msg=name)
        new = {name for name in ours if name not in theirs}
        assert all("cross_" in name for name in new)
    assert "encoder: parameters from" in report
    assert "decoder: parameters from" in report
    assert "fresh (transformer/layers/cross_attention/key/bias," in report


@pytest.mark.parametrize("halves", [("{}", ""), ("", "{}")])
def test_a_half_may_start_fresh(folder, encoder, tmp_path, halves):
    place, pretrained = encoder
    init = ",".join(halves).format(place)
    config = config_of(folder, model__decoder_layers=2, checkpoint__init_from=init)
    state, report = start(config, tmp_path)
    table = np.asarray(pretrained.embeddings.tokens[...])
    for half, given in zip(("encoder", "decoder"), halves, strict=True):
        own = np.asarray(getattr(state.model, half).embeddings.tokens[...])
        assert (own == table).all() == bool(given)
        assert (f"{half}: fresh parameters" in report) == (not given)


def test_loaded_parameters_are_brought_to_a_size(folder, encoder, tmp_path, monkeypatch):
    place, pretrained = encoder
    config = config_of(folder, model__decoder_layers=2, checkpoint__init_from=str(place))
    config.checkpoint.init_rms = (("embeddings/tokens", 0.02), ("embeddings/.*", 0.5))
    state, report = start(config, tmp_path)
    theirs = named_leaves(pretrained)
    for half in (state.model.encoder, state.model.decoder):
        for name, size in (("embeddings/tokens", 0.02), ("embeddings/languages", 0.5)):
            ours, before = named_leaves(half)[name], np.asarray(theirs[name])
            factor = size / np.sqrt(np.mean(before**2))
            np.testing.assert_allclose(ours, before * factor, rtol=1e-5)
            assert report.count(f"{name} times {factor:.3g}") == 2
        query = "transformer/layers/attention/query/kernel"
        np.testing.assert_array_equal(named_leaves(half)[query], theirs[query])
    config.checkpoint.init_rms = (("embeddings/token", 0.02),)
    with pytest.raises(ValueError, match="init_rms: 'embeddings/token' matches none of the loaded"):
        start(config, tmp_path / "other")
    nothing = jax.tree.map(jnp.zeros_like, theirs)
    monkeypatch.setattr(initialization, "read_arrays", lambda *_: {"model": nest(nothing)})
    config.checkpoint.init_rms = (("embeddings/tokens", 0.1),)
    with pytest.raises(ValueError, match=r"init_rms: .* is all zeros and has no size: leave it ou"):
        start(config, tmp_path / "zeros")


@pytest.mark.slow
def test_a_translator_starts_another_one(folder, encoder, tmp_path):
    config = config_of(folder, train__num_steps=1)
    config.objectives = {"mt": config.objectives.mt}
    trained = train(config, tmp_path / "first").state.model
    config.checkpoint.init_from = str(tmp_path / "first")
    state, report = start(config, tmp_path / "second")
    for name, leaf in named_leaves(trained).items():
        np.testing.assert_array_equal(named_leaves(state.model)[name], leaf)
    assert "fresh" not in report
    assert "skipped" not in report


BOUNDS = {"objectives.mt.sentences": 2, "objectives.mt.sentence_length": 9}
UNBOUND = {"objectives.bt.sentences": 0, "objectives.bt.sentence_length": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.decoder_layers": 0}, "objectives.ae.name='denoising' needs a decoder"),
        ({**UNBOUND, "objectives.bt.layout": "stream"}, "back_translation needs 'pack' or 'pad'"),
        ({"objectives.bt.min_count": 10**6}, "objectives.bt: min_count=1000000: no token occurs"),
        ({"objectives.bt.layout": "pad"}, "bt: sentences=2 and sentence_length=9 are of packed"),
        (UNBOUND, "bt.layout='pack': back_translation needs whole sentences: say how many"),
        ({"objectives.bt.sentence_length": 17}, "sentence_length=17: give .* 3 to 16"),
        ({"objectives.ae.sentence_length": 9}, "objectives.ae.sentences=0: say how many"),
        (
            {"objectives.mt.layout": "pack", **BOUNDS},
            "sentence_length=9 of an objective are of text, and mt.en_fr holds translation",
        ),
        ({"objectives.ae.layout": "stream"}, "denoising needs 'pack' or 'pad'"),
        ({"objectives.bt.steps": ("en-fr-en",)}, "objectives.bt: steps.* begins with fr"),
        (
            {"objectives.bt.steps": ("en-sw-en", "fr-en-fr")},
            "objectives.bt: min_count=2: steps=.* write sw, of which the mixture has no text",
        ),
        (
            {"objectives.bt.steps": ("en-sw-en", "fr-en-fr"), "objectives.bt.min_count": 0},
            "objectives.bt: steps.*: sw has no embedding in the model; it has .*: en, fr",
        ),
        ({"objectives.mt.mixture": ("ae.en",)}, "'translation' reads tasks like mt.SRC_TGT"),
        ({"checkpoint.init_from": "a,b,c"}, "one checkpoint, or with a decoder two"),
    ],
)
def test_what_does_not_fit_a_translator_is_refused(folder, tmp_path, change, message):
    config = config_of(folder, train__rows=32)
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path)


def test_an_encoder_alone_does_not_translate(folder, tmp_path):
    config = translator_config(folder, model__decoder_layers=0)
    config.evals.mt = base.translation(WAYS, rows=8)
    with pytest.raises(ValueError, match="an encoder alone does not translate"):
        train(config, tmp_path)


def test_the_classifier_and_the_decoder_exclude_each_other(folder):
    cfg = build_experiment(config_of(folder)).model
    with pytest.raises(ValueError, match="classification takes an encoder alone"):
        dataclasses.replace(cfg, num_labels=3)
