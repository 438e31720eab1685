"""Classification: packed or padded the same, learned, scored exactly; sweeps, selection."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_helpers import CLASSIC, EOS, PAD, randomised, sentences
from tests.small_run import small_config, write_data
from tests.stores import write_store
from xlmjax import cli
from xlmjax.commands import eval as eval_command
from xlmjax.configs import base
from xlmjax.data.mixture import open_groups
from xlmjax.data.store import TokenStore
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.evaluation import ClassificationAccuracy
from xlmjax.experiment import build_experiment, load_trained, make_groups
from xlmjax.models.xlm import XLM
from xlmjax.objectives.classification import Classification, examples
from xlmjax.sweep import runs_of, workdirs
from xlmjax.train import losses_of_layout, train

LABELS = ("no", "yes", "maybe")
POOLINGS = ("first", "mean", "difference")
MODEL = dataclasses.replace(CLASSIC, num_labels=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pairs whose label is told by the first token of the hypothesis."""
    folder = tmp_path_factory.mktemp("labelled")
    write_data(folder)
    fingerprint = Vocabulary.load(folder / "vocabulary.model").fingerprint
    rng = np.random.default_rng(5)
    for code, splits in (("en", ("train", "validation")), ("fr", ("validation",))):
        for split in splits:
            count = 120 if split == "train" else 23
            labels = rng.integers(0, 3, count)
            sides = [
                [rng.integers(8, 60, size=rng.integers(2, 8)).tolist() for _ in range(count)]
                for _ in range(2)
            ]
            for hypothesis, label in zip(sides[1], labels, strict=True):
                hypothesis[0] = 5 + int(label)
            write_store(
                folder / "stores" / f"xnli.{code}" / split,
                {"tokens": sides[0], "target_tokens": sides[1]},
                {"tokens": code, "target_tokens": code},
                task=f"xnli.{code}",
                split=split,
                vocabulary=fingerprint,
                labels=(LABELS, labels),
            )
    return folder


def config_of(folder, **flat):
    config = small_config(folder, **{"data__mixture": ("xnli.en",), **flat})
    config.objectives = type(config)()
    config.objectives.xnli = base.objective("classification", labels=LABELS)
    config.evals.xnli = base.classification(tasks=("xnli.en", "xnli.fr"), rows=8, every=3)
    return config


# The objective.


def rows_of(texts, packed):
    """Lay out texts and their labels: all in one row, or one a row."""
    groups = [list(range(len(texts)))] if packed else [[n] for n in range(len(texts))]
    length = sum(len(tokens) for tokens, _ in texts)
    batch = {
        name: np.zeros((len(groups), length), np.int32)
        for name in ("positions", "segment_ids", "language_ids")
    }
    batch["tokens"] = np.full((len(groups), length), PAD, np.int32)
    batch["labels"] = np.full((len(groups), length), -1, np.int32)
    for row, group in enumerate(groups):
        column = 0
        for segment, number in enumerate(group, 1):
            tokens, language = texts[number]
            span = slice(column, column + len(tokens))
            batch["tokens"][row, span] = tokens
            batch["positions"][row, span] = np.arange(len(tokens))
            batch["segment_ids"][row, span] = segment
            batch["language_ids"][row, span] = language
            batch["labels"][row, column] = number % 3
            column += len(tokens)
    batch["row_ids"] = np.arange(len(groups), dtype=np.int32)
    batch["task_ids"] = np.zeros(len(groups), np.int32)
    return batch


def pairs():
    """Return `</s> premise </s> hypothesis </s>` of several lengths, each with its language."""
    generator = np.random.default_rng(3)
    return [
        (np.concatenate([tokens, generator.integers(6, 47, size), [EOS]]), language)
        for (tokens, language), size in zip(sentences(), (2, 1, 3, 1), strict=True)
    ]


