"""Dropout is a function of (seed, row, place, element): unbiased, independent, layout-free."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from xlmjax.ops import dropout
from xlmjax.ops.dropout import Dropout, fold, row_seeds

KEY = jax.random.key(3)
SHAPE = (16, 250, 300)  # 1.2 million elements


def kept(rate=0.1, key=KEY, first_row=0, places=()):
    seeds = row_seeds(key, first_row + jnp.arange(SHAPE[0]))
    for place in places:
        seeds = fold(seeds, place)
    return np.asarray(Dropout(seeds, rate).keep(SHAPE))


def assert_uncorrelated(a, b):
    a, b = (x.ravel() - x.mean() for x in (a, b))
    correlation = (a * b).mean() / (a.std() * b.std())
    assert abs(correlation) < 5 / np.sqrt(a.size)


@pytest.mark.parametrize("rate", [0.003, 0.1, 0.5, 0.9])
def test_rate_of_all_and_of_each_row(rate):
    dropped = 1 - kept(rate).reshape(SHAPE[0], -1)
    deviation = np.sqrt(rate * (1 - rate))
    assert abs(dropped.mean() - rate) < 5 * deviation / np.sqrt(dropped.size)
    assert np.all(np.abs(dropped.mean(axis=1) - rate) < 5 * deviation / np.sqrt(dropped.shape[1]))


def test_counts_vary_as_independent_draws_do():
    """Blocks of 100 neighbours have the variance of a binomial, not that of a lattice."""
    counts = kept(0.5).reshape(-1, 100).sum(axis=1)
    assert counts.var() == pytest.approx(25, rel=0.07)  # 5 deviations of 12,000 blocks


@pytest.mark.parametrize(
    "shift", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 2), (0, 2, 1), (3, 0, 4), (0, 64, 0)]
)
def test_neighbours_and_rows_are_independent(shift):
    mask = kept(0.3)
    here = mask[tuple(slice(step, None) for step in shift)]
    there = mask[tuple(slice(None, size - step) for size, step in zip(SHAPE, shift, strict=True))]
    assert_uncorrelated(here, there)


def test_places_steps_and_rows_are_independent():
    first = kept(0.3, places=(0, 1))
    assert_uncorrelated(first, kept(0.3, places=(1, 0)))
    assert_uncorrelated(first, kept(0.3, places=(0, 2)))
    assert_uncorrelated(first, kept(0.3, places=(1, 1)))
    assert_uncorrelated(first, kept(0.3, places=()))
    assert_uncorrelated(first, kept(0.3, key=jax.random.fold_in(KEY, 1), places=(0, 1)))
    assert_uncorrelated(first, kept(0.3, first_row=1, places=(0, 1)))


def test_expectation_is_kept_and_the_gradient_has_the_mask_of_the_value():
    drop = Dropout(row_seeds(KEY, jnp.arange(3)), 0.25)
    x = jax.random.normal(KEY, (3, 5, 8))
    y, vjp = jax.vjp(drop, x)
    keep = np.asarray(drop.keep(x.shape))
    assert 0 < keep.sum() < keep.size
    np.testing.assert_allclose(y, np.where(keep, x / 0.75, 0), rtol=1e-6)
    np.testing.assert_allclose(vjp(jnp.ones_like(x))[0], np.where(keep, 1 / 0.75, 0), rtol=1e-6)


def test_the_same_on_any_sharding_and_in_any_microbatch():
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), (jax.sharding.AxisType.Auto,) * 2)
    ids = jnp.array([7, 100, 3, 2**30, 9, 12, 0, 5])
    x = jnp.ones((8, 6, 10))

    def dropped(x, ids):
        return Dropout(fold(row_seeds(KEY, ids), 4), 0.5)(x)

    whole = jax.jit(dropped)(x, ids)
    place = NamedSharding(mesh, PartitionSpec("data", "tensor"))
    sharded = jax.jit(dropped, out_shardings=place)(
        jax.device_put(x, place), jax.device_put(ids, NamedSharding(mesh, PartitionSpec("data")))
    )
    np.testing.assert_array_equal(whole, sharded)
    parts = [dropped(x[rows], ids[rows]) for rows in (slice(5), slice(5, 8))]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_seeds_of_slices_drop_what_those_of_rows_do():
    drop = Dropout(row_seeds(KEY, jnp.arange(2)), 0.4)
    slices = drop.per_slice(3, 5 * 7)
    np.testing.assert_array_equal(slices.keep((2, 3, 5, 7)), drop.keep((2, 3, 5, 7)))
    last = Dropout(slices.seeds[:, 2:], 0.4).keep((2, 1, 5, 7))
    np.testing.assert_array_equal(last, drop.keep((2, 3, 5, 7))[:, 2:])


def test_a_row_too_large_to_count_is_refused():
    seeds = row_seeds(KEY, jnp.arange(2))
    with pytest.raises(ValueError, match=r"no more than 2\*\*32"):
        jax.eval_shape(lambda: dropout.Dropout(seeds, 0.1).keep((2, 2**17, 2**16)))
    with pytest.raises(ValueError, match=r"no more than 2\*\*32"):
        dropout.Dropout(seeds, 0.1).per_slice(2, 2**33)
