"""What stands around the pieces of a language: counts, and their pointwise mutual information."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np
from jaxtyping import Float32, Int, Int32, Int64

from xlmjax.data.store import TokenStore
from xlmjax.data.vocabulary import Vocabulary

WINDOW = 20  # pieces to either side; the nearest counts 1, each one further a twentieth less
NEAR = 4  # of the narrow window; the nearest counts 1, each one further a quarter less
SMOOTHING = 0.75  # exponent of the frequency of contexts (Levy et al. 2015)
_CHUNK = 100_000  # examples


@dataclasses.dataclass(frozen=True)
class Contexts:
    """Pieces of a language, the most frequent first, and how often others stand near them.

    `pieces` [n] are ids, `counts` [n] their occurrences. `before` and `after` [n, m] count the m
    most frequent pieces in the windows that end and begin at each piece, within an example, `near`
    [n, m] those on either side of it in a narrow one. A wide window tells what is spoken of (a red
    shirt), a narrow one what kind of word it is (a colour).
    """

    pieces: Int32[np.ndarray, "n"]
    counts: Int64[np.ndarray, "n"]
    before: Float32[np.ndarray, "n m"]
    after: Float32[np.ndarray, "n m"]
    near: Float32[np.ndarray, "n m"]

    @property
    def contexts(self) -> Int32[np.ndarray, "m"]:
        """Ids of the pieces that are counted near the others."""
        return self.pieces[: self.before.shape[1]]

    @classmethod
    def of(
        cls,
        stores: Sequence[TokenStore],
        vocabulary: Vocabulary,
        *,
        min_count: int,
        max_pieces: int,
        max_contexts: int,
    ) -> Self:
        """Count the text of some stores, of pieces that occur `min_count` times or more.

        Raises `ValueError` where no piece does, or none stands near another.
        """
        occurrences = np.zeros(vocabulary.size, np.int64)
        for store in stores:
            for tokens in store.flat("tokens"):
                occurrences += np.bincount(tokens, minlength=vocabulary.size)
        occurrences[list(vocabulary.special_ids)] = 0
        ranked = np.argsort(-occurrences, kind="stable")[:max_pieces]
        pieces = ranked[occurrences[ranked] >= max(1, min_count)].astype(np.int32)
        if not len(pieces):
            raise ValueError(
                f"{_names(stores)}: no piece occurs {min_count} times, so nothing can be learned "
                "of any"
            )
        width = min(max_contexts, len(pieces))
        return cls(pieces, occurrences[pieces], *_counted(stores, vocabulary, pieces, width))

    def counted_in(self, stores: Sequence[TokenStore], vocabulary: Vocabulary) -> "Contexts":
        """Return the same pieces with what stands around them in other text; `counts` stay."""
        before, after, near = _counted(stores, vocabulary, self.pieces, self.before.shape[1])
        return dataclasses.replace(self, before=before, after=after, near=near)

    def information(self) -> tuple[Float32[np.ndarray, "n m"], ...]:
        """Return the positive pointwise mutual information of `before`, `after` and `near`."""
        return tuple(map(positive_pmi, (self.before, self.after, self.near)))


def _counted(
    stores: Sequence[TokenStore], vocabulary: Vocabulary, pieces: Int32[np.ndarray, "n"], width: int
) -> list[Float32[np.ndarray, "n m"]]:
    """Return how often the first `width` pieces stand before, after and near each piece."""
    rank = np.full(vocabulary.size, -1, np.int32)
    rank[pieces] = np.arange(len(pieces))
    found = [np.zeros((len(pieces), width), np.float32) for _ in range(3)]
    for store in stores:
        for start in range(0, len(store), _CHUNK):
            examples = store.read_range("tokens", start, min(start + _CHUNK, len(store)))
            _count(_apart(examples, rank), *found)
    if not all(table.any() for table in found):
        raise ValueError(
            f"{_names(stores)}: no two frequent pieces stand near each other in a line, so nothing "
            "can be learned from what stands around them; give text of whole sentences"
        )
    return found


def _names(stores: Sequence[TokenStore]) -> str:
    return ", ".join(str(store.directory) for store in stores)


def _apart(
    examples: Sequence[Int[np.ndarray, "_"]], rank: Int32[np.ndarray, "v"]
) -> Int32[np.ndarray, "k"]:
    """Return the ranks of all tokens, -1 for what is not counted and for a window between two."""
    gap = np.full(WINDOW, -1, np.int32)
    return np.concatenate([part for tokens in examples for part in (rank[tokens], gap)])


def _count(
    ranks: Int32[np.ndarray, "k"],
    before: Float32[np.ndarray, "n m"],
    after: Float32[np.ndarray, "n m"],
    near: Float32[np.ndarray, "n m"],
) -> None:
    """Add the pairs of pieces within the windows of each other, in place."""
    width = before.shape[1]
    for distance in range(1, WINDOW + 1):
        first, second = ranks[:-distance].astype(np.int64), ranks[distance:].astype(np.int64)
        both = (first >= 0) & (second >= 0)
        for counts, words, contexts in ((after, first, second), (before, second, first)):
            counted = both & (contexts < width)
            places = words[counted] * width + contexts[counted]
            for table, window in ((counts, WINDOW), (near, NEAR)):
                if distance <= window:
                    weight = np.float32((window - distance + 1) / window)
                    np.add.at(table.reshape(-1), places, weight)


def positive_pmi(counts: Float32[np.ndarray, "n m"]) -> Float32[np.ndarray, "n m"]:
    """Return max(0, log p(context | piece) / q(context)), q of smoothed frequencies, 0 at no count.

    Levy et al. 2015, "Improving Distributional Similarity with Lessons Learned from Word
    Embeddings".
    """
    of_pieces = counts.sum(axis=1, keepdims=True)
    of_contexts = counts.sum(axis=0) ** SMOOTHING
    of_contexts /= of_contexts.sum()
    ratio = counts / np.maximum(of_pieces * of_contexts, np.finfo(np.float32).tiny)
    return np.log(np.maximum(ratio, 1))
