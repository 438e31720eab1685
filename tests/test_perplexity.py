"""Held-out perplexity: fixed masks, every example once, the same on any mesh and batch size."""

import json
import math
import shutil
import typing

import jax
import numpy as np
import pytest

from tests.small_run import TASKS, small_config, write_data
from xlmjax.configs import base
from xlmjax.data.mixture import resolve_names
from xlmjax.evaluation import Perplexity, make_evaluators
from xlmjax.evaluation.base import Every, Final, Scheduled
from xlmjax.experiment import build_experiment


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(scope="module")
def host_model(folder):
    experiment = build_experiment(small_config(folder))
    return jax.device_get(experiment.spec.init(jax.random.key(0)).model)


def score(folder, host_model, tasks=tuple(TASKS), rows=8, objective="masked_lm", **flat):
    config = small_config(folder, **flat)
    fields = base.perplexity(tasks, rows=rows, objective=objective, rate=0.3)
    experiment = build_experiment(config)
    with jax.set_mesh(experiment.mesh):
        model = jax.tree.map(jax.device_put, host_model, experiment.spec.shardings.model)
        evaluator = Perplexity("held_out", fields, experiment.evaluation_context)
        return dict(evaluator.evaluate(model)), evaluator


@pytest.fixture(scope="module")
def reference(folder, host_model):
    return score(folder, host_model)


@pytest.fixture(scope="module")
def causal_reference(folder, host_model):
    return score(folder, host_model, objective="causal_lm")


def assert_close(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("rows", "mesh"),
    [
        (24, {}),
        (2, {"mesh__data": 2, "mesh__fsdp": 1, "mesh__tensor": 4}),
        (4, {"mesh__fsdp": 2, "mesh__tensor": 2}),
    ],
)
@pytest.mark.parametrize("objective", ["masked_lm", "causal_lm"])
def test_scores_depend_on_neither_mesh_nor_rows_a_batch(
    folder, host_model, reference, causal_reference, rows, mesh, objective
):
    expected = {"masked_lm": reference, "causal_lm": causal_reference}[objective][0]
    assert_close(score(folder, host_model, rows=rows, objective=objective, **mesh)[0], expected)


def test_masks_do_not_depend_on_what_else_is_evaluated(folder, host_model, reference):
    alone, _ = score(folder, host_model, tasks=("mlm.fr",))
    for metric in ("loss", "accuracy", "perplexity"):
        name = f"mlm.fr/{metric}"
        assert alone[name] == pytest.approx(reference[0][name], rel=1e-6)


def test_every_metric_has_its_name(reference):
    values, _ = reference
    owners = {name.rpartition("/")[0] for name in values}
    assert owners == {"mlm.en", "mlm.fr", "tlm.en_fr", "en", "fr", "mlm/average", "tlm/average"}
    for owner in owners:
        assert values[f"{owner}/accuracy"] <= 1.0
        if owner != "mlm/average":
            assert values[f"{owner}/perplexity"] == pytest.approx(math.exp(values[f"{owner}/loss"]))


def test_averages_are_over_tasks_as_xlm_does(reference):
    values, _ = reference
    for metric in ("loss", "perplexity", "accuracy"):
        mean = (values[f"mlm.en/{metric}"] + values[f"mlm.fr/{metric}"]) / 2
        assert values[f"mlm/average/{metric}"] == pytest.approx(mean)


def test_bits_a_byte_of_causal_text_are_its_whole_loss_over_its_bytes(folder, host_model):
    values, evaluator = score(folder, host_model, tasks=("mlm.en",), objective="causal_lm")
    [task] = evaluator._tasks
    experiment = build_experiment(small_config(folder))
    with jax.set_mesh(experiment.mesh):
        model = jax.tree.map(jax.device_put, host_model, experiment.spec.shardings.model)
        nats, _ = evaluator._total(model, task)["loss"]
    expected = nats / math.log(2) / task.store.manifest.bytes["tokens"]
    assert values["mlm.en/bits_per_byte"] == pytest.approx(expected)


def test_bits_a_byte_of_pairs_count_words_and_inner_ends(reference):
    values, evaluator = reference
    manifest = evaluator._tasks[-1].store.manifest
    assert manifest.task == "tlm.en_fr"
    symbols = sum(manifest.tokens.values()) + 2 * manifest.examples  # </s> a [</s> </s>] b </s>
    expected = values["tlm.en_fr/loss"] / math.log(2) * symbols / sum(manifest.bytes.values())
    assert values["tlm.en_fr/bits_per_byte"] == pytest.approx(expected)


