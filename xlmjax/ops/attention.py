"""Attention: one entry, implementations registered by name."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xlmjax.ops.dropout import Dropout
from xlmjax.registry import Registry

IMPLEMENTATIONS: Registry[Callable[..., Array]] = Registry("attention implementation")


def attention(
    q: Float[Array, "b q h d"],
    k: Float[Array, "b k h d"],
    v: Float[Array, "b k h d"],
    *,
    segment_ids: Int[Array, "b q"],
    kv_segment_ids: Int[Array, "b k"] | None = None,
    causal: bool = False,
    dropout: Dropout | None = None,
    implementation: str = "auto",
) -> Float[Array, "b q h d"]:
    """Return softmax(q k / sqrt(d)) v among the positions of one segment; softmax in float32."""
    kv_segment_ids = segment_ids if kv_segment_ids is None else kv_segment_ids
    name = "xla" if implementation == "auto" else implementation
    return IMPLEMENTATIONS[name](q, k, v, segment_ids, kv_segment_ids, causal, dropout)


@IMPLEMENTATIONS.register("xla")
def _xla(q, k, v, segment_ids, kv_segment_ids, causal, dropout):
    mask = visible(segment_ids, kv_segment_ids, causal)
    q = q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(jnp.where(mask[:, None], scores, -1e30), axis=-1).astype(v.dtype)
    if dropout is not None:
        weights = dropout(weights)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def visible(
    segment_ids: Int[Array, "b q"], kv_segment_ids: Int[Array, "b k"], causal: bool
) -> Bool[Array, "b q k"]:
    """Return which keys a query sees: those of its own segment and, if causal, not later ones."""
    mask = segment_ids[:, :, None] == kv_segment_ids[:, None, :]
    if causal:
        shape = mask.shape[1:]
        rows, columns = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
        mask &= rows >= columns
    return mask
