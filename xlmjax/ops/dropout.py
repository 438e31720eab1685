"""Counter-based dropout: what is dropped is a function of (row seed, element), nothing else.

The random word of element i of a row is an integer hash of the row's seed and i. It is elementwise
arithmetic, so XLA fuses it into the product it guards, it costs no memory, and it gives the same
mask on any number of devices, microbatches or processes. Rows are told apart by their global id.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt32


def row_seeds(key: Key[Array, ""], row_ids: Int[Array, "b"]) -> UInt32[Array, "b 2"]:
    """Return two seed words a row from the key of the step and the global row ids."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(row_ids)
    return jax.vmap(lambda row_key: jax.random.bits(row_key, (2,), jnp.uint32))(keys)


def fold(seeds: UInt32[Array, "b 2"], number: int | Int[Array, ""]) -> UInt32[Array, "b 2"]:
    """Return the seeds of a place in the model, such as layer `number` or site `number`."""
    salt = jnp.asarray(number, jnp.uint32) + jnp.uint32(1)
    first = _scramble(seeds[:, 0] ^ _scramble(salt))
    return jnp.stack([first, _scramble(seeds[:, 1] + first)], axis=1)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["seeds"], meta_fields=["rate"])
@dataclasses.dataclass(frozen=True)
class Dropout:
    """Dropout of one place in the model: a seed a row and the share of elements to drop."""

    seeds: UInt32[Array, "b 2"]
    rate: float

    @property
    def scale(self) -> float:
        """Factor of the kept elements, which keeps the expectation."""
        return 1.0 / (1.0 - self.rate)

    def keep(self, shape: tuple[int, ...]) -> Bool[Array, "b ..."]:
        """Return which elements of an array of this shape stay; axis 0 is the rows."""
        size = math.prod(shape[1:])
        if size >= 2**32:
            raise ValueError(f"a row of {shape} has {size} elements; dropout counts to 2**32 - 1")
        return _bits(self.seeds, shape) >= jnp.uint32(round(self.rate * 2**32))

    def __call__(self, x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
        """Zero a share `rate` of `x` and scale the rest."""
        return jnp.where(self.keep(x.shape), x * jnp.asarray(self.scale, x.dtype), 0)


def _bits(seeds: UInt32[Array, "b 2"], shape: tuple[int, ...]) -> UInt32[Array, "b ..."]:
    """Hash (seed of the row, index in the row) to 32 bits."""
    index, stride = jnp.uint32(0), 1
    for axis in range(len(shape) - 1, 0, -1):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
        stride *= shape[axis]
    words = seeds.reshape(shape[0], *[1] * (len(shape) - 1), 2)
    return _scramble(index + words[..., 0], words[..., 1])


def _scramble(
    x: UInt32[Array, "..."], salt: UInt32[Array, "..."] | int = 0
) -> UInt32[Array, "..."]:
    """Hash 32 bits to 32 bits (Wellons 2018, `lowbias32`), with a second seed in the middle."""
    x ^= x >> 16
    x *= jnp.uint32(0x7FEB352D)
    x ^= (x >> 15) ^ jnp.asarray(salt, jnp.uint32)
    x *= jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
