"""Choosing and corrupting the targets of masked language modelling, on device, row by row.

XLM makes every eligible position a target with probability `rate`, so the number of targets
varies from row to row. XLA wants static shapes: here a row has K = ceil(max_rate * length) slots,
and the number of targets is rate * (eligible positions), rounded up or down at random so that the
expectation is exact; K always suffices. Which positions they are is uniform, or with weights in
proportion to the weights of their tokens (Gumbel top-k: a draw without replacement).

With token weights XLM draws ceil(rate * rows * length) targets from the whole batch, padding
counted, so a padded batch is masked more heavily. Here the choice is per row and padding never
counts: the rate is that of real tokens, whatever the layout, and a row does not depend on others.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from xlmjax.ops.rows import row_keys


class Masked(NamedTuple):
    """Corrupted rows and their targets; a slot of weight 0 holds no target."""

    inputs: Int[Array, "b l"]
    picks: Int[Array, "b k"]  # position of the target; growing along a row, so segments are too
    targets: Int[Array, "b k"]  # the token that was there
    weights: Float[Array, "b k"]  # 1 or 0


class Corruption(NamedTuple):
    """What becomes of a target: the mask token, itself, or any token, with these shares."""

    mask_id: int
    vocab_size: int  # random tokens are uniform over all ids, special ones included, as in XLM
    mask: float = 0.8
    keep: float = 0.1


def num_slots(max_rate: float, length: int) -> int:
    """Return the static number of target slots of a row: ceil(max_rate * length)."""
    # Rounded first: 0.07 * 100 is 7.000000000000001 in binary, and needs 7 slots.
    return math.ceil(round(max_rate * length, 6))


def eligible(segment_ids: Int[Array, "*b l"], spare_last: bool = False) -> Bool[Array, "*b l"]:
    """Return which positions may be targets: no padding, nor the first position of a segment.

    Separators inside a segment may be. `spare_last` spares the last position of a segment too.
    """
    edge = jnp.zeros_like(segment_ids[..., :1])
    before = jnp.concatenate([edge, segment_ids[..., :-1]], axis=-1)
    after = jnp.concatenate([segment_ids[..., 1:], edge], axis=-1)
    inside = (segment_ids != 0) & (segment_ids == before)
    return inside & (segment_ids == after) if spare_last else inside


def mask_tokens(
    tokens: Int[Array, "b l"],
    candidates: Bool[Array, "b l"],
    key: Key[Array, ""],
    row_ids: Int[Array, "b"],
    rate: float | Float[Array, ""],
    corruption: Corruption,
    *,
    slots: int,
    at_least: int = 0,
    token_weights: Float[Array, "v"] | None = None,
) -> Masked:
    """Make a share `rate` of each row's candidates targets and corrupt them.

    `at_least` targets are chosen in a row that has so many candidates. `token_weights` make the
    choice of a token in proportion to its weight; tokens of weight 0 are never chosen, though
    they count in the number of targets. The result for a row depends on its tokens, its id and
    the key only.
    """

    def mask_row(row: Int[Array, "l"], candidates: Bool[Array, "l"], key: Key[Array, ""]) -> Masked:
        key_number, key_choice, key_fate, key_random = jax.random.split(key, 4)
        expected = rate * candidates.sum()
        number = jnp.floor(expected + jax.random.uniform(key_number))
        number = jnp.maximum(number, at_least)
        log_weights = jnp.where(candidates, 0.0, -jnp.inf)
        if token_weights is not None:
            log_weights += jnp.log(token_weights)[row]
        noisy = log_weights + jax.random.gumbel(key_choice, row.shape)
        best, picks = jax.lax.top_k(noisy, slots)
        chosen = (jnp.arange(slots) < number) & (best > -jnp.inf)
        targets = row[picks]
        fate = jax.random.uniform(key_fate, (slots,))
        anything = jax.random.randint(key_random, (slots,), 0, corruption.vocab_size, row.dtype)
        corrupted = jnp.where(fate < corruption.mask + corruption.keep, targets, anything)
        corrupted = jnp.where(fate < corruption.mask, corruption.mask_id, corrupted)
        inputs = row.at[picks].set(jnp.where(chosen, corrupted, targets), unique_indices=True)
        order = jnp.argsort(picks)
        return Masked(inputs, picks[order], targets[order], chosen[order].astype(jnp.float32))

    return jax.vmap(mask_row)(tokens, candidates, row_keys(key, row_ids))
