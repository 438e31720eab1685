"""A stand-in for the contract of decoding: the merge replaces this file."""

from typing import Any

from jaxtyping import Array, Int

from xlmjax.models.generation import Generated, Source


def beam_search(
    model: Any,
    source: Source,
    target_language_ids: Int[Array, "b"],
    limits: Int[Array, "b"],
    *,
    max_length: int,
    eos: int,
    pad: int,
    beams: int,
    length_penalty: float = 1.0,
    early_stopping: bool = False,
    n_best: int = 1,
) -> Generated:
    """Return the `n_best` best of `beams` hypotheses a row."""
    raise NotImplementedError
