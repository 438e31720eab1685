"""A table of embeddings split over a mesh: which axes, and how a function runs on its shards."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Int, Shaped


class TableAxes(NamedTuple):
    """Mesh axes that a table [v, e], and the rows of the batch that use it, are split over.

    `embed` must be among `rows` (the devices that share the width of a word hold different rows,
    as under fsdp), `vocab` must not.
    """

    rows: tuple[str, ...] = ()
    vocab: tuple[str, ...] = ()
    embed: tuple[str, ...] = ()

    @property
    def table(self) -> PartitionSpec:
        """Layout of the table, [v, e]."""
        return PartitionSpec(self.vocab, self.embed)

    @property
    def words(self) -> PartitionSpec:
        """Layout of what there is one of a word, [v]."""
        return PartitionSpec(self.vocab)

    @property
    def batch(self) -> PartitionSpec:
        """Layout of ids, states and losses: rows first."""
        return PartitionSpec(self.rows)

    @property
    def logits(self) -> PartitionSpec:
        """Layout of logits, [n, v]."""
        return PartitionSpec(self.rows, self.vocab)

    def run(self, shard: Callable, inputs: tuple, outputs: Any, *arguments: Any) -> Any:
        """Return `shard(*arguments)`, run on the shards of its arguments (layouts `inputs`).

        All collectives are those that `shard` names: nothing differentiates through here.
        """
        if not (self.rows or self.vocab):
            return shard(*arguments)
        mapped = jax.shard_map(shard, in_specs=inputs, out_specs=outputs, check_vma=False)
        return mapped(*arguments)

    def first_word(self, table: Shaped[Array, "w e"]) -> int | Int[Array, ""]:
        """Return the id of the first word of this device's shard."""
        return jax.lax.axis_index(self.vocab) * table.shape[0] if self.vocab else 0

    def gather(self, x: Shaped[Array, "..."], axis: int) -> Shaped[Array, "..."]:
        """Return the parts of `x` of the devices that share the width, side by side."""
        if not self.embed:
            return x
        return jax.lax.all_gather(x, self.embed, axis=axis, tiled=True)

    def scatter_sum(self, x: Shaped[Array, "w e"]) -> Shaped[Array, "w c"]:
        """Return this device's columns of the sum over the devices that share the width."""
        if not self.embed:
            return x
        return jax.lax.psum_scatter(x, self.embed, scatter_dimension=1, tiled=True)

    def exchange(self, x: Shaped[Array, "..."], split: int, join: int) -> Shaped[Array, "..."]:
        """Return `x` cut along axis `split` among those devices, and joined along axis `join`."""
        if not self.embed:
            return x
        return jax.lax.all_to_all(x, self.embed, split, join, tiled=True)

    def sum_gradient(self, x: Shaped[Array, "w ..."], whole: bool) -> Shaped[Array, "w ..."]:
        """Return the sum over the devices that hold the same part of a parameter.

        `whole` says that it is not split along the width.
        """
        return jax.lax.psum(x, tuple(a for a in self.rows if whole or a not in self.embed))


WHOLE = TableAxes()  # everything on one device
