"""A run that hangs says where, and ends if it is to be started again."""

import os
import re
import threading

import pytest
from etils import epath

from xlmjax.parallel import distributed
from xlmjax.training import watchdog as watchdog_module
from xlmjax.training.goodput import Goodput
from xlmjax.training.watchdog import Watchdog


@pytest.fixture
def clock():
    return [0.0]


def make(clock, workdir, seconds=60.0, ends=False):
    """Return a watchdog whose thread sleeps: the tests look themselves."""
    goodput = Goodput(now=lambda: clock[0])
    goodput.begin("train")
    watchdog = Watchdog(goodput, seconds, workdir, ends=ends, now=lambda: clock[0])
    watchdog.step = 41
    return goodput, watchdog


def look(clock, watchdog, seconds):
    clock[0] += seconds
    watchdog.look()


def waits_in_vain(release):
    release.wait()


def test_a_hang_shows_every_thread_and_the_last_step_once(clock, tmp_path, capsys):
    goodput, watchdog = make(clock, tmp_path)
    release = threading.Event()
    thread = threading.Thread(target=waits_in_vain, args=(release,), name="stuck")
    thread.start()
    try:
        look(clock, watchdog, 59.0)
        assert not capsys.readouterr().err
        look(clock, watchdog, 2.0)
    finally:
        release.set()
        thread.join()
    written = (tmp_path / "hang-41-process0.txt").read_text()
    assert written.startswith("no progress for 60 s in step after step 41; process 0\n")
    assert re.search(r"thread stuck:\n(.*\n)*.*in waits_in_vain", written)
    assert "thread MainThread:" in written
    assert written.strip() in capsys.readouterr().err
    look(clock, watchdog, 500.0)
    assert not capsys.readouterr().err  # once a hang
    goodput.begin("train")
    look(clock, watchdog, 61.0)
    assert "no progress" in capsys.readouterr().err  # it is another one
    watchdog.close()


def test_what_is_no_step_may_take_ten_times_as_long(clock, tmp_path, capsys):
    goodput, watchdog = make(clock, tmp_path)
    goodput.begin("evaluation")
    look(clock, watchdog, 599.0)
    assert not capsys.readouterr().err
    look(clock, watchdog, 2.0)
    assert "no progress for 600 s in evaluation after step 41" in capsys.readouterr().err
    watchdog.close()


def test_it_looks_by_itself_and_ends_the_process_if_asked(tmp_path, monkeypatch):
    ended = threading.Event()
    sentences = []

    def end_process(sentence):
        sentences.append(sentence)
        ended.set()

    monkeypatch.setattr(distributed, "end_process", end_process)
    goodput = Goodput()
    goodput.begin("train")
    watchdog = Watchdog(goodput, 0.05, tmp_path, ends=True)
    assert ended.wait(10)
    watchdog.close()
    assert "no progress for 0.05 s in step after step 0 (train.watchdog_seconds)" in sentences[0]


def test_a_workdir_that_cannot_be_written_silences_nothing(clock, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    _, watchdog = make(clock, tmp_path / "file")
    look(clock, watchdog, 61.0)
    error = capsys.readouterr().err
    assert "thread MainThread:" in error
    assert "hang-41-process0.txt could not be written" in error
    watchdog.close()


def test_a_disk_that_hangs_does_not_keep_the_process_alive(clock, tmp_path, monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(distributed, "end_process", ended.append)
    monkeypatch.setattr(watchdog_module, "_WRITE_SECONDS", 0.2)
    os.mkfifo(tmp_path / "hang-41-process0.txt")  # to open it waits for a reader
    _, watchdog = make(clock, tmp_path, ends=True)
    look(clock, watchdog, 61.0)
    assert "hang-41-process0.txt is not written after 0.2 s" in capsys.readouterr().err
    assert len(ended) == 1
    (tmp_path / "hang-41-process0.txt").open().close()
    watchdog.close()


def test_an_error_of_a_bucket_does_not_either(clock, tmp_path, monkeypatch, capsys):
    class UnavailableError(Exception):
        """No OSError, as those of TensorFlow's file system."""

    def write_text(self, text):
        raise UnavailableError("503")

    ended = []
    monkeypatch.setattr(distributed, "end_process", ended.append)
    monkeypatch.setattr(type(epath.Path(tmp_path)), "write_text", write_text)
    _, watchdog = make(clock, tmp_path, ends=True)
    look(clock, watchdog, 61.0)
    assert "hang-41-process0.txt could not be written: 503" in capsys.readouterr().err
    assert len(ended) == 1
    watchdog.close()


def test_zero_seconds_watch_nothing(tmp_path):
    before = threading.active_count()
    Watchdog(Goodput(), 0, tmp_path, ends=True)
    assert threading.active_count() == before
