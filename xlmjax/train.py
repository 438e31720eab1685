"""`train(config, workdir)`: set-up, loop, evaluations, checkpoints, in reading order."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from xlmjax.auto_prepare import ensure_stores
from xlmjax.data.batches import Batch, Batches, prefetched
from xlmjax.data.layout import layout_field
from xlmjax.data.mixture import Group as DataGroup
from xlmjax.data.mixture import mean_length, open_groups, places_of
from xlmjax.evaluation import Scheduled, make_evaluators
from xlmjax.experiment import Experiment, build_experiment, make_groups, make_train_step, start_jax
from xlmjax.parallel import distributed
from xlmjax.parallel.partition import batch_sharding
from xlmjax.planning.hardware import find_accelerator
from xlmjax.training.checkpoint import CheckpointConfig, Checkpoints
from xlmjax.training.initialization import initial_state
from xlmjax.training.metrics import MetricWriter, Throughput
from xlmjax.training.preemption import PreemptionWatch
from xlmjax.training.progress import Progress
from xlmjax.training.recorder import Recorder
from xlmjax.training.settings import LogConfig
from xlmjax.training.state import TrainState, named_leaves, parameter_axes


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended: its state, and whether it must be started again to finish."""

    state: TrainState
    preempted: bool = False


def train(config: ConfigDict, workdir: epath.PathLike, stop_after: int | None = None) -> Result:
    """Train as the config says; run it again with the same arguments to go on after any end.

    `stop_after` ends the run after so many updates as a kill would, without saving.
    """
    start_time = time.perf_counter()
    cache = start_jax(config)
    workdir = epath.Path(workdir)
    log = LogConfig.from_config(config.log)
    checkpointing = CheckpointConfig.from_config(config.checkpoint)
    experiment = build_experiment(config)
    ensure_stores(config)
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.set_mesh(experiment.mesh))
        data = open_groups(config, experiment.vocabulary)
        train_step = make_train_step(experiment, make_groups(experiment, data))
        evaluators = make_evaluators(experiment.evaluation_context)
        _check_best_metric(checkpointing, evaluators)
        identity = experiment.identity
        if checkpointing.same_data:
            identity = dataclasses.replace(identity, data=data_identity(experiment, data))
        checkpoints = Checkpoints(workdir, checkpointing, identity)
        stack.callback(checkpoints.close)
        state, origin = initial_state(
            checkpoints,
            checkpointing,
            identity,
            experiment.spec,
            jax.random.key(config.seed),
        )
        start, num_steps = int(state.step), experiment.train.num_steps
        main = distributed.is_main()
        progress = Progress(log.progress, start, num_steps, active=main)
        stack.callback(progress.close)
        writer = MetricWriter(workdir, start, tensorboard=log.tensorboard, active=main)
        stack.callback(writer.close)
        watch = PreemptionWatch()
        stack.callback(watch.close)
        if main:
            write_description(workdir, experiment, start)
        for line in (
            *describe(experiment),
            *losses_of_layout(data),
            f"compiled programs are kept in {cache}",
            origin,
        ):
            progress.note(line)

        tasks = {group.name: [task.name for task in group.mixture.tasks] for group in data}
        recorder = Recorder(
            train_step,
            tasks,
            _throughput(experiment, data),
            writer,
            progress,
            workdir,
            log.every,
            num_steps,
            experiment.optimizer.skip_nonfinite,
        )
        for step, batches in stack.enter_context(read_ahead(experiment, data, start)):
            state, metrics = train_step(state, step, batches)
            recorder.take(state, step, batches, metrics)
            done = step + 1
            if done == start + 1:
                progress.note(f"first step after {time.perf_counter() - start_time:.1f} s")
            preempted = watch.reached(done)
            due = [evaluator for evaluator in evaluators if evaluator.is_due(done, num_steps)]
            saving = done % checkpointing.every == 0 or done == num_steps or preempted
            if due or saving:
                recorder.flush(state)  # a state that is not finite is neither scored nor saved
                with recorder.clock.pause():
                    values = evaluate(due, state, done, workdir, writer, progress)
                    if saving:
                        checkpoints.save(state, values)
            if preempted:
                checkpoints.wait()
                progress.note(f"asked to stop: saved at step {done}, run the same command to go on")
                return Result(state, preempted=True)
            if done == stop_after:
                return Result(state)
            checkpoints.check()
        checkpoints.wait()
        return Result(state)


@contextlib.contextmanager
def read_ahead(
    experiment: Experiment, data: Sequence[DataGroup], start: int
) -> Iterator[Iterator[tuple[int, Mapping[str, Batch]]]]:
    """Yield an iterator over (step, group -> batch) from step `start` to the end of the run."""
    sharding = batch_sharding(experiment.mesh)
    sources = {group.name: Batches(group.mixture, group.rows, sharding) for group in data}

    def batches_of(step: int) -> Mapping[str, Batch]:
        return {name: source.at(step) for name, source in sources.items()}

    depth = experiment.config.data.prefetch
    stream = prefetched(batches_of, start, experiment.train.num_steps, depth)
    try:
        yield stream
    finally:
        stream.close()  # type: ignore[attr-defined]


def evaluate(
    due: Sequence[Scheduled],
    state: TrainState,
    step: int,
    workdir: epath.Path,
    writer: MetricWriter,
    progress: Progress,
) -> dict[str, float]:
    """Run the evaluators that are due; returns all their values."""
    values: dict[str, float] = {}
    for evaluator in due:
        found = evaluator.run(state.model, step, workdir)
        for line in _summary(found):
            progress.note(f"step {step}: {line}")
        values |= found
    writer.write(step, values)
    return values


