"""Products with gradients of their own: what they are equal to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from xlmjax.models.layers import Dense
from xlmjax.ops.products import contract, einsum_float32
from xlmjax.parallel.mesh import MeshConfig, make_mesh

TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}


def numbers(seed, *shape, dtype="float32"):
    return jax.random.normal(jax.random.key(seed), shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [((4, 6), (8,), (3, 5)), ((4, 6), (2, 8), (7,)), ((9,), (8,), (5,)), ((2, 3, 4), (5,), (6,))],
)
def test_a_contraction_has_the_values_and_gradients_of_tensordot(rows, inputs, outputs, dtype):
    x = numbers(0, *rows, *inputs, dtype=dtype)
    kernel = numbers(1, *inputs, *outputs, dtype=dtype)
    weights = numbers(2, *rows, *outputs)

    def loss(product, x, kernel):
        return (product(x, kernel, len(inputs)).astype(jnp.float32) * weights).sum()

    expected = jax.value_and_grad(loss, (1, 2))(jnp.tensordot, x, kernel)
    found = jax.jit(jax.value_and_grad(loss, (1, 2)), static_argnums=0)(contract, x, kernel)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = (np.asarray(value, np.float32) for value in (ours, theirs))
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours / scale, theirs / scale, atol=TOLERANCE[dtype])


def test_it_is_the_same_on_a_mesh():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), jax.devices())
    x, kernel = numbers(0, 8, 6, 4, 16), numbers(1, 4, 16, 12)

    def gradient(x, kernel):
        return jax.grad(lambda kernel: jnp.sin(contract(x, kernel, 2)).sum())(kernel)

    whole = gradient(x, kernel)
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), None, "tensor"))
    heads = NamedSharding(mesh, PartitionSpec("tensor"))
    split = jax.jit(gradient, out_shardings=heads)(
        jax.device_put(x, rows), jax.device_put(kernel, heads)
    )
    np.testing.assert_allclose(split, whole, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("dtype", "taken"), [("bfloat16", True), ("float32", False)])
def test_dense_maps_take_it_in_bfloat16_on_the_cpu(dtype, taken):
    dense = Dense({"embed": 8}, {"mlp": 4}, True, jax.random.key(0))
    program = jax.make_jaxpr(dense)(numbers(0, 2, 3, 8, dtype=dtype))
    assert ("custom_vjp" in str(program)) == taken


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("equation", "a", "b"),
    [
        ("bqhd,bkhd->bhqk", (2, 5, 3, 8), (2, 7, 3, 8)),
        ("ne,ve->nv", (6, 8), (9, 8)),
        ("ne,e->n", (6, 8), (8,)),
    ],
)
def test_an_einsum_in_float32_has_the_gradients_of_einsum(equation, a, b, dtype):
    a, b = numbers(0, *a, dtype=dtype), numbers(1, *b, dtype=dtype)
    weights = numbers(2, *jnp.einsum(equation, a, b).shape)

    def loss(einsum, a, b):
        return (einsum(equation, a, b).astype(jnp.float32) * weights).sum()

    expected = jax.value_and_grad(loss, (1, 2))(jnp.einsum, *(x.astype("float32") for x in (a, b)))
    found = jax.value_and_grad(loss, (1, 2))(einsum_float32, a, b)
    assert [x.dtype for x in found[1]] == [a.dtype, b.dtype]
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(
            np.asarray(ours, np.float32) / scale, theirs / scale, atol=TOLERANCE[dtype]
        )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_gradient_of_a_bias_is_summed_in_float32(dtype):
    # In bfloat16, 256 + 1 is 256: left to it, XLA made 1,024 of these 4,096 ones on the CPU.
    dense = Dense({"embed": 8}, {"mlp": 4}, True, jax.random.key(0))
    x = jnp.zeros((32, 128, 8), dtype)
    gradient = jax.jit(jax.grad(lambda dense: dense(x).astype(jnp.float32).sum()))(dense)
    np.testing.assert_array_equal(gradient.bias[...], 32 * 128)
