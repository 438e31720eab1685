"""Where the functions of `shards` run: local processes, or Apache Beam."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import shlex
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from xlmjax.children import end_with_parent


class LocalRunner:
    """Processes on this machine; a context manager.

    They are spawned, so that none inherits threads of the parent, and they end with the parent even
    when it is killed.
    """

    def __init__(self, num_processes: int):
        """Start no process before there is work."""
        if num_processes < 1:
            raise ValueError(f"--processes={num_processes} must be 1 or more")
        self._pool = concurrent.futures.ProcessPoolExecutor(
            num_processes, multiprocessing.get_context("spawn"), initializer=end_with_parent
        )
        self._before = set(multiprocessing.active_children())

    def map(self, function: Callable, items: Iterable[tuple]) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) as they come; an error in a process is raised here."""
        with _interrupts_blocked():
            futures = {
                self._pool.submit(function, *item): index for index, item in enumerate(items)
            }
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise ValueError(
                "a process of `prepare` was killed, perhaps for want of memory; run it again with "
                "fewer --processes: it continues with what is missing"
            ) from error

    def __enter__(self) -> "LocalRunner":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:
            self.stop()
        self._pool.shutdown()

    def stop(self) -> None:
        """End the processes, whatever they are doing."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - self._before:
            process.terminate()
            process.join()


class BeamRunner:
    """Apache Beam: `name` is that of one of its runners, `options` go to the pipeline."""

    def __init__(self, name: str, options: str = ""):
        """Raise `ValueError` where Beam is not installed or does not know the runner."""
        try:
            from apache_beam.options.pipeline_options import PipelineOptions
            from apache_beam.runners import create_runner
        except ImportError as error:
            raise ValueError(
                f"--runner={name} needs Apache Beam: `uv sync --group beam`, or `uv run --group "
                "beam xlmjax prepare ...`"
            ) from error
        try:
            self._runner = create_runner(name)
        except (ValueError, ImportError, AttributeError) as error:
            raise ValueError(f"--runner={name}: {error}") from error
        self._options = PipelineOptions(shlex.split(options))

    def map(self, function: Callable, items: Iterable[tuple]) -> Iterator[tuple[int, Any]]:
        """Yield (index, 0.0) when all is done: what functions do, they leave in files."""
        import apache_beam as beam

        items = list(items)
        if not items:
            return
        with beam.Pipeline(runner=self._runner, options=self._options) as pipeline:
            _ = (
                pipeline
                | beam.Create(items)
                | beam.Reshuffle()  # or the runner fuses everything into one worker
                | beam.Map(_call, function)
            )
        yield from ((index, 0.0) for index in range(len(items)))

    def stop(self) -> None:
        """Do nothing: a pipeline ends before `map` returns or raises."""


def _call(item: tuple, function: Callable) -> None:
    function(*item)


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Let processes that start here never see Ctrl-C: it is the parent who ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
