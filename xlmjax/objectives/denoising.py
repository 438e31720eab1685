"""Denoising auto-encoding: the decoder recovers a sentence that the encoder sees with noise."""

import dataclasses
from collections.abc import Mapping
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key
from ml_collections import ConfigDict

from xlmjax.models.seq2seq import EncoderDecoder, Text
from xlmjax.objectives.base import OBJECTIVES, LossOutput, Objective, Specials
from xlmjax.objectives.translation import TeacherForcing, text_of
from xlmjax.ops.noising import Noise, add_noise


@OBJECTIVES.register("denoising")
@dataclasses.dataclass(frozen=True, eq=False)
class Denoising(Objective):
    """Rebuild the sentences of `ae.LANG` from noised ones (specification 2.5; pitfall 13)."""

    reads = ("text",)
    layouts = ("pack", "pad")  # of sentences
    decoder = True

    specials: Specials
    forcing: TeacherForcing
    noise: Noise
    whole_words: bool = False  # pieces of a word share its fate; XLM treats each piece as a word

    @classmethod
    def from_config(
        cls, group: ConfigDict, specials: Specials, *, num_tasks: int = 1, z_loss: float = 0.0
    ) -> Self:
        """Return the objective of a group of `config.objectives`."""
        return cls(
            specials,
            TeacherForcing(group.label_smoothing, num_tasks, z_loss),
            Noise(group.shuffle, group.drop, group.blank),
            group.whole_words,
        )

    def __post_init__(self):
        if self.noise.shuffle < 0:
            raise ValueError(f"shuffle={self.noise.shuffle}: give a distance, 0 for none")
        for field in ("drop", "blank"):
            if not 0 <= getattr(self.noise, field) < 1:
                raise ValueError(f"{field}={getattr(self.noise, field)}: give a share in [0, 1)")
        if self.whole_words and self.specials.word_starts is None:
            raise ValueError("whole_words needs a vocabulary that marks where words begin")

    def loss(
        self,
        model: EncoderDecoder,
        batch: Mapping[str, Int[Array, "..."]],
        key: Key[Array, ""],
        step: int | Int[Array, ""],
        deterministic: bool = False,
    ) -> LossOutput:
        """Return the loss of a clean batch; `deterministic` leaves out dropout, not the noise."""
        del step
        key_noise, key_dropout = jax.random.split(key)
        target = text_of(batch)
        noised = add_noise(
            target.tokens,
            target.segment_ids,
            key_noise,
            batch["row_ids"],
            self.noise,
            mask_id=self.specials.mask,
            pad_id=self.specials.pad,
            word_starts=self._word_starts(),
        )
        source = Text(*noised, target.language_ids)
        return self.forcing.loss(
            model, source, target, batch, None if deterministic else key_dropout
        )

    def _word_starts(self) -> Array | None:
        starts = self.specials.word_starts
        return jnp.asarray(np.asarray(starts)) if self.whole_words else None
