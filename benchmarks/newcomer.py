"""The first minutes of a newcomer, timed: from a fresh clone to the demo's tables and a first step.

  python benchmarks/newcomer.py --data ../shared/data
  python benchmarks/newcomer.py --data ../shared/data --only corpus

Clones the repository (what is committed) into a temporary folder and runs the README's commands
there, with uv and whatever its cache holds: `xlmjax demo` to its end, and, in a second clone, the
README's `mine.py` on English and Swahili files of DATA up to the first step of `train`. Prints
seconds since the clone began, as they come. Give it the machine for itself.
"""

import argparse
import gzip
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence

ROOT = pathlib.Path(__file__).parents[1]


class Clone:
    """A fresh clone, and the seconds since it was begun."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self._started = folder, time.monotonic()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        self.tell("cloned")

    def tell(self, what: str) -> None:
        """Print what has just been reached, and when."""
        print(f"{time.monotonic() - self._started:7.0f} s  {what}", flush=True)

    def lines(self, *command: str) -> Iterator[str]:
        """Run a command by uv and yield what it prints; closed early, it is interrupted."""
        process = subprocess.Popen(
            ["uv", "run", *command],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        assert process.stdout is not None
        last: list[str] = []
        try:
            for line in process.stdout:
                last = [*last[-20:], line]
                yield line
            if process.wait():
                raise SystemExit(f"{' '.join(command)} failed:\n{''.join(last)}")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
                process.wait()


def demo(clone: Clone) -> None:
    """Time the parts and the tables of the demo."""
    for line in clone.lines("xlmjax", "demo"):
        if re.match(r"\d/\d ", line):
            clone.tell(line.strip())
        elif re.match(r" +(MLM +MLM\+TLM|BLEU)$", line.rstrip()):
            clone.tell(f"table: {line.strip()}")
    clone.tell("the demo has ended")


def corpus(clone: Clone, data: pathlib.Path) -> None:
    """Time the README's commands on a corpus of one's own."""
    readme = (clone.folder / "README.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (clone.folder / "mine.py").write_text(next(x for x in blocks if "def get_config" in x), "utf-8")
    for name in ("corpus", "held_out"):
        (clone.folder / name).mkdir()
    for code in ("en", "sw"):
        shutil.copy(data / "wiki" / f"{code}.txt.gz", clone.folder / "corpus")
        with gzip.open(data / "ntrex128" / f"{code}.txt.gz") as lines:
            (clone.folder / "held_out" / f"{code}.txt").write_bytes(lines.read())
    with gzip.open(data / "lafand_mt" / "train.en-swa.tsv.gz") as lines:
        (clone.folder / "corpus" / "en-sw.tsv").write_bytes(lines.read())
    clone.tell("mine.py and its files are in place")
    for command in ("vocab", "prepare", "plan"):
        for _ in clone.lines("xlmjax", command, "--config=mine.py"):
            pass
        clone.tell(command)
    for line in clone.lines("xlmjax", "train", "--config=mine.py", "--workdir=runs/mine"):
        if line.startswith("first step"):
            clone.tell(f"train: {line.strip()}")
            return
    raise SystemExit("train ended without a first step")


def main(argv: Sequence[str] | None = None) -> None:
    """Run both paths, or one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=pathlib.Path, required=True, help="real data")
    parser.add_argument("--only", choices=("demo", "corpus"))
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if args.only != "demo":
            corpus(Clone(pathlib.Path(folder) / "corpus"), args.data)
        if args.only != "corpus":
            demo(Clone(pathlib.Path(folder) / "demo"))


if __name__ == "__main__":
    main()
