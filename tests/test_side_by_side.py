"""Runs in processes of their own: what they print, how one fails, how all are stopped."""

import os
import signal
import sys
import threading
import time
import types

import pytest
from etils import epath

from tests.small_run import small_config, write_data
from xlmjax import side_by_side
from xlmjax.side_by_side import train_side_by_side


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


def steps(workdir):
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        ({4, 7}, [{4}, {7}]),
        ({0, 1, 2, 3, 5}, [{0, 2, 5}, {1, 3}]),
        ({3}, [{3}, {3}]),
    ],
)
def test_cores_are_divided(monkeypatch, cores, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores, raising=False)
    assert side_by_side._divided(2) == expected


def test_where_cores_cannot_be_told_none_is_named(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert side_by_side._divided(2) == [set(), set()]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no cores to keep to here")
def test_a_process_keeps_to_its_cores(monkeypatch):
    before, seen = os.sched_getaffinity(0), []

    def train(config, workdir):
        seen.append(os.sched_getaffinity(0))
        return types.SimpleNamespace(preempted=False)

    monkeypatch.setattr("xlmjax.train.train", train)
    monkeypatch.setattr(side_by_side, "when_parent_ends", lambda stop: None)
    monkeypatch.setattr(sys, "stderr", sys.stderr)  # as it was, afterwards
    try:
        side_by_side._train("one | ", {min(before)}, None, None)
        side_by_side._train("any | ", set(), None, None)
    finally:
        os.sched_setaffinity(0, before)
    assert seen == [{min(before)}] * 2


def test_the_run_that_fails_is_named_and_the_other_ends(data, tmp_path, capfd):
    good = small_config(data, train__num_steps=2, log__progress="lines")
    bad = small_config(data, train__num_steps=2, data__stores=str(tmp_path / "nowhere"))
    runs = {
        "good": (good, epath.Path(tmp_path / "good")),
        "other": (bad, epath.Path(tmp_path / "bad")),
    }
    with pytest.raises(ChildProcessError, match=r"^other failed"):
        train_side_by_side(runs)
    assert steps(tmp_path / "good")[-1] == 2
    printed = capfd.readouterr().err.splitlines()
    assert any(line.startswith("other | ") and "nowhere" in line for line in printed)
    assert any(line.startswith("good  | ") for line in printed)


@pytest.mark.slow
def test_asked_to_stop_both_save_and_the_same_call_goes_on(data, tmp_path):
    long = {
        name: (small_config(data, train__num_steps=100_000), epath.Path(tmp_path / name))
        for name in ("one", "two")
    }

    def stop_when_both_have_saved():
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if all(steps(tmp_path / name) for name in long):
                break
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_when_both_have_saved, daemon=True).start()
    with pytest.raises(SystemExit) as stopped:
        train_side_by_side(long)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    reached = {name: steps(tmp_path / name)[-1] for name in long}
    assert all(2 <= step < 100_000 for step in reached.values())
    further = {
        name: (small_config(data, train__num_steps=reached[name] + 2), workdir)
        for name, (_, workdir) in long.items()
    }
    train_side_by_side(further)
    assert {name: steps(tmp_path / name)[-1] - reached[name] for name in long} == {
        "one": 2,
        "two": 2,
    }
