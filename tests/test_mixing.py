"""Rates against hand calculation; the schedule's laws."""

import numpy as np
import pytest

from xlmjax.data import mixing
from xlmjax.data.permutation import derive_key, permute


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 17, 100, 4096, 65_536, 100_003])
def test_permute_is_a_bijection_for_every_key(size):
    for key in range(5):
        image = permute(np.arange(size), size, derive_key(9, key))
        np.testing.assert_array_equal(np.sort(image), np.arange(size))


def test_permute_reaches_every_order_of_a_small_set_equally_often():
    orders = {}
    for key in range(6_000):
        order = tuple(permute(np.arange(3), 3, derive_key(key)))
        orders[order] = orders.get(order, 0) + 1
    assert len(orders) == 6
    # Binomial with mean 1,000 and deviation 29: five deviations.
    assert all(abs(count - 1_000) < 150 for count in orders.values()), orders


def test_permute_leaves_no_trace_of_the_order():
    size = 50_000
    image = permute(np.arange(size), size, derive_key(4))
    assert abs(np.corrcoef(np.arange(size), image)[0, 1]) < 0.02
    assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 0.02
    assert not np.array_equal(image, permute(np.arange(size), size, derive_key(5)))


def test_permute_takes_a_key_an_index():
    keys = derive_key(np.arange(6))
    together = permute(np.array([3, 1, 4, 1, 5, 0]), 7, keys)
    alone = [permute(np.array([i]), 7, keys[n])[0] for n, i in enumerate([3, 1, 4, 1, 5, 0])]
    np.testing.assert_array_equal(together, alone)


def test_permute_takes_a_size_an_index():
    sizes = np.array([3, 100, 16, 17, 1])
    together = permute(np.array([2, 50, 15, 16, 0]), sizes, derive_key(1))
    alone = [
        permute(np.array([i]), int(n), derive_key(1))[0]
        for i, n in zip([2, 50, 15, 16, 0], sizes, strict=True)
    ]
    np.testing.assert_array_equal(together, alone)


def test_alpha_rates_by_hand():
    # Sizes 10:1 and alpha 0.7: the ratio is 10^0.7 = 5.0119 (law 9).
    rates = mixing.alpha_rates([1_000, 100], 0.7)
    assert rates[0] / rates[1] == pytest.approx(10**0.7)
    assert rates.sum() == pytest.approx(1)
    np.testing.assert_allclose(mixing.alpha_rates([5, 1, 4], 0.0), [1 / 3] * 3)
    np.testing.assert_allclose(mixing.alpha_rates([5, 1, 4], 1.0), [0.5, 0.1, 0.4])
    np.testing.assert_allclose(
        mixing.temperature_rates([5, 1, 4], 2.0), mixing.alpha_rates([5, 1, 4], 0.5)
    )


