"""The processes of a run: joining them, talking among them, and parting from lost ones."""

import contextlib
import itertools
import os
import re
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src import distributed as jax_distributed  # its key-value store has no public name
from jax._src.clusters import GceTpuCluster, GkeTpuCluster  # nor has what it takes for a TPU pod
from jax.experimental import multihost_utils

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong with the run, start it again

_ENVIRONMENT = ("XLMJAX_COORDINATOR", "XLMJAX_NUM_PROCESSES", "XLMJAX_PROCESS_ID")  # or flags
_JAX_PATIENCE = 3  # JAX beats twice in its timeout: it may miss a process after half of it
_PREFIX = "xlmjax"  # of our keys in JAX's key-value store
# The codes of the second line are those of a program's own errors too, where nothing is said of a
# connection: these would come again at every start.
_LOST = re.compile(
    r"(ABORTED|CANCELLED|DEADLINE_EXCEEDED|UNAVAILABLE): .*"
    r"|(FAILED_PRECONDITION|INTERNAL|UNKNOWN): .*(?i:gloo|connection|by peer|socket|broken pipe"
    r"|coordination|heartbeat|barrier (timed|failed|result)|remote process|network error).*"
)
_exchanges = itertools.count()  # processes make the same exchanges in the same order


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    heartbeat_seconds: int = 100,
) -> None:
    """Connect this process to the others; call it before anything touches a device.

    The first three arguments, or XLMJAX_COORDINATOR (host:port of process 0), XLMJAX_NUM_PROCESSES
    and XLMJAX_PROCESS_ID, name the group. Without them a TPU pod or a Slurm step with several tasks
    is recognised by JAX itself, and anything else is one process, for which nothing happens.
    Processes on CPUs talk over gloo. A process that JAX did not hear of for three times
    `heartbeat_seconds` is taken for dead, and JAX ends the others (`peers.PeerWatch` comes before
    it); one that ends waits for `heartbeat_seconds` for the others to end too.
    """
    address = coordinator or os.environ.get("XLMJAX_COORDINATOR")
    count = _integer("XLMJAX_NUM_PROCESSES", num_processes)
    index = _integer("XLMJAX_PROCESS_ID", process_id)
    if address is None and count is None and index is None:
        if _in_tpu_pod() or _in_slurm_step():
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
            jax.distributed.initialize(
                heartbeat_timeout_seconds=_JAX_PATIENCE * heartbeat_seconds,
                shutdown_timeout_seconds=heartbeat_seconds,
            )
        return
    if address is None or count is None or index is None:
        given = zip(_ENVIRONMENT, (address, count, index), strict=True)
        missing = ", ".join(name for name, value in given if value is None)
        raise ValueError(f"a run of several processes also needs {missing}")
    if ":" not in address:
        raise ValueError(
            f"the coordinator {address!r} (--coordinator or XLMJAX_COORDINATOR) has no port: use "
            "host:port of process 0"
        )
    if not 0 <= index < count:
        raise ValueError(
            f"XLMJAX_PROCESS_ID={index} is not in [0, XLMJAX_NUM_PROCESSES={count}), nor as "
            "--process_id and --num_processes: number the processes from 0"
        )
    if count == 1:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        address,
        count,
        index,
        heartbeat_timeout_seconds=_JAX_PATIENCE * heartbeat_seconds,
        shutdown_timeout_seconds=heartbeat_seconds,
    )


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


def exchange(name: str, value: str, *, wait: bool = True, timeout_seconds: int = 1800) -> list[str]:
    """Return what each process gives, in the order of their numbers; waits for all of them.

    Devices take no part, so it works before processes agree about these. Without `wait` the value
    is only told, and nothing returned. Raises `TimeoutError` naming the first process that did not
    come.
    """
    if jax.process_count() == 1:
        return [value]
    folder = f"{_PREFIX}/{name}/{next(_exchanges)}"
    _store().key_value_set(f"{folder}/{jax.process_index()}", value)
    values: list[str] = []
    for index in range(jax.process_count() if wait else 0):
        key = f"{folder}/{index}"
        try:
            values.append(_store().blocking_key_value_get(key, timeout_seconds * 1000))
        except jax.errors.JaxRuntimeError as error:
            raise TimeoutError(
                f"process {index} did not come to {name} within {timeout_seconds} s: its log says "
                "why; start all processes together"
            ) from error
    return values


