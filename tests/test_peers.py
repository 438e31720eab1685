"""A process that is lost is missed, one that has left is not."""

import os
import subprocess
import sys
import threading

import jax
import pytest

from tests.test_processes import free_address
from xlmjax.parallel import distributed
from xlmjax.parallel.peers import LEFT, PeerWatch


@pytest.fixture
def others(monkeypatch):
    """Values of processes 1 and 2; sentences with which this one ended, under "ended"."""
    values = {1: "1", 2: "1"}
    ended, own, bell = [], {}, []
    monkeypatch.setattr(distributed, "ring", lambda index, reason: bell.append(reason))
    monkeypatch.setattr(distributed, "rung", lambda: bell[0] if bell else None)
    monkeypatch.setattr(distributed, "publish", lambda name, text: own.update({0: text}))
    monkeypatch.setattr(distributed, "published", lambda name: own | values)
    monkeypatch.setattr(distributed, "end_process", ended.append)
    return values, ended


def test_a_process_that_falls_silent_ends_this_one(others):
    values, ended = others
    time = [0.0]
    watch = PeerWatch(60.0, now=lambda: time[0])
    for second in range(0, 70, 10):
        time[0] = float(second)
        values[1] = str(second)
        watch.look()
    assert not ended
    time[0] = 61.0
    values[1] = "61"
    watch.look()
    [sentence] = ended
    assert sentence.startswith("process 2 was not heard of for 60 s (train.heartbeat_seconds)")


def test_one_that_has_left_is_not_missed(others):
    values, ended = others
    values.update({1: LEFT, 2: LEFT})
    time = [0.0]
    watch = PeerWatch(60.0, now=lambda: time[0])
    for time[0] in (0.0, 50.0, 500.0):
        watch.look()
    assert not ended


@pytest.mark.usefixtures("others")
def test_it_looks_by_itself_where_there_are_several(monkeypatch):
    before = threading.active_count()
    PeerWatch(0.05)
    assert threading.active_count() == before  # alone
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    found = threading.Event()
    monkeypatch.setattr(distributed, "end_process", lambda sentence: found.set())
    watch = PeerWatch(0.05)
    assert found.wait(10)
    watch.close()
    assert distributed.published("alive")[0] == LEFT


@pytest.mark.usefixtures("others")
def test_who_is_rung_for_ends_within_seconds(monkeypatch):
    found = threading.Event()
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(distributed, "end_process", lambda sentence: found.set())
    watch = PeerWatch(600.0)
    assert not found.wait(1.5)
    distributed.ring(0, "process 2 has ended: gone")
    assert found.wait(10)
    watch.close()


@pytest.mark.parametrize(("index", "rung"), [(0, [1, 2, 3]), (2, [0])])
def test_who_ends_rings(monkeypatch, capsys, index, rung):
    rings, codes = [], []
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr(jax, "process_index", lambda: index)
    monkeypatch.setattr(distributed, "ring", lambda *ring: rings.append(ring))
    monkeypatch.setattr(distributed.os, "_exit", codes.append)
    monkeypatch.setattr(distributed.time, "sleep", lambda seconds: None)
    distributed.end_process("no way")
    assert rings == [(other, f"process {index} has ended: no way") for other in rung]
    assert codes == [distributed.TRY_AGAIN]
    assert capsys.readouterr().err == "xlmjax: no way\n"


def test_looking_for_a_ring_costs_no_memory():
    """As waiting for one with `blocking_key_value_get` does, 15 KB a time on process 0."""
    code = f"""
import resource, jax
from xlmjax.parallel import distributed
jax.distributed.initialize("{free_address()}", 1, 0)
for count in (500, 3000):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert all(distributed.rung() is None for _ in range(count))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
distributed.ring(0, "gone")
assert distributed.rung() == "gone"
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 3000  # KiB


@pytest.mark.usefixtures("others")
def test_a_lost_process_0_ends_this_one_with_a_sentence(monkeypatch):
    def publish(name, text):
        raise jax.errors.JaxRuntimeError("UNAVAILABLE: Socket closed\nwhere and when")

    sentences, found = [], threading.Event()

    def end_process(sentence):
        sentences.append(sentence)
        found.set()

    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(distributed, "publish", publish)
    monkeypatch.setattr(distributed, "end_process", end_process)
    PeerWatch(0.05)
    assert found.wait(10)
    assert "cannot go on with the others (UNAVAILABLE: Socket closed)" in sentences[0]
