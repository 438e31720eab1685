"""From sums and weights to names and files; progress, clock, maintenance notices."""

import errno
import http.server
import io
import json
import os
import signal
import threading
import time
import typing

import jax
import numpy as np
import pytest

from xlmjax import languages
from xlmjax.objectives import naming
from xlmjax.ops.cross_entropy import SumWeight
from xlmjax.parallel import distributed
from xlmjax.planning import hardware
from xlmjax.storage_errors import StorageError
from xlmjax.training.metrics import MetricWriter, Throughput, Window
from xlmjax.training.preemption import PreemptionWatch
from xlmjax.training.progress import Progress
from xlmjax.training.step import StepMetrics
from xlmjax.training.stragglers import host_times

EN, FR = (languages.get(code).id for code in ("en", "fr"))
THROUGHPUT = Throughput(
    padded_tokens=100, flops_per_token=lambda share: 10.0 + share, peak_flops=5000.0
)


def vector(**sums):
    """Sum and weight per language: en=(sum, weight)."""
    total = np.zeros((2, len(languages.LANGUAGES)), np.float32)
    for code, pair in sums.items():
        total[:, languages.get(code).id] = pair
    return SumWeight(*total)


def metrics(loss, weight, nonfinite=0, **sums):
    group = {
        "loss": SumWeight(np.float32(loss), np.float32(weight)),
        "language/loss": vector(**sums),
        "task/loss": SumWeight(np.float32([loss, 0.0]), np.float32([weight, 0.0])),
    }
    return StepMetrics(
        loss=np.float32(loss / max(weight, 1)),
        groups={"mlm": group},
        learning_rate=np.float32(0.5),
        grad_norm=np.float32(2.0),
        nonfinite=np.int32(nonfinite),
        real_tokens=np.float32(80.0),
        predicted_tokens=np.float32(weight),
    )


def test_a_window_divides_sums_by_weights_once():
    window = Window({"mlm": ["mlm.en", "mlm.fr"]}, THROUGHPUT)
    window.add(metrics(6.0, 2.0, en=(6.0, 2.0)), timed=False)
    window.add(metrics(2.0, 6.0, en=(1.0, 2.0), fr=(1.0, 4.0)))
    values = window.close(seconds=2.0)
    assert values["train/loss"] == 1.0  # not the mean of 3 and 1/3
    assert values["train/en/loss"] == 1.75
    assert values["train/fr/loss"] == 0.25
    assert values["train/mlm.en/loss"] == 1.0
    assert "train/mlm.fr/loss" not in values
    assert values["perf/tokens_per_second"] == 40.0  # of the timed step only
    assert values["perf/padded_tokens_per_second"] == 50.0
    assert values["perf/predicted_tokens_per_second"] == 3.0
    assert values["perf/mfu"] == pytest.approx(40.0 * (10.0 + 6.0 / 80.0) / 5000.0)
    assert window.close(1.0).keys().isdisjoint({"train/loss", "perf/tokens_per_second"})


def test_a_nonfinite_step_is_counted_and_spoils_nothing():
    window = Window({"mlm": ["a", "b"]}, THROUGHPUT)
    window.add(metrics(4.0, 2.0, en=(4.0, 2.0)))
    window.add(metrics(np.nan, 2.0, nonfinite=1, en=(np.nan, 2.0)))
    values = window.close(1.0)
    assert values["train/loss"] == values["train/en/loss"] == 2.0
    assert values["optim/nonfinite_steps"] == 1.0


def test_several_groups_stand_apart():
    window = Window({"mlm": ["a", "b"], "clm": ["a", "b"]}, THROUGHPUT)
    step = metrics(6.0, 2.0)
    step.groups["clm"] = {"loss": SumWeight(np.float32(1.0), np.float32(4.0))}
    step.loss = np.float32(3.25)
    window.add(step)
    values = window.close(1.0)
    assert (values["train/loss"], values["train/mlm/loss"], values["train/clm/loss"]) == (
        3.25,
        3,
        0.25,
    )


def test_names_of_languages_and_tasks():
    found = naming.means(
        {"loss": SumWeight(1.0, 0.0), "language/accuracy": vector(sw=(1, 4))}, tasks=[]
    )
    assert found == {"sw/accuracy": 0.25}


