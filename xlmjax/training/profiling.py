"""A trace of some steps, for TensorBoard: of a window by config, or on demand of a live run."""

import signal
import threading
from types import FrameType
from typing import Any

import jax
from etils import epath

from xlmjax.training.metrics import TENSORBOARD

SIGNALLED_STEPS = 5  # that SIGUSR1 asks for


class Profiler:
    """Traces steps start to stop - 1 of `window`, and the next 5 after a SIGUSR1.

    Each process traces itself into `<workdir>/tensorboard`, and only one that is signalled is
    traced for the signal. A window that this start of the run begins in the middle of is traced
    from there.
    """

    def __init__(self, workdir: epath.PathLike, window: tuple[int, ...]):
        self._folder = str(epath.Path(workdir) / TENSORBOARD)
        self._window = window
        self._stop: int | None = None  # where the trace that is being taken ends
        self._asked = threading.Event()
        self._previous: Any = None
        self._owns_signal = threading.current_thread() is threading.main_thread()
        if self._owns_signal:
            self._previous = signal.signal(signal.SIGUSR1, self._on_signal)

    def before(self, step: int, state: Any) -> str:
        """Begin or end a trace before `step`; returns a sentence where it ends one.

        `state` is what the step starts from: it is waited for, so that traces hold whole steps.
        """
        ended = ""
        if self._stop is not None and step >= self._stop:
            jax.block_until_ready(state)
            ended = self._end(step)
        if self._stop is None:
            if self._window and self._window[0] <= step < self._window[1]:
                self._stop = self._window[1]
            elif self._asked.is_set():
                self._stop = step + SIGNALLED_STEPS
            self._asked.clear()
            if self._stop is not None:
                jax.block_until_ready(state)
                jax.profiler.start_trace(self._folder)
        return ended

    def close(self) -> None:
        """End a trace that is being taken, and give the signal back."""
        if self._stop is not None:
            self._end(self._stop)
        if self._owns_signal:
            signal.signal(signal.SIGUSR1, self._previous)

    def _end(self, step: int) -> str:
        self._stop = None
        jax.profiler.stop_trace()
        return f"traced up to step {step}: tensorboard --logdir={self._folder}"

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()