def publish(name: str, value: str) -> None:
    """Let the others read a value of this process, in place of its last one; does not wait."""
    _store().key_value_set(f"{_PREFIX}/{name}/{jax.process_index()}", value, allow_overwrite=True)


def published(name: str) -> dict[int, str]:
    """Return process -> the value that it published last, of those that did; does not wait."""
    found = _store().key_value_dir_get(f"{_PREFIX}/{name}/")
    return {int(key.rpartition("/")[2]): value for key, value in found}


def ring(index: int, reason: str) -> None:
    """Tell process `index` to end, and why, where it looks for that (`rung`); does not wait."""
    _store().key_value_set(f"{_PREFIX}/bell/{index}", reason, allow_overwrite=True)


def rung() -> str | None:
    """Return why this process was rung for, None if it was not; does not wait.

    Waiting for the key would be quicker, but JAX's service keeps 15 KB of each wait in vain.
    """
    try:
        return str(_store().key_value_try_get(f"{_PREFIX}/bell/{jax.process_index()}"))
    except jax.errors.JaxRuntimeError as error:
        if str(error).startswith("NOT_FOUND"):
            return None
        raise


@contextlib.contextmanager
def end_without_the_lost() -> Iterator[None]:
    """End this process at once, with one sentence, where working with the others fails inside.

    Python's ordinary end would wait for a process that is no more. Changes nothing in a run of one
    process.
    """
    try:
        yield
    except Exception as error:
        failure = _lost_contact(error)
        if jax.process_count() == 1 or not failure:
            raise
        end_process(
            f"process {jax.process_index()} of {jax.process_count()} cannot go on with the others "
            f"({failure}): where one has ended, its log says why. Run the same command on all of "
            "them to go on from the last checkpoint"
        )


def end_process(sentence: str) -> NoReturn:
    """Print a sentence and end this process now, with exit code 75; the others then end too.

    Any process rings for process 0, and this one for all others, which may be waiting in a
    collective that never fails (`peers.PeerWatch` looks). Nothing is waited for, but that process
    0 gives them time to speak: JAX's service ends with it, and JAX ends those who lose that.
    """
    print(f"xlmjax: {sentence}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    if jax.process_count() > 1:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the service may be gone
            for index in range(1, jax.process_count()) if is_main() else (0,):
                ring(index, f"process {jax.process_index()} has ended: {sentence}")
        if is_main():
            time.sleep(3)
    os._exit(TRY_AGAIN)


def _lost_contact(error: BaseException | None) -> str:
    """Return what the runtime said that tells of a lost process, "" where an error is another.

    The runtime's errors come as `JaxRuntimeError`, as plain `ValueError` where a result is fetched,
    or as the cause of an error of ours; all begin with a status code. Only their first line counts:
    what follows may quote a whole program.
    """
    while error is not None:
        if found := _LOST.search(str(error).splitlines()[0] if str(error) else ""):
            return found.group()[:200]
        error = error.__cause__ or error.__context__
    return ""


def _store() -> Any:
    return jax_distributed.global_state.client


def _integer(name: str, value: int | None) -> int | None:
    text = os.environ.get(name)
    if value is not None or text is None:
        return value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} is not an integer") from None


def _in_slurm_step() -> bool:
    """Return whether `srun` started several tasks: of this step, a job may have more."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def _in_tpu_pod() -> bool:
    """Return whether JAX itself finds a Cloud TPU, by GKE's variables or by the metadata server.

    Chips alone make no pod: nobody could say who the others are, and JAX would refuse to start.
    """
    try:
        return GkeTpuCluster.is_env_present() or GceTpuCluster.is_env_present()
    except OSError:  # there is no metadata server to ask
        return False
