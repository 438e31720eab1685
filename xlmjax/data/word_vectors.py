"""Word vectors as a text file, in the format of word2vec: what embeddings may start from.

The first line holds the number of words and of dimensions, every other one a word and its vector,
with spaces between. fastText, MUSE and VecMap write it, and XLM reads it (`--reload_emb`,
specification 4.8).
"""

import dataclasses
import gzip
import os
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Self, TextIO

import numpy as np
from jaxtyping import Float, Float32, Int32

from xlmjax.data.bpe_vocabulary import END
from xlmjax.data.vocabulary import SPACE, Vocabulary


def read_word_vectors(
    path: str | os.PathLike[str], field: str
) -> tuple[list[str], Float32[np.ndarray, "n e"]]:
    """Return the words of a file, which may be gzipped, and their vectors.

    Raises `ValueError` with `field`, the path and the line where it is not of the format.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise ValueError(f"{field}: {path}: no such file (paths begin in {pathlib.Path.cwd()})")
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8", newline="\n") as lines:
            return _parse(lines, f"{field}: {path}")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"{field}: {path}: no whole text ({error}): save the vectors in word2vec's text format"
        ) from None


def _parse(lines: TextIO, where: str) -> tuple[list[str], Float32[np.ndarray, "n e"]]:
    head = lines.readline().split()
    if len(head) != 2 or not all(number.isdecimal() for number in head):
        raise ValueError(f"{where}: line 1 is not `WORDS DIMENSIONS`, as in word2vec's text format")
    count, dim = map(int, head)
    words: list[str] = []
    vectors = np.zeros((count, dim), np.float32)
    for number, line in enumerate(lines):
        # A word may hold any space but the plain one; fastText ends lines with one.
        word, *values = line.rstrip("\r\n").rstrip(" ").split(" ")
        if number == count:
            raise ValueError(f"{where}: more than the {count} words that line 1 says")
        try:
            if len(values) != dim:
                raise ValueError
            vectors[number] = values
            if not np.isfinite(vectors[number]).all():
                raise ValueError
        except ValueError:
            raise ValueError(
                f"{where}: line {number + 2} is not a word and {dim} finite numbers"
            ) from None
        words.append(word)
    if len(words) < count:
        raise ValueError(f"{where}: {len(words)} words where line 1 says {count}: is it whole?")
    return words, vectors


def write_word_vectors(
    path: str | os.PathLike[str], words: Sequence[str], vectors: Float[np.ndarray, "n e"]
) -> None:
    """Write words and their vectors."""
    with open(path, "w", encoding="utf-8") as out:
        out.write(f"{len(words)} {vectors.shape[1]}\n")
        for word, vector in zip(words, vectors, strict=True):
            out.write(f"{word} {' '.join(f'{value:.6g}' for value in vector)}\n")


@dataclasses.dataclass(frozen=True)
class VectorRows:
    """Rows of an embedding table that are known before training.

    `vectors` [n, e] are those of the entries `rows` [n], in order. `words` and `unmatched` count
    the lines of the files, and those that are no single entry of the vocabulary.
    """

    paths: tuple[str, ...]
    rows: Int32[np.ndarray, "n"]
    vectors: Float32[np.ndarray, "n e"]
    words: int
    unmatched: int

    @classmethod
    def read(cls, paths: Sequence[str], vocabulary: Vocabulary, dim: int, field: str) -> Self:
        """Return the rows that files give; an entry that several have takes the mean of theirs.

        A file of which a word is spelt as pieces are, with the space that begins it or the mark
        that ends it, holds pieces, spelt exactly; any other holds whole words. Raises `ValueError`
        with `field` where a file is of other dimensions or has no word of the vocabulary.
        """
        entries = {piece: index for index, piece in enumerate(vocabulary.pieces)}
        for special in vocabulary.special_ids:
            entries.pop(vocabulary.pieces[special], None)
        sums = np.zeros((vocabulary.size, dim), np.float32)
        counts = np.zeros(vocabulary.size, np.int64)
        total = 0
        for path in paths:
            words, vectors = read_word_vectors(path, field)
            total += len(words)
            if vectors.shape[1] != dim:
                raise ValueError(
                    f"{field}: {path} has {vectors.shape[1]} dimensions, the table model.embed_dim"
                    f"={dim}: make them equal"
                )
            spelt = any(word.startswith(SPACE) or word.endswith(END) for word in words)
            found = [_entry(word, entries, spelt) for word in words]
            known = np.array([index is not None for index in found])
            if not known.any():
                raise ValueError(
                    f"{field}: {path}: none of its {len(words)} words is an entry of "
                    f"{vocabulary.path}; the first ones are {', '.join(words[:5])}"
                )
            rows = np.array([index for index in found if index is not None], np.int64)
            np.add.at(sums, rows, vectors[known])
            np.add.at(counts, rows, 1)
        rows = np.flatnonzero(counts).astype(np.int32)
        return cls(
            tuple(paths),
            rows,
            sums[rows] / counts[rows, None],
            total,
            total - int(counts.sum()),
        )


def _entry(word: str, entries: Mapping[str, int], spelt: bool) -> int | None:
    if spelt:
        return entries.get(word)
    return entries.get(SPACE + word, entries.get(word + END))
