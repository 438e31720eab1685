"""Timing what runs on devices, and what a number of FLOPs in that time amounts to."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from xlmjax.planning.hardware import find_accelerator


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of the timed calls, and of the first, which compiles."""

    median: float
    fastest: float
    slowest: float
    compile: float
    mean: float

    @classmethod
    def of(cls, run: Callable[[int], Any], calls: int, warmup: int) -> "Times":
        """Time `run(0)`, `run(1)`, ..., each until its results are there; `warmup` do not count."""
        seconds = []
        for call in range(warmup + calls):
            start = time.perf_counter()
            jax.block_until_ready(run(call))
            seconds.append(time.perf_counter() - start)
        timed = np.array(seconds[warmup:])
        return cls(
            median=float(np.median(timed)),
            fastest=float(timed.min()),
            slowest=float(timed.max()),
            compile=seconds[0],
            mean=float(timed.mean()),
        )


def utilization(flops_per_second: float) -> float | None:
    """Return the share of the peak of all devices; None where planning/hardware.py has no peak."""
    accelerator = find_accelerator()
    return flops_per_second / (accelerator.peak_flops * jax.device_count()) if accelerator else None


def describe_devices() -> str:
    """Return their number and kind."""
    return f"{jax.device_count()} {jax.devices()[0].device_kind}"
