"""Choosing and corrupting the targets of masked language modelling, on device, row by row."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


class Masked(NamedTuple):
    """Corrupted rows and their targets; slots of weight 0 hold no target."""

    inputs: Int[Array, "b l"]
    picks: Int[Array, "b k"]  # positions of the targets
    targets: Int[Array, "b k"]  # the tokens that were there
    weights: Float[Array, "b k"]  # 1 or 0


def num_targets(max_rate: float, length: int) -> int:
    """Return the static number of target slots of a row."""
    return math.ceil(max_rate * length)


def first_positions(segment_ids: Int[Array, "... l"]) -> Bool[Array, "... l"]:
    """Return where a segment begins."""
    before = jnp.roll(segment_ids, 1, axis=-1).at[..., 0].set(0)
    return (segment_ids != before) & (segment_ids != 0)


def mask_tokens(
    tokens: Int[Array, "b l"],
    segment_ids: Int[Array, "b l"],
    row_keys: Key[Array, "b"],
    rate: float | Float[Array, ""],
    *,
    slots: int,
    mask_id: int,
    vocab_size: int,
    mask_keep_random: Sequence[float] = (0.8, 0.1, 0.1),
    weights: Float[Array, "v"] | None = None,
) -> Masked:
    """Choose a share `rate` of the tokens as targets and corrupt them."""

    def mask_row(row: Int[Array, "l"], segments: Int[Array, "l"], key: Key[Array, ""]) -> Masked:
        choose, count, corrupt, replace = jax.random.split(key, 4)
        eligible = (segments != 0) & ~first_positions(segments)
        wanted = jnp.floor(rate * eligible.sum() + jax.random.uniform(count)).astype(jnp.int32)
        log_weights = jnp.where(eligible, 0.0, -jnp.inf)
        if weights is not None:
            log_weights += jnp.log(weights)[row]
        scores, picks = jax.lax.top_k(log_weights + jax.random.gumbel(choose, row.shape), slots)
        chosen = (jnp.arange(slots) < wanted) & (scores > -jnp.inf)
        targets = row[picks]
        die = jax.random.uniform(corrupt, (slots,))
        random = jax.random.randint(replace, (slots,), 0, vocab_size)
        share_mask, share_keep, _ = mask_keep_random
        corrupted = jnp.where(die < share_mask + share_keep, targets, random)
        corrupted = jnp.where(die < share_mask, mask_id, corrupted)
        inputs = row.at[picks].set(jnp.where(chosen, corrupted, targets), unique_indices=True)
        return Masked(inputs, picks, targets, chosen.astype(jnp.float32))

    return jax.vmap(mask_row)(tokens, segment_ids, row_keys)