def test_the_file_reads_as_one_run_after_a_resume(tmp_path):
    writer = MetricWriter(tmp_path, 0, tensorboard=True)
    for step in (2, 4, 6):
        writer.write(step, {"train/loss": 1.0 / step, "x": float("nan")})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "tra')
    resumed = MetricWriter(tmp_path, 4, tensorboard=True)
    resumed.write(6, {"train/loss": 9.0})
    resumed.write(7, {})
    resumed.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["train/loss"]) for line in lines] == [(2, 0.5), (4, 0.25), (6, 9.0)]
    assert lines[0]["x"] is None
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


class UnavailableError(Exception):
    """No OSError, as those of TensorFlow's file system."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ESTALE, "Stale file handle"), StorageError),
        (UnavailableError("503"), StorageError),
        (OSError(errno.ENOSPC, "No space left on device"), OSError),
        (OSError(errno.EACCES, "Permission denied"), OSError),
        (ValueError("not JSON"), ValueError),
    ],
)
def test_storage_that_may_come_back_is_told_from_what_has_to_be_mended(tmp_path, error, kind):
    class File(io.StringIO):
        def flush(self):
            raise error

    writer = MetricWriter(tmp_path, 0, tensorboard=False)
    writer._file = File()
    with pytest.raises(kind) as raised:
        writer.write(1, {"x": 1.0})
    assert type(raised.value) is kind
    if kind is not ValueError:
        assert "metrics.jsonl cannot be written: " in str(raised.value)
        assert "run the same command again" in str(raised.value)


def test_only_the_first_process_writes(tmp_path):
    writer = MetricWriter(tmp_path, 0, tensorboard=True, active=False)
    writer.write(1, {"x": 1.0})
    writer.close()
    assert not list(tmp_path.iterdir())


class Terminal(io.StringIO):
    def isatty(self):
        return True


VALUES = {"train/loss": 2.5, "perf/tokens_per_second": 12345.6, "perf/steps_per_second": 0.5}


def test_plain_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    progress = Progress("auto", 40, 100, stream=stream)
    progress.report(50, VALUES)
    progress.note("saved")
    progress.close()
    assert stream.getvalue() == ("step 50/100: loss 2.5000, 12,346 tokens/s, ETA 0:01:40\nsaved\n")


def test_a_bar_on_a_terminal():
    stream = Terminal()
    progress = Progress("auto", 40, 100, stream=stream)
    for _ in range(10):
        progress.advance()
    progress.report(50, VALUES | {"perf/mfu": 0.413})
    progress.note("saved")
    progress.close()
    assert "50/100, loss 2.5000, 12,346 tokens/s, MFU 41.3%, ETA 0:01:40" in stream.getvalue()
    assert "saved" in stream.getvalue()


def test_a_run_of_several_processes_shows_which_one_is_slow():
    stream = io.StringIO()
    progress = Progress("lines", 0, 100, stream=stream)
    slow = {"slowest_process": 3.0, "host_seconds_slowest": 0.25, "host_seconds_median": 0.0312}
    progress.report(50, {f"perf/{name}": value for name, value in slow.items()})
    assert stream.getvalue() == "step 50/100: slowest host 3: 0.250 s a step, median 0.031\n"


def test_host_times_name_the_slowest_process(monkeypatch):
    published = {}
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(distributed, "publish", lambda name, text: published.update({0: text}))
    monkeypatch.setattr(distributed, "published", lambda name: {**published, 1: "0.5", 2: "0.1"})
    assert host_times(0.2) == {
        "perf/host_seconds_median": 0.2,
        "perf/host_seconds_slowest": 0.5,
        "perf/slowest_process": 1.0,
    }


def test_other_processes_show_nothing():
    stream = Terminal()
    progress = Progress("bar", 0, 10, active=False, stream=stream)
    progress.advance()
    progress.report(1, VALUES)
    progress.note("x")
    progress.close()
    assert not stream.getvalue()


class Metadata(http.server.BaseHTTPRequestHandler):
    answers: typing.ClassVar[dict[str, str]] = {}

    def do_GET(self):
        assert self.headers["Metadata-Flavor"] == "Google"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answers.get(self.path, "NONE").encode())

    def log_message(self, *args):
        pass


def wait_for(watch, seconds=5.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not watch.reached(True):
        time.sleep(0.01)
    return watch.reached(True)


@pytest.fixture
def metadata():
    """The address of a metadata server that gives `Metadata.answers`."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "answer", "expected"),
    [
        ("/maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE", True),
        ("/maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE", False),
        ("/preempted", "TRUE", True),
        ("/preempted", "FALSE", False),
    ],
)
def test_a_maintenance_notice_asks_to_save(metadata, path, answer, expected):
    Metadata.answers = {path: answer}
    watch = PreemptionWatch(metadata, poll_seconds=0.02)
    try:
        assert wait_for(watch, 5.0 if expected else 0.3) == expected
    finally:
        watch.close()


