"""A clock that knows what was training and what was not."""

import contextlib
import time
from collections.abc import Callable, Iterator


class Clock:
    """Seconds of a window, with pauses (evaluation, saving) taken out, and goodput of the run."""

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        self._now = now
        self._start = self._window_start = now()
        self._window_paused = 0.0
        self._trained = 0.0

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Take what happens inside out of the window."""
        start = self._now()
        try:
            yield
        finally:
            self._window_paused += self._now() - start

    def skip(self) -> None:
        """Begin a new window; what happened since the last one was not training."""
        self._window_start, self._window_paused = self._now(), 0.0

    def lap(self) -> float:
        """Return the training seconds since the last lap and begin a new window."""
        end = self._now()
        seconds = end - self._window_start - self._window_paused
        self._window_start, self._window_paused = end, 0.0
        self._trained += seconds
        return max(seconds, 1e-9)

    @property
    def goodput(self) -> float:
        """Share of the time since the start, compilation included, that laps counted."""
        return min(1.0, self._trained / max(self._now() - self._start, 1e-9))
