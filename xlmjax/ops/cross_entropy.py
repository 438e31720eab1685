"""Token cross entropy in float32: projection and loss in one, by tiles of the vocabulary.

The gradient is written by hand. The forward pass goes over the tiles with a running maximum and a
running sum (Milakov & Gimelshein 2018) and keeps one number a target, the log normalizer; the
backward pass makes each tile of logits again, and from them softmax - onehot and its two products
(Wijmans et al. 2025, "Cut your losses in large-vocabulary language models"). So the logits of all
words never exist at once. In one tile, which small vocabularies fit into, they are kept instead.

On a mesh each device goes over its own words, and maxima, sums and the logits of the targets are
combined afterwards. Where the width of the table is split too (fsdp), tiles are gathered one by
one, in the dtype of the products, and their gradients scattered the same way: no device holds the
whole table, and what travels does not grow with the batch.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xlmjax.ops.mesh_axes import WHOLE, TableAxes

AUTO = -1  # of `tile`
# Numbers a device holds for the words at hand. Up to so many logits are made in one product (512
# MiB), more by tiles of a quarter as many at most; a table split over its width is not gathered by
# more than that quarter either.
ONE_PRODUCT = 2**27
LANES = 128  # of a TPU: tiles are a multiple of them


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def token_losses(
    hidden: Float[Array, "n e"],
    table: Float[Array, "v e"],
    bias: Float[Array, "v"] | None,
    targets: Int[Array, "n"],
    tile: int = 0,
    axes: TableAxes = WHOLE,
) -> TokenLosses:
    """Return the losses of predicting `targets` with logits hidden @ table.T + bias.

    The products take the dtype of `hidden`, everything after them float32. `tile` is the number of
    words at a time on each device: 0 all of them, -1 (`AUTO`) all unless they are too many. With
    `axes` the table is split over a mesh, and n over `axes.rows`.
    """
    return _forward(hidden, table, bias, targets, tile, axes)[0]


def tile_of(numbers: int) -> int:
    """Return the words of a tile where a device holds so many numbers a word, say one a target."""
    return max(ONE_PRODUCT // 4 // numbers // LANES, 1) * LANES


class _Residuals(NamedTuple):
    """What the backward pass needs besides the gradients of the losses."""

    hidden: Float[Array, "n e"]
    table: Float[Array, "v e"]
    bias: Float[Array, "v"] | None
    targets: Int[Array, "n"]
    log_normalizer: Float[Array, "n"]
    kept: "_Kept | None"  # None: made again, tile by tile


class _Kept(NamedTuple):
    """What stays of the logits of a device's words where they are made in one product."""

    exponentials: Float[Array, "n v"]  # exp(logits - peak): the backward pass takes none
    peak: Float[Array, "n t"]  # largest logit of each of the t devices that share the vocabulary


