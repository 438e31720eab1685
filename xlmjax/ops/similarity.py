"""How alike vectors are: pooled states, neighbours by cosine, CSLS or margin, correlations.

Every function of two sets of vectors runs over blocks of rows, so that the full matrix of
similarities never exists, and products are exact float32 on every backend.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

MEASURES = ("cosine", "csls", "margin")
POOLINGS = ("mean", "first")
BLOCK = 512  # rows whose similarities to all others are held at a time
_TINY = 1e-9


def mean_by_segment(
    states: Float[Array, "b l e"], segment_ids: Int[Array, "b l"], num_segments: int = 1
) -> Float[Array, "b s e"]:
    """Return the mean state of segments 1 to `num_segments` of each row, in float32.

    Every position of a segment counts, delimiters included. A segment that a row does not have is
    zero.
    """
    member = segment_ids[:, :, None] == jnp.arange(1, num_segments + 1)
    weights = member / jnp.maximum(member.sum(axis=1, keepdims=True), 1)
    return jnp.einsum(
        "bls,ble->bse",
        weights.astype(jnp.float32),
        states.astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )


def pool(
    states: Float[Array, "b l e"], segment_ids: Int[Array, "b l"], pooling: str
) -> Float[Array, "b e"]:
    """Return a float32 vector for rows of one sentence: its mean state, or its first one."""
    if pooling == "mean":
        return mean_by_segment(states, segment_ids)[:, 0]
    return states[:, 0].astype(jnp.float32)


def unit(x: Float[Array, "n e"]) -> Float[Array, "n e"]:
    """Return the rows at length 1; a zero row stays zero."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), _TINY)


def mean_of_nearest(
    x: Float[Array, "n e"], y: Float[Array, "m e"], k: int, num_y: Int[Array, ""] | int
) -> Float[Array, "n"]:
    """Return the mean cosine of each row of `x` with its k nearest among the first rows of `y`.

    Rows are of unit length; all of `y` where it has fewer than k. This is r(x) of CSLS (Conneau et
    al. 2018, equation 4).
    """
    num_y = jnp.asarray(num_y)
    k = min(k, y.shape[0])

    def of_one(vector: Float[Array, "e"]) -> Float[Array, ""]:
        nearest, _ = jax.lax.top_k(_cosines(y, vector, num_y), k)
        counted = jnp.arange(k) < num_y
        return jnp.where(counted, nearest, 0).sum() / jnp.maximum(counted.sum(), 1)

    return jax.lax.map(of_one, x, batch_size=BLOCK)


def scores(
    cosine: Float[Array, "*n"], near_x: Float[Array, "*n"], near_y: Float[Array, "*n"], measure: str
) -> Float[Array, "*n"]:
    """Return the similarity of pairs from their cosine and the `mean_of_nearest` of both sides.

    `csls` is 2 cos - r(x) - r(y) (Conneau et al. 2018, equation 5), `margin` the ratio
    cos / ((r(x) + r(y)) / 2) (Artetxe & Schwenk 2019, equation 1), whose denominator, positive for
    all but degenerate vectors, is kept above 1e-9.
    """
    if measure == "cosine":
        return cosine
    if measure == "csls":
        return 2 * cosine - near_x - near_y
    return cosine / jnp.maximum((near_x + near_y) / 2, _TINY)


def csls(x: Float[Array, "n e"], y: Float[Array, "m e"], k: int = 10) -> Float[Array, "n m"]:
    """Return the CSLS of each row of `x` with each row of `y`: the whole matrix, at once."""
    x, y = unit(x), unit(y)
    near_x, near_y = (mean_of_nearest(a, b, k, len(b)) for a, b in ((x, y), (y, x)))
    cosine = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    near_x, near_y = (jnp.broadcast_to(near, cosine.shape) for near in (near_x[:, None], near_y))
    return scores(cosine, near_x, near_y, "csls")


def top_matches(
    x: Float[Array, "n e"],
    y: Float[Array, "m e"],
    count: int,
    measure: str = "csls",
    k: int = 10,
) -> Int[Array, "n count"]:
    """Return the rows of `y` that score highest with each row of `x`, the best first.

    Of equal scores the lower row comes first. Needs `count` rows of `y` or more.
    """
    x, y = unit(x), unit(y)
    near_x, near_y = (mean_of_nearest(a, b, k, len(b)) for a, b in ((x, y), (y, x)))

    def of_one(row: tuple[Float[Array, "e"], Float[Array, ""]]) -> Int[Array, "count"]:
        vector, near = row
        cosine = _cosines(y, vector, jnp.asarray(len(y)))
        return jax.lax.top_k(scores(cosine, near, near_y, measure), count)[1]

    return jax.lax.map(of_one, (x, near_x), batch_size=BLOCK)


