"""How step time and memory grow with row length, segment length and vocabulary, on this backend.

    uv run --group plots python benchmarks/growth.py --plots docs/growth
    uv run --group plots python benchmarks/growth.py --axis length segment --attention xla pallas

The real train step (masking, forward, backward, clipping, Adam) on full rows of random tokens, at a
small width; the same number of tokens a step at every point. Along `length` a row is one segment,
along `segment` rows of the largest length hold segments of the given one, along `vocabulary` rows
are short. Memory is what the compiler says of the program: arguments, results and temporaries.
"""

import argparse
import dataclasses
import functools
import json
import math
import pathlib
import statistics
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from xlmjax.models.config import ModelConfig
from xlmjax.models.xlm import XLM
from xlmjax.objectives import MaskedLanguageModel, Specials
from xlmjax.ops import schedules
from xlmjax.parallel.mesh import MeshConfig, make_mesh
from xlmjax.planning.compiled import memory
from xlmjax.training.optimizer import OptimizerConfig, make_optimizer
from xlmjax.training.state import state_spec
from xlmjax.training.step import Group, TrainStep

AXES = {
    "length": (256, 512, 1024, 2048, 4096, 8192),
    "segment": (32, 128, 512, 2048, 8192),
    "vocabulary": (32_768, 65_536, 131_072, 262_144, 524_288, 1_048_576),
}
LABELS = {
    "length": "tokens of a row, one segment",
    "segment": "tokens of a segment, in rows of the largest length",
    "vocabulary": "words of the vocabulary",
}
PAD, EOS, MASK = 2, 1, 5


@dataclasses.dataclass(frozen=True)
class Point:
    """One measurement."""

    axis: str
    value: int  # along the axis
    variant: str
    tokens: int  # a step
    step_seconds: float  # median
    memory_bytes: int


def measure(
    cfg: ModelConfig, length: int, segment: int, tokens: int, steps: int
) -> tuple[float, int]:
    """Return median seconds of a step, and its memory, on rows of segments of one length."""
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    optimizer = OptimizerConfig(learning_rate=1e-4)
    spec = state_spec(
        functools.partial(XLM, cfg), functools.partial(make_optimizer, optimizer), mesh, "data"
    )
    objective = MaskedLanguageModel(
        Specials(PAD, EOS, MASK, cfg.vocab_size), schedules.constant(0.15)
    )
    step = TrainStep(
        [Group("mlm", objective, schedules.constant(1.0))],
        make_optimizer(optimizer, spec.abstract.model),
        optimizer.make_schedule(1000),
        spec,
        strategy="data",
        seed=0,
    )
    rows = max(tokens // length, 1)
    place = np.broadcast_to(np.arange(length), (rows, length))
    generator = np.random.default_rng(0)
    batch = {
        "tokens": generator.integers(6, cfg.vocab_size, (rows, length)),
        "positions": place % segment,
        "segment_ids": 1 + place // segment,
        "language_ids": np.zeros((rows, length)),
        "row_ids": np.arange(rows),
        "task_ids": np.zeros(rows),
    }
    with jax.set_mesh(mesh):
        batches = {"mlm": {name: jnp.asarray(x, jnp.int32) for name, x in batch.items()}}
        compiled = step.jitted.lower(spec.abstract, np.int32(0), batches).compile()
        state, seconds = spec.create(jax.random.key(0)), []
        for number in range(steps + 1):
            start = time.perf_counter()
            state, metrics = compiled(state, np.int32(number), batches)
            jax.block_until_ready(metrics)
            seconds.append(time.perf_counter() - start)
    jax.clear_caches()
    return statistics.median(seconds[1:]), memory(compiled).total


def run(args: argparse.Namespace) -> list[Point]:
    """Measure every point of the chosen axes, telling each as it comes."""
    cfg = ModelConfig(
        vocab_size=8192,
        language_ids=(0,),
        pad_id=PAD,
        embed_dim=args.width,
        num_layers=args.layers,
        num_heads=args.width // 32,
        positions="rope",
        dtype=args.dtype,
    )
    points = []
    for axis in args.axis:
        values = [value for value in AXES[axis] if value <= args.largest]
        variants = args.tile if axis == "vocabulary" else args.attention
        for value in values:
            for variant in variants:
                fields = {"vocab_size": value} if axis == "vocabulary" else {}
                fields |= {"head_tile" if axis == "vocabulary" else "attention": variant}
                length = {"length": value, "segment": values[-1]}.get(axis, 256)
                segment = value if axis == "segment" else length
                seconds, size = measure(
                    dataclasses.replace(cfg, **fields), length, segment, args.tokens, args.steps
                )
                name = f"head_tile={variant}" if axis == "vocabulary" else str(variant)
                tokens = max(args.tokens // length, 1) * length
                points.append(Point(axis, value, name, tokens, seconds, size))
                print(row(points[-1]), flush=True)
    return points


def row(point: Point) -> str:
    """Return a line of the markdown table."""
    return (
        f"| {point.axis} | {point.value:,} | {point.variant} | {point.tokens:,} "
        f"| {point.step_seconds * 1e3:,.0f} | {point.memory_bytes / 2**20:,.0f} |"
    )


def plot(points: Sequence[Point], folder: pathlib.Path) -> None:
    """Write one picture an axis, FOLDER/AXIS.svg: time of a token, and memory."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot, ticker

    folder.mkdir(parents=True, exist_ok=True)
    for axis in dict.fromkeys(point.axis for point in points):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
        here = [point for point in points if point.axis == axis]
        for variant in dict.fromkeys(point.variant for point in here):
            line = [point for point in here if point.variant == variant]
            values = [point.value for point in line]
            times = [1e6 * point.step_seconds / point.tokens for point in line]
            left.plot(values, times, marker="o", label=variant)
            right.plot(
                values, [point.memory_bytes / 2**30 for point in line], marker="o", label=variant
            )
        for panel, title in ((left, "microseconds a token"), (right, "memory, GiB")):
            panel.set(xscale="log", yscale="log", xlabel=LABELS[axis], title=title)
            panel.set_xticks(sorted({point.value for point in here}), minor=False)
            panel.minorticks_off()
            panel.xaxis.set_major_formatter("{x:,.0f}")
            panel.tick_params(axis="x", labelrotation=45)
            low, high = panel.get_ylim()
            wider = max(math.sqrt(10 * low / high), 1)  # a decade at least: noise stays small
            panel.set_ylim(low / wider, high * wider)
            panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:,g}")
            panel.grid(alpha=0.3)
            panel.legend()
        figure.savefig(folder / f"{axis}.svg")
        pyplot.close(figure)


def main() -> None:
    """Measure, print and plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--axis", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--largest", type=int, default=2**20, help="leave out larger values")
    parser.add_argument("--attention", nargs="+", default=["xla"], help="model.attention, each")
    parser.add_argument("--tile", nargs="+", type=int, default=[0, 8192], help="model.head_tile")
    parser.add_argument("--tokens", type=int, default=8192, help="a step (default: %(default)s)")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a point")
    parser.add_argument("--plots", type=pathlib.Path, help="folder for AXIS.svg and growth.json")
    args = parser.parse_args()
    print("| axis | value | variant | tokens a step | ms | MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    points = run(args)
    if args.plots:
        plot(points, args.plots)
        found = [dataclasses.asdict(point) for point in points]
        (args.plots / "growth.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
