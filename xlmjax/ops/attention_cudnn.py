"""Fused attention of cuDNN, by `jax.nn.dot_product_attention`, on rows of segments."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from xlmjax.ops.attention_mask import visible
from xlmjax.ops.dropout import Dropout


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
    """Return softmax(q k) v over the visible keys, in bfloat16 or float16.

    Segments go in as a mask [b, 1, q, k], which JAX makes a bias of: memory of one head's scores.
    (The packed segments of JAX's private interface take no mask, but a Hopper GPU.)
    """
    length = q.shape[1]
    # With a bias cuDNN wants even lengths.
    q, segment_ids = _even(q), _even(segment_ids)
    k, v, kv_segment_ids = _even(k), _even(v), _even(kv_segment_ids)
    mask = visible(segment_ids, kv_segment_ids, causal)
    out = jax.nn.dot_product_attention(
        q, k, v, mask=mask[:, None], scale=1.0, implementation="cudnn"
    )
    # Over no key at all the kernel's weights are uniform.
    return jnp.where(mask.any(axis=2)[:, :, None, None], out, 0)[:, :length]


def _even(x: Array) -> Array:
    """Pad axis 1 to an even length."""
    return jnp.pad(x, [(0, 0), (0, x.shape[1] % 2)] + [(0, 0)] * (x.ndim - 2))
