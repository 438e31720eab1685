"""How fast rows are filled from the token stores."""

import dataclasses
import time

import numpy as np

from xlmjax.data.features import SEGMENTS
from xlmjax.data.mixture import open_groups
from xlmjax.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class DataSpeed:
    """Tokens a second of one process that fills rows and does nothing else."""

    group: str
    tasks: int
    real_tokens: float
    padded_tokens: float
    plan_seconds: float  # to open the stores and lay out the rows


def measure_data(experiment: Experiment, seconds: float = 5.0) -> list[DataSpeed]:
    """Time the filling of batches from the stores, a group of objectives at a time, on one core."""
    start = time.perf_counter()
    data = open_groups(experiment.config, experiment.vocabulary)
    plan_seconds = time.perf_counter() - start
    speeds = []
    for group in data:
        step, real = 0, 0
        group.mixture.fill(np.arange(group.rows))  # touches the pages of the stores' heads
        start = time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds:
            batch = group.mixture.fill(np.arange(step * group.rows, (step + 1) * group.rows))
            real += sum(int(np.count_nonzero(batch[name])) for name in SEGMENTS if name in batch)
            step += 1
        speeds.append(
            DataSpeed(
                group=group.name,
                tasks=len(group.mixture.tasks),
                real_tokens=real / spent,
                padded_tokens=step * group.rows * group.mixture.places / spent,
                plan_seconds=plan_seconds,
            )
        )
    return speeds
