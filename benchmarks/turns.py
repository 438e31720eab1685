"""Contenders in resident processes that take turns, round after round.

Each side lives in a process of its own, so that a jax on another Python than torch's can be
measured; only one of them works at a time. In every round each contender runs a few steps; the
ratio of a round is its speed over that of the reference contender in the same round, so that a
noisy machine hurts all alike.
"""

import fcntl
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

_DESCRIPTOR = "TURNS_DESCRIPTOR"
LOCK = pathlib.Path(tempfile.gettempdir()) / "xlmjax-benchmarks.lock"  # held while one is timed

Step = Callable[[], float]  # runs one step and returns how many units of work it did


def serve(steps: Mapping[str, Step]) -> None:
    """Run steps as told on stdin, one JSON request a line: [contender, steps] -> [seconds, work].

    Libraries may print: the protocol has a descriptor of its own.
    """
    with os.fdopen(int(os.environ[_DESCRIPTOR]), "w") as answers:
        for step in steps.values():
            step()  # compiles, while others do
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            name, count = json.loads(line)
            steps[name]()  # not timed: meanwhile the other's memory leaves the caches
            start = time.perf_counter()
            work = sum(steps[name]() for _ in range(count))
            print(json.dumps([time.perf_counter() - start, work]), file=answers, flush=True)


def _for_any_jaxlib(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the flag that `import xlmjax` adds for jaxlib 0.10 and 0.11.

    A worker with another jaxlib would inherit it, and take twice the time in bfloat16; one with
    these sets it again.
    """
    flags = environment.get("XLA_FLAGS", "").split()
    kept = [flag for flag in flags if flag != "--xla_cpu_experimental_ynn_fusion_type="]
    return {**environment, "XLA_FLAGS": " ".join(kept)}


class Worker:
    """A resident process that serves some contenders, in an environment of its own."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] = os.environ):
        read, write = os.pipe()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            text=True,
            pass_fds=(write,),
            env={**_for_any_jaxlib(environment), _DESCRIPTOR: str(write)},
        )
        os.close(write)
        self._command = command
        self._answers = os.fdopen(read)
        self._is_ready = False

    def wait(self) -> None:
        """Wait until the process can run steps. Raises RuntimeError if it ends instead."""
        if not self._is_ready and self._answers.readline().strip() != "ready":
            raise RuntimeError(f"{' '.join(self._command)} did not start; its message is above")
        self._is_ready = True

    def run(self, name: str, steps: int) -> tuple[float, float]:
        """Run some steps of a contender; returns seconds and work done."""
        self.wait()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, steps]) + "\n")
        self._process.stdin.flush()
        seconds, work = json.loads(self._answers.readline())
        return seconds, work

    def close(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(
    workers: Mapping[str, Worker], rounds: int, steps: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Return units of work a second of every contender in every round."""
    for worker in workers.values():
        worker.wait()
    speeds: dict[str, list[float]] = {name: [] for name in workers}
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, worker in workers.items():
            worker.run(name, warmup)
        for _ in range(rounds):
            for name, worker in workers.items():
                seconds, work = worker.run(name, steps)
                speeds[name].append(work / seconds)
    for worker in set(workers.values()):
        worker.close()
    return speeds


def measure_here(
    steps: Mapping[str, Step], rounds: int, count: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Return units of work a second of contenders in this process, as `measure` does."""
    for step in steps.values():
        for _ in range(warmup):
            step()
    speeds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            work = sum(step() for _ in range(count))
            speeds[name].append(work / (time.perf_counter() - start))
    return speeds


def table(
    speeds: Mapping[str, Sequence[float]], titles: Mapping[str, str], reference: str, unit: str
) -> str:
    """Return a markdown table of median speeds, and of ratios to the reference contender."""
    lines = [f"| contender | {unit} | ratio to {titles[reference]} |", "| --- | --- | --- |"]
    for name, values in speeds.items():
        ratios = [a / b for a, b in zip(values, speeds[reference], strict=True)]
        lines.append(
            f"| {titles[name]} | {statistics.median(values):,.0f} "
            f"| {statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}] |"
        )
    return "\n".join(lines)
