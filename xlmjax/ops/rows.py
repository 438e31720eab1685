"""Randomness of a row: a function of the step's key and the row's global id, nothing else."""

import jax
from jaxtyping import Array, Int, Key


def row_keys(key: Key[Array, ""], row_ids: Int[Array, "b"]) -> Key[Array, "b"]:
    """Return one key a row, the same however rows are split over devices and microbatches."""
    return jax.vmap(lambda row_id: jax.random.fold_in(key, row_id))(row_ids)
