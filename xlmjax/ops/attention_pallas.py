"""Fused attention for packed rows, on TPUs: tiles of keys that share no segment are skipped.

Queries and keys are cut into tiles of 128. A prefetched range of key tiles for each query tile (and
of query tiles for each key tile, in the backward pass) bounds the loops inside the kernels, so the
work follows the sum of the squared lengths of the segments. Online softmax (Milakov & Gimelshein
2018) in float32 and gradients by recomputation (Dao et al. 2022, algorithm 4).

Scores are held transposed, keys along sublanes and queries along lanes: what there is one of for
each query (maximum, sum, segment) is then a row of lanes, which needs no padding in memory.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int

from xlmjax.ops.attention_tiles import MASKED, TileMask, rate_of, shared_tiles, spans
from xlmjax.ops.dropout import Dropout

TILE = 128  # of queries and of keys: the unit that is computed or skipped
# Of queries, keys, ... in fast memory at a time. The backward kernel holds 14 such windows and
# three of float32: 10 MiB of the 16 that a program may have.
_WINDOW_BYTES = 2**19


def mix(
    q: Float[Array, "b q h d"],
    k: Float[Array, "b k h d"],
    v: Float[Array, "b k h d"],
    segment_ids: Int[Array, "b q"],
    kv_segment_ids: Int[Array, "b k"],
    dropout: Dropout | None,
    *,
    causal: bool,
    interpret: bool,
) -> Float[Array, "b q h d"]:
    """Return softmax(q k) v over the visible keys; `dropout` has seeds for each head."""
    return _mix(causal, interpret, q, k, v, segment_ids, kv_segment_ids, dropout)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _mix(causal: bool, interpret: bool, *inputs):
    return _forward(causal, interpret, *inputs)[0]


def _forward(causal: bool, interpret: bool, q, k, v, segment_ids, kv_segment_ids, dropout):
    batch, num_queries, heads, width = q.shape
    queries, keys = _Side.of(q), _Side.of(k)
    ids, kv_ids = queries.tiled(segment_ids), keys.tiled(kv_segment_ids)
    shared = shared_tiles(_flat(ids), _flat(kv_ids), causal, TILE)
    scalars, own, other = _scalars(queries, keys, shared, dropout)
    vectors, numbers, query_ids = _blocks(queries, width, own)
    key_vectors, _, key_ids = _blocks(keys, width, other)
    out, lse = pl.pallas_call(
        functools.partial(_forward_kernel, queries, keys, _mask(causal, dropout, k.shape[1])),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(scalars),
            grid=(batch, heads, queries.windows, keys.windows),
            in_specs=[query_ids, key_ids, vectors, key_vectors, key_vectors],
            out_specs=[vectors, numbers],
            scratch_shapes=[
                pltpu.VMEM((queries.tiles, 1, TILE), jnp.float32),
                pltpu.VMEM((queries.tiles, 1, TILE), jnp.float32),
                pltpu.VMEM((queries.tiles, width, TILE), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct((batch, heads, queries.length, width), v.dtype),
            jax.ShapeDtypeStruct((batch, heads, queries.length // TILE, 1, TILE), jnp.float32),
        ],
        compiler_params=_LAST_AXIS_IN_ORDER,
        interpret=interpret,
        name="attention_forward",
    )(*scalars, ids, kv_ids, queries.heads_first(q), keys.heads_first(k), keys.heads_first(v))
    out = _heads_last(out, num_queries)
    return out, (q, k, v, segment_ids, kv_segment_ids, dropout, out, lse)


def _backward(causal: bool, interpret: bool, residuals, gradient):
    q, k, v, segment_ids, kv_segment_ids, dropout, out, lse = residuals
    batch, num_queries, heads, width = q.shape
    queries, keys = _Side.of(q), _Side.of(k)
    ids, kv_ids = queries.tiled(segment_ids), keys.tiled(kv_segment_ids)
    shared = shared_tiles(_flat(ids), _flat(kv_ids), causal, TILE).swapaxes(1, 2)
    scalars, own, other = _scalars(keys, queries, shared, dropout)
    vectors, _, key_ids = _blocks(keys, width, own)
    query_vectors, numbers, query_ids = _blocks(queries, width, other)
    # The gradient of a score is its weight times (gradient of the weight - this sum over keys).
    sums = jnp.einsum("bqhd,bqhd->bhq", out, gradient, preferred_element_type=jnp.float32)
    # Gradients of queries are whole only in one window of keys; parts of them add up in float32.
    partial = q.dtype if keys.windows == 1 else jnp.float32
    dq, dk, dv = pl.pallas_call(
        functools.partial(_backward_kernel, queries, keys, _mask(causal, dropout, k.shape[1])),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(scalars),
            grid=(batch, heads, keys.windows, queries.windows),
            in_specs=[
                query_ids,
                key_ids,
                query_vectors,
                vectors,
                vectors,
                query_vectors,
                numbers,
                numbers,
            ],
            out_specs=[
                pl.BlockSpec(
                    (1, 1, 1, queries.window, width), lambda b, h, j, i, *_: (j, b, h, i, 0)
                ),
                vectors,
                vectors,
            ],
            scratch_shapes=[
                pltpu.VMEM((queries.tiles, TILE, width), jnp.float32),
                pltpu.VMEM((keys.tiles, TILE, width), jnp.float32),
                pltpu.VMEM((keys.tiles, TILE, width), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct((keys.windows, batch, heads, queries.length, width), partial),
            jax.ShapeDtypeStruct((batch, heads, keys.length, width), k.dtype),
            jax.ShapeDtypeStruct((batch, heads, keys.length, width), v.dtype),
        ],
        compiler_params=_LAST_AXIS_IN_ORDER,
        interpret=interpret,
        name="attention_backward",
    )(
        *scalars,
        ids,
        kv_ids,
        queries.heads_first(q),
        keys.heads_first(k),
        keys.heads_first(v),
        queries.heads_first(gradient),
        lse,
        queries.tiled(sums),
    )
    dq = _heads_last(dq.sum(axis=0).astype(q.dtype), num_queries)
    return dq, _heads_last(dk, k.shape[1]), _heads_last(dv, k.shape[1]), None, None, None


_mix.defvjp(_forward, _backward)

# Results of the other axes of a grid are independent of each other: a chip with two cores shares.
_LAST_AXIS_IN_ORDER = pltpu.CompilerParams(
    dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")
)


@dataclasses.dataclass(frozen=True)
class _Side:
    """How the queries, or the keys, of a row are cut into windows, and those into tiles."""

    tiles: int  # a window
    windows: int

    @classmethod
    def of(cls, x: Float[Array, "b l h d"]) -> "_Side":
        tiles = pl.cdiv(x.shape[1], TILE)
        lanes = pl.cdiv(x.shape[3], 128) * 128
        windows = pl.cdiv(tiles * TILE * lanes * x.dtype.itemsize, _WINDOW_BYTES)
        return cls(pl.cdiv(tiles, windows), windows)

    @property
    def window(self) -> int:
        return self.tiles * TILE

    @property
    def length(self) -> int:
        """Of a padded row."""
        return self.window * self.windows

    def tiled(self, x: Array) -> Array:
        """Return what there is one of for each position, [... l], as [... tiles 1 lanes]."""
        padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, self.length - x.shape[-1])])
        return padded.reshape(*x.shape[:-1], -1, 1, TILE)

    def heads_first(self, x: Float[Array, "b l h d"]) -> Float[Array, "b h m d"]:
        return jnp.pad(
            x.transpose(0, 2, 1, 3), [(0, 0), (0, 0), (0, self.length - x.shape[1]), (0, 0)]
        )


def _heads_last(x: Float[Array, "b h m d"], length: int) -> Float[Array, "b l h d"]:
    return x[:, :, :length].transpose(0, 2, 1, 3)


def _flat(ids: Int[Array, "b n 1 t"]) -> Int[Array, "b l"]:
    return ids.reshape(ids.shape[0], -1)


def _scalars(outer: _Side, inner: _Side, shared: Bool[Array, "b i j"], dropout: Dropout | None):
    """Return what is known before a kernel starts, and the windows that a step of its grid takes.

    Known are, for each outer tile, the span of inner tiles, for each outer window the first and the
    last inner window, and two seed words a head; flat, since scalar memory pads the last axis.
    """
    start, stop = spans(shared)
    shape = (start.shape[0], outer.windows, outer.tiles)
    first = start.reshape(shape).min(axis=2) // inner.tiles
    last = (stop.reshape(shape).max(axis=2) - 1) // inner.tiles
    seeds = jnp.zeros(2, jnp.uint32) if dropout is None else dropout.seeds

    def own(row, outer_window, inner_window, *_):
        return outer_window

    def other(row, outer_window, inner_window, start, stop, first, last, seeds):
        """Stay inside the span: a window that is not computed on is not fetched either."""
        place = row * outer.windows + outer_window
        return jnp.maximum(jnp.clip(inner_window, first[place], last[place]), 0)

    return [x.reshape(-1) for x in (start, stop, first, last, seeds)], own, other


def _blocks(side: _Side, width: int, window):
    """Return the blocks of a window: vectors and numbers of a head, and ids of segments."""
    return (
        pl.BlockSpec(
            (1, 1, side.window, width), lambda b, h, i, j, *refs: (b, h, window(b, i, j, *refs), 0)
        ),
        pl.BlockSpec(
            (1, 1, side.tiles, 1, TILE),
            lambda b, h, i, j, *refs: (b, h, window(b, i, j, *refs), 0, 0),
        ),
        pl.BlockSpec(
            (1, side.tiles, 1, TILE), lambda b, h, i, j, *refs: (b, window(b, i, j, *refs), 0, 0)
        ),
    )


def _mask(causal: bool, dropout: Dropout | None, num_keys: int) -> TileMask:
    return TileMask(TILE, 1, causal, rate_of(dropout), num_keys)


def _column(row: Int[Array, "1 t"]) -> Int[Array, "t 1"]:
    return jnp.broadcast_to(row, (8, TILE)).T[:, :1]


def _dot(a, b, contract: tuple[int, int]):
    """Return the product of two tiles over an axis of each, in float32."""
    return jax.lax.dot_general(
        a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=jnp.float32
    )


def _tile(number):
    return pl.ds(pl.multiple_of(number * TILE, TILE), TILE)


def _span(start_ref, stop_ref, place, inner: _Side, window):
    """Return the tiles of a window inside the span at a place, numbered inside the window."""
    first = window * inner.tiles
    return (
        jnp.maximum(start_ref[place] - first, 0),
        jnp.minimum(stop_ref[place] - first, inner.tiles),
    )


def _seeds(seeds_ref, row, head, mask: TileMask):
    if not mask.rate:
        return None
    place = 2 * (row * pl.num_programs(1) + head)
    return seeds_ref[place], seeds_ref[place + 1]


def _forward_kernel(
    queries: _Side,
    keys: _Side,
    mask: TileMask,
    start_ref,
    stop_ref,
    _first_ref,
    _last_ref,
    seeds_ref,
    ids_ref,
    kv_ids_ref,
    q_ref,
    k_ref,
    v_ref,
    out_ref,
    lse_ref,
    max_ref,
    sum_ref,
    acc_ref,
):
    row, head, window, key_window = (pl.program_id(axis) for axis in range(4))
    seeds = _seeds(seeds_ref, row, head, mask)

    @pl.when(key_window == 0)
    def _():
        max_ref[...] = jnp.full_like(max_ref, MASKED)
        sum_ref[...] = jnp.zeros_like(sum_ref)
        acc_ref[...] = jnp.zeros_like(acc_ref)

    def per_query_tile(t, _):
        query_tile = window * queries.tiles + t
        q, ids = q_ref[0, 0, _tile(t)], ids_ref[0, t]

        def per_key_tile(s, state):
            largest, total, acc = state
            key_tile = key_window * keys.tiles + s
            k, v, kv_ids = k_ref[0, 0, _tile(s)], v_ref[0, 0, _tile(s)], kv_ids_ref[0, s]
            seen = mask.visible(ids, _column(kv_ids), query_tile, key_tile)
            scores = jnp.where(seen, _dot(k, q, (1, 1)), MASKED)
            larger = jnp.maximum(largest, scores.max(axis=0, keepdims=True))
            weights = jnp.where(seen, jnp.exp(scores - larger), 0)
            shrink = jnp.exp(largest - larger)
            total = total * shrink + weights.sum(axis=0, keepdims=True)
            if mask.rate:
                weights = jnp.where(mask.kept(seeds, query_tile, key_tile), weights, 0)
            return larger, total, acc * shrink + _dot(v, weights.astype(v.dtype), (0, 0))

        place = row * queries.windows * queries.tiles + query_tile
        span = _span(start_ref, stop_ref, place, keys, key_window)
        state = jax.lax.fori_loop(*span, per_key_tile, (max_ref[t], sum_ref[t], acc_ref[t]))
        max_ref[t], sum_ref[t], acc_ref[t] = state

        @pl.when(key_window == keys.windows - 1)
        def _():
            largest, total, acc = state
            some = total > 0
            total = jnp.where(some, total, 1)
            scale = jnp.where(some, 1 / (1 - mask.rate), 0) / total
            out_ref[0, 0, _tile(t)] = (acc * scale).T.astype(out_ref.dtype)
            lse_ref[0, 0, t] = largest + jnp.log(total)

        return 0

    jax.lax.fori_loop(0, queries.tiles, per_query_tile, 0)


def _backward_kernel(
    queries: _Side,
    keys: _Side,
    mask: TileMask,
    start_ref,
    stop_ref,
    _first_ref,
    _last_ref,
    seeds_ref,
    ids_ref,
    kv_ids_ref,
    q_ref,
    k_ref,
    v_ref,
    do_ref,
    lse_ref,
    sums_ref,
    dq_ref,
    dk_ref,
    dv_ref,
    dq_acc_ref,
    dk_acc_ref,
    dv_acc_ref,
):
    row, head, window, query_window = (pl.program_id(axis) for axis in range(4))
    seeds = _seeds(seeds_ref, row, head, mask)
    dq_acc_ref[...] = jnp.zeros_like(dq_acc_ref)

    @pl.when(query_window == 0)
    def _():
        dk_acc_ref[...] = jnp.zeros_like(dk_acc_ref)
        dv_acc_ref[...] = jnp.zeros_like(dv_acc_ref)

    def per_key_tile(s, _):
        key_tile = window * keys.tiles + s
        k, v, kv_ids = k_ref[0, 0, _tile(s)], v_ref[0, 0, _tile(s)], _column(kv_ids_ref[0, s])

        def per_query_tile(t, state):
            dk, dv = state
            query_tile = query_window * queries.tiles + t
            q, do = q_ref[0, 0, _tile(t)], do_ref[0, 0, _tile(t)]
            seen = mask.visible(ids_ref[0, t], kv_ids, query_tile, key_tile)
            weights = jnp.where(seen, jnp.exp(_dot(k, q, (1, 1)) - lse_ref[0, 0, t]), 0)
            dropped, gradient = weights, _dot(v, do, (1, 1))
            if mask.rate:
                keep = mask.kept(seeds, query_tile, key_tile)
                dropped = jnp.where(keep, weights / (1 - mask.rate), 0)
                gradient = jnp.where(keep, gradient / (1 - mask.rate), 0)
            scores = (weights * (gradient - sums_ref[0, 0, t])).astype(q.dtype)
            dq_acc_ref[t] += _dot(scores, k, (0, 0))
            return dk + _dot(scores, q, (1, 0)), dv + _dot(dropped.astype(do.dtype), do, (1, 0))

        place = row * keys.windows * keys.tiles + key_tile
        span = _span(start_ref, stop_ref, place, queries, query_window)
        state = jax.lax.fori_loop(*span, per_query_tile, (dk_acc_ref[s], dv_acc_ref[s]))
        dk_acc_ref[s], dv_acc_ref[s] = state

        @pl.when(query_window == queries.windows - 1)
        def _():
            dk_ref[0, 0, _tile(s)] = state[0].astype(dk_ref.dtype)
            dv_ref[0, 0, _tile(s)] = state[1].astype(dv_ref.dtype)

        return 0

    jax.lax.fori_loop(0, keys.tiles, per_key_tile, 0)
    dq_ref[0, 0, 0] = dq_acc_ref[...].reshape(dq_ref.shape[3:]).astype(dq_ref.dtype)
