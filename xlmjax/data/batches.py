"""Rows -> global, sharded `jax.Array` batches, read ahead in a thread."""

import functools
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from xlmjax.data import features
from xlmjax.data.mixture import Mixture, Task, empty_batch, features_of

Batch = dict[str, jax.Array]


def to_global(
    fill: Callable[[int, int], Mapping[str, np.ndarray]],
    rows: int,
    length: int,
    sharding: jax.sharding.Sharding,
    of: Sequence[features.Feature] = features.TEXT,
) -> Batch:
    """Build the global batch of `rows` rows, each process filling only the rows its devices hold.

    `fill(start, stop)` returns the features of rows [start, stop) of the batch; `sharding` splits
    the first axis.
    """
    held = functools.cache(fill)

    def of_feature(feature: features.Feature) -> jax.Array:
        def shard(index: tuple[slice, ...] | None) -> np.ndarray:
            start, stop, _ = (index or (slice(None),))[0].indices(rows)
            return held(start, stop)[feature.name]

        return jax.make_array_from_callback(feature.shape(rows, length), sharding, shard)

    return {feature.name: of_feature(feature) for feature in of}


class Batches:
    """Training batches of one mixture: a pure function of (mixture, step)."""

    def __init__(self, mixture: Mixture, rows: int, sharding: jax.sharding.Sharding):
        self.mixture = mixture
        self.rows = rows
        self.length = mixture.length
        self._sharding = sharding

    def at(self, step: int) -> Batch:
        """Return the global batch of a step: rows [step * rows, (step + 1) * rows)."""
        first = step * self.rows

        def fill(start: int, stop: int) -> Mapping[str, np.ndarray]:
            return self.mixture.fill(np.arange(first + start, first + stop))

        return to_global(fill, self.rows, self.length, self._sharding, self.mixture.features)


class EvaluationBatches:
    """Every row of some tasks once, in order; the last batch of a task ends in empty rows.

    With `max_rows`, at most so many rows a task, evenly spaced. Row ids count from 0 over all rows
    of all tasks, so that masks are fixed, differ from row to row, and do not depend on `max_rows`.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        rows: int,
        length: int,
        sharding: jax.sharding.Sharding,
        max_rows: int = 0,
    ):
        self.tasks = tuple(tasks)
        self.rows = rows
        self.length = length
        self._sharding = sharding
        self._features = features_of(self.tasks)
        self._chosen = [spaced(task.layout.num_rows, max_rows) for task in self.tasks]

    def __len__(self) -> int:
        return sum(-(-len(chosen) // self.rows) for chosen in self._chosen)

    def __iter__(self) -> Iterator[Batch]:
        first_id = 0
        for number, task in enumerate(self.tasks):
            for first in range(0, len(self._chosen[number]), self.rows):
                fill = functools.partial(self._fill, number, first_id, first)
                yield to_global(fill, self.rows, self.length, self._sharding, self._features)
            first_id += task.layout.num_rows

    def _fill(
        self, number: int, first_id: int, first: int, start: int, stop: int
    ) -> dict[str, np.ndarray]:
        batch = empty_batch(stop - start, self.length, self._features)
        real = self._chosen[number][first + start : first + stop]
        filled = empty_batch(len(real), self.length, self._features)
        self.tasks[number].layout.fill(real, np.zeros_like(real), filled)
        for feature in self._features:
            batch[feature.name][: len(real)] = filled[feature.name]
        batch[features.ROW_IDS][: len(real)] = first_id + real
        batch[features.TASK_IDS][:] = number
        return batch


def spaced(num_rows: int, max_rows: int) -> np.ndarray:
    """Return all rows, or `max_rows` of them, evenly spaced."""
    if not max_rows or max_rows >= num_rows:
        return np.arange(num_rows)
    return np.arange(max_rows) * num_rows // max_rows


def prefetched(
    make: Callable[[int], Mapping[str, Batch]], start: int, stop: int, depth: int
) -> Iterator[tuple[int, Mapping[str, Batch]]]:
    """Yield (step, make(step)) for steps [start, stop), up to `depth` of them made ahead.

    An error of the thread is raised at the step that it concerns; closing the generator ends the
    thread.
    """
    ready: queue.Queue = queue.Queue(maxsize=max(depth, 1))
    closed = threading.Event()

    def put(item: object) -> None:
        while not closed.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for step in range(start, stop):
                if closed.is_set():
                    return
                put((step, make(step)))
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        for _ in range(start, stop):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        thread.join(timeout=10)