class Alignment(NamedTuple):
    """Sums over the pairs (x_i, y_i) of two aligned sets of vectors, and over all other pairs.

    `forward` and `backward` count, by measure in the order of `MEASURES`, the rows of `x` whose
    best match in `y` is their own partner, and the rows of `y` likewise.
    """

    forward: Int[Array, "3"]
    backward: Int[Array, "3"]
    pairs_cosine: Float[Array, ""]  # weight n, as of the next
    pairs_distance: Float[Array, ""]
    others_cosine: Float[Array, ""]  # weight n (n - 1): every x_i with every y_j of another pair
    others_distance: Float[Array, ""]

    def means(self, n: int) -> dict[str, float]:
        """Return the mean cosine and L2 of n pairs, and of the n (n - 1) that are none."""
        return {
            "cosine_pairs": float(self.pairs_cosine) / n,
            "cosine_random": float(self.others_cosine) / (n * (n - 1)),
            "l2_pairs": float(self.pairs_distance) / n,
            "l2_random": float(self.others_distance) / (n * (n - 1)),
        }


def align(
    x: Float[Array, "n e"], y: Float[Array, "n e"], num: Int[Array, ""] | int, k: int = 10
) -> Alignment:
    """Compare aligned vectors; rows at and after `num` are filler, whatever they hold.

    The distance is L2, of the vectors as they are. A row of equal scores counts as matched only if
    its partner is the first of the best.
    """
    num = jnp.asarray(num)
    real = jnp.arange(len(x)) < num
    x, y = (jnp.where(real[:, None], z, 0) for z in (x, y))
    unit_x, unit_y = unit(x), unit(y)
    near_x = mean_of_nearest(unit_x, unit_y, k, num)
    near_y = mean_of_nearest(unit_y, unit_x, k, num)
    forward = _matched(unit_x, unit_y, near_x, near_y, real, num)
    backward = _matched(unit_y, unit_x, near_y, near_x, real, num)
    pairs_cosine = (unit_x * unit_y).sum(axis=-1)
    pairs_distance = jnp.linalg.norm(x - y, axis=-1)
    squares = jnp.square(y).sum(axis=-1)

    def to_others(row: tuple[Array, Array, Array]) -> Float[Array, "2"]:
        number, vector, direction = row
        others = real & (jnp.arange(len(y)) != number)
        square = squares + jnp.square(vector).sum() - 2 * _dot(y, vector)
        distance = jnp.sqrt(jnp.maximum(square, 0))
        return jnp.stack([_dot(unit_y, direction).sum(where=others), distance.sum(where=others)])

    to_each = jax.lax.map(to_others, (jnp.arange(len(x)), x, unit_x), batch_size=BLOCK)
    others_cosine, others_distance = to_each.sum(axis=0, where=real[:, None])
    return Alignment(
        forward,
        backward,
        pairs_cosine.sum(where=real),
        pairs_distance.sum(where=real),
        others_cosine,
        others_distance,
    )


def _matched(
    x: Float[Array, "n e"],
    y: Float[Array, "n e"],
    near_x: Float[Array, "n"],
    near_y: Float[Array, "n"],
    real: Array,
    num: Array,
) -> Int[Array, "3"]:
    def best(row: tuple[Float[Array, "e"], Float[Array, ""]]) -> Int[Array, "3"]:
        cosine = _cosines(y, row[0], num)
        found = [jnp.argmax(scores(cosine, row[1], near_y, measure)) for measure in MEASURES]
        return jnp.stack(found)

    found = jax.lax.map(best, (x, near_x), batch_size=BLOCK)
    return ((found == jnp.arange(len(x))[:, None]) & real[:, None]).sum(axis=0)


def _cosines(y: Float[Array, "m e"], vector: Float[Array, "e"], num_y: Array) -> Float[Array, "m"]:
    """Return the cosines of a vector with the rows of `y`, -inf with those from `num_y` on."""
    return jnp.where(jnp.arange(len(y)) < num_y, _dot(y, vector), -jnp.inf)


def _dot(y: Float[Array, "m e"], vector: Float[Array, "e"]) -> Float[Array, "m"]:
    return jnp.dot(y, vector, precision=jax.lax.Precision.HIGHEST)


def pearson(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"]) -> float:
    """Return the correlation of two series, in float64; nan where one of them is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    a, b = (np.asarray(x, np.float64) - np.mean(x, dtype=np.float64) for x in (a, b))
    return float((a * b).sum() / np.sqrt(np.square(a).sum() * np.square(b).sum()))


def spearman(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"]) -> float:
    """Return the correlation of the ranks of two series; nan where one of them is constant."""
    return pearson(ranks(a), ranks(b))


def ranks(x: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Return the rank of every element from 1, equal ones sharing the average of theirs."""
    _, group, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group]
