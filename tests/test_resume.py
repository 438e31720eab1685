"""The soak: a run killed again and again, in saves and evaluations too, ends as if undisturbed.

SOAK_KILLS=30 uv run pytest -m alone -n 0 tests/test_resume.py kills more often than the usual run.
"""

import contextlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

from tests.small_run import write_data
from xlmjax.training.checkpoint import read_arrays, read_metadata
from xlmjax.training.state import named_leaves, nest

ROOT = pathlib.Path(__file__).resolve().parent.parent
KILLS = int(os.environ.get("SOAK_KILLS", "8"))
FIELDS = {
    "train__num_steps": 36 * KILLS,
    "train__num_cpu_devices": 4,
    "mesh__fsdp": 2,
    "checkpoint__every": 8,
    "checkpoint__keep": 200,
    "log__every": 4,
    "log__progress": "lines",
}


class Life:
    """One process of a run, from its start to its end."""

    def __init__(self, folder, workdir, cache, number):
        self.workdir = workdir
        self.log = workdir.parent / f"{workdir.name}-{number}.log"
        self.born = time.time()
        self.before = saved_steps(workdir)
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
        }
        command = [sys.executable, "-m", "tests.small_process", "evaluate=12"]
        with self.log.open("w") as log:  # a file: a full pipe would stop the run
            self.process = subprocess.Popen(
                [*command, str(folder), str(workdir), json.dumps(FIELDS)],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def finish(self):
        """Wait for the end that the run comes to itself."""
        assert self.process.wait(timeout=1200) == 0, self.log.read_text()

    def kill(self):
        """Kill it unless it has ended; returns whether it was killed while it trained."""
        os.kill(self.process.pid, signal.SIGKILL)
        return self.process.wait() == -signal.SIGKILL

    def trains(self):
        """Return whether it has logged a step of its own."""
        return re.search(r"^step \d+/", self.log.read_text(), re.MULTILINE) is not None

    def saved(self):
        """Return how many checkpoints it has completed (it deletes none: all are kept)."""
        return len(saved_steps(self.workdir)) - len(self.before)

    def saves(self):
        """Return whether a checkpoint of its own is half-written."""
        folder = self.workdir / "checkpoints"
        with contextlib.suppress(FileNotFoundError):  # renamed under our eyes
            for path in folder.glob("*.orbax-checkpoint-tmp*"):
                if path.stat().st_ctime >= self.born:
                    return True
        return False

    def resumed(self):
        """Return whether it went on from a checkpoint."""
        return "going on from step" in self.log.read_text()

    def wait_until(self, condition, seconds=300):
        """Wait; returns False if the process ends before."""
        end = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < end, f"no progress: {self.log.read_text()}"
            time.sleep(0.001)
        return True


@pytest.mark.alone
@pytest.mark.timeout(3600)
def test_a_run_killed_at_random_moments_ends_bit_identical(tmp_path):
    folder, cache = tmp_path / "data", tmp_path / "cache"
    write_data(folder)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    Life(folder, straight, cache, 0).finish()

    generator = random.Random(0)
    kills = during_saves = resumed = 0
    number = 0
    while kills < KILLS:
        life = Life(folder, killed, cache, number)
        completed = generator.randint(0, 3)  # checkpoints that this life may complete
        if not life.wait_until(lambda life=life, n=completed: life.trains() and life.saved() >= n):
            break  # at its end before the kills were: the run is too short
        if number % 2:
            life.wait_until(life.saves)
            time.sleep(generator.uniform(0.0, 0.05))
        else:
            time.sleep(generator.uniform(0.0, 0.4))
        number += 1
        kills += life.kill()
        during_saves += life.saves()
        resumed += life.resumed()
    last = Life(folder, killed, cache, number)
    last.finish()
    print(
        f"{kills} kills of a training process, {during_saves} of them during a save; "
        f"{resumed} of these processes had gone on from a checkpoint"
    )
    assert kills == KILLS, "the run is too short for this machine"
    assert during_saves >= KILLS // 5
    assert resumed >= KILLS // 3
    assert last.resumed()

    expected, actual = (ends(run, FIELDS["train__num_steps"]) for run in (straight, killed))
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)
    assert log_without_clock(killed) == log_without_clock(straight)


def saved_steps(workdir):
    folder = workdir / "checkpoints"
    return [path.name for path in folder.glob("*") if path.name.isdigit()]


def ends(workdir, step):
    """Return every array of the checkpoint of a step."""
    place = epath.Path(workdir) / "checkpoints" / str(step)
    metadata = read_metadata(place)
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
