"""Which process holds the others up."""

import statistics

import jax

from xlmjax.parallel import distributed

NAME = "host_seconds"


def host_times(seconds: float) -> dict[str, float]:
    """Tell the others how many seconds a step this process's host took, and compare them.

    That is a step without the wait for the devices, which is long on every process that waits for
    a slow one. Returns `perf/host_seconds_median`, `perf/host_seconds_slowest` and
    `perf/slowest_process`, or nothing in a run of one process. Nothing is waited for: what another
    process tells may be of the window before.
    """
    if jax.process_count() == 1:
        return {}
    distributed.publish(NAME, repr(seconds))
    found = {index: float(text) for index, text in distributed.published(NAME).items()}
    slowest = max(found, key=lambda index: found[index])
    return {
        "perf/host_seconds_median": statistics.median(found.values()),
        "perf/host_seconds_slowest": found[slowest],
        "perf/slowest_process": float(slowest),
    }
