"""Which tiles of scores a fused kernel computes, and which scores and weights in them count."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from xlmjax.ops.dropout import Dropout, kept

MASKED = -1e30  # a score that does not count


def shared_tiles(
    segment_ids: Int[Array, "b q"], kv_segment_ids: Int[Array, "b k"], causal: bool, tile: int
) -> Bool[Array, "b i j"]:
    """Return whether query tile i may see a key of tile j, tiles being `tile` positions long.

    Judged by the least and greatest segment of each tile: exact where segments do not decrease
    along a row, and never wrong where they do. Padding (segment 0) does not count.
    """
    low_q, high_q = _extents(segment_ids, tile)
    low_k, high_k = _extents(kv_segment_ids, tile)
    shared = low_q[:, :, None] <= high_k[:, None, :]
    shared &= low_k[:, None, :] <= high_q[:, :, None]
    if causal:
        queries, keys = np.ogrid[: shared.shape[1], : shared.shape[2]]
        shared &= queries >= keys
    return shared


def spans(shared: Bool[Array, "b i j"]) -> tuple[Int[Array, "b i"], Int[Array, "b i"]]:
    """Return the first j of each i, and one past the last: what the kernels compute.

    Without any it is (j, 0), so that minima and maxima over several i are their common span.
    """
    numbers = jnp.arange(shared.shape[2], dtype=jnp.int32)
    start = jnp.where(shared, numbers, shared.shape[2]).min(axis=2)
    return start, jnp.where(shared, numbers + 1, 0).max(axis=2)


def _extents(
    segment_ids: Int[Array, "b l"], tile: int
) -> tuple[Int[Array, "b n"], Int[Array, "b n"]]:
    """Return the least and the greatest segment of each tile; of padding alone, an empty range."""
    batch, length = segment_ids.shape
    ids = jnp.pad(segment_ids, [(0, 0), (0, -length % tile)]).reshape(batch, -1, tile)
    limits = jnp.iinfo(ids.dtype)
    return (
        jnp.where(ids == 0, limits.max, ids).min(axis=2),
        jnp.where(ids == 0, limits.min, ids).max(axis=2),
    )


@dataclasses.dataclass(frozen=True)
class TileMask:
    """What counts in the scores of a pair of tiles, for use inside a kernel."""

    tile: int
    query_axis: int  # of the scores of two tiles; keys have the other
    causal: bool
    rate: float  # of dropout
    num_keys: int  # of a row before padding

    def visible(
        self,
        ids: Int[Array, "..."],
        kv_ids: Int[Array, "..."],
        query_tile: Int[Array, ""],
        key_tile: Int[Array, ""],
    ) -> Bool[Array, "t t"]:
        """Return which scores count; segments of queries and keys have their axis, and one of 1."""
        seen = (ids == kv_ids) & (kv_ids != 0)
        if self.causal:
            queries, keys = self._places()
            seen &= query_tile * self.tile + queries >= key_tile * self.tile + keys
        return seen

    def kept(
        self,
        seeds: tuple[UInt32[Array, ""], UInt32[Array, ""]],
        query_tile: Int[Array, ""],
        key_tile: Int[Array, ""],
    ) -> Bool[Array, "t t"]:
        """Return what `Dropout` keeps of weights [queries, keys] of a head with these seeds."""
        queries, keys = (place.astype(jnp.uint32) for place in self._places())
        corner = (query_tile * self.tile * self.num_keys + key_tile * self.tile).astype(jnp.uint32)
        index = queries * jnp.uint32(self.num_keys) + keys
        return kept(index, seeds[0] + corner, seeds[1], self.rate)

    def _places(self) -> tuple[Int[Array, "t t"], Int[Array, "t t"]]:
        """Return the place of the query and of the key inside their tiles."""
        shape = (self.tile, self.tile)
        queries, keys = (
            jax.lax.broadcasted_iota(jnp.int32, shape, axis)
            for axis in (self.query_axis, 1 - self.query_axis)
        )
        return queries, keys


def rate_of(dropout: Dropout | None) -> float:
    """Return the share of weights that is dropped."""
    return 0.0 if dropout is None else dropout.rate
