"""`xlmjax embed`: sentences from stdin to vectors in a .npy file."""

import argparse
import itertools
import pathlib
import sys
import time
from collections.abc import Iterable, Iterator

import numpy as np
from ml_collections import ConfigDict

from xlmjax.commands.lines import lines_of

HELP = """Read one sentence a line from stdin and write their vectors, float32 [lines, width] in the
order of the lines, to a .npy file. An empty line has a vector of zeros. Lines are LANG<tab>TEXT
unless --language or --languages says what language they are in."""
DEFAULT_CONFIG = ""  # config.json of --workdir

CHUNK = 16_384  # lines in memory at a time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which checkpoint, what of it, and where the vectors go."""
    parser.add_argument("--workdir", required=True, help="of the training run")
    parser.add_argument("--step", type=int, default=-1, help="which checkpoint; the latest if < 0")
    parser.add_argument("--out", required=True, metavar="FILE.npy", help="where the vectors go")
    parser.add_argument(
        "--layer",
        type=int,
        default=-1,
        help="states after which layer: 0 embeddings, -1 the last (default: %(default)s)",
    )
    parser.add_argument(
        "--pooling", default="mean", metavar="mean|first", help="default: %(default)s"
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--language", metavar="CODE", help="of every line")
    group.add_argument("--languages", metavar="FILE", help="one code a line, as many as sentences")
    parser.add_argument("--rows", type=int, default=64, help="a batch (default: %(default)s)")
    parser.add_argument(
        "--truncate",
        action="store_true",
        help="cut sentences longer than the model's positions and count them, instead of stopping",
    )


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Embed stdin; progress goes to stderr."""
    out = pathlib.Path(args.out)
    if not out.parent.is_dir():
        raise ValueError(f"--out={out}: no such folder {out.parent}")
    codes = _codes(pathlib.Path(args.languages)) if args.languages else None

    from xlmjax.embedding import EMPTY, TRUNCATED, Embedder

    embedder = Embedder.load(
        config,
        args.workdir,
        args.step,
        layer=args.layer,
        pooling=args.pooling,
        rows=args.rows,
        truncate=args.truncate,
    )
    started = time.monotonic()
    with VectorFile(out, embedder.width) as file:
        sentences = split(lines_of(sys.stdin.buffer), args.language, codes)
        while chunk := list(itertools.islice(sentences, CHUNK)):
            languages, texts = zip(*chunk, strict=True)
            file.append(embedder.embed(texts, languages, file.rows + 1))
            rate = file.rows / (time.monotonic() - started)
            print(f"{file.rows:,} sentences, {rate:,.0f} a second", file=sys.stderr, flush=True)
    counts = embedder.counts
    print(
        f"{out}: {file.rows:,} vectors of width {embedder.width}; empty lines "
        f"(zeros): {counts[EMPTY]:,}, truncated: {counts[TRUNCATED]:,}",
        file=sys.stderr,
    )


def split(
    lines: Iterable[str], language: str | None, codes: list[str] | None
) -> Iterator[tuple[str, str]]:
    """Yield (language, text) of each line: all of one language, of a list, or LANG<tab>TEXT.

    Raises `ValueError` with the number of a line without a language. The language of an empty line
    is "".
    """
    number = 0
    for number, line in enumerate(lines, start=1):
        if language is not None:
            yield language, line
        elif codes is not None:
            if number > len(codes):
                raise ValueError(
                    f"--languages has {len(codes):,} lines, stdin more: give one code a sentence"
                )
            yield codes[number - 1], line
        elif not line.strip():
            yield "", ""
        else:
            code, tab, text = line.partition("\t")
            if not tab:
                raise ValueError(
                    f"stdin:{number}: no tab in {line[:60]!r}; lines are LANG<tab>TEXT unless "
                    "--language or --languages is given"
                )
            yield code, text
    if codes is not None and number < len(codes):
        raise ValueError(
            f"--languages has {len(codes):,} lines, stdin {number:,}: give one code a sentence"
        )


class VectorFile:
    """A .npy file of float32 rows whose number is not known beforehand.

    It has its name only when it is whole: until then, and after an error, there is at most
    `NAME.partial`, which an error removes.
    """

    def __init__(self, path: pathlib.Path, width: int):
        self.rows = 0
        self._path, self._width = path, width
        self._partial = path.with_name(f"{path.name}.partial")

    def __enter__(self) -> "VectorFile":
        self._file = self._partial.open("wb")
        self._write_header()
        return self

    def append(self, vectors: np.ndarray) -> None:
        """Add rows [n, width]."""
        self._file.write(np.ascontiguousarray(vectors, np.float32).tobytes())
        self.rows += len(vectors)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._file.seek(0)
            self._write_header()  # NumPy leaves room in it for the first axis to grow
        self._file.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink()

    def _write_header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, self._width)}
        np.lib.format.write_array_header_1_0(self._file, header)


def _codes(path: pathlib.Path) -> list[str]:
    if not path.is_file():
        raise ValueError(f"--languages={path}: no such file")
    return [line.strip() for line in path.read_text("utf-8").removesuffix("\n").split("\n")]
