"""What a page of `xlmjax report` weighs, and how long it takes to make, to load and to go through.

    uv run python -m benchmarks.report_page --workdir=runs/a,runs/b
    uv run python -m benchmarks.report_page --lines 1000000 --languages 15

Without a workdir the run is made up: so many lines of training in so many languages, as real ones
are written. Each making is a process of its own; seconds of it are of the wall and of the CPU, and
memory is its largest resident set. Loading and scrolling need a Chromium.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from tests import browser
from tests.report_runs import CODES, write_run

DISTINCT = 1_000  # lines of a made-up log before it repeats itself, under other steps


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", default="", help="real runs instead of a made-up one")
    parser.add_argument("--lines", type=int, default=1_000)
    parser.add_argument("--languages", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", default="", help="where to leave page.html and pictures of it")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kept = pathlib.Path(args.keep or folder)
        kept.mkdir(parents=True, exist_ok=True)
        workdir = args.workdir or str(long_run(pathlib.Path(folder), args.lines, args.languages))
        sizes = [(pathlib.Path(x) / "metrics.jsonl").stat().st_size for x in workdir.split(",")]
        print(f"log: {', '.join(f'{size / 1e6:,.1f} MB' for size in sizes)}")
        page = kept / "page.html"
        for _ in range(args.rounds):
            make(workdir, page)
        text = page.read_bytes()
        print(f"page: {len(text):,} bytes, {text.count(b'<figure>')} charts")
        if browser.find_browser() is None:
            print("no Chromium on this machine: loading is not measured")
            return
        for width in (1280, 390):
            loads = [browser.visit(page, width, scroll=False) for _ in range(args.rounds)]
            pictures = kept / f"page-{width}" if args.keep else None
            seen = browser.visit(page, width, pictures=pictures, expressions={"n": "drawn.length"})
            seconds = sorted(one.loaded_seconds for one in loads)
            print(
                f"{width} px: loaded in {statistics.median(seconds):.2f} s "
                f"[{seconds[0]:.2f}-{seconds[-1]:.2f}], {seen.values['n']} charts drawn on the way "
                f"down, {len(seen.problems)} errors or warnings, {len(seen.requests)} requests"
            )


def make(workdir: str, page: pathlib.Path) -> None:
    """Make the page in a process of its own and print what it took."""
    command = [sys.executable, "-m", "xlmjax.cli", "report", f"--workdir={workdir}"]
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, f"--out={page}"], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"made in {time.monotonic() - begin:.1f} s, {cpu:.1f} s of CPU, "
        f"{after.ru_maxrss / 1024:,.0f} MiB at most"
    )


def long_run(folder: pathlib.Path, lines: int, num_languages: int) -> pathlib.Path:
    """Write a run of so many lines of training."""
    few = min(lines, DISTINCT)
    codes = CODES[:num_languages]
    run = write_run(folder / "run", codes=codes, lines=few, num_steps=10 * lines)
    path = run / "metrics.jsonl"
    bodies = [
        line.split(",", 1)[1]
        for line in path.read_text().splitlines(keepends=True)
        if not line.split(",", 1)[1].startswith(' "eval/')
    ]
    with path.open("w") as file:
        for number in range(lines):
            body = bodies[number * few // lines]
            file.write(f"{json.dumps({'step': 10 * (number + 1)})[:-1]},{body}")
    return run


if __name__ == "__main__":
    main()