def test_held_out_pairs_longer_than_a_training_row_are_scored_too(folder, host_model, reference):
    """Law 12 of XLM: evaluation is never filtered or truncated."""
    _, evaluator = score(folder, host_model, tasks=("tlm",), train__length=12)
    [task] = evaluator._tasks
    assert task.layout.dropped == {}
    assert task.layout.longest > 12
    assert task.layout.length == 32  # a multiple of 64, but no more than the model has positions
    assert task.layout.num_tokens == reference[1]._tasks[-1].layout.num_tokens
    assert evaluator.protocol["tasks"]["tlm.en_fr"]["length"] == 32


def test_a_held_out_pair_that_the_model_has_no_positions_for_is_refused(folder):
    config = small_config(folder, train__length=12, model__max_positions=12)
    context = build_experiment(config).evaluation_context
    with pytest.raises(
        ValueError,
        match=r"evals.held_out: the longest example of tlm.en_fr .* model.max_positions=12: raise",
    ):
        Perplexity("held_out", base.perplexity(("tlm",), rows=8), context)


def test_every_example_counts_once_and_a_random_model_is_near_uniform(
    folder, host_model, reference
):
    values, evaluator = reference
    task = evaluator._tasks[0]
    experiment = build_experiment(small_config(folder))
    with jax.set_mesh(experiment.mesh):
        model = jax.tree.map(jax.device_put, host_model, experiment.spec.shardings.model)
        total = evaluator._total(model, task)
    assert total["loss"][1] == pytest.approx(0.3 * task.layout.num_tokens, rel=0.25)
    assert values["mlm/average/loss"] == pytest.approx(math.log(60), rel=0.25)


def test_causal_scores_predict_every_next_token(folder, host_model):
    values, evaluator = score(folder, host_model, tasks=("mlm.en",), objective="causal_lm")
    assert values["mlm.en/loss"] == pytest.approx(math.log(60), rel=0.25)
    task = evaluator._tasks[0]
    experiment = build_experiment(small_config(folder))
    with jax.set_mesh(experiment.mesh):
        model = jax.tree.map(jax.device_put, host_model, experiment.spec.shardings.model)
        total = evaluator._total(model, task)
    assert total["loss"][1] == task.layout.num_tokens - task.layout.num_rows


def test_rows_that_do_not_divide_are_refused(folder, host_model):
    with pytest.raises(
        ValueError, match=r"evals.held_out.rows=6 is not divisible by .* = 8: use 8"
    ):
        score(folder, host_model, rows=6)


def test_an_unknown_objective_is_refused(folder, host_model):
    with pytest.raises(
        ValueError, match=r"evals.held_out.objective='mlm' is unknown; known: causal"
    ):
        score(folder, host_model, objective="mlm")


def test_timings_are_apart_from_what_is_measured():
    due = [step for step in range(8) if Every(3).is_due(step, 7) or Final().is_due(step, 7)]
    assert due == [3, 6, 7]
    assert not Every(0).is_due(0, 7)


def test_an_error_tells_evaluator_and_step():
    class Broken:
        protocol: typing.ClassVar = {}

        def evaluate(self, model):
            yield "a", 1.0
            raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError) as caught:
        Scheduled("xnli", Broken(), (Final(),)).run(None, 12)
    assert "in evaluator 'xnli' (config.evals.xnli) at step 12" in caught.value.__notes__


def test_evaluators_come_from_the_config(folder):
    config = small_config(folder)
    config.evals.b = base.perplexity(("mlm",), rows=8, every=5)
    config.evals.a = base.perplexity(("tlm",), rows=8)
    experiment = build_experiment(config)
    made = make_evaluators(experiment.evaluation_context)
    assert [scheduled.name for scheduled in made] == ["a", "b"]
    assert made[1].is_due(5, 100)
    assert not made[0].is_due(5, 100)


def test_a_task_that_only_a_mixture_names_may_be_named_itself(folder, tmp_path):
    """As `open_uncut` does, and as a user may who wants one pair of many."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    mixtures = {"tlm": {"tasks": ["tlm.en_fr"], "rates": None}}
    (tmp_path / "stores" / "mixture.json").write_text(json.dumps(mixtures))
    data = small_config(tmp_path).data
    assert resolve_names(data, ["tlm.en_fr", "tlm"]) == ("tlm.en_fr",)
    with pytest.raises(ValueError, match=r"no prepared mixture 'tlm.de_en'; run .*"):
        resolve_names(data, ["tlm.de_en"])
