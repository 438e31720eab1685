"""Sentence retrieval: equal to plain NumPy, the same on any mesh, batch and bucket."""

import json
import shutil

import jax
import numpy as np
import pytest

from tests.similarity_reference import cosines, matched, scores
from tests.small_run import small_config, write_data
from tests.stores import write_store
from xlmjax import languages
from xlmjax.configs import base
from xlmjax.data import sentences
from xlmjax.data.layout import Delimiters
from xlmjax.data.sentences import SentenceBatches, bucket
from xlmjax.data.store import TokenStore
from xlmjax.evaluation import Retrieval, make_evaluators
from xlmjax.evaluation.by_language import means_by_language
from xlmjax.experiment import build_experiment

TASK = "tlm.en_fr"
NEIGHBOURS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(scope="module")
def host_model(folder):
    experiment = build_experiment(small_config(folder))
    return jax.device_get(experiment.spec.init(jax.random.key(0)).model)


def evaluator_of(config, tasks=("tlm",), **fields):
    fields = base.retrieval(tasks, **{"rows": 8, "neighbours": NEIGHBOURS, **fields})
    experiment = build_experiment(config)
    with jax.set_mesh(experiment.mesh):
        return experiment, Retrieval("found", fields, experiment.evaluation_context)


def measure(folder, host_model, fields=None, **flat):
    experiment, evaluator = evaluator_of(small_config(folder, **flat), **(fields or {}))
    with jax.set_mesh(experiment.mesh):
        model = jax.tree.map(jax.device_put, host_model, experiment.spec.shardings.model)
        return dict(evaluator.evaluate(model)), evaluator


@pytest.fixture(scope="module")
def reference(folder, host_model):
    return measure(folder, host_model)


def assert_close(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=2e-5, atol=1e-6, err_msg=name)


def one_by_one(folder, model, side, layer=-1, pooling="mean"):
    """Encode every sentence alone, in a row of its own length, and pool by NumPy."""
    store = TokenStore.open(folder / "stores" / TASK / "validation")
    encode = jax.jit(lambda model, *arguments: model.encode(*arguments, layer=layer))
    language = languages.get(store.language(side)).id
    found = []
    for index in range(len(store)):
        tokens = np.array([[1, *store.read(side, index), 1]], np.int32)
        places = np.arange(tokens.shape[1], dtype=np.int32)[None]
        parts = (tokens, places, np.ones_like(tokens), np.full_like(tokens, language))
        states = np.asarray(encode(model, *parts))[0]
        found.append(states.mean(axis=0) if pooling == "mean" else states[0])
    return np.array(found)


@pytest.mark.parametrize(
    ("layer", "pooling", "centered"),
    [(-1, "mean", False), (1, "mean", True), (2, "first", False)],
)
def test_values_are_those_of_the_definitions(folder, host_model, layer, pooling, centered):
    fields = {"layer": layer, "pooling": pooling, "centered": centered}
    values, _ = measure(folder, host_model, fields)
    x, y = (
        one_by_one(folder, host_model, side, layer, pooling) for side in ("tokens", "target_tokens")
    )
    if centered:
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    assert len(x) == 17
    for measure_name in ("cosine", "csls", "margin"):
        table = scores(x, y, measure_name, NEIGHBOURS)
        forward, backward = matched(table) / 17, matched(table.T) / 17
        assert values[f"{TASK}/accuracy_{measure_name}_forward"] == pytest.approx(forward)
        assert values[f"{TASK}/accuracy_{measure_name}_backward"] == pytest.approx(backward)
        mean = (forward + backward) / 2
        assert values[f"{TASK}/accuracy_{measure_name}"] == pytest.approx(mean)
    others = ~np.eye(17, dtype=bool)
    distance = np.linalg.norm(x[:, None] - y[None], axis=-1)
    for name, table in (("cosine", cosines(x, y)), ("l2", distance)):
        pairs, random = values[f"{TASK}/{name}_pairs"], values[f"{TASK}/{name}_random"]
        assert pairs == pytest.approx(np.diag(table).mean(), rel=1e-4)
        assert random == pytest.approx(table[others].mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("rows", "mesh"),
    [(24, {}), (2, {"data": 2, "fsdp": 1, "tensor": 4}), (4, {"fsdp": 2, "tensor": 2})],
)
def test_values_depend_on_neither_mesh_nor_rows_a_batch(folder, host_model, reference, rows, mesh):
    flat = {f"mesh__{axis}": size for axis, size in mesh.items()}
    assert_close(measure(folder, host_model, {"rows": rows}, **flat)[0], reference[0])


