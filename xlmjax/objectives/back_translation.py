"""Online back-translation: a model learns from its own translations, with true text as target."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key
from ml_collections import ConfigDict

from xlmjax import languages
from xlmjax.models.generation import Generated, Source, generate
from xlmjax.models.seq2seq import EncoderDecoder, Text
from xlmjax.objectives.base import OBJECTIVES, LossOutput, Objective, Specials
from xlmjax.objectives.translation import TeacherForcing, text_of
from xlmjax.ops.rows import row_keys

# XLM's limit of a translation: 1.3 times the tokens of the source, end symbols included, and 5.
RATIO, MORE = 1.3, 5


@OBJECTIVES.register("back_translation")
@dataclasses.dataclass(frozen=True, eq=False)
class BackTranslation(Objective):
    """Translate a sentence with the model as it is, then learn to translate that back.

    `steps` say from what over what: "en-de-en" translates English into German, without dropout and
    without a gradient, and trains German to English on it (specification 2.7; pitfall 19). A batch
    holds one sentence a row, in any of the languages that steps begin with; where several steps
    begin with its language, a row draws one of them.
    """

    reads = ("text",)
    layouts = ("pad",)  # it writes one translation a row
    decoder = True

    specials: Specials
    forcing: TeacherForcing
    steps: tuple[str, ...]
    temperature: float = 0.0  # 0 takes the best word each time, as XLM does

    @classmethod
    def from_config(
        cls, group: ConfigDict, specials: Specials, *, num_tasks: int = 1, z_loss: float = 0.0
    ) -> Self:
        """Return the objective of a group of `config.objectives`."""
        forcing = TeacherForcing(group.label_smoothing, num_tasks, z_loss)
        return cls(specials, forcing, tuple(group.steps), group.temperature)

    def __post_init__(self):
        if not self.steps or len(set(self.steps)) < len(self.steps):
            raise ValueError(f"steps={self.steps}: name one or more, each once, like 'en-de-en'")
        for step in self.steps:
            codes = step.split("-")
            if len(codes) != 3 or codes[0] != codes[2] or codes[0] == codes[1]:
                raise ValueError(f"steps: {step!r} is not like 'en-de-en', there and back")
            for code in codes:
                try:
                    languages.get(code)
                except KeyError as error:
                    raise ValueError(f"steps: {step!r}: {error.args[0]}") from None
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature}: give a number, 0 for the best word")

    @property
    def languages(self) -> dict[str, list[str]]:
        """Codes of the languages that steps begin with, and of those that each goes over."""
        found: dict[str, list[str]] = {}
        for step in self.steps:
            code, via, _ = step.split("-")
            found.setdefault(code, []).append(via)
        return found

    def check_languages(self, codes: Sequence[str], known: Sequence[str]) -> None:
        """Raise `ValueError` unless each language of the data begins a step, and `known` has all.

        `known`: languages that the model has an embedding of.
        """
        foreign = sorted({code for step in self.steps for code in step.split("-")} - {*known})
        if foreign:
            raise ValueError(
                f"steps={self.steps}: {', '.join(foreign)} has no embedding in the model; it has "
                f"data.languages: {', '.join(known)}"
            )
        missing = sorted({*codes} - {*self.languages})
        if missing:
            raise ValueError(
                f"steps={self.steps} has none that begins with {', '.join(missing)}, a language "
                "of its mixture: add one, or leave the language out of the mixture"
            )

    def loss(
        self,
        model: EncoderDecoder,
        batch: Mapping[str, Int[Array, "..."]],
        key: Key[Array, ""],
        step: int | Int[Array, ""],
        deterministic: bool = False,
    ) -> LossOutput:
        """Return the loss of a clean batch, one sentence a row; `deterministic`: no dropout."""
        del step
        key_translation, key_dropout = jax.random.split(key)
        source = self.translate(jax.lax.stop_gradient(model), batch, key_translation)
        return self.forcing.loss(
            model, source, text_of(batch), batch, None if deterministic else key_dropout
        )

    def translate(
        self, model: EncoderDecoder, batch: Mapping[str, Int[Array, "..."]], key: Key[Array, ""]
    ) -> Text:
        """Return translations of the rows of a clean batch, [b, 1.3 l + 5], one a row."""
        clean, row_ids = text_of(batch), batch["row_ids"]
        key_step, key_words = jax.random.split(key)
        via = self._via(clean.language_ids[:, 0], key_step, row_ids)
        longest = math.floor(RATIO * clean.tokens.shape[1] + MORE)
        if model.cfg.longest_row is not None:
            longest = min(longest, model.cfg.longest_row)
        lengths = (clean.segment_ids != 0).sum(axis=1)
        limits = jnp.minimum(jnp.floor(RATIO * lengths + MORE).astype(jnp.int32), longest)
        written: Generated = generate(
            model,
            Source(clean.tokens, clean.segment_ids, clean.language_ids),
            via,
            limits,
            max_length=longest,
            eos=self.specials.eos,
            pad=self.specials.pad,
            temperature=self.temperature,
            key=key_words,
            row_ids=row_ids,
        )
        tokens = written.tokens[:, 0]
        positions = jnp.broadcast_to(jnp.arange(longest), tokens.shape)
        inside = (positions < written.lengths).astype(jnp.int32)
        return Text(tokens, positions, inside, jnp.broadcast_to(via[:, None], tokens.shape))

    def _via(
        self, language_ids: Int[Array, "b"], key: Key[Array, ""], row_ids: Int[Array, "b"]
    ) -> Int[Array, "b"]:
        """Return the language that each row is translated into."""
        choices = {languages.get(a).id: languages.ids(b) for a, b in self.languages.items()}
        table = np.zeros((len(languages.LANGUAGES), max(map(len, choices.values()))), np.int32)
        counts = np.ones(len(languages.LANGUAGES), np.int32)
        for code, vias in choices.items():
            table[code, : len(vias)] = vias
            counts[code] = len(vias)
        luck = jax.vmap(jax.random.uniform)(row_keys(key, row_ids))
        own = jnp.asarray(counts)[language_ids]
        return jnp.asarray(table)[language_ids, (luck * own).astype(jnp.int32)]
