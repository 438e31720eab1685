"""Cross entropy: float32, equal in value and gradient whether tiled or not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlmjax.ops import cross_entropy
from xlmjax.ops.cross_entropy import SumWeight, token_losses

N, E, V = 9, 6, 40


def inputs(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 4)
    hidden = jax.random.normal(keys[0], (N, E)).astype(dtype)
    table = (2 * jax.random.normal(keys[1], (V, E))).astype(dtype)
    bias = jax.random.normal(keys[2], (V,))
    return hidden, table, bias, jax.random.randint(keys[3], (N,), 0, V)


def test_values_against_numpy():
    hidden, table, bias, targets = inputs()
    targets = targets.at[0].set(int(np.argmax(hidden[0] @ table.T + bias)))
    logits = np.asarray(hidden, np.float64) @ np.asarray(table, np.float64).T + bias
    log_normalizer = np.log(np.exp(logits).sum(axis=1))
    losses = token_losses(hidden, table, bias, targets)
    np.testing.assert_allclose(losses.log_normalizer, log_normalizer, rtol=1e-5)
    nll = log_normalizer - logits[np.arange(N), targets]
    np.testing.assert_allclose(losses.nll, nll, rtol=1e-5)
    np.testing.assert_array_equal(losses.correct, logits.argmax(axis=1) == targets)
    assert losses.correct[0]
    assert not losses.correct.all()


@pytest.mark.parametrize("tile", [1, 7, 8, 13, 39])
@pytest.mark.parametrize("with_bias", [True, False])
def test_tiled_equals_plain_in_value_and_gradient(tile, with_bias):
    hidden, table, bias, targets = inputs()
    weights = jnp.arange(N) / 3.0

    def objective(hidden, table, bias, tile):
        losses = token_losses(hidden, table, bias if with_bias else None, targets, tile)
        return (weights * losses.nll + 0.01 * losses.log_normalizer**2).sum(), losses

    both = jax.value_and_grad(objective, argnums=(0, 1, 2), has_aux=True)
    (_, expected), expected_gradient = both(hidden, table, bias, 0)
    (_, actual), gradient = both(hidden, table, bias, tile)
    for field in ("nll", "log_normalizer"):
        mine, theirs = getattr(actual, field), getattr(expected, field)
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)  # differences of logits
    np.testing.assert_array_equal(actual.correct, expected.correct)
    for mine, theirs in zip(gradient, expected_gradient, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    assert np.abs(expected_gradient[0]).max() > 0.1


def test_many_logits_are_tiled_without_being_asked(monkeypatch):
    monkeypatch.setattr(cross_entropy, "LANES", 4)
    for limit, holds in ((N * V, True), (N * V - 1, False)):
        monkeypatch.setattr(cross_entropy, "ONE_PRODUCT", limit)
        assert holds_all_logits(cross_entropy.AUTO) == holds


def test_tiled_never_holds_all_logits():
    assert holds_all_logits(0)
    assert not holds_all_logits(8)


def holds_all_logits(tile):
    hidden, table, bias, targets = inputs()

    def loss(hidden, table):
        return token_losses(hidden, table, bias, targets, tile).nll.sum()

    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(hidden, table).as_text()
    return f"{N}x{V}x" in text


@pytest.mark.parametrize("tile", [0, 8])
def test_bfloat16_inputs_give_float32_losses(tile):
    hidden, table, bias, targets = inputs(jnp.bfloat16)
    exact = token_losses(hidden.astype(jnp.float32), table.astype(jnp.float32), bias, targets, tile)
    losses = token_losses(hidden, table, bias, targets, tile)
    assert losses.nll.dtype == jnp.float32
    # The operands are the same numbers, so only the order of float32 sums differs.
    np.testing.assert_allclose(losses.nll, exact.nll, rtol=1e-5, atol=1e-5)

    def total(dtype):
        def loss(hidden, table):
            return token_losses(
                hidden.astype(dtype), table.astype(dtype), bias, targets, tile
            ).nll.sum()

        return jax.grad(loss, argnums=(0, 1))(hidden.astype(jnp.float32), table.astype(jnp.float32))

    for mine, theirs in zip(total(jnp.bfloat16), total(jnp.float32), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-2, atol=2e-2)


def test_sums_merge_exactly():
    parts = [SumWeight(jnp.float32(3), jnp.float32(2)), SumWeight(jnp.float32(1), jnp.float32(6))]
    merged = parts[0] + parts[1]
    assert merged.mean() == 0.5
    assert SumWeight(jnp.float32(0), jnp.float32(0)).mean() == 0
