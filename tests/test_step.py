"""Laws of the train step: the result does not depend on how the work is cut up."""

import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.loop_helpers import (
    LENGTH,
    ONE_DEVICE,
    ROWS,
    batch,
    groups,
    leaves,
    make_run,
    make_spec,
    objective,
)
from xlmjax.objectives.base import Objective
from xlmjax.ops import schedules
from xlmjax.parallel import rules
from xlmjax.parallel.mesh import MeshConfig
from xlmjax.parallel.partition import use_rules
from xlmjax.planning.compiled import collectives
from xlmjax.training.state import named_leaves
from xlmjax.training.step import Group, split_rows, total_gradient

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
EIGHT = MeshConfig(data=2, fsdp=2, tensor=2)


@functools.lru_cache
def compiled(mesh=ONE_DEVICE, microbatches=1, parts=None):
    """Return (batches, step) -> loss and named gradient at the initial parameters."""
    run = make_run(mesh)

    @jax.jit
    def compute(model, batches, step):
        with use_rules(run.strategy):
            loss, _, tree = total_gradient(
                parts or groups(), model, batches, jax.random.key(3), step, microbatches
            )
        return loss, tree

    def gradient(batches, step=0):
        with jax.set_mesh(run.mesh):
            loss, tree = compute(run.state.model, run.place(batches), jnp.int32(step))
        return float(loss), leaves(tree)

    return gradient


@pytest.fixture(scope="module")
def reference():
    """Loss and gradient of one batch on one device, unsplit."""
    return compiled()({"mlm": batch(0)})


@pytest.fixture(scope="module")
def one_device():
    return make_run()


