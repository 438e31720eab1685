"""Matrix products whose gradients run as fast as the products themselves."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def einsum_float32(
    equation: str, a: Float[Array, "..."], b: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Return einsum(a, b) in float32, for logits and attention scores.

    The gradient is rounded to the operands' dtype before its two products, so that they run on
    the matrix units too; left to itself JAX would multiply float32 by bfloat16 there. Both are
    einsums again, so each letter of an operand must be one of the result or of the other operand.
    JAX's own transposition would sum over the same axis of both, a plain loop of XLA's on the CPU.
    """
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _forward(equation: str, a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    return einsum_float32(equation, a, b), (a, b)


def _backward(equation: str, operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    (a, b), rounded = operands, gradient.astype(operands[0].dtype)
    inputs, out = equation.split("->")
    of_a, of_b = inputs.split(",")
    return (
        jnp.einsum(f"{out},{of_b}->{of_a}", rounded, b),
        jnp.einsum(f"{out},{of_a}->{of_b}", rounded, a),
    )


einsum_float32.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def contract(
    x: Float[Array, "..."], kernel: Float[Array, "..."], inputs: int
) -> Float[Array, "..."]:
    """Return x times kernel over the last `inputs` axes of x, the first of kernel: a dense map.

    x: [*rows, *inputs], kernel: [*inputs, *outputs]; returns [*rows, *outputs].

    As `jnp.tensordot`, with another gradient of the kernel: a product of two matrices, the first
    of them transposed in memory. XLA on the CPU multiplies in bfloat16 only where the last axis of
    the one meets the first of the other, and takes a slow loop where several axes meet, as rows
    and positions do here. In float32 it is no faster.
    """
    return jnp.tensordot(x, kernel, axes=inputs)


def _contract(x: Array, kernel: Array, inputs: int) -> tuple[Array, tuple[Array, Array]]:
    return contract(x, kernel, inputs), (x, kernel)


def _of_contract(
    inputs: int, operands: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = operands
    _, of_x = jax.vjp(lambda x: jnp.tensordot(x, kernel, axes=inputs), x)
    width = math.prod(kernel.shape[:inputs])
    columns = x.reshape(*x.shape[: x.ndim - inputs], width)
    transposed = jnp.moveaxis(columns, -1, 0).reshape(width, -1)
    outputs = math.prod(kernel.shape[inputs:])
    of_kernel = transposed @ gradient.reshape(-1, outputs)
    return *of_x(gradient), of_kernel.reshape(kernel.shape)


contract.defvjp(_contract, _of_contract)
