"""Embedding tables that start from word vectors, as XLM's do with `--reload_emb`."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from xlmjax.data.vocabulary import Vocabulary
from xlmjax.data.word_vectors import VectorRows
from xlmjax.training.state import from_pure_dict, named_leaves, nest, parameter_axes

FIELD = "checkpoint.init_vectors"


def with_vectors(model: Any, paths: Sequence[str], vocabulary: Vocabulary) -> tuple[Any, str]:
    """Return a model whose rows of the vocabulary are those of files, and a line that says so.

    So are those of every table [v, e], in either half and of the head where it has its own. The
    vectors, all times one number, get the root mean square of the table; rows that no file has are
    left. Raises `ValueError` as `VectorRows.read` does, and where all vectors are zero.
    """
    values, axes = named_leaves(model), parameter_axes(model)
    tables = [name for name in values if axes[name] == ("vocab", "embed")]
    known = VectorRows.read(paths, vocabulary, values[tables[0]].shape[1], FIELD)
    size = np.sqrt(np.mean(np.square(known.vectors)))
    if not size > 0:
        raise ValueError(f"{FIELD}: {', '.join(paths)}: all vectors are zero")

    for name in tables:
        put = jax.jit(_put, out_shardings=values[name].sharding)
        values[name] = put(values[name], known.rows, known.vectors / size)
    return from_pure_dict(model, nest(values)), (
        f"{len(known.rows):,} of {vocabulary.size:,} rows of {', '.join(tables)} from "
        f"{', '.join(paths)}, {known.unmatched:,} of whose {known.words:,} words are no entry of "
        "the vocabulary"
    )


def _put(
    table: Float[Array, "v e"], rows: Int[Array, "n"], vectors: Float[Array, "n e"]
) -> Float[Array, "v e"]:
    """Return the table with some rows that are vectors, as large as those that were there."""
    return table.at[rows].set(vectors * jnp.sqrt(jnp.mean(jnp.square(table))))
