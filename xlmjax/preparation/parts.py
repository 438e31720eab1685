"""The pieces of a corpus, from files: examples addressed by number in each."""

import abc
import dataclasses
import functools
import itertools
from collections.abc import Iterator

from xlmjax.preparation import text_files
from xlmjax.preparation.text_files import FileScan

# One example: UTF-8 text a language; None on the side where a joined key has no partner.
Example = tuple[bytes | None, ...]


class Part(abc.ABC):
    """A piece of a corpus, from one file, one pair of files or a generator."""

    scans: tuple[FileScan, ...]  # of its files

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""

    @abc.abstractmethod
    def examples(self, start: int, stop: int) -> Iterator[Example]:
        """Yield examples `start` to `stop`."""

    @abc.abstractmethod
    def fingerprint(self) -> list:
        """Return what tells this text from any other, as JSON."""

    def place(self, index: int) -> str:
        """Return where example `index` is, for a reader."""
        return f"{self.scans[0].path}:{index + 1}" if self.scans else "demo"


@dataclasses.dataclass(frozen=True)
class Lines(Part):
    """One file, or two line by line."""

    scans: tuple[FileScan, ...]

    def __post_init__(self) -> None:
        if len({scan.lines for scan in self.scans}) != 1:
            first, second = self.scans
            raise ValueError(
                f"{first.path} has {first.lines:,} lines, {second.path} has {second.lines:,}: "
                "files of a pair must be aligned line by line"
            )

    def __len__(self) -> int:
        return self.scans[0].lines

    def examples(self, start: int, stop: int) -> Iterator[Example]:
        """Yield examples `start` to `stop`."""
        columns = [text_files.read_lines(scan, start, stop) for scan in self.scans]
        return zip(*columns, strict=True)

    def fingerprint(self) -> list:
        """Return what tells this text from any other."""
        return ["lines", *(scan.digest for scan in self.scans)]


@dataclasses.dataclass(frozen=True)
class Table(Part):
    """One file of two columns; `swapped` where the second column is the first language."""

    scans: tuple[FileScan]
    swapped: bool

    def __len__(self) -> int:
        return self.scans[0].lines

    def examples(self, start: int, stop: int) -> Iterator[Example]:
        """Yield examples `start` to `stop`."""
        for line in text_files.read_lines(self.scans[0], start, stop):
            left, _, right = line.partition(b"\t")
            yield (right, left) if self.swapped else (left, right)

    def fingerprint(self) -> list:
        """Return what tells this text from any other."""
        return ["table", self.scans[0].digest, self.swapped]


@dataclasses.dataclass(frozen=True)
class Column(Part):
    """The first language of a table alone, as text."""

    scans: tuple[FileScan]
    table: Table

    def __len__(self) -> int:
        return len(self.table)

    def examples(self, start: int, stop: int) -> Iterator[Example]:
        """Yield examples `start` to `stop`."""
        yield from (row[:1] for row in self.table.examples(start, stop))

    def fingerprint(self) -> list:
        """Return what tells this text from any other."""
        return ["column", *self.table.fingerprint()]


@dataclasses.dataclass(frozen=True)
class Keyed(Part):
    """One file of KEY<tab>text, or two joined on KEY in the order of the first, then the rest."""

    scans: tuple[FileScan, ...]

    @functools.cached_property
    def _keys(self) -> list[bytes]:
        return list(dict.fromkeys(key for scan in self.scans for key in _read_keyed(scan)))

    @functools.cached_property
    def _rows(self) -> list[Example]:
        texts = [_read_keyed(scan) for scan in self.scans]
        keys = dict.fromkeys(key for column in texts for key in column)
        return [tuple(column.get(key) for column in texts) for key in keys]

    def __len__(self) -> int:
        return len(self._rows)

    def examples(self, start: int, stop: int) -> Iterator[Example]:
        """Yield examples `start` to `stop`."""
        return iter(self._rows[start:stop])

    def fingerprint(self) -> list:
        """Return what tells this text from any other."""
        return ["keyed", *(scan.digest for scan in self.scans)]

    def place(self, index: int) -> str:
        """Return the first file and the key of an example."""
        return f"{self.scans[0].path}: {self._keys[index].decode()}"


@dataclasses.dataclass(frozen=True)
class Range(Part):
    """Some examples of a part, in its order."""

    scans: tuple[FileScan, ...]
    part: Part
    numbers: range  # of the examples

    def __len__(self) -> int:
        return len(self.numbers)

    def examples(self, start: int, stop: int) -> Iterator[Example]:
        """Yield examples `start` to `stop` of the range."""
        some = self.numbers[start:stop]
        return itertools.islice(self.part.examples(some.start, some.stop), 0, None, some.step)

    def fingerprint(self) -> list:
        """Return what tells this text from any other."""
        numbers = self.numbers
        return ["range", numbers.start, len(numbers), numbers.step, self.part.fingerprint()]

    def place(self, index: int) -> str:
        """Return where example `index` of the range is."""
        return self.part.place(self.numbers[index])


@dataclasses.dataclass(frozen=True)
class Labelled(Part):
    """One file of a text, or two, and the name of a label as the last column."""

    scans: tuple[FileScan]
    names: tuple[str, ...]  # of the labels

    def __post_init__(self) -> None:
        known = {name.encode() for name in self.names}
        for number, (*_, label) in enumerate(self.examples(0, len(self)), 1):
            if label and label not in known:
                raise ValueError(
                    f"{self.scans[0].path}:{number}: label {label.decode()!r} is not one of "
                    f"{', '.join(self.names)}"
                )

    def __len__(self) -> int:
        return self.scans[0].lines

    def examples(self, start: int, stop: int) -> Iterator[Example]:
        """Yield examples `start` to `stop`; a blank line is one without text."""
        for line in text_files.read_lines(self.scans[0], start, stop):
            yield tuple(line.split(b"\t")) if line.strip() else (b"",) * self.scans[0].columns

    def fingerprint(self) -> list:
        """Return what tells this text from any other."""
        return ["labelled", self.scans[0].digest]


def _read_keyed(scan: FileScan) -> dict[bytes, bytes]:
    texts: dict[bytes, bytes] = {}
    for number, line in enumerate(text_files.read_lines(scan, 0, scan.lines), 1):
        key, tab, text = line.partition(b"\t")
        if not tab:
            continue  # blank: `scan` checked the columns of the others
        if key in texts:
            raise ValueError(f"{scan.path}:{number}: key {key.decode()!r} is there twice")
        texts[key] = text
    return texts
