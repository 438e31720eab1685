"""Splash attention, the fused TPU kernel that comes with JAX, on rows of segments."""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
    splash_attention_mask,
)
from jaxtyping import Array, Float, Int

from xlmjax.ops.attention_mask import visible
from xlmjax.ops.dropout import Dropout

_BLOCKS = (512, 256, 128)  # of queries and of keys; the kernel takes multiples of 128


def mix(
    q: Float[Array, "b q h d"],
    k: Float[Array, "b k h d"],
    v: Float[Array, "b k h d"],
    segment_ids: Int[Array, "b q"],
    kv_segment_ids: Int[Array, "b k"],
    dropout: Dropout | None,  # None: `ops.attention` refuses it
    *,
    causal: bool,
    interpret: bool,
) -> Float[Array, "b q h d"]:
    """Return softmax(q k) v over the visible keys; rows are padded to a multiple of 128 inside."""
    length = q.shape[1]
    # Of padding queries and keys have different ids, so that they do not see each other.
    queries, keys = _padded(segment_ids, 1), _padded(kv_segment_ids, 1)
    ids = splash_attention_kernel.SegmentIds(
        q=jnp.where(queries == 0, -1, queries), kv=jnp.where(keys == 0, -2, keys)
    )
    shape = (queries.shape[1], keys.shape[1])
    mask = (splash_attention_mask.CausalMask if causal else splash_attention_mask.FullMask)(shape)
    block_q, block_kv = (next(block for block in _BLOCKS if size % block == 0) for size in shape)
    kernel = splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([mask] * q.shape[2]),
        block_sizes=splash_attention_kernel.BlockSizes(
            block_q=block_q,
            block_kv=block_kv,
            block_q_dkv=block_q,
            block_kv_dkv=block_kv,
            block_q_dq=block_q,
            block_kv_dq=block_kv,
        ),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    heads = (_padded(x.transpose(0, 2, 1, 3), 2) for x in (q, k, v))
    out = jax.vmap(kernel)(*heads, ids).transpose(0, 2, 1, 3)[:, :length]
    # Over no key at all the kernel's weights are uniform.
    some = visible(segment_ids, kv_segment_ids, causal).any(axis=2)
    return jnp.where(some[:, :, None, None], out, 0)


def _padded(x: Array, axis: int) -> Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % _BLOCKS[-1])
    return jnp.pad(x, widths)
