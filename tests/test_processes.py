"""Real runs of several processes over localhost: same data, same losses, one way to stop."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.small_process import row_checksums
from tests.small_run import small_config, write_data

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEVICES = 4  # over all processes
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


class Job:
    """Processes of one run; their output goes to files beside the workdir."""

    def __init__(self, count, mode, folder, workdir, **fields):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        fields = {"train__num_cpu_devices": DEVICES // count, "mesh__fsdp": 2, **fields}
        self.logs = [
            workdir.parent / f"{workdir.name}-{index}of{count}.log" for index in range(count)
        ]
        self.processes = []
        for index, log in enumerate(self.logs):
            environment = {
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / f"cache{count}"),
                "XLA_FLAGS": "--xla_backend_optimization_level=0",
                "XLMJAX_COORDINATOR": address,
                "XLMJAX_NUM_PROCESSES": str(count),
                "XLMJAX_PROCESS_ID": str(index),
            }
            command = [sys.executable, "-m", "tests.small_process", mode, str(folder), str(workdir)]
            with log.open("w") as file:
                self.processes.append(
                    subprocess.Popen(
                        [*command, json.dumps(fields)],
                        cwd=ROOT,
                        env=environment,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )

    def text(self, index=0):
        return self.logs[index].read_text()

    def finish(self, code=0):
        """Wait for all; returns the last line of each, parsed."""
        for index, process in enumerate(self.processes):
            assert process.wait(timeout=900) == code, self.text(index)
        return [json.loads(log.read_text().splitlines()[-1]) for log in self.logs]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_process_holds_its_rows_of_the_same_global_batches(folder, tmp_path, count):
    expected = row_checksums(small_config(folder))  # on the 8 devices of this process
    held = [
        {int(row): value for row, value in part["rows"].items()}
        for part in Job(count, "batches", folder, tmp_path / "w").finish()
    ]
    union = {row: value for rows in held for row, value in rows.items()}
    assert union == expected
    assert sum(map(len, held)) == len(expected)  # no row is read twice
    assert len({len(rows) for rows in held}) == 1


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        [line["step"], *(line[name] for name in sorted(line) if name.endswith("loss"))]
        for line in lines
    ]


def test_losses_and_evaluations_do_not_depend_on_the_processes(folder, tmp_path):
    fields = {"log__every": 1, "train__num_steps": 4}
    for count in (1, 2):
        finished = Job(count, "evaluate", folder, tmp_path / str(count), **fields).finish()
        assert finished == [{"step": 4, "processes": count}] * count
    for one, two in zip(losses(tmp_path / "1"), losses(tmp_path / "2"), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5)
    for name in ("held_out", "retrieval"):
        one, two = (
            json.loads((tmp_path / str(count) / "eval" / f"{name}-4.json").read_text())["values"]
            for count in (1, 2)
        )
        assert two == pytest.approx(one, rel=1e-4)
    names = {path.name for path in (tmp_path / "2").iterdir()}
    assert names == {"checkpoints", "config.json", "eval", "metrics.jsonl"}


def test_a_checkpoint_of_two_processes_goes_on_in_one_and_back(folder, tmp_path):
    fields = {"log__every": 1, "checkpoint__every": 2}
    Job(1, "train", folder, tmp_path / "straight", train__num_steps=6, **fields).finish()
    workdir = tmp_path / "moved"
    for count, num_steps in ((2, 2), (1, 4), (2, 6)):
        Job(count, "train", folder, workdir, train__num_steps=num_steps, **fields).finish()
    straight, moved = losses(tmp_path / "straight"), losses(workdir)
    for expected, actual in zip(straight, moved, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_sigterm_to_one_process_stops_all_at_one_step_with_a_checkpoint(folder, tmp_path):
    fields = {"log__every": 1, "log__progress": "lines", "checkpoint__every": 100_000}
    workdir = tmp_path / "run"
    job = Job(2, "train", folder, workdir, train__num_steps=20_000, **fields)
    end = time.monotonic() + 300
    while not re.search(r"^step \d+/", job.text(), re.MULTILINE):
        assert time.monotonic() < end, job.text()
        assert job.processes[0].poll() is None, job.text()
        time.sleep(0.05)
    os.kill(job.processes[1].pid, signal.SIGTERM)
    stopped = job.finish(code=143)
    assert stopped[0] == stopped[1]
    assert 0 < stopped[0]["step"] < 20_000
    assert f"saved at step {stopped[0]['step']}" in job.text()
    steps = [path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
    assert steps == [str(stopped[0]["step"])]
