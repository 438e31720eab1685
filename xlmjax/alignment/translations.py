"""Which pieces translate each other in pairs of sentences, for instance a translator's own.

The model is the first of Brown et al. 1993, "The Mathematics of Statistical Machine Translation":
each piece of a sentence is the translation of one of the pieces of the other, wherever that stands.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32

from xlmjax.data.features import TARGET_TOKENS, TOKENS
from xlmjax.data.store import TokenStore
from xlmjax.data.vocabulary import Vocabulary

WORTH = 1.0  # what it adds to the CSLS of two pieces that translate nothing but each other
ITERATIONS = 6  # of expectation maximisation
_CHUNK = 1_000  # pairs


def translated(
    store: TokenStore,
    vocabulary: Vocabulary,
    first: Int[np.ndarray, "m1"],
    second: Int[np.ndarray, "m2"],
) -> Float32[np.ndarray, "m1 m2"]:
    """Return sqrt(p(second | first) p(first | second)) of pieces in the pairs of a store.

    `first` are ids of pieces of the sources, `second` of the targets; all others count as one.
    """
    shape = (len(first) + 1, len(second) + 1)
    chunks = [
        (
            _ranks(store.read_range(TOKENS, start, stop), vocabulary, first),
            _ranks(store.read_range(TARGET_TOKENS, start, stop), vocabulary, second),
        )
        for start in range(0, len(store), _CHUNK)
        for stop in [min(start + _CHUNK, len(store))]
    ]
    there = back = np.ones(shape)
    for _ in range(ITERATIONS):
        sums = np.zeros((2, *shape))  # in float64: what stands for all others is counted very often
        for source, target in chunks:
            both = (source >= 0)[:, :, None] & (target >= 0)[:, None, :]
            place = (source[:, :, None], target[:, None, :])
            for table, total, axis in ((there, sums[0], 1), (back, sums[1], 2)):
                np.add.at(total, place, _shares(table[place] * both, axis))
        there, back = _shares(sums[0], axis=1), _shares(sums[1], axis=0)
    return np.sqrt(there * back)[:-1, :-1].astype(np.float32)


def _shares(x: Float64[np.ndarray, "..."], axis: int) -> Float64[np.ndarray, "..."]:
    """Return the shares of the sum over an axis, 0 where it is 0."""
    return x / np.maximum(x.sum(axis=axis, keepdims=True), np.finfo(np.float64).tiny)


def _ranks(
    examples: Sequence[Int[np.ndarray, "_"]], vocabulary: Vocabulary, pieces: Int[np.ndarray, "m"]
) -> Int32[np.ndarray, "b l"]:
    """Return the number of each token among the pieces, m for any other, -1 after the last."""
    rank = np.full(vocabulary.size, len(pieces), np.int32)
    rank[pieces] = np.arange(len(pieces))
    special = np.zeros(vocabulary.size, bool)
    special[list(vocabulary.special_ids)] = True
    rows = [rank[tokens[~special[tokens]]] for tokens in examples]
    length = np.array([len(row) for row in rows])
    inside: Bool[np.ndarray, "b l"] = np.arange(max(length, default=0)) < length[:, None]
    ranks = np.full(inside.shape, -1, np.int32)
    ranks[inside] = np.concatenate(rows)
    return ranks
