"""How fast this machine trains and reads: the measurements behind `xlmjax bench`."""

import dataclasses
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from xlmjax.data.batches import Batches
from xlmjax.data.features import SEGMENTS
from xlmjax.data.mixture import Group, mean_length, open_groups, places_of
from xlmjax.experiment import Experiment, make_groups, make_train_step
from xlmjax.parallel.partition import batch_sharding
from xlmjax.planning.hardware import find_accelerator


@dataclasses.dataclass(frozen=True)
class StepSpeed:
    """Medians over the timed steps; rates are per second, over all devices."""

    devices: str
    step_seconds: float
    fastest_seconds: float
    slowest_seconds: float
    compile_seconds: float
    real_tokens: float  # of text and delimiters
    padded_tokens: float  # of all places of the rows
    predicted_tokens: float
    model_tflops: float
    mfu: float | None  # None where the device's peak is not in planning/hardware.py


@dataclasses.dataclass(frozen=True)
class DataSpeed:
    """Tokens a second of one process that fills rows and does nothing else."""

    group: str
    tasks: int
    real_tokens: float
    padded_tokens: float
    plan_seconds: float  # to open the stores and lay out the rows


def measure_step(experiment: Experiment, steps: int = 10, warmup: int = 3) -> StepSpeed:
    """Time the training step of an experiment on its own data, batches ready on the devices."""
    data = open_groups(experiment.config, experiment.vocabulary)
    train_step = make_train_step(experiment, make_groups(experiment, data))
    state = experiment.spec.create(jax.random.key(experiment.config.seed))
    batches = _batches(experiment, data, warmup + steps)
    seconds, real, predicted = [], [], []
    for step, batch in enumerate(batches):
        start = time.perf_counter()
        state, metrics = train_step(state, step, batch)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - start)
        real.append(float(metrics.real_tokens))
        predicted.append(float(metrics.predicted_tokens))
    timed = np.array(seconds[warmup:])
    median = float(np.median(timed))
    tokens = places_of(data)
    share = sum(predicted[warmup:]) / sum(real[warmup:])
    flops = experiment.model.flops_per_token(mean_length(data), share)
    accelerator = find_accelerator()
    peak = accelerator.peak_flops * jax.device_count() if accelerator else None
    achieved = flops * sum(real[warmup:]) / timed.sum()
    return StepSpeed(
        devices=f"{jax.device_count()} {jax.devices()[0].device_kind}",
        step_seconds=median,
        fastest_seconds=float(timed.min()),
        slowest_seconds=float(timed.max()),
        compile_seconds=seconds[0],
        real_tokens=sum(real[warmup:]) / timed.sum(),
        padded_tokens=tokens * len(timed) / timed.sum(),
        predicted_tokens=sum(predicted[warmup:]) / timed.sum(),
        model_tflops=achieved / 1e12,
        mfu=achieved / peak if peak else None,
    )


def _batches(
    experiment: Experiment, data: Sequence[Group], count: int
) -> list[Mapping[str, Mapping[str, jax.Array]]]:
    sharding = batch_sharding(experiment.mesh)
    sources = {group.name: Batches(group.mixture, group.rows, sharding) for group in data}
    return [{name: source.at(step) for name, source in sources.items()} for step in range(count)]


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