def test_values_do_not_depend_on_the_buckets(folder, host_model, reference, monkeypatch):
    monkeypatch.setattr(sentences, "bucket", lambda length, limit: 29)
    assert_close(measure(folder, host_model)[0], reference[0])


def test_one_program_a_bucket_is_compiled(reference):
    _, evaluator = reference
    lengths = [len(tokens) + 2 for side in evaluator._pairs[0].tokens for tokens in side]
    assert evaluator._encode._apply._cache_size() <= len({bucket(length) for length in lengths})
    assert evaluator._align._cache_size() == 1


def test_a_set_against_itself_is_found_whole(folder, host_model, tmp_path):
    write_data(tmp_path)
    rng = np.random.default_rng(3)
    texts = [rng.integers(5, 60, size=5 + index % 6).tolist() for index in range(23)]
    config = small_config(tmp_path, model__language_embeddings=False)
    fingerprint = build_experiment(config).vocabulary.fingerprint
    place = tmp_path / "stores" / TASK / "validation"
    for file in place.iterdir():
        file.unlink()
    write_store(
        place,
        {"tokens": texts, "target_tokens": texts},
        {"tokens": "en", "target_tokens": "fr"},
        task=TASK,
        split="validation",
        vocabulary=fingerprint,
    )
    experiment, evaluator = evaluator_of(config)
    with jax.set_mesh(experiment.mesh):
        model = experiment.spec.create(jax.random.key(0)).model
        values = dict(evaluator.evaluate(model))
    for name, value in values.items():
        if "accuracy" in name:
            assert value == 1.0, name
    assert values["average/cosine_pairs"] == pytest.approx(1, rel=1e-5)
    assert values["average/cosine_random"] < 0.99
    assert values["average/l2_pairs"] == pytest.approx(0, abs=1e-4)
    assert values["average/l2_random"] > 0.1


def test_a_sentence_of_several_tasks_is_encoded_once(tmp_path, host_model, reference):
    """As is English in most pairs; here a task is a copy of another."""
    write_data(tmp_path)
    stores = tmp_path / "stores"
    shutil.copytree(stores / TASK, stores / "copy.en_fr")
    mixtures = json.loads((stores / "mixture.json").read_text())
    mixtures["both"] = {"tasks": [TASK, "copy.en_fr"], "rates": None}
    (stores / "mixture.json").write_text(json.dumps(mixtures))
    values, evaluator = measure(tmp_path, host_model, {"tasks": ("both",)})
    for name, value in reference[0].items():
        assert values[name] == pytest.approx(value, rel=2e-5, abs=1e-6), name
        assert values[name.replace(TASK, "copy.en_fr")] == pytest.approx(value, rel=2e-5, abs=1e-6)
    texts = {
        (side, tuple(tokens)) for side in (0, 1) for tokens in evaluator._pairs[0].tokens[side]
    }
    assert len(evaluator._sentences.tokens) == len(texts)


def test_every_metric_has_its_name(reference):
    values, evaluator = reference
    metrics = {name.rpartition("/")[2] for name in values if name.startswith(TASK)}
    assert {name.rpartition("/")[0] for name in values} == {TASK, "en", "fr", "average"}
    assert len(metrics) == 13
    assert len(values) == 4 * 13
    for metric in metrics:
        assert values[f"average/{metric}"] == values[f"{TASK}/{metric}"]
    assert evaluator.protocol["tasks"][TASK] == {
        "pairs": 17,
        "dropped": {},
        "languages": ("en", "fr"),
    }


@pytest.mark.parametrize("measure_name", ["cosine", "csls", "margin"])
def test_a_language_is_looked_up_from_its_own_side(reference, measure_name):
    values, name = reference[0], f"accuracy_{measure_name}"
    forward, backward = (values[f"{TASK}/{name}_{way}"] for way in ("forward", "backward"))
    assert (values[f"en/{name}_from"], values[f"en/{name}_into"]) == (forward, backward)
    assert (values[f"fr/{name}_from"], values[f"fr/{name}_into"]) == (backward, forward)
    assert values[f"en/{name}"] == values[f"fr/{name}"] == values[f"{TASK}/{name}"]
    assert values["fr/cosine_pairs"] == values[f"{TASK}/cosine_pairs"]


def test_a_language_has_the_mean_over_its_pairs():
    found = [(("de", "en"), {"a": 0.5, "b": 1.0}), (("en", "sw"), {"a": 0.25}), (("en",), {"a": 0})]
    assert dict(means_by_language(found)) == {
        "de/a": 0.5, "de/b": 1.0, "en/a": 0.25, "en/b": 1.0, "sw/a": 0.25,
    }  # fmt: skip


