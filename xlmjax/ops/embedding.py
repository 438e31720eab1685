"""Looking words up in a table that is split over a mesh."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from xlmjax.ops.mesh_axes import WHOLE, TableAxes


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def lookup(
    table: Float[Array, "v e"], ids: Int[Array, "b l"], axes: TableAxes = WHOLE
) -> Float[Array, "b l e"]:
    """Return table[ids]; only activations travel, and the gradient is scattered into the shards.

    Where the width is split (fsdp), each device reads its columns for the rows of the whole group,
    and rows are then exchanged for columns; where the words are (tensor), a device reads those
    that it holds and the results are added up. XLA's own partitioner gathers the table instead.
    """

    def shard(table: Float[Array, "w c"], ids: Int[Array, "b l"]) -> Float[Array, "b l e"]:
        words, here = _local(table, ids, axes)
        x = jnp.where(here[..., None], table[words], 0) if axes.vocab else table[words]
        return axes.exchange(jax.lax.psum(x, axes.vocab), 0, 2)

    return axes.run(shard, (axes.table, axes.batch), axes.batch, table, ids)


def _forward(
    table: Float[Array, "v e"], ids: Int[Array, "b l"], axes: TableAxes
) -> tuple[Float[Array, "b l e"], tuple[Array, Array]]:
    return lookup(table, ids, axes), (table, ids)


def _backward(
    axes: TableAxes, residuals: tuple[Array, Array], gradient: Float[Array, "b l e"]
) -> tuple[Float[Array, "v e"], None]:
    def shard(
        table: Float[Array, "w c"], ids: Int[Array, "b l"], gradient: Float[Array, "b l e"]
    ) -> Float[Array, "w c"]:
        words, here = _local(table, ids, axes)
        columns = axes.exchange(gradient, 2, 0)
        words = jnp.where(here, words, table.shape[0])  # of another shard: out of bounds
        summed = jnp.zeros_like(table).at[words].add(columns.astype(table.dtype), mode="drop")
        return axes.sum_gradient(summed, whole=False)

    inputs = (axes.table, axes.batch, axes.batch)
    return axes.run(shard, inputs, axes.table, *residuals, gradient), None


def _local(
    table: Float[Array, "w c"], ids: Int[Array, "b l"], axes: TableAxes
) -> tuple[Int[Array, "r l"], Array]:
    """Return the rows of the shard that the ids of the whole group name, and which are here."""
    words = axes.gather(ids, axis=0) - axes.first_word(table)
    return words, (words >= 0) & (words < table.shape[0])


lookup.defvjp(_forward, _backward)
