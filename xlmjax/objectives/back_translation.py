"""Online back-translation: a model learns from its own translations, with true text as target."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key
from ml_collections import ConfigDict

from xlmjax import languages
from xlmjax.models.generation import Generated, Source, generate
from xlmjax.models.seq2seq import EncoderDecoder, Text
from xlmjax.objectives.base import OBJECTIVES, LossOutput, Objective, Specials
from xlmjax.objectives.translation import TeacherForcing, text_of
from xlmjax.ops.rows import row_keys
from xlmjax.ops.sentences import put_together, take_apart

# XLM's limit of a translation: 1.3 times the tokens of the source, end symbols included, and 5.
RATIO, MORE = 1.3, 5


@OBJECTIVES.register("back_translation")
@dataclasses.dataclass(frozen=True, eq=False)
class BackTranslation(Objective):
    """Translate a sentence with the model as it is, then learn to translate that back.

    `steps` say from what over what: "en-de-en" translates English into German, without dropout and
    without a gradient, and trains German to English on it (specification 2.7; pitfall 19). A row
    holds whole sentences of one of the languages that steps begin with; where several steps begin
    with it, each sentence draws one of them. Sentences are translated apart, at most `sentences` a
    row and each of at most `sentence_length` tokens (0: of a row), and learned from as packed.

    With a `min_count` a translation is written in tokens that occur so often in the text of its
    language, as mBART's first ones are (Liu et al. 2020). A model that has learned to rebuild text
    copies words that it does not know; copied both ways they look right for ever.
    """

    reads = ("text",)
    layouts = ("pack", "pad")
    whole = True
    decoder = True

    specials: Specials
    forcing: TeacherForcing
    steps: tuple[str, ...]
    temperature: float = 0.0  # 0 takes the best word each time, as XLM does
    sentences: int = 1  # a row at most
    sentence_length: int = 0  # tokens of the longest, delimiters included; 0: those of a row
    min_count: int = 0  # 0: any token

    @classmethod
    def from_config(
        cls, group: ConfigDict, specials: Specials, *, num_tasks: int = 1, z_loss: float = 0.0
    ) -> Self:
        """Return the objective of a group of `config.objectives`."""
        forcing = TeacherForcing(group.label_smoothing, num_tasks, z_loss)
        return cls(
            specials,
            forcing,
            tuple(group.steps),
            group.temperature,
            group.sentences or 1,
            group.sentence_length,
            group.min_count,
        )

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
        if self.min_count < 0:
            raise ValueError(f"min_count={self.min_count}: give a number, 0 for any token")
        if self.min_count:
            self._check_counts(self.specials.counts or {})

    def _check_counts(self, counts: Mapping[str, np.ndarray]) -> None:
        for code in sorted({via for vias in self.languages.values() for via in vias}):
            if code not in counts:
                raise ValueError(
                    f"min_count={self.min_count}: steps={self.steps} write {code}, of which the "
                    "mixture has no text to count; add a task of it, or set min_count=0"
                )
            if counts[code].max() < self.min_count:
                raise ValueError(
                    f"min_count={self.min_count}: no token occurs so often in {code}, the most "
                    f"frequent {counts[code].max()} times; lower it"
                )

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
        """Return the loss of a clean batch of whole sentences; `deterministic`: no dropout."""
        del step
        key_translation, key_dropout = jax.random.split(key)
        source = self.translate(jax.lax.stop_gradient(model), batch, key_translation)
        return self.forcing.loss(
            model, source, text_of(batch), batch, None if deterministic else key_dropout
        )

    def translate(
        self, model: EncoderDecoder, batch: Mapping[str, Int[Array, "..."]], key: Key[Array, ""]
    ) -> Text:
        """Return translations of the sentences of a clean batch, row by row and in their order.

        Rows [b, l] become rows of at most 1.3 l + 5 for each sentence.
        """
        clean, sentences = text_of(batch), self.sentences
        row_length = clean.tokens.shape[1]
        longest, pad = self.sentence_length or row_length, self.specials.pad
        apart = functools.partial(
            take_apart, segment_ids=clean.segment_ids, sentences=sentences, longest=longest
        )
        inside = (apart(clean.segment_ids, filler=0) != 0).astype(jnp.int32)
        codes = jnp.repeat(clean.language_ids[:, 0], sentences)
        ids = (batch["row_ids"][:, None] * sentences + jnp.arange(sentences)).reshape(-1)
        key_step, key_words = jax.random.split(key)
        via = self._via(codes, key_step, ids)
        max_length = math.floor(RATIO * longest + MORE)
        table = model.cfg.longest_row
        if table is not None:
            max_length = min(max_length, table)
        # Enough for any translations of the sentences of a row.
        width = min(math.floor(RATIO * row_length + MORE * sentences), max_length * sentences)
        if table is not None and width > table:
            raise ValueError(
                f"translations of {sentences} sentences in rows of {row_length} tokens can take "
                f"{width}, more than model.max_positions={table}: lower length or sentences of the "
                'objective, or take model.positions="rope"'
            )
        limits = jnp.floor(RATIO * inside.sum(axis=1) + MORE).astype(jnp.int32)
        written: Generated = generate(
            model,
            Source(
                apart(clean.tokens, filler=pad),
                inside,
                jnp.broadcast_to(codes[:, None], inside.shape),
            ),
            via,
            jnp.minimum(limits, max_length),
            max_length=max_length,
            eos=self.specials.eos,
            pad=pad,
            temperature=self.temperature,
            key=key_words,
            row_ids=ids,
            words=self._words(via),
        )
        tokens, segment_ids, positions = put_together(
            written.tokens[:, 0],
            jnp.where(inside.any(axis=1), written.lengths[:, 0], 0),
            sentences,
            width,
            pad,
        )
        nth = jnp.maximum(segment_ids, 1) - 1
        return Text(
            tokens,
            positions,
            segment_ids,
            jnp.take_along_axis(via.reshape(-1, sentences), nth, axis=1),
        )

    def _words(self, via: Int[Array, "b"]) -> Bool[Array, "b v"] | None:
        """Return the tokens that a translation into each of these languages is written in."""
        counts = self.specials.counts
        if not self.min_count or counts is None:
            return None
        codes = sorted(counts)
        table = np.stack([counts[code] >= self.min_count for code in codes])
        table[:, self.specials.eos] = True
        number = np.zeros(len(languages.LANGUAGES), np.int32)
        number[[languages.get(code).id for code in codes]] = range(len(codes))
        return jnp.asarray(table)[jnp.asarray(number)[via]]

    def _via(
        self, language_ids: Int[Array, "b"], key: Key[Array, ""], row_ids: Int[Array, "b"]
    ) -> Int[Array, "b"]:
        """Return the language that each sentence is translated into."""
        choices = {languages.get(a).id: languages.ids(b) for a, b in self.languages.items()}
        table = np.zeros((len(languages.LANGUAGES), max(map(len, choices.values()))), np.int32)
        counts = np.ones(len(languages.LANGUAGES), np.int32)
        for code, vias in choices.items():
            table[code, : len(vias)] = vias
            counts[code] = len(vias)
        luck = jax.vmap(jax.random.uniform)(row_keys(key, row_ids))
        own = jnp.asarray(counts)[language_ids]
        return jnp.asarray(table)[language_ids, (luck * own).astype(jnp.int32)]
