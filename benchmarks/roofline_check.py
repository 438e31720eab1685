"""Does the roofline of `xlmjax fit` foretell step times? On this machine, where both can be had.

    python benchmarks/roofline_check.py --config=base --config.train.rows=16

Peak FLOP/s (a square product) and memory bandwidth (a sum of two arrays) of one device are measured
first and take the place of the hardware table; then the program of the step is read, and the step
timed on random full rows. The ratio is measured time over predicted time: at least 1 where the
count of the work is right, since the roofline is a bound.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from xlmjax.configuration import load_config
from xlmjax.dry_run import dry_run
from xlmjax.experiment import start_jax
from xlmjax.planning.fit import report
from xlmjax.planning.hardware import Accelerator
from xlmjax.planning.program import read_program


def seconds_of(run: Callable[[], object], calls: int) -> list[float]:
    """Return the time of each call, the first not counted."""
    times = []
    for _ in range(calls + 1):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return times[1:]


def measure_device(dtype: str, calls: int) -> Accelerator:
    """Return the peak figures of the first device: of the fastest call each."""
    size = 2048
    square = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    flops = 2 * size**3 / min(seconds_of(lambda: product(square, square), calls))
    numbers = jnp.ones(2**25, jnp.float32)  # 128 MiB: larger than caches
    total = jax.jit(jnp.add)
    bandwidth = 3 * numbers.nbytes / min(seconds_of(lambda: total(numbers, numbers), calls))
    return Accelerator(jax.devices()[0].device_kind, flops, float("inf"), bandwidth, "measured")


def main() -> None:
    """Measure, predict, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="base")
    parser.add_argument("--steps", type=int, default=5, help="timed steps (default: %(default)s)")
    args, overrides = parser.parse_known_args()
    config = load_config(args.config, overrides)
    start_jax(config)
    run = dry_run(config, jax.devices()[:1])
    device = measure_device(run.experiment.model.dtype, calls=20)
    print(
        f"peak {device.peak_flops / 1e9:,.1f} GFLOP/s in {run.experiment.model.dtype}, memory "
        f"{device.memory_bandwidth / 1e9:,.1f} GB/s"
    )
    executable = run.lower().compile()
    found = report(
        read_program(executable, run.experiment.mesh),
        plan={},
        mesh=run.experiment.mesh,
        state=run.experiment.spec.abstract,
        tokens=run.tokens,
        num_steps=run.experiment.train.num_steps,
        model_flops=run.model_flops,
        accelerator=device,
    )
    if found.roofline is None:
        raise SystemExit("the step does not fit on this machine")
    batches = run.random_batches()
    with jax.set_mesh(run.experiment.mesh):
        state = run.experiment.spec.create(jax.random.key(0))

        def step() -> object:
            nonlocal state
            state, metrics = executable(state, np.int32(0), batches)
            return metrics

        measured = statistics.median(seconds_of(step, args.steps))
    print("| | ms |\n| --- | --- |")
    for name, seconds in found.roofline.seconds.items():
        print(f"| {name} | {1e3 * seconds:,.1f} |")
    print(f"| predicted, everything beside the slowest | {1e3 * found.roofline.step:,.1f} |")
    print(f"| predicted, all in a row | {1e3 * found.roofline.serial:,.1f} |")
    print(f"| measured | {1e3 * measured:,.1f} |")
    print(
        f"measured / predicted: {measured / found.roofline.step:.2f} (bound), "
        f"{measured / found.roofline.serial:.2f} (in a row)"
    )


if __name__ == "__main__":
    main()
