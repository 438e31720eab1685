"""`train(config, workdir)`: set-up, loop, evaluations, checkpoints, in reading order."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence

import jax
from etils import epath
from ml_collections import ConfigDict

from xlmjax import description
from xlmjax.auto_prepare import ensure_stores
from xlmjax.data.batches import Batch, Batches, prefetched
from xlmjax.data.mixture import Group as DataGroup
from xlmjax.data.mixture import open_groups, places_of, segment_length
from xlmjax.description import data_identity, describe, losses_of_layout, write_description
from xlmjax.evaluation import (
    Scheduled,
    StoppedError,
    Timing,
    evaluation_times,
    make_evaluators,
)
from xlmjax.experiment import Experiment, build_experiment, make_groups, make_train_step, start_jax
from xlmjax.parallel import distributed
from xlmjax.parallel.partition import batch_sharding
from xlmjax.parallel.peers import PeerWatch
from xlmjax.planning.hardware import find_accelerator
from xlmjax.training.agreement import agreed
from xlmjax.training.checkpoint import Checkpoints
from xlmjax.training.checkpoint_settings import CheckpointConfig
from xlmjax.training.goodput import Goodput
from xlmjax.training.initialization import initial_state
from xlmjax.training.metrics import MetricWriter, Throughput
from xlmjax.training.preemption import PreemptionWatch
from xlmjax.training.profiling import Profiler
from xlmjax.training.progress import Progress
from xlmjax.training.recorder import Recorder
from xlmjax.training.settings import LogConfig
from xlmjax.training.state import TrainState
from xlmjax.training.watchdog import Watchdog


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended: its state, and whether it must be started again to finish."""

    state: TrainState
    preempted: bool = False


