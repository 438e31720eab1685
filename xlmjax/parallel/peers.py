"""Noticing that another process is no more, wherever this one waits for it."""

import threading
import time
from collections.abc import Callable

import jax

from xlmjax.parallel import distributed

NAME = "alive"  # of the values that processes publish
LEFT = "left"  # the value of one that has ended as it should
_LISTEN_SECONDS = 1.0  # between looks whether another has rung: process 0 waits three for the rest


class PeerWatch:
    """Ends this process, with one sentence, when another was not heard of for `seconds`.

    Not every collective fails when a process is lost: some wait for ever. Each process publishes a
    count that grows, from a thread of its own, and looks at those of the others. One that ends
    because of a lost one rings for the others (`distributed.end_process`), which end at once. JAX's
    service would notice too (`distributed.initialize`), but ends processes with a stack trace of
    its own. Does nothing in a run of one process.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic):
        self._seconds, self._now = seconds, now
        self._count = 0
        self._heard: dict[int, tuple[str, float]] = {}  # process -> its last value, and since when
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        if jax.process_count() > 1:
            self._thread.start()

    def close(self) -> None:
        """Stop watching; the others know that this process is not lost."""
        self._closed.set()
        if jax.process_count() > 1:
            self._thread.join()  # else a count could follow the word that this process left
            distributed.publish(NAME, LEFT)

    def _watch(self) -> None:
        with distributed.end_without_the_lost():  # they publish by a service of process 0
            looked = self._now()
            while not self._closed.wait(min(_LISTEN_SECONDS, self._seconds / 10)):
                if reason := distributed.rung():
                    distributed.end_process(reason)
                if self._now() - looked >= self._seconds / 10:
                    looked = self._now()
                    self.look()

    def look(self) -> None:
        """Tell the others, and see which of them has not told anything new for too long."""
        self._count += 1
        distributed.publish(NAME, str(self._count))
        now = self._now()
        for index, value in distributed.published(NAME).items():
            last, since = self._heard.get(index, ("", now))
            if value != last:
                self._heard[index] = value, now
            elif value != LEFT and now - since > self._seconds:
                distributed.end_process(
                    f"process {index} was not heard of for {self._seconds:g} s "
                    "(train.heartbeat_seconds): where it has ended, its log says why. Run the same "
                    "command on all processes to go on from the last checkpoint"
                )
