"""The soak: a run killed again and again, in the middle of saves too, ends as if never disturbed."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from etils import epath

from tests.small_run import write_data
from xlmjax.training.checkpoint import read_arrays, read_metadata
from xlmjax.training.state import named_leaves, nest

ROOT = pathlib.Path(__file__).resolve().parent.parent
KILLS = 20
FIELDS = {
    "train__num_steps": 240,
    "train__num_cpu_devices": 4,
    "mesh__fsdp": 2,
    "checkpoint__every": 8,
    "log__every": 4,
    "log__progress": "lines",
}


def start(folder, workdir, cache):
    """Start the run; the log goes to a file so that a full pipe never stops it."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    command = [sys.executable, "-m", "tests.small_process", "train"]
    with (workdir.parent / f"{workdir.name}.log").open("a") as log:
        return subprocess.Popen(
            [*command, str(folder), str(workdir), json.dumps(FIELDS)],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def has_step(workdir, step):
    """Return whether a process that began at `step` has come further: it trains."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return False
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return bool(lines) and json.loads(lines[-1])["step"] > step


def saved_steps(workdir):
    folder = workdir / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    return [int(name) for name in names if name.isdigit()]


def is_saving(workdir):
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def wait_until(condition, process, seconds=300):
    """Wait; returns False if the process ends before."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < end, "the run makes no progress"
        time.sleep(0.001)
    return True


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_killed_at_random_moments_ends_bit_identical(tmp_path):
    folder, cache = tmp_path / "data", tmp_path / "cache"
    write_data(folder)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert start(folder, straight, cache).wait(timeout=1200) == 0

    generator = random.Random(0)
    kills = during_saves = 0
    while kills < KILLS:
        before = max(saved_steps(killed), default=0)
        process = start(folder, killed, cache)
        if not wait_until(lambda step=before: has_step(killed, step), process):
            break  # done before the kills were
        if kills % 2:  # in the middle of a save
            wait_until(lambda: is_saving(killed), process)
            time.sleep(generator.uniform(0.0, 0.05))
        else:
            time.sleep(generator.uniform(0.0, 0.5))
        during_saves += is_saving(killed)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert start(folder, killed, cache).wait(timeout=1200) == 0
    assert kills >= 10, f"only {kills} kills: the run is too short for this machine"
    assert during_saves >= 3

    expected, actual = ends(straight), ends(killed)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)
    assert log_without_clock(killed) == log_without_clock(straight)


def ends(workdir):
    """Return every array of the last checkpoint."""
    place = epath.Path(workdir) / "checkpoints" / str(FIELDS["train__num_steps"])
    metadata = read_metadata(place)
    import jax
    import orbax.checkpoint as ocp

    tree = ocp.PyTreeCheckpointHandler().metadata(place / "state").tree
    whole = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole)
        for name, leaf in named_leaves(tree).items()
    }
    assert abstract.keys() == metadata["checksums"].keys()
    return {
        name: np.asarray(x) for name, x in named_leaves(read_arrays(place, nest(abstract))).items()
    }


def log_without_clock(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if not name.startswith("perf/")}
        for line in lines
    ]
