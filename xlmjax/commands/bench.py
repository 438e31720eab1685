"""`xlmjax bench`: speed of the training step, its two large kernels, and of the data path."""

import argparse
import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

HELP = """Measure a config on this machine, with its own prepared data:
  step       the jitted update: real, padded and predicted tokens/s, TFLOP/s, MFU
  attention  forward and backward of one layer's, by every implementation that runs here
  head       forward and backward of the vocabulary projection and its loss, whole and tiled
  data       filling batches from the token stores, on one core
Model FLOPs are those of forward and backward pass, without what remat or a kernel repeats;
attention counts by segments."""

DEFAULT_CONFIG = "demo"
PARTS = ("step", "attention", "head", "data")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to measure and how to print it."""
    parser.add_argument("part", nargs="*", metavar="PART", help="default: all")
    parser.add_argument(
        "--steps", type=int, default=10, help="timed steps or calls (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Measure and print."""
    parts = args.part or PARTS
    if unknown := sorted({*parts} - {*PARTS}):
        raise ValueError(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    if args.steps < 1:
        raise ValueError(f"--steps={args.steps}: time at least one")
    from xlmjax import throughput
    from xlmjax.experiment import build_experiment, start_jax

    start_jax(config)
    import jax

    experiment = build_experiment(config)
    found: dict[str, Any] = {}
    with jax.set_mesh(experiment.mesh):
        if "step" in parts:
            found["step"] = dataclasses.asdict(throughput.measure_step(experiment, args.steps))
        if "attention" in parts:
            attention = throughput.measure_attention(experiment, args.steps)
            found["attention"] = [dataclasses.asdict(speed) for speed in attention]
        if "head" in parts:
            head = throughput.measure_head(experiment, args.steps)
            found["head"] = [dataclasses.asdict(speed) for speed in head]
        if "data" in parts:
            speeds = throughput.measure_data(experiment)
            found["data"] = {speed.group: dataclasses.asdict(speed) for speed in speeds}
    if args.json:
        print(json.dumps(found))
        return
    for line in report(found):
        print(line)


def report(found: Mapping[str, Any]) -> list[str]:
    """Return the lines for a reader."""
    lines = []
    if step := found.get("step"):
        lines += [
            f"step on {step['devices']}: {step['step_seconds'] * 1e3:,.1f} ms, from "
            f"{step['fastest_seconds'] * 1e3:,.1f} to {step['slowest_seconds'] * 1e3:,.1f}; "
            f"compiled in {step['compile_seconds']:.1f} s",
            *_rates(step),
        ]
    for part in ("attention", "head"):
        for kernel in found.get(part, ()):
            title = f"{part} of objectives.{kernel['group']}, {kernel['kernel']}"
            if kernel["refusal"]:
                lines.append(f"{title}: does not run here: {kernel['refusal']}")
                continue
            lines.append(
                f"{title}, on {kernel['devices']}: {kernel['seconds'] * 1e3:,.1f} ms, from "
                f"{kernel['fastest_seconds'] * 1e3:,.1f} to {kernel['slowest_seconds'] * 1e3:,.1f}"
            )
            lines += _rates(kernel)
    for name, data in found.get("data", {}).items():
        lines += [
            f"data of objectives.{name}, {data['tasks']} tasks: stores opened and laid out in "
            f"{data['plan_seconds']:.1f} s",
            *_rates(data),
        ]
    return lines


def _rates(speed: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rates that mean something for what was measured."""
    tokens = [
        f"{kind} {speed[f'{kind}_tokens']:,.0f}"
        for kind in ("real", "padded", "predicted")
        if speed.get(f"{kind}_tokens") is not None
    ]
    yield f"  tokens/s  {'  '.join(tokens)}"
    if speed.get("model_tflops") is not None:
        mfu = "unknown peak of this device" if speed["mfu"] is None else f"{speed['mfu']:.1%}"
        yield f"  model TFLOP/s {speed['model_tflops']:,.3f}, MFU {mfu}"
