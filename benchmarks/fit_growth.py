"""What a step takes as chips or words grow, by the compiler (docs/scaling.md); no TPU needed.

    python benchmarks/fit_growth.py                       # both tables, an hour of a core
    python benchmarks/fit_growth.py --axis vocabulary --vocabulary 32768 1048576

XLM-R base, by `xlmjax fit`. Along `chips` the first plan that its search finds on each slice, along
`vocabulary` one plan on one slice. What the compiler said is kept (~/.cache/xlmjax/fit), so a run
that was stopped goes on where it was; the seconds of compiling are kept with it.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from fit_tables import fit, words

CONFIG = "xlmr:size=base"
SLICES = (
    "v5e:1x1",
    "v5e:2x2",
    "v5e:4x4",
    "v5e:8x8",
    "v5e:16x16",
    "4*v5e:16x16",
    "16*v5e:16x16",
)
VOCABULARIES = tuple(2**power for power in range(15, 21))
ONE_SLICE = "v5e:8x8"
ONE_PLAN = {"mesh.data": 1, "mesh.fsdp": 64, "model.remat": "dots", "train.microbatches": 2}
HEAD = (
    "| {} | plan | memory of a device, GiB | compile, s | step, ms at least / in a row "
    "| tokens/s at most | sent by a device and step, MiB | collectives |"
)


def row(name: str, found: Mapping[str, Any]) -> str:
    """Return a line of the markdown table."""
    program = found["program"]
    if not found["fits"]:
        return f"| {name} | {words(found['plan'])} | {program['refusal']} |" + " |" * 5
    shared = ", shared" if found["shared"] else ""
    times, exchanges = found["roofline"], program["exchanges"]
    return (
        f"| {name} | {words(found['plan'])} | {program['memory']['total'] / 2**30:.2f}{shared} "
        f"| {program['compile_seconds']:,.0f} | {1e3 * times['step']:,.0f} / "
        f"{1e3 * times['serial']:,.0f} | {found['forecast']['tokens_per_second']:,.0f} "
        f"| {sum(found['sent'].values()) / 2**20:,.0f} | {sum(x['count'] for x in exchanges):,} |"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Fit every point and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    axes = ("chips", "vocabulary")
    parser.add_argument("--axis", nargs="+", choices=axes, default=list(axes))
    parser.add_argument("--slice", nargs="+", default=list(SLICES))
    parser.add_argument("--vocabulary", nargs="+", type=int, default=list(VOCABULARIES))
    args = parser.parse_args(argv)
    for axis in args.axis:
        head = HEAD.format(axis)
        print(head + "\n|" + " --- |" * (head.count("|") - 1), flush=True)
        if axis == "chips":
            for slice_ in args.slice:
                print(row(f"`{slice_}`", fit(CONFIG, slice_, "--search", "--best=1")), flush=True)
            continue
        for size in args.vocabulary:
            fields = ONE_PLAN | {"vocab.size": size}
            flags = [f"--config.{name}={value}" for name, value in fields.items()]
            print(row(f"{size:,}", fit(CONFIG, ONE_SLICE, *flags)), flush=True)


if __name__ == "__main__":
    main()
