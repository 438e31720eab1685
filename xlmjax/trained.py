"""What a run has made, for use in a notebook: `xlmjax.load(workdir)`.

model = xlmjax.load("runs/mine")
model.embed(["Good morning.", "Bonjour."], ["en", "fr"])  # float32 [2, d]
model.fill_mask("Paris is the <mask> of France.", "en")
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, Float32, Int

from xlmjax import languages
from xlmjax.configuration import load_config
from xlmjax.data.layout import Delimiters
from xlmjax.data.vocabulary import MASK
from xlmjax.embedding import Embedder
from xlmjax.evaluation.sentence_encoder import predicts_next
from xlmjax.experiment import load_trained
from xlmjax.models.xlm import XLM
from xlmjax.parallel.mesh import batch_divisor
from xlmjax.parallel.partition import use_rules
from xlmjax.preparation.cleaning import Cleaning
from xlmjax.translation import Translator


class Guess(NamedTuple):
    """A piece of the vocabulary in the place of a mask."""

    piece: str
    probability: float


class Trained:
    """The model of a checkpoint with the vocabulary, languages and cleaning of its run.

    `step` < 0 is the latest; `overrides` are those of the command line, "--config.x.y=z". Raises
    `ValueError` or `OSError` naming what is missing or does not fit.
    """

    def __init__(self, workdir: epath.PathLike, step: int = -1, overrides: Sequence[str] = ()):
        config = load_config(str(epath.Path(workdir) / "config.json"), overrides)
        self.experiment, self.model = load_trained(config, workdir, step)

    def embed(
        self, texts: Sequence[str], languages: Sequence[str] | str
    ) -> Float32[np.ndarray, "n d"]:
        """Return the mean of the last states of each text; see `embedding.Embedder.embed`."""
        _check_texts(texts)
        return self._embedder.embed(texts, languages)

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """Return the greedy translation of each text; see `translation.Translator.translate`.

        Raises `ValueError` where the model has no decoder.
        """
        _check_texts(texts)
        return self._translator.translate(texts, source, target)

    def fill_mask(self, text: str, language: str, top: int = 5) -> list[tuple[Guess, ...]]:
        """Return, for each `<mask>` in a text, the `top` likeliest pieces, likeliest first.

        A mask stands for one piece of the vocabulary, special ones left out. Raises `ValueError` on
        a text without one or longer than the model's positions, a language that the model does not
        have, and a model with a decoder or one that predicts the next word.
        """
        experiment = self.experiment
        vocabulary, cfg = experiment.vocabulary, experiment.model
        if not isinstance(self.model, XLM):
            raise ValueError("fill_mask is for encoders: this model has a decoder, use translate")
        if predicts_next(experiment.config):
            raise ValueError(
                "fill_mask is for models that were trained with masks: this one predicts the next "
                "word from those before it"
            )
        if cfg.adds_languages and language not in experiment.config.data.languages:
            known = ", ".join(experiment.config.data.languages)
            raise ValueError(f"language={language!r} is not one of the model's: {known}")
        parts = text.split(MASK)
        if len(parts) == 1:
            raise ValueError(f"text={text!r}: write {MASK} where a piece is to be filled in")
        clean = Cleaning.from_config(experiment.config.data)
        delimiters = Delimiters.of(experiment.config.data, vocabulary)
        tokens = [delimiters.start]
        for number, ids in enumerate(vocabulary.encode_batch(list(map(clean, parts)), language)):
            tokens += ([vocabulary.mask] if number else []) + ids
        tokens.append(delimiters.eos)
        cfg.check_length(len(tokens))
        try:
            language_id = languages.get(language).id
        except KeyError as error:
            raise ValueError(f"language={language!r}: {error.args[0]}") from None
        # The same row for every device that takes a part of a batch.
        rows = np.tile(np.array(tokens, np.int32), (batch_divisor(experiment.mesh), 1))
        picks = np.tile(np.flatnonzero(rows[0] == vocabulary.mask), (len(rows), 1))
        with jax.set_mesh(experiment.mesh), use_rules(experiment.strategy):
            probabilities = np.array(_probabilities(self.model, rows, picks, language_id))
        probabilities[:, list(vocabulary.special_ids)] = 0
        return [
            tuple(
                Guess(vocabulary.pieces[index], float(of_mask[index]))
                for index in np.argsort(-of_mask)[:top]
            )
            for of_mask in probabilities
        ]

    @functools.cached_property
    def _embedder(self) -> Embedder:
        return Embedder(self.experiment, self.model)

    @functools.cached_property
    def _translator(self) -> Translator:
        return Translator(self.experiment, self.model)


def _check_texts(texts: Sequence[str]) -> None:
    """Raise `ValueError` on a text alone, which would be taken for a list of characters."""
    if isinstance(texts, str):
        raise ValueError(f"texts={texts!r}: give a list of texts, [{texts!r}]")


@jax.jit
def _probabilities(
    model: XLM, tokens: Int[Array, "b l"], picks: Int[Array, "b k"], language_id: int
) -> Float[Array, "k v"]:
    """Return the distribution of each mask of the first row, in float32."""
    states = model.encode(
        tokens,
        jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape),
        jnp.ones_like(tokens),
        jnp.full_like(tokens, language_id),
        picks=picks,
    )
    return jax.nn.softmax(model.logits(states[0]))
