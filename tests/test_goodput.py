"""Every second of a run under one kind, over all its starts."""

import pytest

from xlmjax.training.goodput import GOODPUT_FILE, KINDS, Goodput


class Time:
    """A clock that the test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def start(time):
    return Goodput(now=time, wall=lambda: 1000.0 + time.now)


def spend(goodput, time, kind, seconds):
    with goodput.phase(kind):
        time.now += seconds


def test_laps_hold_training_and_waiting_for_data_and_nothing_else():
    time = Time()
    goodput = start(time)
    spend(goodput, time, "restore", 5.0)
    goodput.begin("compile")
    time.now += 30.0
    goodput.begin("train")
    time.now += 7.0
    spend(goodput, time, "evaluation", 2.0)
    spend(goodput, time, "data", 1.0)
    assert goodput.lap() == 8.0
    time.now += 4.0
    assert goodput.lap() == 4.0
    totals = goodput.totals()
    assert {kind: x for kind, x in totals.items() if x} == {
        "train": 11.0,
        "data": 1.0,
        "evaluation": 2.0,
        "compile": 30.0,
        "restore": 5.0,
    }
    shares = goodput.shares()
    assert shares["perf/goodput"] == pytest.approx(11 / 49)
    assert shares["perf/share_compile"] == pytest.approx(30 / 49)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert len(shares) == len(KINDS)


def test_waiting_for_a_batch_is_data_and_working_on_it_is_not():
    time = Time()
    goodput = start(time)
    goodput.begin("train")

    def batches():
        for number in range(3):
            time.now += 2.0
            yield number

    for _ in goodput.waiting(batches()):
        time.now += 5.0
    assert goodput.totals()["data"] == 6.0
    assert goodput.totals()["train"] == 15.0


def test_restarts_add_up_and_steps_done_again_are_lost(tmp_path):
    time = Time()
    first = start(time)
    first.resume(tmp_path, 0)
    first.begin("train")
    for step, seconds in ((4, 40.0), (8, 20.0), (10, 16.0)):
        time.now += seconds
        first.write(step)
    time.now += 3.0  # done after the last line: not known when the run is killed
    with (tmp_path / GOODPUT_FILE).open("a") as file:
        file.write('{"step": 12, "ti')

    time.now += 100.0
    second = start(time)
    second.resume(tmp_path, 4)  # the last checkpoint was of step 4
    totals = second.totals()
    assert totals["train"] == pytest.approx(40.0)
    assert totals["lost"] == pytest.approx(36.0)
    assert totals["down"] == pytest.approx(103.0)
    assert second.summary().startswith("goodput 22.3% of 179 s in 2 starts: down 57.5%, lost 20.1%")
    assert second.summary().endswith("; 6 steps done again")

    again = start(time)  # killed before its first line: nothing is lost twice
    again.resume(tmp_path, 4)
    assert again.totals() == pytest.approx(totals)
    again.begin("train")
    time.now += 10.0
    again.write(6)
    last = start(time)
    last.resume(tmp_path, 4)
    assert last.totals()["lost"] == pytest.approx(46.0)
    assert sum(last.totals().values()) == pytest.approx(40 + 36 + 103 + 10)


def test_a_process_that_does_not_write_counts_for_itself(tmp_path):
    time = Time()
    goodput = start(time)
    goodput.begin("train")
    time.now += 5.0
    goodput.write(3)
    assert not list(tmp_path.iterdir())
    assert goodput.shares()["perf/goodput"] == 1.0


def test_the_first_step_is_accounted_for():
    time = Time()
    goodput = start(time)
    time.now += 1.0
    spend(goodput, time, "restore", 2.0)
    spend(goodput, time, "compile", 3.5)
    expected = "first step after 6.5 s: setup 1.0, restore 2.0, compile 3.5, data 0.0"
    assert goodput.first_step() == expected
