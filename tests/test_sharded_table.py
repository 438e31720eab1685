"""A table split over a mesh: lookup and head are those of one device, and nobody holds it whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlmjax.ops.cross_entropy import token_losses
from xlmjax.ops.embedding import lookup
from xlmjax.ops.mesh_axes import WHOLE, TableAxes
from xlmjax.parallel import mesh, rules
from xlmjax.parallel.partition import batch_sharding, mesh_axes, use_rules
from xlmjax.planning.compiled import collectives, instructions

V, E, B, L = 44, 16, 8, 7  # rows, and positions of a row
SPEC = jax.sharding.PartitionSpec


def axes_of(strategy):
    with use_rules(strategy):
        return TableAxes(*mesh_axes("act_batch", "vocab", "embed"))


def split(strategy, **sizes):
    return mesh.make_mesh(mesh.MeshConfig(**(sizes or {"fsdp": 2, "tensor": 2}), strategy=strategy))


def on(over, axes, table, bias, *rows):
    """Return the arguments where training has them."""
    layouts = (axes.table, axes.words, *(axes.batch for _ in rows))
    return [
        jax.device_put(x, jax.sharding.NamedSharding(over, layout))
        for x, layout in zip((table, bias, *rows), layouts, strict=True)
    ]


def draw(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 5)
    table = 2 * jax.random.normal(keys[0], (V, E))
    bias = jax.random.normal(keys[1], (V,))
    hidden = jax.random.normal(keys[2], (B * L, E), dtype)
    ids = jax.random.randint(keys[3], (B, L), 0, V)
    return table, bias, hidden, ids, jax.random.normal(keys[4], (B, L, E))


def head(axes, tile):
    """Return (table, bias, hidden, targets) -> a loss with every output in it, and the outputs."""

    def loss(table, bias, hidden, targets):
        losses = token_losses(hidden, table, bias, targets, tile, axes)
        weights = jnp.arange(targets.size) / 9.0
        return (weights * (losses.nll + 0.01 * losses.log_normalizer**2)).sum(), losses

    return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)


@pytest.mark.parametrize("tile", [0, 4, 9])
@pytest.mark.parametrize("strategy", sorted(rules.STRATEGIES))
def test_head_does_not_depend_on_the_sharding(strategy, tile):
    table, bias, hidden, ids, _ = draw()
    targets = ids.reshape(-1)
    (total, losses), gradients = head(WHOLE, 0)(table, bias, hidden, targets)
    over = split(strategy)
    with jax.set_mesh(over):
        axes = axes_of(strategy)
        arguments = on(over, axes, table, bias, hidden, targets)
        found = jax.jit(head(axes, tile))(*arguments)
    np.testing.assert_allclose(found[0][0], total, rtol=1e-5)
    np.testing.assert_array_equal(found[0][1].correct, losses.correct)
    np.testing.assert_allclose(found[0][1].nll, losses.nll, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(found[1], gradients, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strategy", sorted(rules.STRATEGIES))
def test_lookup_does_not_depend_on_the_sharding(strategy):
    table, bias, _, ids, weights = draw()

    def loss(table, ids, weights, axes):
        x = lookup(table, ids, axes)
        return jnp.sum(x * weights), x

    expected, expected_rows = jax.grad(loss, has_aux=True)(table, ids, weights, WHOLE)
    np.testing.assert_array_equal(expected_rows, table[ids])
    by_hand = np.zeros((V, E))
    np.add.at(by_hand, np.asarray(ids), weights)
    np.testing.assert_allclose(expected, by_hand, rtol=1e-5, atol=1e-6)
    over = split(strategy)
    with jax.set_mesh(over):
        axes = axes_of(strategy)
        table, _, ids, weights = on(over, axes, table, bias, ids, weights)
        gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnums=3)
        actual, rows = gradient(table, ids, weights, axes)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
    assert actual.sharding.is_equivalent_to(table.sharding, 2)


def test_no_device_makes_all_logits_or_holds_the_whole_table():
    """Of 2 x 2 shards of 22 words and 8 columns, tiles of 4 words of the whole width travel."""
    table, bias, hidden, ids, weights = draw()
    over = split("fsdp_tensor")
    with jax.set_mesh(over):
        axes = axes_of("fsdp_tensor")

        def step(table, bias, ids, hidden, weights):
            x, back = jax.vjp(lambda table: lookup(table, ids, axes), table)
            return x, back(weights), head(axes, 4)(table, bias, hidden, ids.reshape(-1))

        arguments = on(over, axes, table, bias, ids, hidden, weights)
        text = jax.jit(step).lower(*arguments).compile().as_text()
    shapes = {shape.dimensions for x in instructions(text) for shape in x.shapes}
    assert (V // 2, E // 2) in shapes  # the shard
    assert not shapes & {(V, E), (V // 2, E), (V, E // 2)}
    rows = B * L // 4
    assert (rows, 4) in shapes
    assert not shapes & {(rows, V // 2), (rows, V), (B * L, V), (B * L, V // 2)}
    found = collectives(text, over)
    gathered = [x for x in found if x.kind == "all-gather" and x.shapes[0].dtype == "f32"]
    assert {x.shapes[0].dimensions for x in gathered} == {(4, E)}
    assert {x.axes for x in gathered} == {("fsdp",)}
    assert {x.times for x in gathered} == {6}  # ceil(22 / 4) tiles, both ways


def test_batch_axes_are_those_of_the_batch():
    over = split("fsdp_tensor", replica=2, fsdp=2, tensor=2)
    with jax.set_mesh(over):
        axes = axes_of("fsdp_tensor")
    assert axes == TableAxes(("replica", "fsdp"), ("tensor",), ("fsdp",))
    mine = jax.sharding.NamedSharding(over, axes.batch)
    assert mine.is_equivalent_to(batch_sharding(over), 2)
    assert axes_of("fsdp_tensor") == WHOLE  # without a mesh


@pytest.mark.parametrize("strategy", sorted(rules.STRATEGIES))
def test_the_width_is_split_over_devices_with_rows_of_their_own(strategy):
    """What `TableAxes` asks for."""
    table = dict(rules.STRATEGIES[strategy])
    embed = table.get("embed", ())
    assert {embed} if isinstance(embed, str) else set(embed) <= set(table["act_batch"])
    assert table.get("vocab") not in table["act_batch"]
