"""Two languages in one space, without a pair or a dictionary.

Pieces that both languages have are the first translations. From them a rotation is learned, with it
better translations, and so on (Artetxe et al. 2018, "A robust self-learning method for fully
unsupervised cross-lingual mappings of word embeddings", sections 3.3 and 3.4). Then the pairs that
are each other's best translation become contexts that both languages share: vectors of the two,
counted over those, are in one space without a rotation, which a space of either language would have
to be alike for. Of such pairs, those spelt alike come before others (Riley and Gildea 2018,
"Orthographic Features for Bilingual Lexicon Induction"). At last forms of one word are, and then
the two of a pair, drawn together.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Float32, Int, Key

from xlmjax.alignment.contexts import Contexts, positive_pmi
from xlmjax.alignment.inflection import Pairs, pooled
from xlmjax.ops import similarity

STEPS = 60  # of self-learning, of which the last ten keep every similarity
FIRST_KEPT = 0.1  # share of similarities that the first step keeps
FREQUENT = 800  # pieces of each side that self-learning translates
ROUNDS = 6
STARTS = 3  # runs of self-learning, of which the one with the most alike translations is taken


@dataclasses.dataclass(frozen=True)
class CommonSpace:
    """Vectors of the pieces of two languages.

    `first` [n, e] and `second` [k, e] are of unit length, in the order of the contexts they are
    made from; `pairs` [p, 2] those that are each other's best translation, by their ranks; `shared`
    counts the pieces that began it.
    """

    first: Float32[np.ndarray, "n e"]
    second: Float32[np.ndarray, "k e"]
    pairs: Int[np.ndarray, "p 2"]
    shared: int


def find_common_space(
    first: Contexts,
    second: Contexts,
    dim: int,
    key: Key[Array, ""],
    report: Callable[[str], Any] = lambda line: None,
    wider: Sequence[Contexts] = (),
    clues: Float[np.ndarray, "m1 m2"] | None = None,
    forms: Sequence[Pairs] = (),
) -> CommonSpace:
    """Return vectors of `dim` dimensions; `report` is told a line a step.

    `wider` are the same pieces of the two, counted in more text, which need not be as much alike:
    it tells more of rare pieces once it is known what the frequent ones mean. `clues` add to the
    CSLS of the pieces that either side has as contexts what else tells that they are translations.
    `forms` are the pieces of either side that may be forms of one word, by rank. Raises
    `ValueError` where the languages share too few pieces to begin, or have fewer contexts than
    dimensions.
    """
    rank = {piece: number for number, piece in enumerate(second.pieces.tolist())}
    start = np.array(
        [
            (number, rank[piece])
            for number, piece in enumerate(first.pieces.tolist())
            if piece in rank
        ]
    ).reshape(-1, 2)
    if len(start) < dim:
        raise ValueError(
            f"the languages have {len(start)} pieces in common, fewer than the {dim} dimensions of "
            "the vectors (model.embed_dim): take one vocabulary over both and more text"
        )
    x, y = (
        _unit(_principal(positive_pmi(side.before + side.after), dim)) for side in (first, second)
    )
    report(f"{len(start):,} pieces stand in the text of both: the first translations")
    runs = [_self_learned(x, y, start, run) for run in jax.random.split(key, STARTS)]
    alike = [float(run[2]) for run in runs]
    x, y, _ = runs[int(np.argmax(alike))]
    report(f"self-learning: CSLS of translations {', '.join(f'{value:.3f}' for value in alike)}")
    # Both pieces of a pair become a context, so both have to be counted as one.
    count = min(side.before.shape[1] for side in (first, second))
    pairs = mutual(x, y, count, clues)
    for sides, text in (((first, second), ""), (wider, " in more text")):
        around = [side.information() for side in sides]
        for number in range(ROUNDS if around else 0):
            if 2 * len(pairs) < dim:
                raise ValueError(
                    f"only {len(pairs)} pieces are each other's best translation, too few for "
                    f"{dim} dimensions: the texts are too small, or too little alike"
                )
            columns = [
                np.concatenate([counts[:, side] for counts in of_language], axis=1)
                for side, of_language in zip(pairs.T, around, strict=True)
            ]
            both = _principal(np.concatenate(columns), dim)
            x, y = (_unit(part) for part in np.split(both, [len(first.pieces)]))
            pairs = mutual(x, y, count, clues)
            report(
                f"round {number + 1} of {ROUNDS}{text}: {len(pairs):,} pieces are each other's "
                "translation"
            )
    if forms:
        x, y = (_unit(pooled(side, own)) for side, own in zip((x, y), forms, strict=True))
        pairs = mutual(x, y, count, clues)
    return CommonSpace(*draw_together(x, y, pairs), pairs, len(start))


def mutual(
    x: Float32[np.ndarray, "n e"],
    y: Float32[np.ndarray, "k e"],
    count: int,
    clues: Float[np.ndarray, "m1 m2"] | None = None,
) -> Int[np.ndarray, "p 2"]:
    """Return pairs among the first `count` rows, each the other's best by CSLS and `clues`."""
    scores = np.asarray(_csls(x[:count], y[:count]))
    if clues is not None:
        scores = scores + clues[:count, :count]
    there, back = scores.argmax(axis=1), scores.argmax(axis=0)
    rows = np.flatnonzero(back[there] == np.arange(count))
    return np.stack([rows, there[rows]], axis=1)