def _summary(values: Mapping[str, float]) -> list[str]:
    """Return a line for each average, or for everything where there is none."""
    lines: dict[str, list[str]] = {}
    for name, value in values.items():
        owner, _, metric = name.rpartition("/")
        lines.setdefault(owner, []).append(f"{metric} {value:.4g}")
    averages = {owner: parts for owner, parts in lines.items() if owner.endswith("/average")}
    return [f"{owner}: {', '.join(parts)}" for owner, parts in (averages or lines).items()]


def data_identity(experiment: Experiment, data: Sequence[DataGroup]) -> dict[str, Any]:
    """Return what the batch of a step depends on; a run that goes on must have all of it."""
    config = experiment.config
    # Said so that checkpoints from before groups had a layout and a length still match.
    lengths = {group.name: group.mixture.length for group in data}
    same_length = set(lengths.values()) == {experiment.train.length}
    layouts = config.data.layout.to_dict()
    if not any(layout_field(task.store) == "translation" for g in data for task in g.mixture.tasks):
        layouts.pop("translation", None)
    layouts |= {
        f"objectives.{group.name}": config.objectives[group.name].layout
        for group in data
        if config.objectives[group.name].layout
    }
    stores = {
        f"the store of {task.name}": task.store.manifest.source_fingerprint
        for group in data
        for task in group.mixture.tasks
    }
    return {
        "seed": config.seed,
        "train.length": experiment.train.length if same_length else lengths,
        "data.layout": layouts,
        "data.mixing": config.data.mixing.to_dict(),
        "rows by objective": {group.name: group.rows for group in data},
        "tasks by objective": {
            group.name: [task.name for task in group.mixture.tasks] for group in data
        },
        **stores,
    }


def describe(experiment: Experiment) -> list[str]:
    """Return what a user wants to see first: devices, mesh, size of the model."""
    device = jax.devices()[0]
    axes = " x ".join(f"{axis} {size}" for axis, size in experiment.mesh.shape.items())
    parameters = sum(leaf.size for leaf in jax.tree.leaves(experiment.spec.abstract.model))
    return [
        f"{jax.device_count()} devices ({device.device_kind}) in {jax.process_count()} processes, "
        f"mesh {axes}, strategy {experiment.strategy}",
        f"{parameters:,} parameters, vocabulary {experiment.vocabulary.size:,}, "
        f"{len(experiment.model.language_ids)} languages, {experiment.model.dtype}",
    ]


def losses_of_layout(data: Sequence[DataGroup]) -> list[str]:
    """Return a line for each task of which the rows do not hold everything."""
    lines = []
    for task in (task for group in data for task in group.mixture.tasks):
        counts = {f"dropped ({reason})": n for reason, n in task.layout.dropped.items()}
        counts["cut at the end of the longer side"] = task.layout.truncated
        parts = [f"{count:,} examples {what}" for what, count in counts.items() if count]
        if parts:
            lines.append(f"{task.name}, rows of {task.layout.length}: {', '.join(parts)}")
    return lines


def write_description(workdir: epath.Path, experiment: Experiment, start: int) -> None:
    """Write config.json: the resolved config, versions, mesh, and a table of the parameters.

    A run that goes on from step n writes config-n.json beside it.
    """
    axes = parameter_axes(experiment.spec.abstract.model)
    parameters = {
        name: {
            "shape": list(leaf.shape),
            "dtype": str(leaf.dtype),
            "axes": list(axes[name]),
            "sharding": str(leaf.sharding.spec),
        }
        for name, leaf in named_leaves(experiment.spec.abstract.model).items()
    }
    packages = ("xlmjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    content = {
        "config": experiment.config.to_dict(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "mesh": dict(experiment.mesh.shape),
        "devices": f"{jax.device_count()} {jax.devices()[0].device_kind}",
        "vocabulary": experiment.vocabulary.fingerprint,
        "parameters": parameters,
    }
    workdir.mkdir(parents=True, exist_ok=True)
    name = f"config-{start}.json" if start else "config.json"
    (workdir / name).write_text(json.dumps(content, indent=2, default=str) + "\n")


def _throughput(experiment: Experiment, data: Sequence[DataGroup]) -> Throughput:
    accelerator = find_accelerator()
    return Throughput(
        padded_tokens=places_of(data),
        flops_per_token=functools.partial(experiment.model.flops_per_token, mean_length(data)),
        # Of a run with a decoder the FLOPs are not known, so no MFU is told.
        peak_flops=(
            accelerator.peak_flops * jax.device_count()
            if accelerator and not experiment.model.decoder_layers
            else None
        ),
    )


def _check_best_metric(config: CheckpointConfig, evaluators: Sequence[Scheduled]) -> None:
    """Raise `ValueError` unless every checkpoint comes with a value of the metric to keep it by."""
    metric = config.best_metric
    if not metric:
        return
    owners = [x for x in evaluators if metric.startswith(f"eval/{x.name}/")]
    if not owners:
        known = ", ".join(f"eval/{evaluator.name}/" for evaluator in evaluators)
        raise ValueError(
            f"checkpoint.best_metric={metric!r} is of no evaluator of config.evals; it must begin "
            f"with one of: {known or 'none, config.evals is empty'}"
        )
    if not owners[0].is_due(config.every, 0):
        raise ValueError(
            f"checkpoint.every={config.every} is no multiple of evals.{owners[0].name}.every: "
            f"checkpoints between evaluations would have no {metric!r} to be kept by"
        )
