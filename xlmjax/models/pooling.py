"""What a classifier sees of the states of a segment: `model.pooling`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xlmjax.models.config import ModelConfig
from xlmjax.models.layers import take
from xlmjax.ops.similarity import mean_by_segment


def pool_segments(
    cfg: ModelConfig,
    states: Float[Array, "b l e"],
    tokens: Int[Array, "b l"],
    positions: Int[Array, "b l"],
    segment_ids: Int[Array, "b l"],
    picks: Int[Array, "b k"],
) -> Float[Array, "b k p"]:
    """Return float32 vectors of the segments that begin at `picks`, [cfg.pooled_dim].

    "mean" is the mean of the states. "difference" is u - v and |u - v| of the means u and v of the
    two sides of a pair (|u - v|: Conneau et al. 2017, section 3.1): what all texts of a language
    have in common cancels in it.
    """
    count = picks.shape[1]
    number = jnp.maximum(take(segment_ids, picks) - 1, 0)  # of the segments, from 0
    if cfg.pooling == "mean":
        return take(mean_by_segment(states, segment_ids, count), number)
    second = second_side(tokens == cfg.eos_id, positions == 0)
    sides = jnp.where(segment_ids > 0, 2 * segment_ids - 1 + second, 0)
    means = mean_by_segment(states, sides, 2 * count)
    difference = take(means, 2 * number) - take(means, 2 * number + 1)
    return jnp.concatenate([difference, jnp.abs(difference)], axis=-1)


def second_side(ends: Bool[Array, "b l"], firsts: Bool[Array, "b l"]) -> Bool[Array, "b l"]:
    """Return which tokens are of the second side of their segment, its separator included.

    `ends` are the end symbols; one at the first place of a segment (`firsts`) opens it and
    separates nothing.
    """
    count = jnp.cumsum(ends & ~firsts, axis=1)
    before = jax.lax.cummax(jnp.where(firsts, count, 0), axis=1)
    return count > before