def test_long_pairs_are_dropped_and_counted_never_cut(folder, host_model):
    _, evaluator = measure(folder, host_model, {"max_tokens": 8})
    store = TokenStore.open(folder / "stores" / TASK / "validation")
    longest = np.maximum(store.lengths("tokens"), store.lengths("target_tokens"))
    kept = np.flatnonzero(longest <= 6)
    assert 2 < len(kept) < 17
    (pairs,) = evaluator._pairs
    assert pairs.dropped == {"longer than 8 tokens": 17 - len(kept)}
    for side, tokens in zip(("tokens", "target_tokens"), pairs.tokens, strict=True):
        assert [list(text) for text in tokens] == [list(store.read(side, i)) for i in kept]


def test_max_pairs_are_evenly_spaced(folder):
    _, evaluator = evaluator_of(small_config(folder), max_pairs=4)
    store = TokenStore.open(folder / "stores" / TASK / "validation")
    expected = [list(store.read("tokens", index)) for index in (0, 4, 8, 12)]
    assert [list(text) for text in evaluator._pairs[0].tokens[0]] == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tasks": ("mlm",)}, r"evals.found.tasks: 'mlm.en' holds text, not pairs"),
        ({"tasks": ("tlm.en_de",)}, r"no prepared mixture 'tlm.en_de'"),
        ({"pooling": "max"}, r"evals.found.pooling='max' is unknown; known: mean, first"),
        ({"layer": 3}, r"evals.found.layer=3: the model has model.num_layers=2"),
        ({"rows": 6}, r"evals.found.rows=6 is not divisible by .* = 8: use 8"),
        ({"max_tokens": 33}, r"evals.found.max_tokens=33 is longer than model.max_positions=32"),
        ({"max_tokens": 2}, r"evals.found.max_tokens=2: give 0"),
        ({"max_tokens": 3}, r"evals.found.tasks: 'tlm.en_fr' has 0 pairs of at most 3 tokens"),
        ({"neighbours": 0}, r"evals.found.neighbours=0 must be 1 or more"),
    ],
)
def test_wrong_fields_are_refused_before_the_first_step(folder, fields, message):
    with pytest.raises(ValueError, match=message):
        evaluator_of(small_config(folder), **fields)


def test_a_language_without_an_embedding_is_refused(folder):
    config = small_config(folder, data__languages=("en", "sw"))
    with pytest.raises(ValueError, match=r"found.tasks: 'tlm.en_fr' is in fr, which data.lang"):
        evaluator_of(config)


def test_the_evaluator_comes_from_the_config(folder):
    config = small_config(folder)
    config.evals.retrieval = base.retrieval(("tlm",), rows=8, every=5)
    experiment = build_experiment(config)
    (made,) = make_evaluators(experiment.evaluation_context)
    assert isinstance(made.evaluator, Retrieval)
    assert made.is_due(5, 100)


def test_buckets_are_few_and_tight():
    lengths = np.arange(1, 513)
    found = np.array([bucket(int(length)) for length in lengths])
    assert np.all(found >= lengths)
    assert np.all(found[lengths > 8] <= 1.5 * lengths[lengths > 8])
    assert len(np.unique(found)) == 13
    assert bucket(400, limit=450) == 450


def test_sentence_batches_hold_every_sentence_once_in_rows_of_its_length():
    rng = np.random.default_rng(0)
    texts = [rng.integers(5, 60, size=size) for size in rng.integers(1, 40, size=53)]
    ids = rng.integers(0, 9, size=53)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    batches = list(SentenceBatches(texts, ids, 8, Delimiters(eos=1, pad=2), sharding, limit=41))
    assert len(batches) == 7
    assert sorted(np.concatenate([numbers for numbers, _ in batches])) == list(range(53))
    longest = 0
    for numbers, batch in batches:
        tokens = np.asarray(batch["tokens"])
        assert tokens.shape[1] == bucket(max(len(texts[n]) for n in numbers) + 2, 41)
        assert tokens.shape[1] >= longest
        longest = tokens.shape[1]
        for row in range(8):
            real = np.asarray(batch["segment_ids"][row]) != 0
            if row >= len(numbers):
                assert not real.any()
                continue
            number = numbers[row]
            assert tokens[row, real].tolist() == [1, *texts[number], 1]
            assert np.all(tokens[row, ~real] == 2)
            np.testing.assert_array_equal(batch["positions"][row, real], np.arange(real.sum()))
            assert np.all(np.asarray(batch["language_ids"])[row, real] == ids[number])
