"""Single sentences -> batches of few lengths: a row `</s> x </s>` each, shortest rows first."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Int

from xlmjax.data import features
from xlmjax.data.batches import Batch, to_global
from xlmjax.data.layout import Delimiters
from xlmjax.data.mixture import empty_batch

DELIMITERS = 2  # tokens of a row that are not of the sentence
SHORTEST = 8


def bucket(length: int, limit: int | None = None) -> int:
    """Return the length of the rows for sentences of up to `length` tokens, delimiters included.

    One of 8, 12, 16, 24, 32, 48, 64, ... or `limit`, whichever is shorter: rows are at most half
    as long again as their longest sentence, and up to 512 tokens there are 13 shapes to compile.
    """
    power = max(SHORTEST, 1 << (length - 1).bit_length())
    size = power * 3 // 4 if power > SHORTEST and length <= power * 3 // 4 else power
    return size if limit is None else min(size, limit)


@dataclasses.dataclass(frozen=True)
class SentenceBatches:
    """Every sentence once, in batches of `rows`, the last of which ends in empty rows.

    `tokens` are without delimiters, `language_ids` [n] those of their languages, `limit` is the
    longest row, for sentences that all fit. Row ids are the numbers of the sentences.
    """

    tokens: Sequence[Sequence[int] | Int[np.ndarray, "_"]]
    language_ids: Int[np.ndarray, "n"]
    rows: int
    delimiters: Delimiters
    sharding: jax.sharding.Sharding
    limit: int | None = None

    def __iter__(self) -> Iterator[tuple[Int[np.ndarray, "k"], Batch]]:
        """Yield the numbers of the sentences in the first rows of a batch, and the batch."""
        lengths = np.array([len(tokens) for tokens in self.tokens], np.int64) + DELIMITERS
        order = np.argsort(lengths, kind="stable")
        for first in range(0, len(order), self.rows):
            chosen = order[first : first + self.rows]
            length = bucket(int(lengths[chosen[-1]]), self.limit)
            fill = functools.partial(self._fill, chosen, length)
            yield chosen, to_global(fill, self.rows, length, self.sharding)

    def _fill(
        self, chosen: Int[np.ndarray, "k"], length: int, start: int, stop: int
    ) -> dict[str, np.ndarray]:
        batch = empty_batch(stop - start, length)
        batch[features.TOKENS][...] = self.delimiters.pad
        for row, number in enumerate(chosen[start:stop].tolist()):
            tokens = self.tokens[number]
            end = len(tokens) + DELIMITERS
            batch[features.TOKENS][row, :end] = self.delimiters.eos
            batch[features.TOKENS][row, 0] = self.delimiters.start
            batch[features.TOKENS][row, 1 : end - 1] = tokens
            batch[features.POSITIONS][row, :end] = np.arange(end)
            batch[features.SEGMENT_IDS][row, :end] = 1
            batch[features.LANGUAGE_IDS][row, :end] = self.language_ids[number]
            batch[features.ROW_IDS][row] = number
        return batch
