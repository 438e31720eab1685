"""How fast the training step is, on the data of a config."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax

from xlmjax.data.batches import Batches
from xlmjax.data.mixture import Group, open_groups, places_of, segment_length
from xlmjax.experiment import Experiment, make_groups, make_train_step
from xlmjax.ops.schedules import constant
from xlmjax.parallel.partition import batch_sharding
from xlmjax.throughput.timing import Times, describe_devices, utilization


@dataclasses.dataclass(frozen=True)
class StepSpeed:
    """The median over the timed steps, and rates of all of them a second, over all devices."""

    devices: str
    step_seconds: float
    fastest_seconds: float
    slowest_seconds: float
    compile_seconds: float
    real_tokens: float  # of text and delimiters
    padded_tokens: float  # of all places of the rows
    predicted_tokens: float
    segment_length: float  # of the segment that a real token stands in, on average
    model_tflops: float | None  # None with a decoder, whose FLOPs are not known
    mfu: float | None  # None, besides, where the device's peak is not in planning/hardware.py


def measure_step(experiment: Experiment, steps: int = 10, warmup: int = 3) -> StepSpeed:
    """Time the training step of an experiment on its own data, batches ready on the devices.

    All its objectives are in the step, those too whose weight is 0 at first.
    """
    data = open_groups(experiment.config, experiment.vocabulary)
    groups = [
        dataclasses.replace(group, weight=constant(group.weight.maximum))
        for group in make_groups(experiment, data)
    ]
    train_step = make_train_step(experiment, groups)
    state = experiment.spec.create(jax.random.key(experiment.config.seed))
    batches = _batches(experiment, data, warmup + steps)
    found = []

    def run(step: int) -> jax.Array:
        nonlocal state
        state, metrics = train_step(state, step, batches[step])
        found.append((metrics.real_tokens, metrics.predicted_tokens))
        return metrics.loss

    times = Times.of(run, steps, warmup)
    real = sum(float(tokens) for tokens, _ in found[warmup:]) / steps / times.mean
    predicted = sum(float(tokens) for _, tokens in found[warmup:]) / steps / times.mean
    length = segment_length(data, range(warmup, warmup + steps))
    flops = None
    if not experiment.model.decoder_layers:
        flops = real * experiment.model.flops_per_token(length, predicted / real)
    return StepSpeed(
        devices=describe_devices(),
        step_seconds=times.median,
        fastest_seconds=times.fastest,
        slowest_seconds=times.slowest,
        compile_seconds=times.compile,
        real_tokens=real,
        padded_tokens=places_of(data) / times.mean,
        predicted_tokens=predicted,
        segment_length=length,
        model_tflops=None if flops is None else flops / 1e12,
        mfu=None if flops is None else utilization(flops),
    )


def _batches(
    experiment: Experiment, data: Sequence[Group], count: int
) -> list[Mapping[str, Mapping[str, jax.Array]]]:
    sharding = batch_sharding(experiment.mesh)
    sources = {group.name: Batches(group.mixture, group.rows, sharding) for group in data}
    return [{name: source.at(step) for name, source in sources.items()} for step in range(count)]
