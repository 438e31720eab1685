"""When nothing moves any more: every thread's stack, and an end if a launcher is to try again."""

import sys
import threading
import time
import traceback
from collections.abc import Callable

import jax
from etils import epath

from xlmjax.parallel import distributed
from xlmjax.training.goodput import DATA, TRAIN, Goodput

_WRITE_SECONDS = 10.0  # for the file of a hang
PATIENCE = 10  # times as long for what is no step: set-up, restoring, compilation, saving, ...


class Watchdog:
    """Watches from a thread of its own that the loop goes on.

    Where `goodput` has counted under one kind for `seconds` (10 times as long outside of steps),
    it prints the stacks of all threads with the last step, writes them to
    `<workdir>/hang-<step>-process<i>.txt`, and with `ends` ends the process with exit code 75. It
    does so once a hang. 0 seconds watch nothing.
    """

    def __init__(
        self,
        goodput: Goodput,
        seconds: float,
        workdir: epath.PathLike,
        *,
        ends: bool,
        now: Callable[[], float] = time.perf_counter,
    ):
        self.step = 0  # the last one completed, 0 until that is known
        self._goodput, self._seconds, self._ends, self._now = goodput, seconds, ends, now
        self._workdir = epath.Path(workdir)
        self._closed = threading.Event()
        self._reported: float | None = None
        if seconds:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._seconds / 10):
            self.look()

    def look(self) -> None:
        """Report if the loop hangs."""
        kind, since = self._goodput.kind, self._goodput.since
        limit = self._seconds * (1 if kind in (TRAIN, DATA) else PATIENCE)
        if self._now() - since < limit or since == self._reported:
            return
        self._reported = since
        where = "step" if kind == TRAIN else kind
        sentence = f"no progress for {limit:g} s in {where} after step {self.step}"
        text = f"{sentence}; process {jax.process_index()}\n\n{stacks()}"
        print(text, file=sys.stderr, flush=True)
        path = self._workdir / f"hang-{self.step}-process{jax.process_index()}.txt"
        # A hang may well be that of the disk, which then would hold this thread too.
        writer = threading.Thread(target=_write, args=(path, text), daemon=True)
        writer.start()
        writer.join(_WRITE_SECONDS)
        if writer.is_alive():
            print(f"{path} is not written after {_WRITE_SECONDS:g} s", file=sys.stderr, flush=True)
        if self._ends:
            distributed.end_process(
                f"{sentence} (train.watchdog_seconds), ending (train.watchdog_exit): run the same "
                "command again to go on from the last checkpoint"
            )


def _write(path: epath.Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except Exception as error:  # of any kind of storage
        print(f"{path} could not be written: {error}", file=sys.stderr, flush=True)


def stacks() -> str:
    """Return the stack of every thread, by name."""
    frames = sys._current_frames()
    parts = []
    for thread in threading.enumerate():
        if frame := frames.get(thread.ident or 0):
            parts.append(f"thread {thread.name}:\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(parts)
