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


def row(model: str, slice_: str, found: dict) -> str:
    """Return a line of the markdown table."""
    plan = found["plan"]
    mesh = " ".join(
        f"{axis} {plan[f'mesh.{axis}']}"
        for axis in ("replica", "data", "fsdp", "tensor")
        if plan[f"mesh.{axis}"] > 1
    )
    effort = found["search"]
    seconds = "kept" if effort["kept"] else f"{effort['seconds']:,.0f}"
    end = f"| {effort['tried']} | {seconds} |"
    words = f"{mesh}; remat {plan['model.remat']}; microbatches {plan['train.microbatches']}"
    if not found["fits"]:
        refusal = found["program"]["refusal"]
        return f"| {model} | {slice_} | {words} | does not fit: {refusal} |" + " |" * 8 + end[1:]
    program, times, future = found["program"], found["roofline"], found["forecast"]
    left = "shared" if found["shared"] else f"{found['headroom'] / 2**30:.2f}"
    return (
        f"| {model} | {slice_} | {words} | {program['memory']['total'] / 2**30:.2f} "
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
    program = pathlib.Path(sys.executable).with_name("xlmjax")
    for model in args.model:
        for slice_ in args.slice:
            command = [program, "fit", f"--config={MODELS[model]}", "--search", "--json"]
            command += [f"--topology={SLICES[slice_]}", f"--best={args.best}"]
            command += [f"--cache={args.cache}"] if args.cache else []
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if out.returncode:
                raise SystemExit(out.returncode)
            print(row(model, slice_, json.loads(out.stdout.splitlines()[0])), flush=True)


if __name__ == "__main__":
    main()
