"""Finding the rows behind a loss that is not finite."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from xlmjax.training.diagnosis import bisect, find_culprits


@pytest.mark.parametrize("bad", [[], [0], [6], [2, 5], [0, 1, 2, 3, 4, 5, 6]])
def test_bisection_finds_every_item_that_fails_alone(bad):
    assert bisect(lambda chosen: not chosen[bad].any(), 7) == bad


def test_bisection_finds_none_where_only_all_together_fail():
    assert bisect(lambda chosen: chosen.sum() < 7, 7) == []


def test_bisection_gives_up_with_whole_ranges():
    trials = []

    def passes(chosen):
        trials.append(1)
        return False

    assert bisect(passes, 1000, limit=10) == list(range(1000))
    assert len(trials) < 30


class Step:
    """A train step that fails on rows that hold token 7, and on parameters that are NaN."""

    def is_finite(self, model, step, batches):
        bad = sum(jnp.sum(batch["tokens"] == 7) for batch in batches.values())
        return jnp.isfinite(model) & (bad == 0)


@dataclasses.dataclass
class State:
    model: float
    step: int = 3


def batches(*bad):
    """Two groups of 3 and 4 rows; the rows of these ids hold a 7."""
    made = {}
    for name, ids in (("clm", (10, 11, 12)), ("mlm", (20, 21, 22, 23))):
        tokens = np.full((len(ids), 5), 9)
        tokens[np.isin(ids, bad), 2] = 7
        made[name] = {"tokens": jnp.asarray(tokens), "row_ids": jnp.asarray(ids)}
    return made


@pytest.mark.parametrize(
    ("model", "bad", "cause", "rows"),
    [
        (1.0, (12, 20, 23), "rows", {"clm": [12], "mlm": [20, 23]}),
        (1.0, range(10, 24), "every row", {"clm": [10, 11, 12], "mlm": [20, 21, 22, 23]}),
        (1.0, (), "all rows together", {"clm": [10, 11, 12], "mlm": [20, 21, 22, 23]}),
        (np.nan, (12,), "parameters", {}),
    ],
)
def test_culprits_are_named_by_group(model, bad, cause, rows):
    found = find_culprits(Step(), State(model), batches(*bad))
    assert (found.cause, found.rows) == (cause, rows)
