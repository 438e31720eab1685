"""A checksum of a state that does not depend on how it is laid out over devices."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from xlmjax.training.state import named_leaves

_ODD = np.uint32(2_654_435_761)  # Knuth's multiplier


# On a CPU the compiler keeps what is summed in memory, so it is made piece by piece.
_PIECE_BYTES = 2**26


@functools.partial(jax.jit, static_argnums=1)
def _checksum(x: Array, piece_bytes: int = 0) -> UInt32[Array, ""]:
    """Return sum of bits(x_i) * odd(i) modulo 2^32, of `piece_bytes` at a time (0: all at once).

    Integer sums may be taken in any order, so any mesh gives the same; an odd factor loses no bit,
    so one flipped bit always shows; factors differ from place to place, so do swapped values.
    """
    rows = x.shape[0] if x.ndim else 1
    size = max(1, piece_bytes * rows // max(1, x.nbytes))
    if not piece_bytes or size >= rows:
        return _sum(x, 0)

    def piece(start: int | Array, size: int) -> UInt32[Array, ""]:
        return _sum(jax.lax.dynamic_slice_in_dim(x, start, size), start)

    whole, rest = divmod(rows, size)
    total = jax.lax.fori_loop(
        0, whole, lambda i, total: total + piece(i * size, size), jnp.uint32(0)
    )
    return total + piece(whole * size, rest) if rest else total


def _sum(x: Array, start: int | Array) -> UInt32[Array, ""]:
    """Return the part of the checksum of rows, of which the first is row `start`."""
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, width).astype(jnp.uint32)
    index = jnp.asarray(start).astype(jnp.uint32) * np.uint32(math.prod(x.shape[1:]) % 2**32)
    for axis in range(x.ndim):
        stride = np.uint32(math.prod(x.shape[axis + 1 :]) % 2**32)
        index += jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * stride
    factor = ((index + 1) * _ODD) | 1
    return jnp.sum(bits * factor, dtype=jnp.uint32)


def checksums(tree: Any) -> dict[str, int]:
    """Return name -> checksum of every array of a state of 1-, 2- or 4-byte numbers."""
    piece_bytes = _PIECE_BYTES if jax.default_backend() == "cpu" else 0
    return {name: int(_checksum(leaf, piece_bytes)) for name, leaf in named_leaves(tree).items()}
