"""The least time a step can take: work over the peak of what does it, each kind by itself.

Williams, Waterman & Patterson 2009, with a term for each network beside arithmetic and memory.
"""

import dataclasses
from collections.abc import Mapping

# Bytes that each of n devices sends, per byte of the larger side (`compiled.Collective.bytes`): the
# algorithms of a ring, which are optimal on one. What an all-to-all sends passes several links
# (`interconnect.seconds`).
_RING_SENDS = {
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
}

SECONDS_A_DAY = 86_400.0


def bytes_sent(kind: str, size: float, devices: int) -> float:
    """Return the bytes that a device sends in one collective of `devices` along a ring.

    `size` is that of the larger side on one device in bytes. Raises KeyError on an unknown kind.
    """
    return 0.0 if devices < 2 else size * _RING_SENDS[kind](devices)


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that each resource of a device needs for one step, and what follows."""

    seconds: Mapping[str, float]  # compute, memory, ici, dcn

    @property
    def step(self) -> float:
        """Seconds a step at least: everything runs beside the slowest."""
        return max(self.seconds.values())

    @property
    def serial(self) -> float:
        """Seconds a step if nothing ran beside anything else."""
        return sum(self.seconds.values())

    @property
    def binding(self) -> str:
        """What takes longest."""
        return max(self.seconds, key=lambda name: self.seconds[name])


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a step time means for a run."""

    step_seconds: float
    tokens_per_second: float  # over all devices
    mfu: float | None  # None where the FLOPs of the model are not known
    days: float
    chip_hours: float


def forecast(
    step_seconds: float,
    *,
    tokens: int,
    model_flops: float | None,
    peak_flops: float,
    num_devices: int,
    num_chips: int,
    num_steps: int,
) -> Forecast:
    """Return rates and cost of `num_steps` steps of `tokens` tokens; FLOP/s are of one device."""
    seconds = step_seconds * num_steps
    return Forecast(
        step_seconds=step_seconds,
        tokens_per_second=tokens / step_seconds,
        mfu=model_flops and model_flops / (step_seconds * peak_flops * num_devices),
        days=seconds / SECONDS_A_DAY,
        chip_hours=seconds * num_chips / 3600,
    )
