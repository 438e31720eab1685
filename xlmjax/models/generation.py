"""A stand-in for the contract of decoding: the merge replaces this file."""

from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int


class Source(NamedTuple):
    """One sentence a row, `</s> x </s>` then padding; positions are 0, 1, ..."""

    tokens: Int[Array, "b s"]
    segment_ids: Int[Array, "b s"]
    language_ids: Int[Array, "b s"]


class Generated(NamedTuple):
    """The n best hypotheses a row, best first: EOS ... EOS, then PAD; lengths count both EOS."""

    tokens: Int[Array, "b n t"]
    lengths: Int[Array, "b n"]
    scores: Float[Array, "b n"]


def generate(
    model: Any,
    source: Source,
    target_language_ids: Int[Array, "b"],
    limits: Int[Array, "b"],
    *,
    max_length: int,
    eos: int,
    pad: int,
    temperature: float = 0.0,
    key: Any = None,
    row_ids: Any = None,
) -> Generated:
    """Return greedy hypotheses, or samples where `temperature` is above 0."""
    raise NotImplementedError
