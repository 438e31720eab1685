"""Sentences of packed rows, each taken out into a row of its own, and packed again."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


def take_apart(
    values: Int[Array, "b l"],
    segment_ids: Int[Array, "b l"],
    sentences: int,
    longest: int,
    filler: int,
) -> Int[Array, "b_n longest"]:
    """Return segment k = 1..n of row r as row r * n + k - 1, `filler` behind it.

    n is `sentences`, the most segments that a row may have, and `longest` the most tokens that one
    may have; what exceeds them is lost. A segment that a row has not is a row of `filler`.
    """
    starts, lengths = _bounds(segment_ids, sentences)
    place = jnp.arange(longest)
    columns = jnp.minimum(starts[..., None] + place, values.shape[1] - 1)
    taken = jnp.take_along_axis(values[:, None], columns, axis=2)
    taken = jnp.where(place < lengths[..., None], taken, filler)
    return taken.reshape(-1, longest)


def put_together(
    values: Int[Array, "b_n t"],
    lengths: Int[Array, "b_n"],
    sentences: int,
    length: int,
    filler: int,
) -> tuple[Int[Array, "b l"], Int[Array, "b l"], Int[Array, "b l"]]:
    """Return rows of `length` that hold n = `sentences` rows each, one behind another.

    Of each row the first `lengths` values are taken, none where that is 0. Beside the values, with
    `filler` behind them, stand segment ids (k for the k-th of the n, 0 behind) and positions, which
    begin at 0 in each segment. What does not fit `length` is lost.
    """
    width = values.shape[1]
    by_row = lengths.reshape(-1, sentences)
    ends = jnp.cumsum(by_row, axis=1)
    place = jnp.arange(length)
    nth = (place >= ends[..., None]).sum(axis=1)  # sentences that end before the place: [b, length]
    real = nth < sentences
    nth = jnp.minimum(nth, sentences - 1)
    positions = place - jnp.take_along_axis(ends - by_row, nth, axis=1)
    columns = jnp.where(real, nth * width + positions, 0)
    taken = jnp.take_along_axis(values.reshape(len(by_row), -1), columns, axis=1)
    return (
        jnp.where(real, taken, filler),
        jnp.where(real, nth + 1, 0),
        jnp.where(real, positions, 0),
    )


def _bounds(
    segment_ids: Int[Array, "b l"], sentences: int
) -> tuple[Int[Array, "b n"], Int[Array, "b n"]]:
    """Return where segments 1..n of each row begin, and how long they are."""

    def of_segment(segment: Int[Array, ""]) -> tuple[Int[Array, "b"], Int[Array, "b"]]:
        inside = segment_ids == segment
        return inside.argmax(axis=1), inside.sum(axis=1)

    return jax.vmap(of_segment, out_axes=1)(jnp.arange(1, sentences + 1))
