"""What the loop hands every step to: it looks one step late, logs, and stops on NaN."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from xlmjax.training import diagnosis
from xlmjax.training.goodput import TRAIN, Goodput
from xlmjax.training.metrics import MetricWriter, Throughput, Window
from xlmjax.training.progress import Progress
from xlmjax.training.state import TrainState
from xlmjax.training.step import StepMetrics, TrainStep
from xlmjax.training.stragglers import host_times


@dataclasses.dataclass
class Recorder:
    """Looks at the metrics of a step when the next one has been dispatched, never before."""

    train_step: TrainStep
    tasks: Mapping[str, Sequence[str]]  # group -> task names, in the order of their ids
    throughput: Throughput
    writer: MetricWriter
    progress: Progress
    goodput: Goodput
    workdir: epath.Path
    every: int  # steps a line of the log
    num_steps: int
    skip_nonfinite: bool

    def __post_init__(self) -> None:
        self._window = Window(self.tasks, self.throughput)
        self._waiting: tuple[int, Any, StepMetrics] | None = None
        self._timed = False  # the first step compiles: it is waited for, and left out of the rates
        self._blocked = 0.0  # seconds of the window that the host waited for the devices

    def take(self, state: TrainState, step: int, batches: Any, metrics: StepMetrics) -> None:
        """Take what step `step` returned, and deal with the one before it."""
        jax.tree.map(lambda x: x.copy_to_host_async(), metrics)
        self.flush(state)
        self._waiting = (step, batches, metrics)
        if not self._timed:
            jax.block_until_ready(metrics)
            self.goodput.begin(TRAIN)
            self.progress.note(self.goodput.first_step())
            self.flush(state)
            self._timed = True

    def flush(self, state: TrainState) -> None:
        """Deal with the step that waits, if any; raises `NonFiniteError` if it was not finite.

        The train step applies nothing after such a step, so `state` is the one that it saw.
        """
        if self._waiting is None:
            return
        (step, batches, metrics), self._waiting = self._waiting, None
        before = time.perf_counter()
        metrics = jax.device_get(metrics)
        self._blocked += time.perf_counter() - before
        if metrics.nonfinite:
            if not self.skip_nonfinite:
                culprits = diagnosis.find_culprits(self.train_step, state, batches)
                raise diagnosis.report(self.workdir, step, metrics, culprits, self.tasks)
            self.progress.note(f"step {step}: not finite, its update is skipped")
        self._window.add(metrics, timed=self._timed)
        self.progress.advance()
        done = step + 1
        if done % self.every == 0 or done == self.num_steps:
            self._log(done)

    def _log(self, done: int) -> None:
        steps, seconds = self._window.timed_steps, self.goodput.lap()
        values = self._window.close(seconds) | self.goodput.shares()
        if steps:
            values |= host_times(max(seconds - self._blocked, 0.0) / steps)
        self._blocked = 0.0
        self.writer.write(done, values)
        self.progress.report(done, values)
        self.goodput.write(done)
