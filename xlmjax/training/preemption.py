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

METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/"
# Key of the metadata server -> the value that announces the end of this machine.
NOTICES = {"maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE", "preempted": "TRUE"}

log = logging.getLogger(__name__)


class PreemptionWatch:
    """Says when to save and stop: after SIGTERM, or a maintenance notice of Google Cloud.

    A notice is turned into SIGTERM to this process, so there is one way in. With several processes
    JAX's preemption service passes the signal of any one on to all, and names one step at which
    all of them stop; a second SIGTERM ends the process at once.
    """

    def __init__(self, metadata: str | None = None, poll_seconds: float = 5.0):
        """`metadata` is the server to ask; by default Google's, where this machine has one."""
        self._signalled = threading.Event()
        self._closed = threading.Event()
        self._previous: Any = None
        self._owns_signal = (
            jax.process_count() == 1 and threading.current_thread() is threading.main_thread()
        )
        if self._owns_signal:
            self._previous = signal.signal(signal.SIGTERM, self._on_signal)
        metadata = metadata or (METADATA if _on_google_cloud() else None)
        if metadata:
            threading.Thread(
                target=self._poll, args=(metadata, poll_seconds), name="maintenance", daemon=True
            ).start()

    def reached(self, step: int) -> bool:
        """Return whether the run must save at this step and end; call it once a step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._signalled.is_set()

    def close(self) -> None:
        """Give the signal back and stop asking."""
        self._closed.set()
        if self._owns_signal:
            signal.signal(signal.SIGTERM, self._previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled.set()
        signal.signal(number, signal.SIG_DFL)

    def _poll(self, metadata: str, seconds: float) -> None:
        while not self._closed.wait(seconds):
            for key, announcement in NOTICES.items():
                if _read(metadata + key) == announcement:
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
