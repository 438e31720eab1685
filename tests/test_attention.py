"""Attention sees its own segment and, if causal, no later position; softmax in float32.

The laws of the reference, and who is chosen and refused; the kernels are in test_attention_kernels.
"""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlmjax.ops import attention as module
from xlmjax.ops import dropout
from xlmjax.ops.attention import Request, attention

B, Q, H, D = 2, 7, 3, 4
SEGMENTS = np.array([[1, 1, 1, 2, 2, 0, 0], [1, 2, 2, 2, 2, 3, 3]], np.int32)


def inputs(seed=0, k=Q, scale=1.0):
    keys = jax.random.split(jax.random.key(seed), 3)
    lengths = (Q, k, k)
    return [
        scale * jax.random.normal(key, (B, length, H, D))
        for key, length in zip(keys, lengths, strict=True)
    ]


def by_hand(q, k, v, segments, causal):
    """Compute one query at a time, over the list of keys it may see."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros(q.shape)
    for b, i, h in np.ndindex(B, Q, H):
        keys = [j for j in range(Q) if segments[b, j] == segments[b, i] and (j <= i or not causal)]
        if segments[b, i] == 0:
            continue
        scores = np.array([q[b, i, h] @ k[b, j, h] for j in keys]) / np.sqrt(D)
        weights = np.exp(scores - scores.max())
        out[b, i, h] = (weights / weights.sum()) @ v[b, keys, h]
    return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_equals_a_computation_by_hand(causal, scale):
    q, k, v = inputs(scale=scale)
    actual = attention(q, k, v, segment_ids=SEGMENTS, causal=causal, implementation="xla")
    np.testing.assert_allclose(actual, by_hand(q, k, v, SEGMENTS, causal), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("argument", [1, 2])  # keys, values
def test_no_gradient_reaches_a_query_from_outside_what_it_sees(causal, argument):
    arrays = inputs()

    def outputs(x):
        changed = [x if i == argument else y for i, y in enumerate(arrays)]
        return attention(*changed, segment_ids=SEGMENTS, causal=causal)

    jacobian = jax.jacrev(outputs)(arrays[argument])  # [b q h d, b k h d]
    strength = np.abs(jacobian).max(axis=(2, 3, 6, 7))  # [b q, b k]
    queries, keys = np.ogrid[:Q, :Q]
    for b in range(B):
        sees = SEGMENTS[b][:, None] == SEGMENTS[b][None, :]
        sees &= (queries >= keys) | (not causal)
        sees &= SEGMENTS[b] != 0
        assert np.all(strength[b, :, b][~sees] == 0)
        assert np.all(strength[b, :, 1 - b] == 0)
        shared = sees & (sees.sum(axis=1, keepdims=True) > 1)  # a lone key has weight 1 anyway
        assert np.all(strength[b, :, b][shared] > 0)


def test_a_query_whose_segment_has_no_key_gets_zeros():
    q, k, v = inputs(k=5)
    segments = np.array([[1, 1, 1, 2, 2, 0, 0], [1, 1, 2, 2, 2, 3, 3]])
    sources = np.array([[1, 1, 1, 1, 0], [1, 1, 3, 3, 3]])  # none for segment 2
    out = attention(q, k, v, segment_ids=segments, kv_segment_ids=sources)
    empty = (segments == 2) | (segments == 0)  # padding is not a segment
    assert np.all(np.asarray(out)[empty] == 0)
    assert np.all(np.abs(np.asarray(out)[~empty]).max(axis=(1, 2)) > 0)


def test_softmax_is_float32_in_bfloat16():
    q, k, v = (x.astype(jnp.bfloat16) for x in inputs())
    closed = jax.make_jaxpr(lambda *x: attention(*x, segment_ids=SEGMENTS))(q, k, v)
    exponentials = [
        equation.outvars[0].aval.dtype
        for equation in _equations(closed.jaxpr)
        if equation.primitive.name == "exp"
    ]
    assert exponentials
    assert set(exponentials) == {jnp.dtype("float32")}
    out = attention(q, k, v, segment_ids=SEGMENTS)
    assert out.dtype == jnp.bfloat16
    expected = by_hand(q, k, v, SEGMENTS, causal=False)
    np.testing.assert_allclose(out.astype(jnp.float32), expected, rtol=2e-2, atol=2e-2)


def test_dropout_acts_on_the_weights_in_value_and_gradient():
    q, k, v = inputs()
    drop = dropout.Dropout(dropout.row_seeds(jax.random.key(1), jnp.arange(B)), 0.4)
    keep = drop.keep((B, H, Q, Q))

    def plain(q, k, v):
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(D)
        visible = SEGMENTS[:, None, :, None] == SEGMENTS[:, None, None, :]
        weights = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
        weights *= (SEGMENTS != 0)[:, None, None, :]
        return jnp.einsum("bhqk,bkhd->bqhd", weights * keep / 0.6, v)

    def ours(q, k, v):
        return attention(q, k, v, segment_ids=SEGMENTS, dropout=drop)

    direction = jax.random.normal(jax.random.key(2), (B, Q, H, D))
    expected, expected_vjp = jax.vjp(plain, q, k, v)
    actual, actual_vjp = jax.vjp(ours, q, k, v)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(actual_vjp(direction), expected_vjp(direction), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_an_unknown_implementation_names_the_known_ones():
    with pytest.raises(KeyError, match=r"'flash9'; known: .*xla"):
        attention(*inputs(), segment_ids=SEGMENTS, implementation="flash9")


def request(platform="tpu", length=2048, drops=False, dtype="bfloat16", head_dim=64):
    return Request(platform, jnp.dtype(dtype), length, length, head_dim, drops)


@pytest.mark.parametrize(
    ("asked", "chosen", "reason"),
    [
        (request("cpu"), "xla", "no fused kernel is made for cpu"),
        (request(length=256), "xla", "short rows"),
        (request(length=512), "splash", "nothing is dropped"),
        (request(length=512, drops=True), "pallas", "drops attention weights"),
        (request(length=2048), "pallas", "without a common segment are skipped"),
        (request()._replace(num_queries=1), "xla", "short rows"),  # decoding
        (request("gpu"), "cudnn", "scores are never in memory"),
        (request("gpu", drops=True), "triton", "drops attention weights"),
        (request("gpu", drops=True, dtype="float32"), "xla", "model.attention_dropout=0.0"),
        (request("gpu", dtype="float32"), "xla", "takes no float32"),
        (request("gpu", head_dim=256), "xla", "not of 256"),
    ],
)
def test_auto_goes_by_platform_shape_and_dropout_and_says_why_once(asked, chosen, reason, caplog):
    module._report.cache_clear()
    with caplog.at_level(logging.INFO, logger="xlmjax.ops.attention"):
        assert [module.choose(asked), module.choose(asked)] == [chosen, chosen]
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert f"attention: {chosen} (" in caplog.text
    assert reason in caplog.text


@pytest.mark.parametrize(
    ("implementation", "platform", "drops", "message"),
    [
        ("splash", "tpu", True, r"model.attention='splash' drops no .* model.attention_dropout=0"),
        ("splash", "gpu", False, r"model.attention='splash' is a kernel for TPUs: choose 'auto'"),
        ("pallas", "gpu", False, r"model.attention='pallas' is a kernel for TPUs: choose 'auto'"),
        ("triton", "tpu", False, r"model.attention='triton' is a kernel for GPUs: choose 'auto'"),
        ("cudnn", "tpu", False, r"model.attention='cudnn' needs a GPU, not platform 'tpu'"),
        ("cudnn", "gpu", True, r"model.attention='cudnn' drops no .* model.attention_dropout=0"),
        ("cudnn", "gpu", False, r"takes no float32: set model.dtype='bfloat16'"),
    ],
)
def test_what_an_implementation_cannot_do_is_refused(implementation, platform, drops, message):
    drop = dropout.Dropout(dropout.row_seeds(jax.random.key(1), jnp.arange(B)), 0.4)
    with pytest.raises(ValueError, match=message):
        attention(
            *inputs(),
            segment_ids=SEGMENTS,
            dropout=drop if drops else None,
            implementation=implementation,
            platform=platform,
        )


@pytest.mark.parametrize("implementation", ["cudnn", "triton"])
def test_kernels_of_gpus_refuse_wide_heads(implementation):
    q, k, v = (jnp.zeros((B, Q, H, 136), jnp.bfloat16) for _ in range(3))
    with pytest.raises(ValueError, match=r"up to 128, not of 136: .*num_heads"):
        attention(q, k, v, segment_ids=SEGMENTS, implementation=implementation, platform="gpu")


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)
