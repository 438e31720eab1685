"""Sections `train` and `log` of the config."""

import dataclasses
from typing import Any

from xlmjax.training.progress import MODES


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Section `train`: the size of the run."""

    num_steps: int = 10_000
    rows: int = 64
    length: int = 256
    microbatches: int = 1
    num_cpu_devices: int = 0
    z_loss: float = 0.0
    heartbeat_seconds: int = 100
    watchdog_seconds: float = 600.0
    watchdog_exit: bool = False
    compilation_cache: str = ""

    def __post_init__(self) -> None:
        lows = {"num_steps": 1, "rows": 1, "length": 2, "microbatches": 1, "heartbeat_seconds": 10}
        zeros = ("num_cpu_devices", "z_loss", "watchdog_seconds")
        for field, low in (lows | dict.fromkeys(zeros, 0)).items():
            if getattr(self, field) < low:
                raise ValueError(f"train.{field}={getattr(self, field)} must be {low} or more")

    @classmethod
    def from_config(cls, config: Any) -> "TrainConfig":
        """Return the checked section, from a ConfigDict or another mapping with these fields."""
        return cls(**{field.name: config[field.name] for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """Section `log`: how often and where to."""

    every: int = 50
    tensorboard: bool = True
    progress: str = "auto"
    profile: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"log.every={self.every} must be 1 or more")
        if self.progress not in MODES:
            raise ValueError(
                f"log.progress={self.progress!r} is unknown; known: {', '.join(MODES)}"
            )
        if self.profile and not (len(self.profile) == 2 and 0 <= self.profile[0] < self.profile[1]):
            raise ValueError(
                f"log.profile={self.profile} is no window of steps: give (first, first after), or "
                "() for none"
            )

    @classmethod
    def from_config(cls, config: Any) -> "LogConfig":
        """Return the checked section, from a ConfigDict or another mapping with these fields."""
        return cls(**{field.name: config[field.name] for field in dataclasses.fields(cls)})
