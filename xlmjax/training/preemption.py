"""Learning in time that this machine is about to be taken away."""

import logging
import os
import pathlib
import signal
import threading
import urllib.error
import urllib.request
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

PREEMPTED = 143  # what a process that SIGTERM ends returns
METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/"
# Key of the metadata server -> the value that announces the end of this machine.
NOTICES = {"maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE", "preempted": "TRUE"}

log = logging.getLogger(__name__)


class PreemptionWatch:
    """Says when to save and stop: after SIGTERM, Ctrl-C, or a maintenance notice of Google Cloud.

    A notice is turned into SIGTERM to this process, so there is one way in. With several processes
    JAX's preemption service passes the signal of any one on to all, and names one call at which
    all of them stop. Any further SIGTERM changes nothing: whoever takes a machine away may say so
    twice, and the run is saving already. Ctrl-C is listened to in runs of one process only, and
    ends them at once as long as there is no new step to save; a second one always does. A process
    that shells start deaf to it stays so.
    """

    def __init__(self, metadata: str | None = None, poll_seconds: float = 5.0):
        """`metadata` is the server to ask; by default Google's, where this machine has one."""
        self._signalled = False  # no threading.Event: a signal may come while it is being set
        self._closed = threading.Event()
        self._unsaved = False
        self._calls = 0
        self.interrupted = False  # by Ctrl-C, which the caller passes on once it has saved
        self._previous: dict[signal.Signals, Any] = {}
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._on_sigterm)
            if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
                self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._on_sigint)
        metadata = metadata or (METADATA if _on_google_cloud() else None)
        if metadata:
            threading.Thread(
                target=self._poll, args=(metadata, poll_seconds), name="maintenance", daemon=True
            ).start()

    def reached(self, unsaved: bool) -> bool:
        """Return whether the run must save here and end; all processes ask at the same places.

        unsaved: whether there is a new step to save, for which Ctrl-C waits from now on.
        """
        self._unsaved = unsaved
        self._calls += 1
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(self._calls)
        return self._signalled

    def close(self) -> None:
        """Give the signals back and stop asking."""
        self._closed.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True

    def _on_sigint(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.default_int_handler)
        if not self._unsaved:
            raise KeyboardInterrupt
        self.interrupted = self._signalled = True
        # Not by sys.stderr, which may be in the middle of a line of its own.
        os.write(2, b"\ninterrupted: the step is finished and saved; Ctrl-C again ends at once\n")

    def _poll(self, metadata: str, seconds: float) -> None:
        while not self._closed.wait(seconds):
            for key, announcement in NOTICES.items():
                announced = _read(metadata + key) == announcement
                if self._signalled or self._closed.is_set():  # while the server was asked
                    return
                if announced:
                    log.warning("the metadata server says %s=%s: saving", key, announcement)
                    os.kill(os.getpid(), signal.SIGTERM)
                    return


def _read(url: str) -> str:
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=2) as response:
            return str(response.read().decode().strip())
    except (urllib.error.URLError, OSError):
        return ""


def _on_google_cloud() -> bool:
    name = pathlib.Path("/sys/class/dmi/id/product_name")
    try:
        return "Google" in name.read_text("utf-8")
    except OSError:
        return False
