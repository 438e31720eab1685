"""Which keys a query sees: those of its own segment, padding never."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def visible(
    segment_ids: Int[Array, "b q"], kv_segment_ids: Int[Array, "b k"], causal: bool
) -> Bool[Array, "b q k"]:
    """Return which keys a query sees; segment 0 is padding, which sees and is seen by nothing."""
    mask = segment_ids[:, :, None] == kv_segment_ids[:, None, :]
    mask &= (kv_segment_ids != 0)[:, None, :]
    if causal:
        queries, keys = (jax.lax.broadcasted_iota(jnp.int32, mask.shape, axis) for axis in (1, 2))
        mask &= queries >= keys
    return mask
