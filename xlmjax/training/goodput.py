"""Where the wall time of a run went, over all its starts."""

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from etils import epath

from xlmjax.storage_errors import writing

GOODPUT_FILE = "goodput.jsonl"
TRAIN, DATA, LOST, DOWN = "train", "data", "lost", "down"
KINDS = (  # every second is of one
    TRAIN,  # steps that count
    DATA,  # waiting for a batch
    "compile",  # the first step of a start
    "evaluation",
    "checkpoint",  # saving, as far as the loop waits for it
    "profile",  # beginning and writing traces
    "restore",  # reading the checkpoint, or making fresh parameters
    "setup",  # the rest before the first step
    LOST,  # steps that had to be done again
    DOWN,  # from the last line of one start to the beginning of the next
)

T = TypeVar("T")


class Goodput:
    """Counts seconds by kind; goodput is the share of `train` since the first start of the run.

    A line of goodput.jsonl holds what was counted since the line before. A start at step n turns
    the `train` of lines after step n into `lost`, and so restarts add up.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.perf_counter,
        wall: Callable[[], float] = time.time,
    ):
        """`now` measures durations; `wall` is comparable between starts."""
        self._now, self._wall = now, wall
        self.kind, self.since = "setup", now()  # what is going on, and since when
        self._seconds = dict.fromkeys(KINDS, 0.0)  # of this start
        self._earlier = dict.fromkeys(KINDS, 0.0)  # of those before it
        self._written = dict(self._seconds)
        self._lapped = 0.0
        self._born = wall()
        self._path: epath.Path | None = None
        self._step = self._lost_steps = self._restarts = 0

    def begin(self, kind: str) -> str:
        """Count under this kind from now on; returns the kind until now."""
        now, before = self._now(), self.kind
        self._seconds[before] += now - self.since
        self.kind, self.since = kind, now
        return before

    @contextlib.contextmanager
    def phase(self, kind: str) -> Iterator[None]:
        """Count what happens inside under this kind."""
        before = self.begin(kind)
        try:
            yield
        finally:
            self.begin(before)

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches; the time until each is there counts as `data`."""
        iterator = iter(batches)
        while True:
            with self.phase(DATA):
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
            yield batch

    def lap(self) -> float:
        """Return the seconds of `train` and `data` since the last lap."""
        self.begin(self.kind)
        total = self._seconds[TRAIN] + self._seconds[DATA]
        seconds, self._lapped = total - self._lapped, total
        return max(seconds, 1e-9)

    def resume(self, workdir: epath.PathLike, step: int) -> None:
        """Add up the earlier starts of the run, which goes on from `step`, and write lines.

        For one process of a run only: the others count for themselves.
        """
        folder = epath.Path(workdir)
        self._path, self._step = folder / GOODPUT_FILE, step
        with writing(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            lines = [lose(line, step) for line in _read(self._path)]
            partial = self._path.with_suffix(".partial")
            partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
            partial.replace(self._path)
        for line in lines:
            for kind, seconds in line["seconds"].items():
                self._earlier[kind] += seconds
            self._lost_steps += line.get("lost_steps", 0)
            self._restarts += line.get("starts", 0)
        if lines:
            self._seconds[DOWN] += max(0.0, self._born - lines[-1]["time"])
        self._append({"starts": 1})

    def write(self, step: int) -> None:
        """Write what was counted since the last line, which ended at an earlier step."""
        self._append({"steps": step - self._step})
        self._step = step

    def _append(self, fields: Mapping[str, int]) -> None:
        if self._path is None:
            return
        self.begin(self.kind)
        new = {kind: self._seconds[kind] - self._written[kind] for kind in KINDS}
        self._written = dict(self._seconds)
        seconds = {kind: round(value, 4) for kind, value in new.items() if value}
        step = self._step + fields.get("steps", 0)
        line = {"step": step, "time": self._wall(), **fields, "seconds": seconds}
        with writing(self._path), self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def totals(self) -> dict[str, float]:
        """Return kind -> seconds, over all starts."""
        self.begin(self.kind)
        return {kind: self._earlier[kind] + self._seconds[kind] for kind in KINDS}

    def shares(self) -> dict[str, float]:
        """Return `perf/goodput` and `perf/share_<kind>` of every other kind: they add up to 1."""
        totals = self.totals()
        whole = max(sum(totals.values()), 1e-9)
        shares = {f"perf/share_{kind}": value / whole for kind, value in totals.items()}
        return {"perf/goodput": shares.pop(f"perf/share_{TRAIN}"), **shares}

    def first_step(self) -> str:
        """Return how long this start took to its first step, and with what."""
        self.begin(self.kind)
        parts = {kind: self._seconds[kind] for kind in ("setup", "restore", "compile", DATA)}
        shown = ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in parts.items())
        return f"first step after {sum(parts.values()):.1f} s: {shown}"

    def summary(self) -> str:
        """Return one line for the end of a run."""
        totals = self.totals()
        whole = max(sum(totals.values()), 1e-9)
        ordered = sorted(((seconds, kind) for kind, seconds in totals.items()), reverse=True)
        shown = ", ".join(
            f"{kind} {seconds / whole:.1%}"
            for seconds, kind in ordered
            if kind != TRAIN and seconds / whole >= 0.0005
        )
        again = f"; {self._lost_steps} steps done again" if self._lost_steps else ""
        return (
            f"goodput {totals[TRAIN] / whole:.1%} of {whole:,.0f} s in {self._restarts + 1} "
            f"start{'s' if self._restarts else ''}: {shown}{again}"
        )


def lose(line: Mapping[str, Any], step: int) -> dict[str, Any]:
    """Return a line of an earlier start as it stands once the run has gone back to `step`."""
    if line["step"] <= step or "steps" not in line:
        return dict(line)
    seconds = dict(line["seconds"])
    seconds[LOST] = seconds.get(LOST, 0.0) + seconds.pop(TRAIN, 0.0)
    kept = {name: value for name, value in line.items() if name != "steps"}
    return {**kept, "lost_steps": line["steps"], "seconds": seconds}


def _read(path: epath.Path) -> list[dict[str, Any]]:
    """Return the lines of a file, if there is one, without a last one that a kill cut short."""
    if not path.exists():
        return []
    return [
        json.loads(line)
        for line in path.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]
