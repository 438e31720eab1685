"""Sentences to vectors with a trained checkpoint.

from xlmjax.embedding import Embedder
embedder = Embedder.load("wiki15", workdir="runs/wiki15")
vectors = embedder.embed(["Good morning.", "Bonjour."], ["en", "fr"])  # float32 [2, d]
"""

import collections
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float32
from ml_collections import ConfigDict

from xlmjax import languages
from xlmjax.data.layout import Delimiters
from xlmjax.data.sentences import DELIMITERS
from xlmjax.evaluation.sentence_encoder import SentenceEncoder, predicts_next
from xlmjax.experiment import Experiment, load_trained
from xlmjax.parallel.mesh import batch_divisor
from xlmjax.preparation.cleaning import Cleaning

EMPTY, TRUNCATED = "empty", "truncated"


class Embedder:
    """A model that turns texts into pooled states of a layer.

    layer: 0 the embeddings, n the states after the n-th layer, -1 those after the last.
    pooling: "mean" over all tokens and both delimiters, or "first", the state of the first
    delimiter, which classification reads.
    rows: sentences a batch, rounded up to what the devices divide; results do not depend on it.
    truncate: cut sentences longer than the model's positions, and count them, instead of raising.

    `counts` says how many texts so far were "empty" and "truncated".
    """

    def __init__(
        self,
        experiment: Experiment,
        model: Any,
        *,
        layer: int = -1,
        pooling: str = "mean",
        rows: int = 64,
        truncate: bool = False,
    ):
        cfg, vocabulary = experiment.model, experiment.vocabulary
        cfg.depth_of(layer)
        if rows < 1:
            raise ValueError(f"rows={rows} must be 1 or more")
        self.width = cfg.embed_dim
        self.counts: collections.Counter[str] = collections.Counter()
        self._model, self._cfg, self._vocabulary = model, cfg, vocabulary
        self._languages = tuple(experiment.config.data.languages)
        self._clean = Cleaning.from_config(experiment.config.data)
        self._limit = None if cfg.positions == "rope" else cfg.max_positions
        self._truncate = truncate
        self._mesh = experiment.mesh
        parts = batch_divisor(experiment.mesh)
        self._encode = SentenceEncoder(
            experiment.mesh,
            experiment.strategy,
            Delimiters.of(experiment.config.data, vocabulary),
            rows=-(-rows // parts) * parts,
            layer=layer,
            pooling=pooling,
            limit=self._limit,
            causal=predicts_next(experiment.config),
        )

    @classmethod
    def load(
        cls, config: ConfigDict | str, workdir: epath.PathLike, step: int = -1, **options: Any
    ) -> "Embedder":
        """Return the model of a checkpoint, as `experiment.load_trained` finds it.

        `options` are those of the class.
        """
        experiment, model = load_trained(config, workdir, step)
        return cls(experiment, model, **options)

    def embed(
        self, texts: Sequence[str], languages: Sequence[str] | str, first_number: int = 1
    ) -> Float32[np.ndarray, "n d"]:
        """Return a vector a text, in their order; zeros for one that holds white space only.

        `languages` is a code for all, or one a text (not looked at for an empty one). A vector
        depends on its text and language only. Raises `ValueError` on a language that the model
        does not have and, unless the embedder truncates, on a text longer than its positions; it
        numbers the texts from `first_number`.
        """
        codes = [languages] * len(texts) if isinstance(languages, str) else list(languages)
        if len(codes) != len(texts):
            raise ValueError(
                f"{len(texts)} texts and {len(codes)} languages: give one a text, or one for all"
            )
        clean = [self._clean(text) for text in texts]
        filled = [index for index, text in enumerate(clean) if text]
        tokens = self._vocabulary.encode_batch(
            [clean[index] for index in filled], [codes[index] for index in filled]
        )
        numbers = [first_number + index for index in filled]
        self.counts[EMPTY] += len(texts) - len(filled)
        tokens = [self._fit(ids, number) for ids, number in zip(tokens, numbers, strict=True)]
        language_ids = np.array(
            [self._language_id(codes[index], first_number + index) for index in filled], np.int32
        )
        vectors = np.zeros((len(texts), self.width), np.float32)
        if filled:
            with jax.set_mesh(self._mesh):
                vectors[filled] = self._encode(self._model, tokens, language_ids)
        return vectors

    def _fit(self, tokens: list[int], number: int) -> list[int]:
        if self._limit is None or len(tokens) + DELIMITERS <= self._limit:
            return tokens
        if not self._truncate:
            raise ValueError(
                f"sentence {number} has {len(tokens) + DELIMITERS} tokens, delimiters included, "
                f"more than model.max_positions={self._limit}; split it, or truncate"
            )
        self.counts[TRUNCATED] += 1
        return tokens[: self._limit - DELIMITERS]

    def _language_id(self, code: str, number: int) -> int:
        if self._cfg.adds_languages and code not in self._languages:
            raise ValueError(
                f"sentence {number}: language {code!r} is not one of the model's: "
                f"{', '.join(self._languages)}"
            )
        try:
            return languages.get(code).id
        except KeyError as error:
            raise ValueError(f"sentence {number}: {error.args[0]}") from None
