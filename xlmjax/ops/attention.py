"""Attention among the positions of a segment: one entry, implementations registered by name."""

import logging
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xlmjax.ops.dropout import Dropout
from xlmjax.ops.products import einsum_float32
from xlmjax.registry import Registry

log = logging.getLogger(__name__)


class Implementation(Protocol):
    """Scaled queries, keys and values to mixed values; softmax in float32."""

    def __call__(
        self,
        q: Float[Array, "b q h d"],
        k: Float[Array, "b k h d"],
        v: Float[Array, "b k h d"],
        segment_ids: Int[Array, "b q"],
        kv_segment_ids: Int[Array, "b k"],
        causal: bool,
        dropout: Dropout | None,
    ) -> Float[Array, "b q h d"]:
        """Return softmax(q k) v over the visible keys."""


IMPLEMENTATIONS: Registry[Implementation] = Registry("attention implementation")


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
    """Return softmax(q k / sqrt(d)) v (Vaswani et al. 2017, equation 1), in the dtype of `v`.

    A query sees the keys of its own segment and, if `causal`, none of a later index. Padding is
    segment 0, a segment like any other here, so no query of self-attention is without a key;
    callers ignore what comes out at padding. A query whose segment has no key in
    `kv_segment_ids` gets zeros. `dropout` drops attention weights.
    """
    name = choose() if implementation == "auto" else implementation
    q = q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    keys = segment_ids if kv_segment_ids is None else kv_segment_ids
    return IMPLEMENTATIONS[name](q, k, v, segment_ids, keys, causal, dropout)


def choose() -> str:
    """Return the implementation that "auto" means on this backend, and log why."""
    log.debug("attention: xla, the implementation for every backend (%s)", jax.default_backend())
    return "xla"


def visible(
    segment_ids: Int[Array, "b q"], kv_segment_ids: Int[Array, "b k"], causal: bool
) -> Bool[Array, "b q k"]:
    """Return which keys a query sees."""
    mask = segment_ids[:, :, None] == kv_segment_ids[:, None, :]
    if causal:
        queries, keys = (jax.lax.broadcasted_iota(jnp.int32, mask.shape, axis) for axis in (1, 2))
        mask &= queries >= keys
    return mask


@IMPLEMENTATIONS.register("xla")
def _xla(
    q: Float[Array, "b q h d"],
    k: Float[Array, "b k h d"],
    v: Float[Array, "b k h d"],
    segment_ids: Int[Array, "b q"],
    kv_segment_ids: Int[Array, "b k"],
    causal: bool,
    dropout: Dropout | None,
) -> Float[Array, "b q h d"]:
    """Plain products with the weights in memory: the reference of every other implementation."""
    mask = visible(segment_ids, kv_segment_ids, causal)[:, None]
    scores = jnp.where(mask, einsum_float32("bqhd,bkhd->bhqk", q, k), -1e30)
    weights = jnp.where(mask, jax.nn.softmax(scores, axis=-1), 0).astype(v.dtype)
    if dropout is not None:
        weights = dropout(weights)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)
