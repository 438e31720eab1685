"""Joining the processes of a run: explicit coordinator, TPU pod, Slurm, or none of these."""

import glob
import importlib.util
import os

import jax
import numpy as np
from jax.experimental import multihost_utils

_ENVIRONMENT = ("XLMJAX_COORDINATOR", "XLMJAX_NUM_PROCESSES", "XLMJAX_PROCESS_ID")


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Connect this process to the others; call it before anything touches a device.

    The three arguments, or XLMJAX_COORDINATOR (host:port of process 0), XLMJAX_NUM_PROCESSES and
    XLMJAX_PROCESS_ID, name the group. Without them a TPU pod or a Slurm step with several tasks
    is recognised by JAX itself, and anything else is one process, for which nothing happens.
    Processes on CPUs talk over gloo.
    """
    address = coordinator or os.environ.get("XLMJAX_COORDINATOR")
    count = _integer("XLMJAX_NUM_PROCESSES", num_processes)
    index = _integer("XLMJAX_PROCESS_ID", process_id)
    if address is None and count is None and index is None:
        if _in_tpu_pod() or _in_slurm_step():
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
            jax.distributed.initialize()
        return
    if address is None or count is None or index is None:
        given = zip(_ENVIRONMENT, (address, count, index), strict=True)
        missing = ", ".join(name for name, value in given if value is None)
        raise ValueError(f"a run of several processes also needs {missing}")
    if ":" not in address:
        raise ValueError(f"XLMJAX_COORDINATOR={address!r} has no port: use host:port of process 0")
    if not 0 <= index < count:
        raise ValueError(
            f"XLMJAX_PROCESS_ID={index} is not in [0, XLMJAX_NUM_PROCESSES={count}): number the "
            "processes from 0"
        )
    if count == 1:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, count, index)


def is_main() -> bool:
    """Return whether this process writes logs and reports: process 0."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until every process has come to the barrier of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agree(value: int) -> int:
    """Return process 0's value of an integer, on every process."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int64(value)))


def everyone(flag: bool) -> bool:
    """Return whether the flag is true on every process."""
    if jax.process_count() == 1:
        return flag
    return bool(np.all(multihost_utils.process_allgather(np.int32(flag))))


def _integer(name: str, value: int | None) -> int | None:
    text = os.environ.get(name)
    if value is not None or text is None:
        return value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} is not an integer") from None


def _in_slurm_step() -> bool:
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def _in_tpu_pod() -> bool:
    if "," in os.environ.get("TPU_WORKER_HOSTNAMES", "") or "MEGASCALE_NUM_SLICES" in os.environ:
        return True
    chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
    return bool(chips) and importlib.util.find_spec("libtpu") is not None
