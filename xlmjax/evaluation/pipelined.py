"""Batches through the device, the result of each fetched while the next one runs."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax

K = TypeVar("K")
B = TypeVar("B")


def fetched(
    batches: Iterable[tuple[K, B]], apply: Callable[[K, B], Any]
) -> Iterator[tuple[K, Any]]:
    """Yield (key, `apply(key, batch)` on the host) of each (key, batch), in order."""
    waiting: tuple[K, Any] | None = None
    for item in itertools.chain(batches, (None,)):
        result = None if item is None else (item[0], apply(*item))
        if waiting is not None:
            key, found = waiting
            yield key, jax.device_get(found)
        waiting = result
