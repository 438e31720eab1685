"""Sentences to their translations with a trained checkpoint.

from xlmjax.translation import Translator
translator = Translator.load("mt", workdir="runs/mt")
translator.translate(["Guten Morgen."], "de", "en")  # ["Good morning."]
"""

import collections
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from xlmjax.evaluation.translation import one_line
from xlmjax.evaluation.translator import DecodingConfig, SentenceTranslator, check_direction
from xlmjax.experiment import Experiment, load_trained
from xlmjax.parallel.mesh import batch_divisor
from xlmjax.preparation.cleaning import Cleaning


class Scored(NamedTuple):
    """A translation; its score is the sum of log p, for a beam over length^length_penalty."""

    text: str
    score: float


class Translator:
    """A model that turns texts of a language into texts of another one.

    rows: sentences a batch, rounded up to what the devices divide; results do not depend on it.
    decoding: how translations are found, greedily by default.

    `counts` says how many sources so far were cut, and how many outputs were as long as they might
    be or empty; see evaluation.translator for the names.
    """

    def __init__(
        self,
        experiment: Experiment,
        model: Any,
        *,
        rows: int = 64,
        decoding: DecodingConfig | None = None,
    ):
        if rows < 1:
            raise ValueError(f"rows={rows} must be 1 or more")
        parts = batch_divisor(experiment.mesh)
        self._model, self._cfg = model, experiment.model
        self._vocabulary, self._mesh = experiment.vocabulary, experiment.mesh
        self._clean = Cleaning.from_config(experiment.config.data)
        self._translate = SentenceTranslator(
            experiment.mesh,
            experiment.strategy,
            experiment.vocabulary,
            experiment.model,
            rows=-(-rows // parts) * parts,
            decoding=decoding or DecodingConfig(),
        )

    @classmethod
    def load(
        cls, config: ConfigDict | str, workdir: epath.PathLike, step: int = -1, **options: Any
    ) -> "Translator":
        """Return the model of a checkpoint, as `experiment.load_trained` finds it.

        `options` are those of the class.
        """
        experiment, model = load_trained(config, workdir, step)
        return cls(experiment, model, **options)

    @property
    def counts(self) -> collections.Counter[str]:
        """What happened to the texts so far."""
        return self._translate.counts

    @property
    def num_shapes(self) -> int:
        """For how many lengths of sentences it was compiled so far."""
        return len(self._translate.shapes)

    def check(self, source: str, target: str) -> tuple[int, int]:
        """Return the ids of two languages; raises `ValueError` where the model lacks one."""
        return check_direction(self._cfg, source, target, f"from {source!r} to {target!r}")

    def translate(
        self, texts: Sequence[str], source: str, target: str, first_number: int = 1
    ) -> list[str]:
        """Return the best translation of each text, in their order; as `n_best` does."""
        return [best.text for best, *_ in self.n_best(texts, source, target, first_number)]

    def n_best(
        self, texts: Sequence[str], source: str, target: str, first_number: int = 1
    ) -> list[tuple[Scored, ...]]:
        """Return `decoding.n_best` translations of each text, best first; each is one line.

        A text that holds white space only has empty translations. A sample depends on the number of
        its text, counted from `first_number`, which errors name too. Raises `ValueError` on a
        language that the model does not have and, unless `decoding.over_limit` is "cut", on a text
        longer than its positions.
        """
        source_id, target_id = self.check(source, target)
        tokens = self._vocabulary.encode_batch([self._clean(text) for text in texts], source)
        source_ids, target_ids = (np.full(len(texts), index) for index in (source_id, target_id))
        with jax.set_mesh(self._mesh):
            found = self._translate(self._model, tokens, source_ids, target_ids, first_number)
        decode = self._vocabulary.decode
        return [tuple(Scored(one_line(decode(t)), score) for t, score in best) for best in found]
