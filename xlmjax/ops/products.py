"""Matrix products of low-precision operands with a float32 result."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def einsum_float32(
    equation: str, a: Float[Array, "..."], b: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Return einsum(a, b) in float32, for logits and attention scores.

    The gradient is rounded to the operands' dtype before its two products, so that they run on
    the matrix units too; left to itself JAX would multiply float32 by bfloat16 there.
    """
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _forward(equation: str, a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    return einsum_float32(equation, a, b), (a, b)


def _backward(equation: str, operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    _, transpose = jax.vjp(functools.partial(jnp.einsum, equation), *operands)
    return transpose(gradient.astype(operands[0].dtype))


einsum_float32.defvjp(_forward, _backward)
