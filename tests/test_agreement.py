"""All processes mean the same run, or none of them starts."""

import json

import pytest

from tests.small_run import small_config
from xlmjax.configuration import leaves
from xlmjax.parallel import distributed
from xlmjax.training import agreement


@pytest.fixture
def others(monkeypatch):
    """Messages of processes 1, 2, ...; what this process, 0, told is in the last entry."""
    messages, told = [], []

    def exchange(name, value, wait=True):
        told.append((value, wait))
        return [value, *map(json.dumps, messages)]

    monkeypatch.setattr(distributed, "exchange", exchange)
    return messages, told


def test_processes_that_agree_go_on(others):
    messages, _ = others
    messages.append({"facts": {"config.train.rows": 8, "its checkpoints": [2, 4]}})
    with agreement.agreed() as facts:
        facts |= {"config.train.rows": 8, "its checkpoints": (2, 4)}


def test_each_difference_is_named_with_the_value_on_each_process(others):
    messages, _ = others
    messages += [
        {"facts": {"config.train.rows": 16, "jax": "0.10.2", "vocabulary": "aaaa"}},
        {"facts": {"config.train.rows": 8, "jax": "0.10.2"}},
    ]
    with (
        pytest.raises(
            ValueError,
            match=r"processes disagree: config.train.rows is 8 on processes 0, 2 and 16 on process "
            r"1; vocabulary is 'aaaa' on processes 0, 1 and missing on process 2. Start all",
        ),
        agreement.agreed() as facts,
    ):
        facts |= {"config.train.rows": 8, "jax": "0.10.2", "vocabulary": "aaaa"}


def test_what_one_process_cannot_do_stops_the_others(others):
    messages, _ = others
    messages.append({"problem": "data.vocabulary='x.model': no such file"})
    with (
        pytest.raises(ValueError, match=r"process 1 could not start: data.vocabulary='x.model'"),
        agreement.agreed(),
    ):
        pass


def test_a_problem_here_is_told_and_raised_without_waiting(others):
    _, told = others
    with pytest.raises(KeyError, match="sw"), agreement.agreed():
        raise KeyError("sw")
    [(message, wait)] = told
    assert json.loads(message) == {"problem": "'sw'"}
    assert not wait


def test_a_config_is_compared_leaf_by_leaf(tmp_path):
    one = leaves(small_config(tmp_path).to_dict(), "config.")
    other = leaves(small_config(tmp_path, data__mixing__alpha=0.3).to_dict(), "config.")
    assert one["config.objectives.mlm.name"] == "masked_lm"
    assert agreement.disagreements([one, other]) == [
        "config.data.mixing.alpha is 0.7 on process 0 and 0.3 on process 1"
    ]


def test_software_tells_versions_and_our_own_files():
    found = agreement.software()
    assert len(found["the code of xlmjax"]) == 16
    assert {"jax", "flax", "optax"} <= found.keys()
