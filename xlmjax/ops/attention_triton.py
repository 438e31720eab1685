"""Fused attention for packed rows, on GPUs, by Pallas' Triton backend.

The sibling of `attention_pallas`: tiles of keys that share no segment are skipped, and spans, mask
and dropout are the same (`attention_tiles`). A program holds one tile of queries and loops over the
keys of its span; of the backward pass, one kernel does so for the gradient of the queries, another,
with the sides exchanged, for those of keys and values. Online softmax in float32 and gradients by
recomputation (Dao et al. 2022).
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton
from jaxtyping import Array, Float, Int

from xlmjax.ops.attention_tiles import MASKED, TileMask, rate_of, shared_tiles, spans
from xlmjax.ops.dropout import Dropout

TILE = 64  # of queries and of keys: two of 128 numbers each and their products fit an SM


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
    num_queries, num_keys, width = q.shape[1], k.shape[1], q.shape[3]
    q, k, v = (_padded(x) for x in (q, k, v))
    ids, kv_ids = (_padded_ids(x) for x in (segment_ids, kv_segment_ids))
    mask = TileMask(TILE, 0, causal, rate_of(dropout), num_keys)
    none = jnp.zeros((q.shape[0], q.shape[2], 2), jnp.uint32)
    seeds = none if dropout is None else dropout.seeds
    return _mix(mask, interpret, q, k, v, ids, kv_ids, seeds)[:, :num_queries, :, :width]


def _padded(x: Float[Array, "b l h d"]) -> Float[Array, "b m h e"]:
    """Pad rows to whole tiles, and heads to a power of two, as Triton has it."""
    wider = max(pl.next_power_of_2(x.shape[3]), 16) - x.shape[3]
    return jnp.pad(x, [(0, 0), (0, -x.shape[1] % TILE), (0, 0), (0, wider)])


def _padded_ids(ids: Int[Array, "b l"]) -> Int[Array, "b m"]:
    return jnp.pad(ids, [(0, 0), (0, -ids.shape[1] % TILE)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _mix(mask: TileMask, interpret: bool, *inputs):
    return _forward(mask, interpret, *inputs)[0]


def _forward(mask: TileMask, interpret: bool, q, k, v, ids, kv_ids, seeds):
    start, stop = spans(shared_tiles(ids, kv_ids, mask.causal, TILE))
    inputs = [(_whole, start), (_whole, stop), (_of_head, seeds), (_own, ids), (_whole, kv_ids)]
    inputs += [(_own, q), (_whole, k), (_whole, v)]
    out, lse = _call(
        functools.partial(_forward_kernel, mask),
        q.shape,
        inputs,
        [jax.ShapeDtypeStruct(q.shape, v.dtype), _numbers(q)],
        interpret,
        "attention_forward",
    )
    return out, (q, k, v, ids, kv_ids, seeds, out, lse)


def _backward(mask: TileMask, interpret: bool, residuals, gradient):
    q, k, v, ids, kv_ids, seeds, out, lse = residuals
    shared = shared_tiles(ids, kv_ids, mask.causal, TILE)
    # The gradient of a score is its weight times (gradient of the weight - this sum over keys).
    sums = jnp.einsum("bqhd,bqhd->bhq", out, gradient, preferred_element_type=jnp.float32)
    start, stop = spans(shared)
    inputs = [(_whole, start), (_whole, stop), (_of_head, seeds), (_own, ids), (_whole, kv_ids)]
    inputs += [(_own, q), (_whole, k), (_whole, v), (_own, gradient), (_own, lse), (_own, sums)]
    (dq,) = _call(
        functools.partial(_queries_kernel, mask),
        q.shape,
        inputs,
        [jax.ShapeDtypeStruct(q.shape, q.dtype)],
        interpret,
        "attention_backward_queries",
    )
    start, stop = spans(shared.swapaxes(1, 2))
    inputs = [(_whole, start), (_whole, stop), (_of_head, seeds), (_whole, ids), (_own, kv_ids)]
    inputs += [(_whole, q), (_own, k), (_own, v), (_whole, gradient), (_whole, lse), (_whole, sums)]
    dk, dv = _call(
        functools.partial(_keys_kernel, mask),
        k.shape,
        inputs,
        [jax.ShapeDtypeStruct(k.shape, k.dtype), jax.ShapeDtypeStruct(v.shape, v.dtype)],
        interpret,
        "attention_backward_keys",
    )
    return dq, dk, dv, None, None, None


_mix.defvjp(_forward, _backward)


def _call(
    kernel: Callable[..., None],
    shape: tuple[int, ...],  # of the side whose tiles the programs hold
    inputs: Sequence[tuple[Callable[[Array], pl.BlockSpec], Array]],
    outputs: Sequence[jax.ShapeDtypeStruct],
    interpret: bool,
    name: str,
) -> Sequence[Array]:
    """Run a program for each tile, head and row, on blocks of the inputs and of the outputs."""
    batch, length, heads, width = shape
    return pl.pallas_call(
        kernel,
        grid=(length // TILE, heads, batch),
        in_specs=[block(x) for block, x in inputs],
        out_specs=[_own(x) for x in outputs],
        out_shape=outputs,
        compiler_params=pltriton.CompilerParams(num_warps=4 if width <= 64 else 8, num_stages=2),
        interpret=interpret,
        name=name,
    )(*(x for _, x in inputs))


def _numbers(x: Float[Array, "b l h d"]) -> jax.ShapeDtypeStruct:
    """Return the shape of what there is one of for each position of a head."""
    return jax.ShapeDtypeStruct((x.shape[0], x.shape[2], x.shape[1]), jnp.float32)


# Blocks by the number of axes: [b, l] ids or spans, [b, h, l] numbers, [b, l, h, d] vectors.


def _own(x: Array | jax.ShapeDtypeStruct) -> pl.BlockSpec:
    """Return the block of the tile that a program holds."""
    if x.ndim == 2:
        return pl.BlockSpec((None, TILE), lambda i, h, b: (b, i))
    if x.ndim == 3:
        return pl.BlockSpec((None, None, TILE), lambda i, h, b: (b, h, i))
    return pl.BlockSpec((None, TILE, None, x.shape[3]), lambda i, h, b: (b, i, h, 0))


def _whole(x: Array) -> pl.BlockSpec:
    """Return the block of the whole row that a program looks into."""
    if x.ndim == 2:
        return pl.BlockSpec((None, x.shape[1]), lambda i, h, b: (b, 0))
    if x.ndim == 3:
        return pl.BlockSpec((None, None, x.shape[2]), lambda i, h, b: (b, h, 0))
    return pl.BlockSpec((None, x.shape[1], None, x.shape[3]), lambda i, h, b: (b, 0, h, 0))


def _of_head(seeds: Array) -> pl.BlockSpec:
    return pl.BlockSpec((None, None, 2), lambda i, h, b: (b, h, 0))


def _dot(a, b, contract: tuple[int, int]):
    """Return the product of two tiles over an axis of each, in float32."""
    return jax.lax.dot_general(
        a,
        b,
        (((contract[0],), (contract[1],)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )


def _at(number):
    return pl.ds(number * TILE, TILE)


def _forward_kernel(
    mask: TileMask,
    start_ref,
    stop_ref,
    seeds_ref,
    ids_ref,
    kv_ids_ref,
    q_ref,
    k_ref,
    v_ref,
    out_ref,
    lse_ref,
):
    query_tile = pl.program_id(0)
    seeds = seeds_ref[0], seeds_ref[1]
    q, ids = q_ref[...], ids_ref[...]

    def per_key_tile(key_tile, state):
        largest, total, acc = state
        k, v = k_ref[_at(key_tile), :], v_ref[_at(key_tile), :]
        kv_ids = kv_ids_ref[_at(key_tile)]
        seen = mask.visible(ids[:, None], kv_ids[None, :], query_tile, key_tile)
        scores = jnp.where(seen, _dot(q, k, (1, 1)), MASKED)
        larger = jnp.maximum(largest, scores.max(axis=1))
        weights = jnp.where(seen, jnp.exp(scores - larger[:, None]), 0.0)
        shrink = jnp.exp(largest - larger)
        total = total * shrink + weights.sum(axis=1)
        if mask.rate:
            weights = jnp.where(mask.kept(seeds, query_tile, key_tile), weights, 0.0)
        return larger, total, acc * shrink[:, None] + _dot(weights.astype(v.dtype), v, (1, 0))

    largest, total, acc = jax.lax.fori_loop(
        start_ref[query_tile],
        stop_ref[query_tile],
        per_key_tile,
        (
            jnp.full(TILE, MASKED, jnp.float32),
            jnp.zeros(TILE, jnp.float32),
            jnp.zeros(q.shape, jnp.float32),
        ),
    )
    some = total > 0
    total = jnp.where(some, total, 1.0)
    scale = jnp.where(some, 1 / (1 - mask.rate), 0.0) / total
    out_ref[...] = (acc * scale[:, None]).astype(out_ref.dtype)
    lse_ref[...] = largest + jnp.log(total)


def _pair(mask: TileMask, seeds, query_tile, key_tile, ids, kv_ids, q, k, v, do, lse, sums):
    """Return the weights of two tiles as the values saw them, and the gradient of the scores."""
    seen = mask.visible(ids[:, None], kv_ids[None, :], query_tile, key_tile)
    weights = jnp.where(seen, jnp.exp(_dot(q, k, (1, 1)) - lse[:, None]), 0.0)
    dropped, gradient = weights, _dot(do, v, (1, 1))
    if mask.rate:
        keep = mask.kept(seeds, query_tile, key_tile)
        dropped = jnp.where(keep, weights / (1 - mask.rate), 0.0)
        gradient = jnp.where(keep, gradient / (1 - mask.rate), 0.0)
    return dropped.astype(do.dtype), (weights * (gradient - sums[:, None])).astype(q.dtype)


def _queries_kernel(
    mask: TileMask,
    start_ref,
    stop_ref,
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
):
    query_tile = pl.program_id(0)
    seeds = seeds_ref[0], seeds_ref[1]
    ids, q, do, lse, sums = (x[...] for x in (ids_ref, q_ref, do_ref, lse_ref, sums_ref))

    def per_key_tile(key_tile, dq):
        here = _at(key_tile)
        kv_ids, k, v = kv_ids_ref[here], k_ref[here, :], v_ref[here, :]
        _, scores = _pair(mask, seeds, query_tile, key_tile, ids, kv_ids, q, k, v, do, lse, sums)
        return dq + _dot(scores, k, (1, 0))

    span = start_ref[query_tile], stop_ref[query_tile]
    dq = jax.lax.fori_loop(*span, per_key_tile, jnp.zeros(q.shape, jnp.float32))
    dq_ref[...] = dq.astype(dq_ref.dtype)


def _keys_kernel(
    mask: TileMask,
    start_ref,
    stop_ref,
    seeds_ref,
    ids_ref,
    kv_ids_ref,
    q_ref,
    k_ref,
    v_ref,
    do_ref,
    lse_ref,
    sums_ref,
    dk_ref,
    dv_ref,
):
    key_tile = pl.program_id(0)
    seeds = seeds_ref[0], seeds_ref[1]
    kv_ids, k, v = kv_ids_ref[...], k_ref[...], v_ref[...]

    def per_query_tile(query_tile, state):
        dk, dv = state
        here = _at(query_tile)
        ids, q, do = ids_ref[here], q_ref[here, :], do_ref[here, :]
        lse, sums = lse_ref[here], sums_ref[here]
        weights, scores = _pair(
            mask, seeds, query_tile, key_tile, ids, kv_ids, q, k, v, do, lse, sums
        )
        return dk + _dot(scores, q, (0, 0)), dv + _dot(weights, do, (0, 0))

    span = start_ref[key_tile], stop_ref[key_tile]
    zeros = jnp.zeros(k.shape, jnp.float32)
    dk, dv = jax.lax.fori_loop(*span, per_query_tile, (zeros, zeros))
    dk_ref[...], dv_ref[...] = dk.astype(dk_ref.dtype), dv.astype(dv_ref.dtype)
