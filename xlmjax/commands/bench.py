"""`xlmjax bench`: speed of the training step and of the data path."""

import argparse
import dataclasses
import json
from typing import Any

from ml_collections import ConfigDict

HELP = """Measure a config on this machine, with its own prepared data:
  step   the jitted update: real, padded and predicted tokens/s, TFLOP/s, MFU
  data   filling batches from the token stores, on one core
Model FLOPs are those of forward and backward pass, without what remat repeats."""

DEFAULT_CONFIG = "demo"
PARTS = ("step", "data")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to measure and how to print it."""
    parser.add_argument("part", nargs="*", metavar="PART", help="default: all")
    parser.add_argument("--steps", type=int, default=10, help="timed steps (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Measure and print."""
    if unknown := sorted({*args.part} - {*PARTS}):
        raise ValueError(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    from xlmjax import throughput
    from xlmjax.experiment import build_experiment, start_jax

    start_jax(config)
    import jax

    experiment = build_experiment(config)
    found: dict[str, Any] = {}
    with jax.set_mesh(experiment.mesh):
        if "step" in (args.part or PARTS):
            found["step"] = dataclasses.asdict(throughput.measure_step(experiment, args.steps))
        if "data" in (args.part or PARTS):
            speeds = throughput.measure_data(experiment)
            found["data"] = {speed.group: dataclasses.asdict(speed) for speed in speeds}
    if args.json:
        print(json.dumps(found))
        return
    for line in report(found):
        print(line)


def report(found: dict[str, Any]) -> list[str]:
    """Return the lines for a reader."""
    lines = []
    if step := found.get("step"):
        mfu = "unknown peak of this device" if step["mfu"] is None else f"{step['mfu']:.1%}"
        lines += [
            f"step on {step['devices']}: {step['step_seconds'] * 1e3:,.1f} ms, from "
            f"{step['fastest_seconds'] * 1e3:,.1f} to {step['slowest_seconds'] * 1e3:,.1f}; "
            f"compiled in {step['compile_seconds']:.1f} s",
            f"  tokens/s  real {step['real_tokens']:,.0f}  padded {step['padded_tokens']:,.0f}  "
            f"predicted {step['predicted_tokens']:,.0f}",
            f"  model TFLOP/s {step['model_tflops']:,.3f}, MFU {mfu}",
        ]
    for name, data in found.get("data", {}).items():
        lines += [
            f"data of objectives.{name}, {data['tasks']} tasks: stores opened and laid out in "
            f"{data['plan_seconds']:.1f} s",
            f"  tokens/s  real {data['real_tokens']:,.0f}  padded {data['padded_tokens']:,.0f}",
        ]
    return lines