def test_unimax_rates_by_hand():
    # Budget 100, at most 2 epochs: the corpus of 5 gets 10, of 20 gets 40, the rest is 50.
    np.testing.assert_allclose(mixing.unimax_rates([1_000, 5, 20], 100, 2.0), [0.5, 0.1, 0.4])
    # Nothing capped: flat.
    np.testing.assert_allclose(mixing.unimax_rates([50, 60, 70], 30, 1.0), [1 / 3] * 3)
    # Everything capped: in proportion to size.
    np.testing.assert_allclose(mixing.unimax_rates([1, 3], 1_000, 2.0), [0.25, 0.75])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mixing.alpha_rates([1, 2], -0.1), "data.mixing.alpha=-0.1 must be 0 or more"),
        (lambda: mixing.temperature_rates([1, 2], 0.0), "data.mixing.temperature=0.0 must be"),
        (lambda: mixing.unimax_rates([1, 2], 10, 0.0), "data.mixing.max_epochs=0.0 must be"),
        (lambda: mixing.quotas([1.0, -0.5]), r"rates must be finite, 0 or more.*-0.5"),
        (lambda: mixing.quotas([0.0, 0.0]), "rates must be .* not all 0"),
        (lambda: mixing.quotas([1.0] * 9, block=8), "9 tasks do not fit a block of 8 rows"),
        (
            lambda: mixing.Schedule([3, 0], [mixing.Stage(0, (4, 4))], seed=0, block=8),
            "task 1 of the schedule has no rows",
        ),
        (
            lambda: mixing.Schedule([3, 2], [mixing.Stage(0, (4, 3))], seed=0, block=8),
            "quotas of every stage must sum to the block of 8 rows",
        ),
    ],
)
def test_wrong_rates_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_quotas_round_by_largest_remainder_and_keep_everyone():
    np.testing.assert_array_equal(mixing.quotas([0.5, 0.3, 0.2], block=8), [4, 2, 2])
    tiny = mixing.quotas([1.0, 1e-9, 1e-12], block=64)
    np.testing.assert_array_equal(tiny, [62, 1, 1])
    np.testing.assert_array_equal(mixing.quotas([0.0, 3.0, 1.0], block=8), [0, 6, 2])
    many = mixing.quotas(np.random.default_rng(0).pareto(0.3, 500) + 1e-9)
    assert many.sum() == mixing.BLOCK
    assert many.min() >= 1


BLOCK = 64


def _schedule(seed=3):
    stages = [
        mixing.Stage(0, (44, 20, 0)),
        mixing.Stage(5 * BLOCK, (8, 16, 40)),
    ]
    return mixing.Schedule([37, 11, 29], stages, seed, block=BLOCK)


def test_proportions_are_exact_in_every_block():
    located = _schedule().locate(np.arange(12 * BLOCK))
    for block in range(12):
        counts = np.bincount(located.tasks[block * BLOCK : (block + 1) * BLOCK], minlength=3)
        np.testing.assert_array_equal(counts, (44, 20, 0) if block < 5 else (8, 16, 40))


def test_every_row_of_a_task_comes_once_an_epoch_across_stages():
    located = _schedule().locate(np.arange(30 * BLOCK))
    for task, size in enumerate([37, 11, 29]):
        of_task = located.tasks == task
        epochs, rows = located.epochs[of_task], located.rows[of_task]
        complete = np.count_nonzero(of_task) // size
        assert complete >= 3
        orders = []
        for epoch in range(complete):
            order = rows[epochs == epoch]
            np.testing.assert_array_equal(np.sort(order), np.arange(size))
            orders.append(tuple(order))
        assert len(set(orders)) == complete, "every epoch has an order of its own"


def test_a_row_does_not_depend_on_what_is_asked_with_it():
    schedule = _schedule()
    everything = schedule.locate(np.arange(20 * BLOCK))
    some = np.array([1_279, 0, 320, 321, 64, 319])
    few = schedule.locate(some)
    np.testing.assert_array_equal(few.tasks, everything.tasks[some])
    np.testing.assert_array_equal(few.rows, everything.rows[some])
    np.testing.assert_array_equal(few.epochs, everything.epochs[some])
    assert (everything.rows != _schedule(seed=4).locate(np.arange(20 * BLOCK)).rows).any()


def test_a_far_row_costs_no_more_than_a_near_one():
    # A billion rows away, with a thousand tasks: no table of rows is ever built.
    sizes = [10**9 + task for task in range(1_000)]
    schedule = mixing.Schedule(sizes, [mixing.Stage(0, tuple(mixing.quotas(sizes)))], seed=1)
    located = schedule.locate(np.array([10**12, 5, 10**12 + 1]))
    assert (located.rows < 10**9 + 1_000).all()


def test_rows_until_counts_what_locate_yields():
    schedule = _schedule()
    located = schedule.locate(np.arange(9 * BLOCK))
    np.testing.assert_array_equal(
        schedule.rows_until(9 * BLOCK), np.bincount(located.tasks, minlength=3)
    )