def vector(states, tokens, pooling):
    """Return what a classifier sees of one segment."""
    if pooling == "first":
        return states[0]
    if pooling == "mean":
        return states.mean(axis=0)
    separator = np.flatnonzero(tokens == EOS)[1]
    difference = states[:separator].mean(axis=0) - states[separator:].mean(axis=0)
    return np.concatenate([difference, abs(difference)])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_packed_examples_give_the_loss_and_gradient_of_single_ones(pooling):
    model = randomised(dataclasses.replace(MODEL, pooling=pooling))
    objective = Classification(LABELS)

    def loss(model, batch):
        out = objective.loss(model, batch, jax.random.key(0), 0, deterministic=True)
        return out.sum / out.weight, out.metrics

    found = [
        jax.jit(jax.value_and_grad(loss, has_aux=True))(model, rows_of(pairs(), packed))
        for packed in (True, False)
    ]
    ((one, metrics), gradient), ((other, _), expected) = found
    assert float(metrics["loss"].weight) == len(pairs())
    np.testing.assert_allclose(one, other, rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_scores_are_a_vector_of_the_states_through_the_classifier(pooling):
    texts = pairs()
    batch = rows_of(texts, packed=True)
    names = ("tokens", "positions", "segment_ids", "language_ids")
    picks, labels = examples(jnp.asarray(batch["labels"]))
    model = randomised(dataclasses.replace(MODEL, pooling=pooling))
    states = np.asarray(model.encode(*(batch[name] for name in names)))[0]
    scores = np.asarray(model.classify(*(batch[name] for name in names), picks))[0]
    kernel, bias = np.asarray(model.classifier.kernel), np.asarray(model.classifier.bias)
    for number, (tokens, _) in enumerate(texts):
        own = states[batch["segment_ids"][0] == number + 1]
        expected = vector(own, tokens, pooling) @ kernel + bias
        np.testing.assert_allclose(scores[number], expected, atol=1e-5)
        assert labels[0, number] == number % 3
    assert np.all(np.asarray(labels)[0, len(texts) :] == -1)
    assert batch["tokens"][0, 0] == EOS
    assert model.cfg.num_parameters() == sum(leaf.size for leaf in jax.tree.leaves(model))


def test_dropout_of_the_classifier_depends_on_the_key_alone():
    model = randomised(dataclasses.replace(MODEL, dropout=0.0, classifier_dropout=0.5))
    batch, objective = rows_of(sentences(), packed=False), Classification(LABELS)
    losses = [float(objective.loss(model, batch, jax.random.key(key), 0).sum) for key in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("labels", [(), ("one",), ("a", "a")])
def test_labels_are_two_or_more_different_ones(labels):
    with pytest.raises(ValueError, match=r"labels=.*two labels or more"):
        Classification(labels)


# Fine-tuning and the evaluator.


def tuned(folder, workdir, **flat):
    fields = {"train__num_steps": 60, "train__rows": 16, "checkpoint__every": 30, **flat}
    config = config_of(folder, **fields)
    config.evals.xnli.every = 30
    return config, train(config, workdir)


def results(workdir, step, name="xnli"):
    return json.loads((workdir / "eval" / f"{name}-{step}.json").read_text())


@pytest.mark.slow
def test_a_label_is_learned_and_scored_in_every_language(folder, tmp_path):
    _, result = tuned(folder, tmp_path)
    found = results(tmp_path, 60)
    assert found["values"]["xnli.en/accuracy"] > 0.9
    matrices = {name: np.array(m) for name, m in found["confusion"].items()}
    for name, matrix in matrices.items():
        store = TokenStore.open(folder / "stores" / name / "validation")
        np.testing.assert_array_equal(matrix.sum(axis=1), np.bincount(store.labels, minlength=3))
        assert found["values"][f"{name}/accuracy"] == np.trace(matrix) / 23
    both = [found["values"][f"xnli.{code}/accuracy"] for code in ("en", "fr")]
    assert found["values"]["average/accuracy"] == pytest.approx(np.mean(both))
    assert found["values"]["zero_shot/accuracy"] == both[1]
    assert found["protocol"]["trained_on"] == {"xnli": ["xnli.en"]}
    assert found["protocol"]["labels"] == list(LABELS)
    host = jax.device_get(result.state.model)
    for mesh, rows in (({"mesh__tensor": 4}, 4), ({"mesh__fsdp": 2, "mesh__tensor": 2}, 12)):
        one = config_of(folder, **mesh)
        one.evals.xnli.rows = rows
        experiment = build_experiment(one)
        with jax.set_mesh(experiment.mesh):
            evaluator = ClassificationAccuracy("x", one.evals.xnli, experiment.evaluation_context)
            model = jax.tree.map(jax.device_put, host, experiment.spec.shardings.model)
            assert dict(evaluator.evaluate(model)) == found["values"]


@pytest.mark.slow
def test_lora_beside_frozen_weights_learns_too(folder, tmp_path):
    flat = {"model__num_layers": 2, "train__num_steps": 4}
    pretrained = small_config(folder, train__num_steps=2, checkpoint__every=2)
    base_state = train(pretrained, tmp_path / "base").state
    config, result = tuned(
        folder,
        tmp_path / "lora",
        model__lora_rank=4,
        checkpoint__init_from=str(tmp_path / "base"),
        checkpoint__every=2,
        optimizer__scales=((r".*(lora|classifier).*", 1.0), (r".*", 0.0)),
        **flat,
    )
    there, here = base_state.model, result.state.model
    for name in ("wi", "wo"):
        before = getattr(there.transformer.layers.mlp, name)
        after = getattr(here.transformer.layers.mlp, name)
        np.testing.assert_array_equal(after.kernel[...], before.kernel[...])
        assert np.abs(after.lora_b[...]).max() > 0
    moments = [leaf.size for leaf in jax.tree.leaves(result.state.opt_state)]
    assert sum(moments) < sum(leaf.size for leaf in jax.tree.leaves(here)) / 2
    assert config.model.lora_rank == 4


def test_fresh_lora_changes_nothing():
    plain, lora = (dataclasses.replace(MODEL, lora_rank=rank, lora_alpha=8.0) for rank in (0, 3))
    one, other = (XLM(cfg, jax.random.key(0)) for cfg in (plain, lora))
    batch = rows_of(sentences(), packed=True)
    inputs = [batch[n] for n in ("tokens", "positions", "segment_ids", "language_ids")]
    np.testing.assert_array_equal(one.encode(*inputs), other.encode(*inputs))
    count = sum(leaf.size for leaf in jax.tree.leaves(other))
    assert lora.num_parameters() == count > plain.num_parameters()
    product = other.transformer.layers.mlp.wi
    product.lora_b[...] = jnp.ones_like(product.lora_b[...])
    merged = product.kernel[...] + 8 / 3 * jnp.einsum(
        "ler,lrm->lem", product.lora_a[...], product.lora_b[...]
    )
    layer = jax.tree.map(lambda leaf: leaf[0], product)
    x = jax.random.normal(jax.random.key(1), (2, 5, MODEL.embed_dim))
    np.testing.assert_allclose(layer(x), x @ merged[0] + layer.bias[...], rtol=1e-5, atol=1e-5)


def test_rows_of_evaluation_hold_the_longest_example(folder):
    config = config_of(folder, train__length=9)
    experiment = build_experiment(config)
    with jax.set_mesh(experiment.mesh):
        evaluator = ClassificationAccuracy("x", config.evals.xnli, experiment.evaluation_context)
        model = experiment.spec.create(jax.random.key(0)).model
        dict(evaluator.evaluate(model))
    assert np.sum(evaluator.details["confusion"]["xnli.fr"]) == 23
    config = config_of(folder, train__length=9, model__max_positions=12)
    experiment = build_experiment(config)
    message = r"evals.x: the longest example of xnli.en .*has 1\d tokens, the model model.max_pos"
    with jax.set_mesh(experiment.mesh), pytest.raises(ValueError, match=message):
        ClassificationAccuracy("x", config.evals.xnli, experiment.evaluation_context)


def test_examples_that_training_cuts_are_counted_and_said(folder):
    config = config_of(folder, train__length=9)
    groups = open_groups(config, Vocabulary.load(config.data.vocabulary))
    store = groups[0].mixture.tasks[0].store
    sizes = store.lengths("tokens") + store.lengths("target_tokens") + 3
    [line] = losses_of_layout(groups)
    assert line == (
        f"xnli.en, rows of 9: {np.count_nonzero(sizes > 9)} examples cut at the end of the longer "
        "side"
    )


def test_a_classifier_is_not_read_with_another_pooling(folder, tmp_path):
    train(config_of(folder, train__num_steps=1, checkpoint__every=1), tmp_path)
    for pooling in ("mean", "difference"):
        with pytest.raises(ValueError, match=rf"model.pooling is 'first' there and '{pooling}' he"):
            load_trained(config_of(folder, model__pooling=pooling), tmp_path)


def test_single_texts_have_no_difference(folder):
    source = TokenStore.open(folder / "stores" / "xnli.en" / "train").manifest
    write_store(
        folder / "stores" / "single.en" / "train",
        {"tokens": [[7, 8], [9]]},
        {"tokens": "en"},
        task="single.en",
        vocabulary=source.vocabulary,
        labels=(LABELS, [0, 1]),
    )
    config = config_of(folder, data__mixture=("single.en",), model__pooling="difference")
    experiment = build_experiment(config)
    groups = open_groups(config, experiment.vocabulary)
    message = r'single.en holds single texts, and model.pooling="difference" is for pairs'
    with pytest.raises(ValueError, match=message):
        make_groups(experiment, groups)
    fields = config.evals.xnli
    fields.tasks, fields.split = ("single.en",), "train"
    with jax.set_mesh(experiment.mesh), pytest.raises(ValueError, match=message):
        ClassificationAccuracy("x", fields, experiment.evaluation_context)


def test_an_evaluator_of_unlabelled_text_is_refused(folder):
    config = config_of(folder)
    config.evals.xnli.tasks = ("mlm.en",)
    experiment = build_experiment(config)
    message = r"evals.x.tasks: mlm.en .*labelled with nothing"
    with jax.set_mesh(experiment.mesh), pytest.raises(ValueError, match=message):
        ClassificationAccuracy("x", config.evals.xnli, experiment.evaluation_context)


def test_other_labels_than_those_of_the_data_are_refused(folder, tmp_path):
    config = config_of(folder)
    config.objectives.xnli.labels = ("yes", "no", "maybe")
    with pytest.raises(ValueError, match=r"objectives.xnli.labels=.*is labelled with"):
        train(config, tmp_path)


def test_a_language_the_model_never_saw_is_warned_about_and_scored(folder, caplog):
    config = config_of(folder, data__languages=("en",))
    experiment = build_experiment(config)
    with jax.set_mesh(experiment.mesh):
        evaluator = ClassificationAccuracy("x", config.evals.xnli, experiment.evaluation_context)
        model = experiment.spec.create(jax.random.key(0)).model
        assert "xnli.fr/accuracy" in dict(evaluator.evaluate(model))
    assert "xnli.fr is in 'fr', which data.languages does not list" in caplog.text


# Sweeps.


def test_runs_of_a_sweep_are_points_times_seeds(folder):
    config = config_of(folder)
    config.sweep.points = (
        "optimizer.learning_rate=0.1",
        "optimizer.learning_rate=0.2,train.rows=4",
    )
    config.sweep.seeds = (3, 4)
    runs = runs_of(config)
    assert [(run.config.optimizer.learning_rate, run.config.seed) for run in runs] == [
        (0.1, 3),
        (0.1, 4),
        (0.2, 3),
        (0.2, 4),
    ]
    assert [run.config.train.rows for run in runs] == [8, 8, 4, 4]
    assert runs[2].folder == "optimizer.learning_rate=0.2,train.rows=4,seed=3"
    assert config.optimizer.learning_rate == 1e-2
    assert not runs[0].config.sweep.points
    for points, message in (
        (("optimizer.lr=1",), r"config.sweep.points: 'optimizer.lr=1'"),
        (("train.rows=2", "train.rows=2"), "named twice"),
    ):
        config.sweep.points = points
        with pytest.raises(ValueError, match=message):
            runs_of(config)


def made_up_sweep(folder, tmp_path):
    """Two points, two seeds, two steps, with scores written by hand."""
    config = config_of(folder)
    config.evals.test = base.classification(tasks=("xnli.en", "xnli.fr"), split="test")
    config.sweep.points, config.sweep.seeds = ("train.rows=8", "train.rows=16"), (0, 1)
    config.sweep.select, config.sweep.report = "xnli", "test"
    dev = {  # (point, seed, step) -> en, fr
        (0, 0, 3): (0.6, 0.2), (0, 0, 6): (0.7, 0.3), (1, 0, 3): (0.7, 0.9), (1, 0, 6): (0.1, 0.1),
        (0, 1, 3): (0.5, 0.5), (0, 1, 6): (0.4, 0.6), (1, 1, 3): (0.3, 0.3), (1, 1, 6): (0.2, 0.4),
    }  # fmt: skip
    protocol = {
        "examples": {"xnli.en": 1, "xnli.fr": 1},
        "languages": {"xnli.en": ["en"], "xnli.fr": ["fr"]},
        "source_languages": ["en"],
        "vocabulary": "v",
        "seed": 1,
        "learning_rate": 0.5,
    }
    for number, (run, place) in enumerate(workdirs(config, tmp_path)):
        (place / "eval").mkdir(parents=True)
        for step in (3, 6):
            scores = dev[number // 2, run.seed, step]
            for name, shift in (("xnli", 0.0), ("test", 0.01 * step)):
                values = {
                    f"{task}/accuracy": score + shift
                    for task, score in zip(protocol["examples"], scores, strict=True)
                }
                content = {"step": step, "protocol": protocol, "values": values}
                (place / "eval" / f"{name}-{step}.json").write_text(json.dumps(content))
    return config


def test_a_sweep_is_selected_by_dev_and_reported_by_test(folder, tmp_path):
    config = made_up_sweep(folder, tmp_path)
    text = eval_command.report(config, workdirs(config, tmp_path), tmp_path)
    content = json.loads((tmp_path / "sweep.json").read_text())
    rows = content["rows"]
    # Seed 0: of two with English 0.7 the earlier step, 3 of point 1; seed 1: step 3 of point 0.
    assert rows["source"]["xnli.en"]["mean"] == pytest.approx((0.73 + 0.53) / 2)
    assert rows["source"]["xnli.fr"]["mean"] == pytest.approx((0.93 + 0.53) / 2)
    assert rows["source"]["zero-shot"] == rows["source"]["xnli.fr"]
    deviation = np.std([(0.73 + 0.93) / 2, 0.53], ddof=1)
    assert rows["source"]["average"]["deviation"] == pytest.approx(deviation)
    # French by its own dev: seed 0 0.9 at step 3 of point 1; seed 1 0.6 at step 6 of point 0.
    assert rows["each"]["xnli.fr"]["mean"] == pytest.approx((0.93 + 0.66) / 2)
    assert content["selected"]["each"]["1"]["xnli.fr"] == {
        "point": "train.rows=8", "step": 6, "accuracy": pytest.approx(0.66),
    }  # fmt: skip
    assert content["protocol"]["seeds"] == [0, 1]
    assert content["protocol"]["vocabulary"] == "v"
    assert not {"seed", "learning_rate"} & set(content["protocol"])  # those of the last run
    assert content["protocol"]["sweep"] == ["train.rows=16", "train.rows=8"]
    assert "zero-shot" in text
    assert "73.0 ± 28.3" in text  # French under `source`: 93 and 53
    assert "optimistic" not in text
    config.sweep.report = "xnli"
    assert "optimistic" in eval_command.report(config, workdirs(config, tmp_path), tmp_path)


def test_the_runs_of_a_sweep_on_a_bucket_are_on_the_bucket(folder, tmp_path):
    config = made_up_sweep(folder, tmp_path)
    _, first = workdirs(config, "gs://bucket/sweep")[0]
    assert os.fspath(first / "eval") == "gs://bucket/sweep/train.rows=8,seed=0/eval"


@pytest.mark.slow
def test_a_sweep_trains_and_is_reported_by_the_commands(folder, tmp_path, capsys):
    module = tmp_path / "experiment.py"
    module.write_text(
        "import pathlib\nfrom tests.test_classification import config_of\n\n\n"
        f"def get_config(arg=''):\n    return config_of(pathlib.Path({str(folder)!r}))\n"
    )
    command = [
        f"--config={module}",
        f"--workdir={tmp_path / 'sweep'}",
        "--config.sweep.seeds=(0, 1)",
    ]
    assert cli.main(["eval", *command]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
    assert cli.main(["train", *command]) == 0
    (tmp_path / "sweep" / "seed=1" / "eval" / "xnli-6.json").unlink()
    capsys.readouterr()
    assert cli.main(["eval", *command]) == 0
    out = capsys.readouterr().out
    assert "mean over 2 seeds" in out
    assert "xnli.fr" in out
    content = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert content["protocol"]["steps"] == [3, 6]
    assert cli.main(["eval", *command, "--step=3"]) == 2
