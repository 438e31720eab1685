"""Traces of chosen steps, for TensorBoard."""

import os
import signal

import pytest

from xlmjax.training import profiling
from xlmjax.training.profiling import SIGNALLED_STEPS, Profiler
from xlmjax.training.settings import LogConfig


@pytest.fixture
def calls(monkeypatch):
    """What the profiler asks of JAX, in order."""
    found = []
    monkeypatch.setattr(profiling.jax.profiler, "start_trace", lambda folder: found.append("start"))
    monkeypatch.setattr(profiling.jax.profiler, "stop_trace", lambda: found.append("stop"))
    return found


def run(profiler, calls, steps):
    for step in steps:
        profiler.before(step, None)
        calls.append(step)


def test_the_steps_of_the_window_are_traced(calls, tmp_path):
    profiler = Profiler(tmp_path, (2, 4))
    run(profiler, calls, range(6))
    profiler.close()
    assert calls == [0, 1, "start", 2, 3, "stop", 4, 5]


def test_a_run_that_begins_in_the_window_or_ends_in_it_traces_a_part(calls, tmp_path):
    profiler = Profiler(tmp_path, (2, 9))
    run(profiler, calls, range(4, 6))
    profiler.close()
    assert calls == ["start", 4, 5, "stop"]


def test_a_signal_traces_the_next_steps(calls, tmp_path):
    before = signal.getsignal(signal.SIGUSR1)
    profiler = Profiler(tmp_path, ())
    run(profiler, calls, range(2))
    os.kill(os.getpid(), signal.SIGUSR1)
    run(profiler, calls, range(2, 4 + SIGNALLED_STEPS))
    profiler.close()
    traced = range(2, 2 + SIGNALLED_STEPS)
    assert calls == [0, 1, "start", *traced, "stop", traced.stop, traced.stop + 1]
    assert signal.getsignal(signal.SIGUSR1) == before


@pytest.mark.parametrize("window", [(3,), (4, 4), (-1, 2), (1, 2, 3)])
def test_what_is_no_window_is_refused(window):
    with pytest.raises(ValueError, match=r"log.profile=.* is no window of steps: give \(first"):
        LogConfig(profile=window)
