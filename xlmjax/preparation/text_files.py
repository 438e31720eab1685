"""Files of text: found by pattern, scanned once for errors, then read by range of lines.

A scan counts the lines, checks that the file is UTF-8 (and has its columns), and takes a digest of
the content, so that everything later can cut a corpus into equal ranges and know whether it has
changed. Lines end with a line feed and nothing else: other Unicode line separators are white space.
"""

import codecs
import contextlib
import dataclasses
import functools
import glob
import gzip
import hashlib
import io
import itertools
import json
import os
import pathlib
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np

from xlmjax.data import store_writer

_BLOCK = 1 << 22
_STRIDE = 4096  # lines between two offsets that a scan keeps


@dataclasses.dataclass(frozen=True)
class FileScan:
    """What is known of a file of `size` and `mtime_ns`.

    `digest` is of the content, uncompressed; `offsets[k]` is where line `k * 4096` begins, empty
    for compressed files, which must be read from their start.
    """

    path: str
    columns: int
    size: int
    mtime_ns: int
    lines: int
    text_bytes: int
    digest: str
    offsets: tuple[int, ...]


_known: dict[tuple[str, int], FileScan] = {}


def find(pattern: str) -> list[str]:
    """Return the files that match a glob pattern, in alphabetical order."""
    return sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))


def scan(path: str, columns: int = 1) -> FileScan:
    """Read a file through, or recall an earlier scan if it has the same size and time.

    Raises `ValueError` with file and line where it is not UTF-8, or where a line that is not blank
    does not have `columns` columns separated by tabs (1 column may hold tabs).
    """
    stat = os.stat(path)
    known = _known.get((path, columns))
    if known and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return known
    result = _read_through(path, columns, stat)
    remember([result])
    return result


def remember(scans: Iterable[FileScan]) -> None:
    """Let `scan` recall these."""
    _known.update({(item.path, item.columns): item for item in scans})


def load_scans(path: pathlib.Path) -> list[FileScan]:
    """Read the scans that an earlier run saved; none where there is no readable file."""
    try:
        return list(_parse_scans(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError, KeyError):
        return []


@functools.lru_cache(maxsize=1)
def _parse_scans(text: str) -> list[FileScan]:
    return [FileScan(**{**item, "offsets": tuple(item["offsets"])}) for item in json.loads(text)]


def save_scans(path: pathlib.Path, scans: Iterable[FileScan]) -> None:
    """Save scans for a later run."""
    store_writer.write_json(path, [dataclasses.asdict(item) for item in scans], indent=None)


def read_lines(item: FileScan, start: int, stop: int) -> Iterator[bytes]:
    """Yield lines `start` to `stop` of a scanned file, without their ends."""
    with _open(item.path) as file:
        first = 0
        if item.offsets:
            first = start - start % _STRIDE
            file.seek(item.offsets[start // _STRIDE])
        for number, line in enumerate(itertools.islice(file, start - first, stop - first), start):
            if number == 0:
                line = line.removeprefix(codecs.BOM_UTF8)
            yield line.rstrip(b"\r\n")


def _open(path: str) -> BinaryIO:
    if path.endswith(".gz"):
        return io.BufferedReader(gzip.open(path), _BLOCK)  # type: ignore[return-value,arg-type]
    return open(path, "rb")


def _read_through(path: str, columns: int, stat: os.stat_result) -> FileScan:
    digest = hashlib.blake2b(digest_size=16)
    lines = text_bytes = 0
    offsets = [0]
    with _open(path) as file, _named_gzip_errors(path):
        for text in _whole_lines(file):
            _check(path, text, lines, columns)
            digest.update(text)
            ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + 1
            if not text.endswith(b"\n"):
                ends = np.append(ends, len(text))
            starts_stride = (np.arange(lines + 1, lines + 1 + len(ends)) % _STRIDE) == 0
            offsets.extend((ends[starts_stride] + text_bytes).tolist())
            lines += len(ends)
            text_bytes += len(text)
    return FileScan(
        path=path,
        columns=columns,
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        lines=lines,
        text_bytes=text_bytes,
        digest=digest.hexdigest(),
        offsets=() if path.endswith(".gz") else tuple(offsets),
    )


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the file in blocks that end with a line; the last may lack its line feed."""
    rest = b""
    while block := file.read(_BLOCK):
        block = rest + block
        cut = block.rfind(b"\n") + 1
        if cut:
            yield block[:cut]
        rest = block[cut:]
    if rest:
        yield rest


def _check(path: str, text: bytes, lines_before: int, columns: int) -> None:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        number = lines_before + text.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}:{number}: not UTF-8 (byte 0x{text[error.start]:02x}: {error.reason}); convert "
            "the file, e.g. with `iconv -t UTF-8`"
        ) from None
    if columns == 1:
        return
    for number, line in enumerate(text.split(b"\n"), lines_before + 1):
        found = line.count(b"\t") + 1
        if found != columns and line.strip():
            raise ValueError(
                f"{path}:{number}: {found} tab-separated columns where {columns} are expected; "
                "mend the line, or name the file under another format"
            )


@contextlib.contextmanager
def _named_gzip_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file ({error}); fetch or pack it again") from error