@pytest.fixture
def asked():
    """The number of SIGTERMs that came to a handler before the watch's, which must stay at 0."""
    calls = []
    before = signal.signal(signal.SIGTERM, lambda *_: calls.append(1))
    yield calls
    signal.signal(signal.SIGTERM, before)


def test_a_second_sigterm_does_not_end_the_save(asked):
    watch = PreemptionWatch()
    before = signal.getsignal(signal.SIGTERM)
    assert not watch.reached(True)
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch.reached(True)
        assert signal.getsignal(signal.SIGTERM) == before
    assert not asked
    watch.close()
    os.kill(os.getpid(), signal.SIGTERM)
    assert asked == [1]  # given back


@pytest.mark.parametrize("first", ["notice", "signal"])
def test_a_notice_and_a_signal_in_either_order_are_one_wish(
    metadata, asked, monkeypatch, caplog, first
):
    kill, sent = os.kill, []
    monkeypatch.setattr(os, "kill", lambda *args: (sent.append(args), kill(*args)))
    Metadata.answers = {"/preempted": "TRUE" if first == "notice" else "NONE"}
    watch = PreemptionWatch(metadata, poll_seconds=0.02)
    try:
        if first == "notice":
            assert wait_for(watch)
            kill(os.getpid(), signal.SIGTERM)
        else:
            kill(os.getpid(), signal.SIGTERM)
            Metadata.answers = {"/preempted": "TRUE"}
        end = time.monotonic() + 5.0
        while time.monotonic() < end and "maintenance" in [x.name for x in threading.enumerate()]:
            time.sleep(0.01)
        assert "maintenance" not in [x.name for x in threading.enumerate()]
        assert watch.reached(True)
    finally:
        watch.close()
    assert len(sent) == (first == "notice")
    assert not asked


@pytest.fixture
def handler_of_ctrl_c():
    """Call with the handler that a test finds; the one before is there again at its end."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda handler: signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, before)


def test_a_process_that_ignores_ctrl_c_goes_on_doing_so(handler_of_ctrl_c):
    handler_of_ctrl_c(signal.SIG_IGN)
    watch = PreemptionWatch()
    watch.reached(1)
    signal.raise_signal(signal.SIGINT)
    assert not watch.reached(2)
    watch.close()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_a_second_ctrl_c_interrupts_at_once(handler_of_ctrl_c):
    handler_of_ctrl_c(signal.default_int_handler)  # whatever the tests were started with
    watch = PreemptionWatch()
    try:
        watch.reached(1)
        signal.raise_signal(signal.SIGINT)
        assert watch.interrupted
        assert watch.reached(True)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        watch.close()


def test_ctrl_c_is_given_back_at_the_end(handler_of_ctrl_c):
    handler_of_ctrl_c(signal.default_int_handler)
    watch = PreemptionWatch()
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    watch.close()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Device:
    def __init__(self, kind):
        self.device_kind = kind


@pytest.mark.parametrize(
    ("kind", "flops"),
    [
        ("TPU v2", 22.5e12),
        ("TPU v3", 61.5e12),
        ("TPU v4", 275e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5e", 197e12),
        ("TPU v6 lite", 918e12),
        ("TPU v6e", 918e12),
        ("TPU7x", 1153.5e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("Tesla T4", 65e12),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("Tesla V100-PCIE-32GB", 112e12),
    ],
)
def test_devices_are_told_apart(kind, flops):
    assert hardware.find_accelerator(Device(kind)).peak_flops == flops


@pytest.mark.parametrize(
    "kind",
    [
        "TPU v4 lite",
        "NVIDIA L40",
        "NVIDIA H200 NVL",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",  # a seventh of the card
        "Tesla V100-DGXS-32GB",
    ],
)
def test_a_card_whose_name_begins_like_a_known_one_is_another(kind):
    assert hardware.find_accelerator(Device(kind)) is None


def test_an_unknown_device_has_no_utilisation():
    assert hardware.find_accelerator(jax.devices()[0]) is None
    assert hardware.model_flops_utilization(1e6, 1e6, 2, Device("cpu")) is None
    assert hardware.model_flops_utilization(1e6, 197e6, 2, Device("TPU v5 lite")) == 0.5
