"""The table of docs/fit.md: what each model takes on each slice, by the compiler; no TPU needed.

    python benchmarks/fit_tables.py                                   # all, hours on two cores
    python benchmarks/fit_tables.py --model xlm15 xlmr-base --slice v5e-16

Runs `xlmjax fit --search` for each pair and prints a row as it comes. What the compiler said is
kept (~/.cache/xlmjax/fit), so a run that was stopped goes on where it was; a search that found an
answer there has "kept" in the place of its seconds.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

MODELS = {
    "xlm15": "xlm15",
    "xlmr-base": "xlmr:size=base",
    "xlmr-large": "xlmr:size=large",
    "xlmr-xl": "xlmr:size=xl",
    "xlmr-xxl": "xlmr:size=xxl",
}
SLICES = {
    "v5e-16": "v5e:4x4",
    "v5e-256": "v5e:16x16",
    "v5p-128": "v5p:4x4x4",
    "v6e-256": "v6e:16x16",
}
HEAD = (
    "| model | slice | plan | memory of a device, GiB | left | step, ms at least | bound by "
    "| in a row | tokens/s at most | MFU at most | days | chip-hours | plans tried | search, s |"
)


def fit(config: str, topology: str, *flags: str) -> dict[str, Any]:
    """Return the first plan of `xlmjax fit --json`, which tells on stderr what it tries."""
    program = pathlib.Path(sys.executable).with_name("xlmjax")
    command = [program, "fit", f"--config={config}", f"--topology={topology}", "--json", *flags]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if out.returncode:
        raise SystemExit(out.returncode)
    return json.loads(out.stdout.splitlines()[0])


def words(plan: Mapping[str, Any]) -> str:
    """Return a plan in words, without mesh axes of size 1."""
    axes = ("replica", "data", "fsdp", "tensor")
    mesh = " ".join(f"{x} {plan[f'mesh.{x}']}" for x in axes if plan[f"mesh.{x}"] > 1)
    rest = f"remat {plan['model.remat']}; microbatches {plan['train.microbatches']}"
    return f"{mesh}; {rest}" if mesh else rest


def row(model: str, slice_: str, found: Mapping[str, Any]) -> str:
    """Return a line of the markdown table."""
    effort = found["search"]
    seconds = "kept" if effort["kept"] else f"{effort['seconds']:,.0f}"
    end = f"| {effort['tried']} | {seconds} |"
    plan = words(found["plan"])
    if not found["fits"]:
        refusal = found["program"]["refusal"]
        return f"| {model} | {slice_} | {plan} | does not fit: {refusal} |" + " |" * 8 + end[1:]
    program, times, future = found["program"], found["roofline"], found["forecast"]
    left = "shared" if found["shared"] else f"{found['headroom'] / 2**30:.2f}"
    return (
        f"| {model} | {slice_} | {plan} | {program['memory']['total'] / 2**30:.2f} "
        f"| {left} | {1e3 * times['step']:,.0f} | {times['binding']} "
        f"| {1e3 * times['serial']:,.0f} | {future['tokens_per_second']:,.0f} "
        f"| {future['mfu']:.1%} | {future['days']:,.1f} | {future['chip_hours']:,.0f} {end}"
    )


def main() -> None:
    """Fit every pair and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--slice", nargs="+", choices=SLICES, default=list(SLICES))
    parser.add_argument("--best", default="1", help="plans that fit, a search")
    parser.add_argument("--cache", default="")
    args = parser.parse_args()
    print(HEAD)
    print("|" + " --- |" * (HEAD.count("|") - 1))
    kept = [f"--cache={args.cache}"] if args.cache else []
    for model in args.model:
        for slice_ in args.slice:
            flags = ["--search", f"--best={args.best}", *kept]
            print(row(model, slice_, fit(MODELS[model], SLICES[slice_], *flags)), flush=True)


if __name__ == "__main__":
    main()
