"""Real runs of several processes over localhost: same data, same losses, one way to stop."""

import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.read_process import ARRAYS, bits_of
from tests.small_process import row_checksums
from tests.small_run import small_config, write_data
from tests.test_resume import ends, log_without_clock, saved_steps
from tests.translation_helpers import write_translations
from xlmjax.parallel.distributed import TRY_AGAIN

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEVICES = 8  # over all processes
pytestmark = [pytest.mark.alone, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    rng = np.random.default_rng(4)
    for split, count in (("train", 60), ("validation", 19)):
        sentences = [rng.integers(5, 60, 1 + i % 7).tolist() for i in range(count)]
        lines = ["ba da " * (1 + i % 3) for i in range(count)]
        write_translations(folder, "en", "fr", sentences, lines, split)
    return folder


def free_address():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


class Processes:
    """Processes of one run; their output goes to files beside the workdir."""

    def __init__(self, commands, workdir, environments=None):
        """`commands` are of each process, behind `python`, and so are `environments`."""
        count = len(commands)
        self.logs = [
            workdir.parent / f"{workdir.name}-{index}of{count}.log" for index in range(count)
        ]
        self.processes = []
        for index, log in enumerate(self.logs):
            environment = {
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "PYTHONFAULTHANDLER": "1",  # SIGABRT shows every thread's stack
                "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "cache"),
                # On CPUs process 0 alone finds its programs again (JAX's key holds the process),
                # and Gloo gives the others, who compile, 30 seconds to catch up.
                "JAX_ENABLE_COMPILATION_CACHE": str(count == 1),
                "XLA_FLAGS": "--xla_backend_optimization_level=0",
                **(environments[index] if environments else {}),
            }
            with log.open("w") as file:  # a full pipe would stop the run
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, *commands[index]],
                        cwd=ROOT,
                        env=environment,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )

    def text(self, index=0):
        return self.logs[index].read_text()

    def wait(self, index, *codes, seconds=900):
        """Wait for one process to end with one of these codes; returns its output."""
        try:
            assert self.processes[index].wait(timeout=seconds) in codes, self.text(index)
        except subprocess.TimeoutExpired:
            pytest.fail(f"process {index} does not end; {self.stacks()}")
        return self.text(index)

    def stacks(self):
        """End what still runs; returns the output of all, which ends in their threads' stacks."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGABRT)
        codes = [process.wait(timeout=60) for process in self.processes]
        return "\n".join(
            f"process {index}, code {code}:\n{self.text(index)}" for index, code in enumerate(codes)
        )

    def trains(self):
        """Return whether process 0 has logged a step."""
        return re.search(r"^step \d+/", self.text(), re.MULTILINE) is not None

    def wait_until(self, condition, seconds=900):
        """Wait while process 0 runs."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"it does not come to that; {self.stacks()}")
            assert self.processes[0].poll() is None, self.text()
            time.sleep(0.02)

    def finish(self, code=0):
        """Wait for all; returns the last line of each, parsed."""
        texts = [self.wait(index, code) for index in range(len(self.processes))]
        return [json.loads(text.splitlines()[-1]) for text in texts]


def group(count):
    """Return the variables that name a group of processes, of each."""
    address = free_address()
    return [
        {
            "XLMJAX_COORDINATOR": address,
            "XLMJAX_NUM_PROCESSES": str(count),
            "XLMJAX_PROCESS_ID": str(index),
        }
        for index in range(count)
    ]