class _Shard(NamedTuple):
    """One device's words, and how it goes over them."""

    hidden: Float[Array, "n e"]
    table: Float[Array, "w c"]
    bias: Float[Array, "w"] | None
    axes: TableAxes
    size: int  # words a tile

    @property
    def tiles(self) -> int:
        return -(-self.table.shape[0] // self.size)

    def start(self, tile: int | Int[Array, ""]) -> int | Int[Array, ""]:
        """Return the first row of a tile; the last tile goes back over words of the one before."""
        return jnp.minimum(tile * self.size, self.table.shape[0] - self.size)

    def words(self, tile: int | Int[Array, ""]) -> Int[Array, "t"]:
        """Return the ids of the words of a tile, -1 for those of the tile before."""
        rows = self.start(tile) + jnp.arange(self.size)
        return jnp.where(rows >= tile * self.size, rows + self.axes.first_word(self.table), -1)

    def embeddings(self, tile: int | Int[Array, ""]) -> Float[Array, "t e"]:
        """Return the table at the words of a tile, in the dtype of the products."""
        part = jax.lax.dynamic_slice_in_dim(self.table, self.start(tile), self.size)
        return self.axes.gather(part.astype(self.hidden.dtype), axis=1)

    def logits(
        self, tile: int | Int[Array, ""], embeddings: Float[Array, "t e"]
    ) -> Float[Array, "n t"]:
        """Return the logits of the words of a tile in float32, -inf for those of -1."""
        logits = _product("ne,te->nt", self.hidden, embeddings)
        if self.bias is not None:
            logits += jax.lax.dynamic_slice_in_dim(self.bias, self.start(tile), self.size)
        return logits if self.tiles == 1 else jnp.where(self.words(tile) >= 0, logits, -jnp.inf)


def _shard(
    hidden: Float[Array, "n e"],
    table: Float[Array, "w c"],
    bias: Float[Array, "w"] | None,
    tile: int,
    axes: TableAxes,
) -> _Shard:
    rows, words = hidden.shape[0], table.shape[0]
    gathered = hidden.shape[1] if axes.embed else 0
    if tile == AUTO and (rows * words > ONE_PRODUCT or gathered * words > ONE_PRODUCT // 4):
        tile = tile_of(max(rows, gathered))
    return _Shard(hidden, table, bias, axes, min(tile, words) if tile > 0 else words)


def _forward(
    hidden: Float[Array, "n e"],
    table: Float[Array, "v e"],
    bias: Float[Array, "v"] | None,
    targets: Int[Array, "n"],
    tile: int,
    axes: TableAxes,
) -> tuple[TokenLosses, _Residuals]:
    def on_shard(hidden, table, bias, targets):
        shard = _shard(hidden, table, bias, tile, axes)

        def add(number, totals, logits):
            largest, normalizer, target = totals
            # A comparison, not a gather: the target may be a word of another tile or device.
            found = shard.words(number) == targets[:, None]
            peak = jnp.maximum(largest, logits.max(axis=1))
            normalizer *= jnp.exp(largest - peak)
            normalizer += jnp.exp(logits - peak[:, None]).sum(axis=1)
            return peak, normalizer, target + jnp.where(found, logits, 0).sum(axis=1)

        zero = jnp.zeros(targets.shape)
        totals, kept = (zero - jnp.inf, zero, zero), None
        if shard.tiles == 1:
            logits = shard.logits(0, shard.embeddings(0))
            totals = add(0, totals, logits)
            peak = totals[0][:, None]
            kept = _Kept(jnp.exp(logits - peak), peak)
        else:
            totals = jax.lax.fori_loop(
                0,
                shard.tiles,
                lambda i, totals: add(i, totals, shard.logits(i, shard.embeddings(i))),
                totals,
            )
        largest, normalizer, target = totals
        if axes.vocab:
            peak = jax.lax.pmax(largest, axes.vocab)
            normalizer, target = jax.lax.psum(
                (normalizer * jnp.exp(largest - peak), target), axes.vocab
            )
            largest = peak
        log_normalizer = largest + jnp.log(normalizer)
        losses = TokenLosses(log_normalizer - target, target >= largest, log_normalizer)
        return losses, kept

    inputs = (axes.batch, axes.table, axes.words, axes.batch)
    arguments = (hidden, table, bias, targets)
    losses, kept = axes.run(on_shard, inputs, (axes.batch, axes.logits), *arguments)
    return losses, _Residuals(*arguments, losses.log_normalizer, kept)


def _backward(
    tile: int, axes: TableAxes, residuals: _Residuals, gradient: TokenLosses
) -> tuple[Array, Array, Array | None, None]:
    def on_shard(hidden, table, bias, targets, log_normalizer, kept, of_nll, of_log_normalizer):
        shard = _shard(hidden, table, bias, tile, axes)
        of_all = (of_nll + of_log_normalizer)[:, None]

        def add(number, gradients):
            of_hidden, of_table, of_bias = gradients
            embeddings = shard.embeddings(number)
            if kept is None:
                logits = shard.logits(number, embeddings)
                softmax = jnp.exp(logits - log_normalizer[:, None])
            else:
                softmax = kept.exponentials * jnp.exp(kept.peak - log_normalizer[:, None])
            found = shard.words(number) == targets[:, None]
            of_logits = of_all * softmax - jnp.where(found, of_nll[:, None], 0)
            # Rounded to the dtype of the products, so that they run on the matrix units.
            rounded = of_logits.astype(hidden.dtype)
            of_hidden += _product("nt,te->ne", rounded, embeddings)
            part = axes.scatter_sum(_product("nt,ne->te", rounded, hidden))
            of_table = _add_rows(of_table, part, shard.start(number))
            if of_bias is not None:
                of_bias = _add_rows(of_bias, of_logits.sum(axis=0), shard.start(number))
            return of_hidden, of_table, of_bias

        nothing = (
            jnp.zeros(hidden.shape, jnp.float32),
            jnp.zeros_like(table),
            None if bias is None else jnp.zeros_like(bias),
        )
        if shard.tiles == 1:
            of_hidden, of_table, of_bias = add(0, nothing)
        else:
            of_hidden, of_table, of_bias = jax.lax.fori_loop(0, shard.tiles, add, nothing)
        of_hidden = jax.lax.psum(of_hidden, axes.vocab).astype(hidden.dtype)
        of_table = axes.sum_gradient(of_table, whole=False)
        return of_hidden, of_table, axes.sum_gradient(of_bias, whole=True)

    arguments = (*residuals, gradient.nll, gradient.log_normalizer)
    row = axes.batch
    inputs = (row, axes.table, axes.words, row, row, axes.logits, row, row)
    outputs = (row, axes.table, axes.words)
    return *axes.run(on_shard, inputs, outputs, *arguments), None


token_losses.defvjp(_forward, _backward)


def _product(equation: str, a: Float[Array, "..."], b: Float[Array, "..."]) -> Array:
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _add_rows(x: Float[Array, "w ..."], part: Float[Array, "t ..."], start: Array) -> Array:
    """Add rows to `x` from `start` on, in place."""
    there = jax.lax.dynamic_slice_in_dim(x, start, part.shape[0])
    return jax.lax.dynamic_update_slice_in_dim(x, there + part.astype(x.dtype), start, 0)