def train(config: ConfigDict, workdir: epath.PathLike, stop_after: int | None = None) -> Result:
    """Train as the config says; run it again with the same arguments to go on after any end.

    `stop_after` ends the run after so many updates as a kill would, without saving. Ctrl-C saves,
    then raises `KeyboardInterrupt`.
    """
    goodput = Goodput()
    cache = start_jax(config, workdir)
    workdir = epath.Path(workdir)
    with contextlib.ExitStack() as stack:
        with agreed() as facts:
            log = LogConfig.from_config(config.log)
            checkpointing = CheckpointConfig.from_config(config.checkpoint)
            experiment = build_experiment(config)
            _check_best_metric(checkpointing, evaluation_times(config))
            ensure_stores(config)
            stack.enter_context(jax.set_mesh(experiment.mesh))
            data = open_groups(config, experiment.vocabulary)
            train_step = make_train_step(experiment, make_groups(experiment, data))
            evaluators = make_evaluators(experiment.evaluation_context)
            facts |= description.facts(experiment, data, workdir)
        peers = PeerWatch(experiment.train.heartbeat_seconds)
        stack.callback(peers.close)
        goodput.begin("setup")  # anew: preparing stores, which is not watched, may take hours
        limit, ends = experiment.train.watchdog_seconds, experiment.train.watchdog_exit
        watchdog = Watchdog(goodput, limit, workdir, ends=ends)
        stack.callback(watchdog.close)
        identity = experiment.identity
        if checkpointing.same_data:
            identity = dataclasses.replace(identity, data=data_identity(experiment, data))
        checkpoints = Checkpoints(workdir, checkpointing, identity)
        stack.callback(checkpoints.close)
        with goodput.phase("restore"):
            key = jax.random.key(config.seed)
            state, origin = initial_state(
                checkpoints,
                checkpointing,
                identity,
                experiment.spec,
                key,
                experiment.vocabulary,
            )
            jax.block_until_ready(state)
        start, num_steps = int(state.step), experiment.train.num_steps
        watchdog.step = start
        main = distributed.is_main()
        progress = Progress(log.progress, start, num_steps, active=main)
        stack.callback(progress.close)
        writer = MetricWriter(workdir, start, tensorboard=log.tensorboard, active=main)
        stack.callback(writer.close)
        watch = PreemptionWatch()
        stack.callback(watch.close)
        profiler = Profiler(workdir, log.profile)
        stack.callback(profiler.close)
        if main:
            write_description(workdir, experiment, start, data)
            goodput.resume(workdir, start)
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
            goodput,
            workdir,
            log.every,
            num_steps,
            experiment.optimizer.skip_nonfinite,
        )

        def due_at(step: int) -> list[Scheduled]:
            return [evaluator for evaluator in evaluators if evaluator.is_due(step, num_steps)]

        def stopped(state: TrainState, step: int) -> Result:
            with goodput.phase("checkpoint"):
                checkpoints.wait()
            progress.note(f"asked to stop: saved at step {step}, run the same command to go on")
            progress.note(goodput.summary())
            if watch.interrupted:
                raise KeyboardInterrupt
            return Result(state, preempted=True)

        goodput.begin("compile")
        stream = stack.enter_context(read_ahead(experiment, data, start))
        stack.enter_context(distributed.end_without_the_lost())
        if start in checkpoints.steps and not distributed.agree(writer.evaluated):
            with goodput.phase("evaluation"):  # an earlier start was stopped in it
                values = evaluate(due_at(start), state, start, workdir, writer, progress, watch)
            if values is None:
                return stopped(state, start)
        for step, batches in goodput.waiting(stream):
            with goodput.phase("profile"):
                traced = profiler.before(step, state)
            if traced:
                progress.note(traced)
            state, metrics = train_step(state, step, batches)
            recorder.take(state, step, batches, metrics)
            done = watchdog.step = step + 1
            preempted = watch.reached(unsaved=True)
            due = due_at(done)
            saving = done % checkpointing.every == 0 or done == num_steps
            if due or saving or preempted:
                recorder.flush(state)  # a state that is not finite is neither scored nor saved
                if saving and not checkpointing.best_metric:  # written while it is scored
                    with goodput.phase("checkpoint"):
                        checkpoints.save(state)
                values = None
                if due and not preempted:
                    with goodput.phase("evaluation"):
                        values = evaluate(due, state, done, workdir, writer, progress, watch)
                    preempted = values is None
                if preempted or (saving and checkpointing.best_metric):
                    with goodput.phase("checkpoint"):
                        checkpoints.save(state, values)
                goodput.write(done)
            if preempted:
                return stopped(state, done)
            if done == stop_after:
                return Result(state)
            checkpoints.check()
        with goodput.phase("checkpoint"):
            checkpoints.wait()
        goodput.write(int(state.step))
        progress.note(goodput.summary())
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
    watch: PreemptionWatch,
) -> dict[str, float] | None:
    """Run the evaluators that are due; returns all their values, None if asked to stop meanwhile.

    Nothing is logged then: the next start, which finds no evaluation of its step, makes it.
    """
    values: dict[str, float] = {}
    stop = functools.partial(watch.reached, unsaved=True)
    for evaluator in due:
        try:
            found = evaluator.run(state.model, step, workdir, stop=stop)
        except StoppedError:
            return None
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


def _throughput(experiment: Experiment, data: Sequence[DataGroup]) -> Throughput:
    accelerator = find_accelerator()
    return Throughput(
        padded_tokens=places_of(data),
        flops_per_token=functools.partial(experiment.model.flops_per_token, segment_length(data)),
        # Of a run with a decoder the FLOPs are not known, so no MFU is told.
        peak_flops=(
            accelerator.peak_flops * jax.device_count()
            if accelerator and not experiment.model.decoder_layers
            else None
        ),
    )


def _check_best_metric(config: CheckpointConfig, times: Mapping[str, Sequence[Timing]]) -> None:
    """Raise `ValueError` unless every checkpoint comes with a value of the metric to keep it by."""
    metric = config.best_metric
    if not metric:
        return
    owner = next((name for name in times if metric.startswith(f"eval/{name}/")), None)
    if owner is None:
        known = ", ".join(f"eval/{name}/" for name in times)
        raise ValueError(
            f"checkpoint.best_metric={metric!r} is of no evaluator of config.evals; it must begin "
            f"with one of: {known or 'none, config.evals is empty'}"
        )
    if not any(timing.is_due(config.every, 0) for timing in times[owner]):
        raise ValueError(
            f"checkpoint.every={config.every} is no multiple of evals.{owner}.every: "
            f"checkpoints between evaluations would have no {metric!r} to be kept by"
        )
