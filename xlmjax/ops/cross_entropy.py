"""Token cross entropy in float32, optionally tiled over the vocabulary."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xlmjax.ops.products import einsum_float32


class SumWeight(NamedTuple):
    """Weighted sums and their weights, in float32: merging is exact, the division comes last."""

    sum: Float[Array, "*n"]
    weight: Float[Array, "*n"]

    def __add__(self, other: "SumWeight") -> "SumWeight":  # type: ignore[override]
        return SumWeight(self.sum + other.sum, self.weight + other.weight)

    def mean(self) -> Float[Array, "*n"]:
        """Return sum / weight, and 0 where nothing was weighed."""
        weighed = self.weight > 0
        return jnp.where(weighed, self.sum / jnp.where(weighed, self.weight, 1), 0)


class TokenLosses(NamedTuple):
    """Scores of predictions, one entry a target."""

    nll: Float[Array, "*n"]  # -log p(target)
    correct: Bool[Array, "*n"]  # no word has a larger logit than the target
    log_normalizer: Float[Array, "*n"]  # log sum exp(logits), for the z-loss


def token_losses(
    hidden: Float[Array, "n e"],
    table: Float[Array, "v e"],
    bias: Float[Array, "v"] | None,
    targets: Int[Array, "n"],
    tile: int = 0,
) -> TokenLosses:
    """Return the losses of predicting `targets` with logits hidden @ table.T + bias.

    The products take the dtype of `table`, everything after them float32. With 0 < `tile` < v
    only n x tile logits exist at a time, in the backward pass too, which computes them again.
    """
    if 0 < tile < table.shape[0]:
        log_normalizer, target, largest = _over_tiles(hidden, table, bias, targets, tile)
    else:
        words = jnp.arange(table.shape[0])
        log_normalizer, target, largest = _over_words(hidden, table, bias, words, targets)
    return TokenLosses(log_normalizer - target, target >= largest, log_normalizer)


def _over_words(
    hidden: Float[Array, "n e"],
    table: Float[Array, "w e"],
    bias: Float[Array, "w"] | None,
    words: Int[Array, "w"],
    targets: Int[Array, "n"],
) -> tuple[Float[Array, "n"], Float[Array, "n"], Float[Array, "n"]]:
    """Return log sum exp, logit of the target (0 if it is not here) and maximum over `words`."""
    logits = einsum_float32("ne,we->nw", hidden.astype(table.dtype), table)
    if bias is not None:
        logits += bias
    # A comparison, not a gather, so that logits sharded over the vocabulary stay where they are.
    target = jnp.where(words == targets[:, None], logits, 0).sum(axis=-1)
    return jax.nn.logsumexp(logits, axis=-1), target, jax.lax.stop_gradient(logits.max(axis=-1))


def _over_tiles(
    hidden: Float[Array, "n e"],
    table: Float[Array, "v e"],
    bias: Float[Array, "v"] | None,
    targets: Int[Array, "n"],
    tile: int,
) -> tuple[Float[Array, "n"], Float[Array, "n"], Float[Array, "n"]]:
    """Return the same as `_over_words` over the whole vocabulary, `tile` words at a time."""
    vocab_size = table.shape[0]
    tiles = -(-vocab_size // tile)
    padding = tiles * tile - vocab_size
    bias = jnp.zeros(vocab_size) if bias is None else bias
    # Tile t holds words t, t + tiles, t + 2 * tiles, ...: where the vocabulary is sharded, every
    # device has a part of every tile.
    columns = (
        jnp.pad(table, ((0, padding), (0, 0))),
        jnp.pad(bias, (0, padding), constant_values=-jnp.inf),
        jnp.arange(tiles * tile),
    )
    columns = jax.tree.map(lambda x: x.reshape(tile, tiles, *x.shape[1:]).swapaxes(0, 1), columns)

    @jax.checkpoint
    def add(totals, column):
        log_normalizer, target, largest = totals
        part = _over_words(hidden, *column, targets)
        totals = (
            jnp.logaddexp(log_normalizer, part[0]),
            target + part[1],
            jnp.maximum(largest, part[2]),
        )
        return totals, None

    # The gradient of `hidden` is summed over tiles in its own dtype: make that float32.
    hidden = hidden.astype(jnp.float32)
    nothing = jnp.full(targets.shape, -jnp.inf)
    return jax.lax.scan(add, (nothing, jnp.zeros(targets.shape), nothing), columns)[0]
