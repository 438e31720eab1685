"""A checksum of a state that does not depend on how it is laid out over devices."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from xlmjax.training.state import named_leaves

_ODD = np.uint32(2_654_435_761)  # Knuth's multiplier


@jax.jit
def _checksums(leaves: list[Array]) -> UInt32[Array, "n"]:
    return jnp.stack([_checksum(leaf) for leaf in leaves])


def _checksum(x: Array) -> UInt32[Array, ""]:
    """Return sum of bits(x_i) * odd(i) modulo 2^32.

    Integer sums may be taken in any order, so any mesh gives the same; an odd factor loses no bit,
    so one flipped bit always shows; factors differ from place to place, so do swapped values.
    """
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, width).astype(jnp.uint32)
    index = jnp.zeros(x.shape, jnp.uint32)
    for axis in range(x.ndim):
        stride = np.uint32(math.prod(x.shape[axis + 1 :]) % 2**32)
        index += jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * stride
    factor = ((index + 1) * _ODD) | 1
    return jnp.sum(bits * factor, dtype=jnp.uint32)


def checksums(tree: Any) -> dict[str, int]:
    """Return name -> checksum of every array of a state of 1-, 2- or 4-byte numbers."""
    leaves = named_leaves(tree)
    values = np.asarray(_checksums(list(leaves.values())))
    return dict(zip(leaves, map(int, values), strict=True))
