"""What one host pays for the data of a large run: opening stores, laying them out, a batch, a plan.

    python benchmarks/data_scale.py --tasks 10 100 1000 --examples 1000000 --tokens 254
    python benchmarks/data_scale.py --tasks 100 --examples 1000000 --tokens 28 --kind pair

Makes one store of random lengths and lets every task read it under a name of its own, so that
1,000 tasks of a million examples take the disk of one (tokens are a sparse file, so they are all 0
and come from the page cache: what is measured is arithmetic and memory, no disk). Each point runs
in a process of its own. Memory is what the process has to itself, not the mapped files.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from xlmjax.configs import base
from xlmjax.data.layout import Delimiters, make_layout
from xlmjax.data.mixture import Mixture, Task, build_mixture
from xlmjax.data.store import FeatureSpec, Manifest, Shard, TokenStore, file_names
from xlmjax.planning.mixture_plan import plan_tasks

ROWS = 1024  # of the batches that are timed
STEPS = 10
SIDES = {"text": ("tokens",), "pair": ("tokens", "target_tokens")}
LANGUAGES = {"tokens": "en", "target_tokens": "de"}


def make_store(folder: pathlib.Path, kind: str, examples: int, tokens: int) -> None:
    """Write a store of so many examples, of a geometric number of tokens with this mean."""
    lengths = np.random.default_rng(0).geometric(1 / tokens, (len(SIDES[kind]), examples))
    offsets = np.pad(np.cumsum(lengths, axis=1), ((0, 0), (1, 0))).astype(np.int64)
    totals = {}
    for side, ends in zip(SIDES[kind], offsets, strict=True):
        tokens_file, offsets_file = (folder / name for name in file_names(side, 0, 1))
        np.save(offsets_file, ends)
        totals[side] = int(ends[-1])
        np.lib.format.open_memmap(tokens_file, mode="w+", dtype=np.uint16, shape=(totals[side],))
    files = {path.name: (path.stat().st_size, 0) for path in folder.iterdir()}
    shard = Shard(examples, totals, totals, totals, {}, files)
    features = {side: FeatureSpec("uint16", LANGUAGES[side]) for side in SIDES[kind]}
    manifest = Manifest("scale", "train", kind, features, "none", "none", (shard,))
    (folder / "manifest.json").write_text(json.dumps(manifest.to_json()))


def private_bytes() -> int:
    """Return the memory that this process shares with no file: the anonymous part."""
    lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def measure(folder: pathlib.Path, tasks: int, layout: str, length: int) -> dict[str, float]:
    """Return seconds and bytes of each part for a mixture of so many tasks."""
    found: dict[str, float] = {}
    memory = private_bytes()

    def timed(name: str, run: Callable[[], object]) -> object:
        start = time.perf_counter()
        result = run()
        found[name] = time.perf_counter() - start
        return result

    stores = timed("open", lambda: [TokenStore.open(folder, verify=False) for _ in range(tasks)])
    delimiters = Delimiters(eos=1, pad=0)
    layouts = timed("layout", lambda: [make_layout(layout, s, length, delimiters) for s in stores])
    opened = [
        Task(f"task{number}", *of) for number, of in enumerate(zip(stores, layouts, strict=True))
    ]
    rows = sum(task.layout.num_rows for task in opened)
    steps = -(-rows // ROWS)
    mixing = base.get_config().data.mixing.to_dict()

    def mix() -> Mixture:
        return build_mixture(
            opened, mixing, name="x", length=length, rows_per_step=ROWS, num_steps=steps, seed=0
        )

    mixture = timed("schedule", mix)
    timed("plan", lambda: plan_tasks("x", mixture, ROWS, steps))
    found["memory"] = private_bytes() - memory
    chosen = np.random.default_rng(0).integers(steps, size=STEPS)
    filled = [mixture.fill(np.arange(step * ROWS, (step + 1) * ROWS)) for step in chosen[:1]]

    def fill() -> None:
        filled[:] = [mixture.fill(np.arange(step * ROWS, (step + 1) * ROWS)) for step in chosen]

    timed("batch", fill)
    real = sum(int(np.count_nonzero(batch["segment_ids"])) for batch in filled)
    found["tokens_per_second"] = real / found["batch"]
    found["batch"] /= STEPS
    found |= {"tasks": tasks, "examples": sum(map(len, stores)), "rows": rows}
    return found


def main() -> None:
    """Measure every number of tasks and print a table, or one of them and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--examples", type=int, default=1_000_000, help="of each task")
    parser.add_argument("--tokens", type=int, default=28, help="of an example, on average")
    parser.add_argument("--kind", choices=SIDES, default="text")
    parser.add_argument("--layout", choices=("stream", "pack"), default="")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--store", help=argparse.SUPPRESS)  # where the store already is
    args = parser.parse_args()
    layout = args.layout or {"text": "stream", "pair": "pack"}[args.kind]
    if args.store:
        print(json.dumps(measure(pathlib.Path(args.store), args.tasks[0], layout, args.length)))
        return
    print(
        "| tasks | examples | rows | open, s | layout, s | schedule, s | plan, s | memory, GB "
        "| bytes an example | batch of 1,024 rows, s | tokens/s |\n|" + " --- |" * 11
    )
    with tempfile.TemporaryDirectory() as folder:
        make_store(pathlib.Path(folder), args.kind, args.examples, args.tokens)
        for tasks in args.tasks:
            command = [sys.executable, __file__, f"--store={folder}", f"--tasks={tasks}"]
            command += [f"--layout={layout}", f"--length={args.length}"]
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(out.stdout)
            print(
                f"| {found['tasks']:,.0f} | {found['examples']:,.0f} | {found['rows']:,.0f} "
                f"| {found['open']:.2f} | {found['layout']:.2f} | {found['schedule']:.3f} "
                f"| {found['plan']:.3f} | {found['memory'] / 1e9:.3f} "
                f"| {found['memory'] / found['examples']:.1f} | {found['batch']:.3f} "
                f"| {found['tokens_per_second']:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
