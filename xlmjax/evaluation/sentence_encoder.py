"""Sentences of token ids to vectors: batched by length, each a row of its own."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from xlmjax.data import features
from xlmjax.data.layout import Delimiters
from xlmjax.data.sentences import SentenceBatches
from xlmjax.evaluation.pipelined import fetched
from xlmjax.ops import similarity
from xlmjax.parallel.partition import batch_sharding, replicated, use_rules


class SentenceEncoder:
    """Encodes sentences as `</s> x </s>` and pools the states of a layer.

    A vector depends on the sentence and its language only, up to float32 rounding: not on the
    number of rows a batch or of devices, nor on what else is encoded. A `causal` model sees what is
    before a token only. It compiles once a length of
    `data.sentences.bucket`. Raises `ValueError` naming `field` on an unknown pooling.
    """

    def __init__(
        self,
        mesh: jax.sharding.Mesh,
        strategy: str,
        delimiters: Delimiters,
        *,
        rows: int,
        layer: int,
        pooling: str,
        limit: int | None,
        causal: bool = False,
        field: str = "pooling",
    ):
        if pooling not in similarity.POOLINGS:
            known = ", ".join(similarity.POOLINGS)
            raise ValueError(f"{field}={pooling!r} is unknown; known: {known}")
        self._rows, self._delimiters, self._limit = rows, delimiters, limit
        self._sharding = batch_sharding(mesh)
        self._apply = jax.jit(
            functools.partial(_pooled, strategy, layer, pooling, causal),
            out_shardings=replicated(mesh),
        )

    def __call__(
        self,
        model: Any,
        tokens: Sequence[Sequence[int] | Int[np.ndarray, "_"]],
        language_ids: Int[np.ndarray, "n"],
    ) -> Float32[np.ndarray, "n e"]:
        """Return the vectors in the order of the sentences."""
        vectors = np.zeros((len(tokens), model.cfg.embed_dim), np.float32)
        batches = SentenceBatches(
            tokens, language_ids, self._rows, self._delimiters, self._sharding, self._limit
        )
        for numbers, found in fetched(batches, lambda _, batch: self._apply(model, batch)):
            vectors[numbers] = found[: len(numbers)]
        return vectors


def predicts_next(config: Any) -> bool:
    """Return whether a run trains its model to predict the next word and nothing else.

    Such a model reads causally, whatever it is used for.
    """
    return {group.name for group in config.objectives.values()} == {"causal_lm"}


def _pooled(
    strategy: str, layer: int, pooling: str, causal: bool, model: Any, batch: Any
) -> Float[Array, "b e"]:
    with use_rules(strategy):
        names = (
            features.TOKENS,
            features.POSITIONS,
            features.SEGMENT_IDS,
            features.LANGUAGE_IDS,
        )
        states = model.encode(*(batch[name] for name in names), layer=layer, causal=causal)
        return similarity.pool(states, batch[features.SEGMENT_IDS], pooling)