def assert_same(actual, expected):
    np.testing.assert_allclose(actual[0], expected[0], **CLOSE)
    assert actual[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        np.testing.assert_allclose(actual[1][name], value, **CLOSE, err_msg=name)


@pytest.mark.parametrize("strategy", sorted(rules.STRATEGIES))
def test_loss_and_gradient_do_not_depend_on_the_sharding(strategy, reference):
    mesh = dataclasses.replace(EIGHT, strategy=strategy)
    assert_same(compiled(mesh)({"mlm": batch(0)}), reference)


@pytest.mark.parametrize("microbatches", [2, 3])
def test_loss_and_gradient_do_not_depend_on_the_microbatches(microbatches, reference):
    assert_same(compiled(microbatches=microbatches)({"mlm": batch(0)}), reference)


def test_microbatches_on_a_mesh_with_replicas(reference):
    mesh = MeshConfig(replica=2, fsdp=2, data=1, tensor=2)
    assert_same(compiled(mesh, 3)({"mlm": batch(0)}), reference)


def test_microbatches_weigh_by_target_not_by_batch():
    """All of one microbatch is empty: a mean of means would halve the loss."""
    rows = batch(0)
    rows["segment_ids"][1::2] = 0
    assert_same(compiled(microbatches=2)({"mlm": rows}), compiled()({"mlm": rows}))


def test_every_row_is_in_one_microbatch_and_stays_on_its_device():
    rows = {"row_ids": jnp.arange(24), "tokens": jnp.arange(48).reshape(24, 2)}
    parts = split_rows(rows, 3)
    np.testing.assert_array_equal(np.sort(parts["row_ids"].reshape(-1)), np.arange(24))
    np.testing.assert_array_equal(parts["tokens"][..., 0] // 2, parts["row_ids"])
    # Device d of 4 holds rows [6d, 6d + 6), so two of the 8 of every microbatch.
    holders = parts["row_ids"].reshape(3, 4, 2) // 6
    np.testing.assert_array_equal(holders, np.broadcast_to(np.arange(4)[:, None], (3, 4, 2)))


def test_groups_add_up_by_their_scheduled_weights(reference):
    first = Group("mlm", objective(), schedules.piecewise(((0, 1.0), (10, 0.0))))
    other = Group("other", objective(), schedules.piecewise(((0, 0.25), (10, 1.0))))
    gradient = compiled(parts=(first, other))
    batches = {"mlm": batch(0), "other": batch(3)}
    (loss, tree), (alone, tree_alone) = gradient(batches, 0), gradient(batches, 10)
    np.testing.assert_allclose(loss, reference[0] + 0.25 * alone, **CLOSE)
    for name, value in tree.items():
        np.testing.assert_allclose(value, reference[1][name] + 0.25 * tree_alone[name], **CLOSE)
    empty = batch(3)
    empty["segment_ids"][:] = 0
    assert_same(gradient({"mlm": batch(0), "other": empty}, 0), reference)


@dataclasses.dataclass(frozen=True, eq=False)
class Failing:
    """An objective that is NaN wherever it is computed."""

    inner: Objective

    def loss(self, *args):
        output = self.inner.loss(*args)
        return dataclasses.replace(output, sum=output.sum * jnp.nan)


@pytest.mark.parametrize(
    ("mesh", "microbatches"), [(ONE_DEVICE, 1), (EIGHT, 1), (ONE_DEVICE, 2)], ids=str
)
def test_an_objective_of_weight_zero_is_not_computed(mesh, microbatches, reference):
    fading = schedules.piecewise(((0, 0.0), (1, 1.0)))
    parts = (*groups(), Group("failing", Failing(objective()), fading))
    gradient = compiled(mesh, microbatches, parts)
    batches = {"mlm": batch(0), "failing": batch(3)}
    assert_same(gradient(batches, 0), reference)
    assert np.isnan(gradient(batches, 1)[0])


def test_tokens_of_an_objective_of_weight_zero_are_not_counted():
    fading = schedules.piecewise(((1, 1.0), (2, 0.0)))
    run = make_run(parts=[*groups(), Group("fading", objective(), fading)])
    batches = {"mlm": batch(0), "fading": batch(3)}
    tokens = [float(run.update(step, batches).real_tokens) for step in range(3)]
    alone, both = (
        sum((batches[name]["segment_ids"] != 0).sum() for name in names)
        for names in (["mlm"], batches)
    )
    assert tokens == [both, both, alone]


def test_training_on_a_mesh_follows_one_device(one_device):
    one_device.reset()
    mesh = make_run(EIGHT)
    for step in range(3):
        a, b = one_device.update(step), mesh.update(step)
        np.testing.assert_allclose(a.loss, b.loss, rtol=1e-5)
        np.testing.assert_allclose(a.grad_norm, b.grad_norm, rtol=1e-4)
    spec = jax.sharding.PartitionSpec(None, "fsdp", "tensor")
    for tree in (mesh.state.model, mesh.state.opt_state["adamw"].mu):
        assert tree.transformer.layers.mlp.wi.kernel.get_value().sharding.spec == spec


@pytest.mark.parametrize("strategy", sorted(rules.STRATEGIES))
def test_the_optimizer_state_lies_as_the_parameters_do(strategy):
    _, spec = make_spec(dataclasses.replace(EIGHT, strategy=strategy))
    parameters = named_leaves(spec.shardings.model)
    moments = named_leaves(spec.shardings.opt_state["adamw"])
    for name, sharding in parameters.items():
        assert moments[f"mu/{name}"] == moments[f"nu/{name}"] == sharding, name
    whole = {name for name, sharding in parameters.items() if sharding.is_fully_replicated}
    assert ("embeddings/tokens" in whole) == (strategy == "data")
    assert "transformer/layers/mlp_norm/scale" in whole


def test_metrics_are_sums_and_weights_of_the_batch(one_device):
    one_device.reset()
    metrics = one_device.update(0)
    assert metrics.real_tokens == np.count_nonzero(batch(0)["segment_ids"])
    group = metrics.groups["mlm"]
    assert metrics.predicted_tokens == group["loss"].weight > 0
    np.testing.assert_allclose(metrics.loss, group["loss"].sum / group["loss"].weight, rtol=1e-6)
    for name in ("language/loss", "task/loss", "language/accuracy"):
        np.testing.assert_allclose(group[name].weight.sum(), metrics.predicted_tokens)
    np.testing.assert_allclose(group["task/loss"].sum.sum(), group["loss"].sum, rtol=1e-5)
    assert np.flatnonzero(group["language/loss"].weight).tolist() == [4, 6]


def test_the_step_is_reproducible_bit_by_bit_and_differs_from_step_to_step(one_device):
    trajectories = []
    for _ in range(2):
        one_device.reset()
        losses = [one_device.update(step).loss for step in range(2)]
        trajectories.append((losses, leaves(one_device.state)))
    (first, state), (second, expected) = trajectories
    assert first == second
    for name, value in state.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    one_device.reset()
    one_device.state.step = one_device.state.step + 1  # other masks and dropout, same parameters
    assert one_device.update(1, {"mlm": batch(0)}).loss != first[0]


def test_one_compilation_a_run_a_warning_for_a_second_and_donation(caplog):
    run = make_run()
    before = run.state.model.embeddings.tokens.get_value()
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            run.update(step)
        assert run.step.compilations == 1
        assert not caplog.records
        assert before.is_deleted()
        run.update(3, {"mlm": batch(3, rows=12)})
    assert run.step.compilations == 2
    assert "train step was compiled again at step 3" in caplog.text


class Poison:
    """An objective that is NaN where a real row begins with token 7."""

    def __init__(self):
        self.inner = objective()

    def loss(self, model, rows, key, step):
        output = self.inner.loss(model, rows, key, step)
        bad = jnp.any((rows["tokens"][:, 0] == 7) & (rows["segment_ids"][:, 0] != 0))
        return dataclasses.replace(output, sum=jnp.where(bad, jnp.nan, output.sum))


def poison_run(**options):
    run = make_run(parts=[Group("mlm", Poison(), schedules.constant(1.0))], **options)
    clean, bad = batch(0), batch(1)
    clean["tokens"][:, 0] = 8
    bad["tokens"][:, 0] = 8
    bad["tokens"][5, 0] = 7
    return run, {"mlm": clean}, {"mlm": bad}


def test_a_nonfinite_loss_leaves_the_state_untouched_until_the_host_looks():
    run, clean, bad = poison_run()
    assert run.update(0, clean).nonfinite == 0
    before = leaves(run.state)
    assert run.update(1, bad).nonfinite == 1
    assert run.update(2, clean).nonfinite == 0  # dispatched before the host knew
    after = leaves(run.state)
    assert before["step"] == after["step"] == 1
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


def test_a_nonfinite_update_is_skipped_where_configured():
    run, clean, bad = poison_run(skip_nonfinite=True)
    run.update(0, clean)
    before = leaves(run.state)
    assert run.update(1, bad).nonfinite == 1
    after = leaves(run.state)
    assert after.pop("step") == before.pop("step") + 1
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert run.update(2, clean).nonfinite == 0
    now = leaves(run.state)
    assert now["step"] == 3
    assert (now["model/embeddings/tokens"] != after["model/embeddings/tokens"]).any()


def test_between_slices_nothing_but_gradients_travels(one_device):
    """A slice is a part of the axis `replica`: loss as on one, and what the program sends there."""
    run = make_run(MeshConfig(replica=2, data=1, fsdp=2, tensor=2))
    one_device.reset()
    for step in range(3):
        a, b = one_device.update(step), run.update(step)
        np.testing.assert_allclose(a.loss, b.loss, rtol=1e-5)
    with jax.set_mesh(run.mesh):
        arguments = run.state, np.int32(0), run.place({"mlm": batch(0)})
        program = run.step.jitted.lower(*arguments).compile().as_text()
    crossing = [x for x in collectives(program, run.mesh) if "replica" in x.axes]
    sums = sum(x.bytes for x in crossing if x.kind == "all-reduce")
    gradients = sum(
        leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(run.state.model)
    )
    # Some whole, where the compiler of CPUs reduces over fsdp at the same time and cuts afterwards.
    assert gradients <= sums < 2 * gradients
    # On a CPU top_k, which chooses targets, gathers the scores of all rows; on a TPU it does not.
    others = [x.shapes for x in crossing if x.kind != "all-reduce"]
    assert [[shape.dimensions for shape in shapes] for shapes in others] == [[(ROWS, LENGTH)]]