class Job(Processes):
    """A small run in `count` processes, which are named by `environments`."""

    def __init__(self, count, mode, folder, workdir, environments=None, **fields):
        fields = {"train__num_cpu_devices": DEVICES // count, "mesh__fsdp": 2, **fields}
        command = ["-m", "tests.small_process", mode, folder, workdir, json.dumps(fields)]
        super().__init__([command] * count, workdir, environments or group(count))


class CommandLine(Processes):
    """`xlmjax train` in processes that are named by flags; `each` holds the own flags of each."""

    def __init__(self, folder, workdir, each=((), ()), **fields):
        address, count = free_address(), len(each)
        fields = {"train__num_cpu_devices": DEVICES // count, "mesh__fsdp": 2, **fields}
        config = workdir.parent / f"{workdir.name}.py"
        config.write_text(
            "import pathlib\nfrom tests.small_run import small_config\n\n\n"
            "def get_config(arg=''):\n"
            f"    return small_config(pathlib.Path({str(folder)!r}), **{fields!r})\n"
        )
        common = ("-m", "xlmjax.cli", "train", f"--config={config}", f"--workdir={workdir}")
        members = (f"--coordinator={address}", f"--num_processes={count}")
        commands = [
            [*common, *members, f"--process_id={index}", *flags] for index, flags in enumerate(each)
        ]
        super().__init__(commands, workdir)


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
        value
        for line in lines
        for value in (line["step"], *(line[n] for n in sorted(line) if n.endswith("loss")))
    ]


def test_losses_and_evaluations_do_not_depend_on_the_processes(folder, tmp_path):
    fields = {"log__every": 1, "train__num_steps": 4, "log__progress": "lines"}
    counts = (1, 2, 4)
    for count in counts:
        job = Job(count, "evaluate", folder, tmp_path / str(count), **fields)
        assert job.finish() == [{"step": 4, "processes": count}] * count
        assert ("slowest host" in job.text()) == (count > 1)
    for count in counts[1:]:
        for one, other in zip(losses(tmp_path / "1"), losses(tmp_path / str(count)), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-5)
        for name in ("held_out", "retrieval"):
            one, other = (
                json.loads((tmp_path / str(n) / "eval" / f"{name}-4.json").read_text())["values"]
                for n in (1, count)
            )
            assert other == pytest.approx(one, rel=1e-4)
    names = {path.name for path in (tmp_path / "4").iterdir()}
    assert names == {
        *("checkpoints", "config.json", "eval", "goodput.jsonl", "metrics.jsonl"),
        "vocabulary.model",
    }


def test_translations_do_not_depend_on_the_processes(folder, tmp_path):
    fields = {"log__every": 1, "train__num_steps": 2, "model__decoder_layers": 1}
    for count in (1, 2):
        Job(count, "translate", folder, tmp_path / str(count), **fields).finish()
    one, two = (tmp_path / count / "eval" for count in ("1", "2"))
    np.testing.assert_allclose(losses(tmp_path / "2"), losses(tmp_path / "1"), rtol=1e-5)
    written = (one / "mt-2" / "mt.en_fr.hyp.txt").read_text()
    assert len(written.splitlines()) == 19
    assert (two / "mt-2" / "mt.en_fr.hyp.txt").read_text() == written
    scores = [json.loads((place / "mt-2.json").read_text())["values"] for place in (one, two)]
    assert scores[0] == scores[1]


def test_a_checkpoint_of_two_processes_goes_on_in_one_and_back(folder, tmp_path):
    fields = {"log__every": 1, "checkpoint__every": 2}
    Job(1, "train", folder, tmp_path / "straight", train__num_steps=6, **fields).finish()
    workdir = tmp_path / "moved"
    for count, num_steps in ((2, 2), (1, 4), (2, 6)):
        Job(count, "train", folder, workdir, train__num_steps=num_steps, **fields).finish()
    straight, moved = losses(tmp_path / "straight"), losses(workdir)
    for expected, actual in zip(straight, moved, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("count", "mesh"),
    [
        (2, {}),
        (4, {"data": 4, "fsdp": 2}),
        (4, {"replica": 2, "data": 1, "fsdp": 2, "tensor": 2}),
    ],
)
def test_a_checkpoint_is_read_once_by_all_processes_together(tmp_path, count, mesh):
    saved, num_devices = str(tmp_path / "saved"), str(DEVICES // count)
    command = ["-m", "tests.read_process", saved, json.dumps(mesh), num_devices]
    found = Processes([command] * count, tmp_path / "run", group(count)).finish()
    size = sum(bits_of(name).nbytes for name in ARRAYS)
    read = {
        way: sum(one[way][0] for one in found) / size for way in ("together", "single", "alone")
    }
    assert 1 <= read["together"] < 1.02
    assert read["single"] < 1.02 * bits_of("table").nbytes / size
    assert read["alone"] > 1.8
    assert all(one[way][1] for one in found for way in (*read, "many"))
    for one in found:
        assert re.match(r"StorageError: .*state cannot be read: TimeoutError: gone", one["error"])


@pytest.mark.parametrize("mode", ["train", "evaluate=1"])
def test_sigterm_to_one_process_stops_all_at_one_step_with_a_checkpoint(folder, tmp_path, mode):
    fields = {"log__every": 1, "log__progress": "lines", "checkpoint__every": 100_000}
    workdir = tmp_path / "run"
    job = Job(2, mode, folder, workdir, train__num_steps=20_000, **fields)
    job.wait_until(job.trains)
    for _ in range(2):  # the notice of a machine's end, and its shutdown
        os.kill(job.processes[1].pid, signal.SIGTERM)
        time.sleep(0.1)
    stopped = job.finish(code=143)
    assert stopped[0] == stopped[1]
    assert 0 < stopped[0]["step"] < 20_000
    assert f"saved at step {stopped[0]['step']}" in job.text()
    steps = [path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
    assert steps == [str(stopped[0]["step"])]


def slurm_step(count):
    """Return what `srun --ntasks=COUNT` sets on this machine, of each task."""
    step = {
        "SLURM_JOB_ID": str(random.randrange(2**12)),  # JAX adds 61440 for a port: none is in use
        "SLURM_NTASKS": str(count),
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_STEP_NODELIST": "localhost",
    }
    return [
        {**step, "SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)} for index in range(count)
    ]


def test_the_tasks_of_a_slurm_step_are_one_run(folder, tmp_path):
    job = Job(2, "train", folder, tmp_path / "run", slurm_step(2), train__num_steps=2)
    assert job.finish() == [{"step": 2, "processes": 2}] * 2


def test_a_second_start_finds_what_the_first_has_compiled(folder, tmp_path):
    """As another worker does whose disk is empty: the cache is where both can read it."""
    cache = tmp_path / "compiled"
    fields = {"train__compilation_cache": str(cache), "train__num_steps": 2}
    kept = []
    for name in ("one", "two"):
        small_too = {
            "JAX_COMPILATION_CACHE_DIR": "",
            "JAX_ENABLE_COMPILATION_CACHE": "True",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        environments = [{**member, **small_too} for member in group(2)]
        Job(2, "train", folder, tmp_path / name, environments, **fields).finish()
        kept.append({path.name for path in cache.iterdir()})
    assert any(name.startswith("jit__update-") for name in kept[0])
    assert kept[1] == kept[0]


def test_processes_that_disagree_do_not_start(folder, tmp_path):
    each = ((), ("--config.train.rows=16", "--config.optimizer.learning_rate=0.5"))
    job = CommandLine(folder, tmp_path / "run", each)
    for index in range(2):
        [line] = [x for x in job.wait(index, 2).splitlines() if x.startswith("xlmjax train: ")]
        assert "config.train.rows is 8 on process 0 and 16 on process 1; " in line
        assert "config.optimizer.learning_rate is 0.01 on process 0 and 0.5 on process 1" in line
    assert not (tmp_path / "run").exists()


def test_what_one_process_lacks_stops_the_other_too(folder, tmp_path):
    job = CommandLine(folder, tmp_path / "run", ((), ("--config.data.vocabulary=nowhere.model",)))
    problem = "data.vocabulary=nowhere.model: no such file"
    assert f"xlmjax train: process 1 could not start: {problem}" in job.wait(0, 2)
    assert f"xlmjax train: {problem}" in job.wait(1, 2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("count", "victims"), [(2, (1, 0)), (4, (2,))])
def test_killed_processes_bring_the_others_down_and_the_run_goes_on_unharmed(
    count, victims, folder, tmp_path
):
    num_steps = 40 * len(victims)
    fields = {
        "each": [()] * count,
        "train__num_steps": num_steps,
        "train__heartbeat_seconds": 30,
        "checkpoint__every": 8,
        "checkpoint__keep": 100,
        "log__every": 4,
        "log__progress": "lines",
    }
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    CommandLine(folder, straight, **fields).wait(0, 0)
    generator = random.Random(0)
    for victim in victims:
        job = CommandLine(folder, killed, **fields)
        before = len(saved_steps(killed))
        job.wait_until(job.trains)
        job.wait_until(lambda before=before: len(saved_steps(killed)) > before)
        time.sleep(generator.uniform(0.0, 0.2))
        job.processes[victim].kill()
        job.wait(victim, -signal.SIGKILL)
        end = time.monotonic() + 90
        # JAX may be faster than us to end those who lost process 0, where its service is.
        codes = (TRY_AGAIN,) if victim else (TRY_AGAIN, -signal.SIGABRT)
        for other in set(range(count)) - {victim}:
            text = job.wait(other, *codes, seconds=end - time.monotonic())
            ours = (
                rf"xlmjax: process ({other} of {count} cannot go on|\d was not heard of for 30"
                r"|\d has ended: )"
            )
            jaxs = "This most likely indicates that another task died"
            assert re.search(ours, text) or (not victim and jaxs in text)
            assert "Traceback" not in text
    last = CommandLine(folder, killed, **fields)
    text = last.wait(0, 0)
    for other in range(1, count):
        last.wait(other, 0)
    assert "going on from step" in text
    assert re.search(rf"^goodput .* in {len(victims) + 1} starts: ", text, re.MULTILINE)
    expected, actual = ends(straight, num_steps), ends(killed, num_steps)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)
    assert log_without_clock(killed) == log_without_clock(straight)
