"""Small runs at the same time, each in a process of its own: two of them fill two cores."""

import contextlib
import io
import multiprocessing
import multiprocessing.process
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import TextIO

from etils import epath
from ml_collections import ConfigDict

from xlmjax.children import when_parent_ends
from xlmjax.training.preemption import PREEMPTED

Runs = Mapping[str, tuple[ConfigDict, epath.Path]]  # title -> what to train, and where


def train_side_by_side(runs: Runs) -> None:
    """Train all runs at once, on CPUs that they divide; what they print carries their titles.

    Raises `ChildProcessError` naming the runs that failed, when all have ended. Where this process
    is interrupted or asked to stop, so are they, and they save what they have.
    """
    context = multiprocessing.get_context("spawn")
    width = max(map(len, runs))
    processes = {
        title: context.Process(target=_train, args=(f"{title:<{width}} | ", cores, config, workdir))
        for cores, (title, (config, workdir)) in zip(_divided(len(runs)), runs.items(), strict=True)
    }
    with _stopping_on_sigterm():
        try:
            for process in processes.values():
                process.start()
            for process in processes.values():
                process.join()
        finally:
            _stop(process for process in processes.values() if process.is_alive())
    if PREEMPTED in (process.exitcode for process in processes.values()):
        raise SystemExit(PREEMPTED)
    if failed := [title for title, process in processes.items() if process.exitcode]:
        raise ChildProcessError(f"{' and '.join(failed)} failed; the reason stands above")


def _divided(parts: int) -> list[set[int]]:
    """Return the cores of each of some processes; none where they cannot be told.

    Left to themselves, each starts a thread a core, which wait for those of the others.
    """
    if not hasattr(os, "sched_getaffinity"):
        return [set()] * parts
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < parts:
        return [{*cores}] * parts
    return [{*cores[part::parts]} for part in range(parts)]


def _stop(processes: Iterator[multiprocessing.process.BaseProcess]) -> None:
    alive = list(processes)
    for process in alive:
        process.terminate()
    for process in alive:
        process.join()


@contextlib.contextmanager
def _stopping_on_sigterm() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise SystemExit(PREEMPTED)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _train(label: str, cores: set[int], config: ConfigDict, workdir: epath.Path) -> None:
    """Be one of the processes, on some cores of the machine: on any if none are named."""
    if cores:
        os.sched_setaffinity(0, cores)  # before JAX counts them and starts as many threads
    from xlmjax.train import train

    sys.stderr = _Labelled(sys.stderr, label)
    when_parent_ends(lambda: os.kill(os.getpid(), signal.SIGTERM))  # the run saves and ends
    try:
        result = train(config, workdir)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (ValueError, OSError, ArithmeticError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    if result.preempted:
        raise SystemExit(PREEMPTED)


class _Labelled(io.TextIOBase):
    """A stream whose lines begin with a label."""

    def __init__(self, stream: TextIO, label: str):
        self._stream, self._label = stream, label

    def write(self, text: str) -> int:
        self._stream.write(re.sub(r"(?m)^(?=.)", self._label, text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()
