"""Which examples of a text are there more than once, found by hashes in bounded memory.

Each shard writes runs: hashes sorted, each once, with the number of its first example and how often
it is there. Runs of all shards are merged one interval of hashes at a time, so that neither takes
more memory than a run, whatever the text. The result does not depend on how it was cut.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt64

from xlmjax.data.store_writer import GrowingArray
from xlmjax.preparation.doctor import map_array

_RUN = 1 << 22  # hashes that are sorted at a time


class RunWriter:
    """Writes the runs of one shard to `STEM-0.npy`, ...: [3, hashes] of hash, first, times."""

    def __init__(self, stem: pathlib.Path):
        self._stem = stem
        self._hashes: list[np.ndarray] = []
        self._numbers: list[np.ndarray] = []
        self._size = 0
        self.names: list[str] = []  # of the files written

    def append(
        self, hashes: UInt64[np.ndarray, "examples"], numbers: Int[np.ndarray, "examples"]
    ) -> None:
        """Take the hashes of some examples and the numbers of these in the whole text."""
        self._hashes.append(hashes)
        self._numbers.append(numbers)
        self._size += len(hashes)
        if self._size >= _RUN:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if not self._size:
            return
        ones = np.ones(self._size, np.uint64)
        run = _once(
            np.concatenate(self._hashes), np.concatenate(self._numbers).astype(np.uint64), ones
        )
        path = self._stem.with_name(f"{self._stem.name}-{len(self.names)}.npy")
        np.save(path, run)
        self.names.append(path.name)
        self._hashes, self._numbers, self._size = [], [], 0


def merge(
    runs: Sequence[pathlib.Path], max_shown: int, result: pathlib.Path | None = None
) -> tuple[int, list[tuple[int, int]]]:
    """Return how many examples are there before, and (number, times) of the most frequent.

    The latter are the first examples of their kind, at most `max_shown`, the most frequent first.
    Where `result` is given, what `Repeats.open` reads is written there.
    """
    duplicates = 0
    shown: list[tuple[int, int]] = []
    files = []
    if result is not None:
        result.parent.mkdir(parents=True, exist_ok=True)
        files = [GrowingArray(path, np.dtype(np.uint64)) for path in _files(result)]
    for part in _parts(runs):
        hashes, firsts, times = part[:, part[2] > 1]
        duplicates += int((times - np.uint64(1)).sum())
        order = np.lexsort((firsts, -times.astype(np.int64)))[:max_shown]
        found = zip(firsts[order].tolist(), times[order].tolist(), strict=True)
        shown = sorted([*shown, *found], key=lambda item: (-item[1], item[0]))[:max_shown]
        for file, values in zip(files, (hashes, firsts), strict=False):
            file.append(values)
    for file in files:
        file.finish()
    return duplicates, shown


@dataclasses.dataclass(frozen=True)
class Repeats:
    """Sorted hashes of what is there more than once, and the number of the first of each."""

    hashes: UInt64[np.ndarray, "_"]
    firsts: UInt64[np.ndarray, "_"]

    @staticmethod
    def is_there(stem: pathlib.Path) -> bool:
        """Say whether `merge` has written here."""
        return all(path.is_file() for path in _files(stem))

    @classmethod
    def open(cls, stem: pathlib.Path) -> "Repeats":
        """Map the files, which all processes of a machine then share."""
        return cls(*map(map_array, _files(stem)))

    def were_there(
        self, hashes: UInt64[np.ndarray, "examples"], numbers: Int[np.ndarray, "examples"]
    ) -> Bool[np.ndarray, "examples"]:
        """Return which examples have an equal one before them."""
        if not len(self.hashes):
            return np.zeros(len(hashes), bool)
        places = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return (self.hashes[places] == hashes) & (self.firsts[places] != numbers)


def _files(stem: pathlib.Path) -> list[pathlib.Path]:
    return [stem.with_name(f"{stem.name}.{part}.npy") for part in ("hashes", "firsts")]


def _parts(paths: Sequence[pathlib.Path]) -> Iterator[np.ndarray]:
    """Yield [3, hashes] of one interval of hashes after another, each hash once."""
    runs = [np.load(path, mmap_mode="r") for path in paths]
    count = -(-sum(run.shape[1] for run in runs) // _RUN)
    bounds = np.array([part * (1 << 64) // count for part in range(1, count)], np.uint64)
    cuts = [[0, *np.searchsorted(run[0], bounds).tolist(), run.shape[1]] for run in runs]
    for part in range(count):
        pieces = [run[:, cut[part] : cut[part + 1]] for run, cut in zip(runs, cuts, strict=True)]
        yield _once(*np.concatenate(pieces, axis=1))


def _once(
    hashes: UInt64[np.ndarray, "n"], firsts: UInt64[np.ndarray, "n"], times: UInt64[np.ndarray, "n"]
) -> UInt64[np.ndarray, "3 m"]:
    """Sort by hash, and make one entry of those of equal hashes."""
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
    if not len(hashes):
        return np.zeros((3, 0), np.uint64)
    return np.stack(
        [
            hashes[starts],
            np.minimum.reduceat(firsts[order], starts),
            np.add.reduceat(times[order], starts),
        ]
    )
