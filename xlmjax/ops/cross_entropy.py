"""Token cross entropy in float32, optionally tiled over the vocabulary."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class SumWeight(NamedTuple):
    """A weighted sum and its weight, both float32: whatever aggregates stays exact until `mean`."""

    sum: Float[Array, "*n"]
    weight: Float[Array, "*n"]

    def __add__(self, other: "SumWeight") -> "SumWeight":  # type: ignore[override]
        return SumWeight(self.sum + other.sum, self.weight + other.weight)

    def mean(self) -> Float[Array, "*n"]:
        """Return sum / weight, 0 where nothing was weighed."""
        return self.sum / jnp.maximum(self.weight, 1e-9)


class TokenLosses(NamedTuple):
    """Scores of n predictions."""

    nll: Float[Array, "n"]  # -log p(target), float32
    correct: Bool[Array, "n"]  # the target has the largest logit
    log_normalizer: Float[Array, "n"]  # log of the sum of exp(logits), float32


def token_losses(
    hidden: Float[Array, "n e"],
    table: Float[Array, "v e"],
    bias: Float[Array, "v"] | None,
    targets: Int[Array, "n"],
    tile: int = 0,
) -> TokenLosses:
    """Return the losses of predicting `targets` from `hidden` with the output table."""
    del tile
    logits = jnp.einsum("ne,ve->nv", hidden, table, preferred_element_type=jnp.float32)
    if bias is not None:
        logits += bias.astype(jnp.float32)
    log_normalizer = jax.nn.logsumexp(logits, axis=-1)
    target = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return TokenLosses(log_normalizer - target, target >= logits.max(axis=-1), log_normalizer)