def draw_together(
    x: Float32[np.ndarray, "n e"], y: Float32[np.ndarray, "k e"], pairs: Int[np.ndarray, "p 2"]
) -> tuple[Float32[np.ndarray, "n e"], Float32[np.ndarray, "k e"]]:
    """Return the sides with the two of each pair half as far apart, of unit length again."""
    first, second = pairs.T
    x, y = x.copy(), y.copy()
    mean = (x[first] + y[second]) / 2
    x[first] += (mean - x[first]) / 2
    y[second] += (mean - y[second]) / 2
    return _unit(x), _unit(y)


def _principal(x: Float32[np.ndarray, "n m"], dim: int) -> Float32[np.ndarray, "n e"]:
    """Return U S of the largest `dim` singular values of x = U S V^T, from the smaller x^T x."""
    if x.shape[1] < dim:
        raise ValueError(
            f"{x.shape[1]} contexts for vectors of {dim} dimensions (model.embed_dim): more text, "
            "a smaller --min-count or a larger --max-contexts"
        )
    products = (x.T @ x).astype(np.float64)
    last = len(products) - 1
    _, vectors = scipy.linalg.eigh(products, subset_by_index=(last - dim + 1, last))
    return x @ vectors.astype(np.float32)


def _unit(x: Float32[np.ndarray, "n e"]) -> Float32[np.ndarray, "n e"]:
    """Return rows of unit length whose mean is taken away, and of unit length again."""
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    x = x - x.mean(axis=0)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)


_csls = jax.jit(similarity.csls)


def _self_learned(
    x: Float32[np.ndarray, "n e"],
    y: Float32[np.ndarray, "k e"],
    start: Int[np.ndarray, "s 2"],
    key: Key[Array, ""],
) -> tuple[Float32[np.ndarray, "n e"], Float32[np.ndarray, "k e"], float]:
    """Return the sides rotated towards each other, and the mean CSLS of the last translations."""
    count = min(FREQUENT, len(x), len(y))
    rows = np.arange(count)
    source, target = start.T
    for step in range(STEPS):
        kept = min(1.0, FIRST_KEPT + (1 - FIRST_KEPT) * step / (STEPS - 10))
        turn, _, back = np.linalg.svd(x[source].T @ y[target])
        there, here, alike = jax.device_get(
            _translate(x[:count] @ turn, y[:count] @ back.T, kept, jax.random.fold_in(key, step))
        )
        source, target = np.concatenate([rows, here]), np.concatenate([there, rows])
    turn, strength, back = np.linalg.svd(x[source].T @ y[target])
    # Directions in which the sides agree count for more (section 3.4 of the source).
    weights = np.sqrt(strength / strength.max())
    return x @ turn * weights, y @ back.T * weights, float(alike)


@jax.jit
def _translate(
    x: Float[Array, "n e"], y: Float[Array, "n e"], kept: Float[Array, ""], key: Key[Array, ""]
) -> tuple[Int[Array, "n"], Int[Array, "n"], Float[Array, ""]]:
    """Return the best match of each row of each side, of a share of the scores, and their mean."""
    scores = similarity.csls(x, y)
    mean = (scores.max(axis=1).mean() + scores.max(axis=0).mean()) / 2
    scores = jnp.where(jax.random.bernoulli(key, kept, scores.shape), scores, -jnp.inf)
    return scores.argmax(axis=1), scores.argmax(axis=0), mean
