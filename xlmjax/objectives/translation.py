"""Translation: the decoder predicts the target of each source, word by word."""

import dataclasses
from collections.abc import Mapping
from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key
from ml_collections import ConfigDict

from xlmjax.models.seq2seq import EncoderDecoder, Text
from xlmjax.objectives.base import OBJECTIVES, LossOutput, Objective, Specials, summarise
from xlmjax.ops import masking


@dataclasses.dataclass(frozen=True)
class TeacherForcing:
    """Cross entropy of targets given sources (specification 2.6).

    Position t of a target sentence predicts token t + 1, the end symbol included; the start symbol
    is the end symbol. `label_smoothing` gives that share of the probability to all words alike
    (Szegedy et al. 2016, section 7); metrics are without it. A prediction counts for the language
    of the target.
    """

    label_smoothing: float = 0.0
    num_tasks: int = 1
    z_loss: float = 0.0

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing}: give a share in [0, 1)")

    def loss(
        self,
        model: EncoderDecoder,
        source: Text,
        target: Text,
        batch: Mapping[str, Int[Array, "b"]],
        key: Key[Array, ""] | None,
    ) -> LossOutput:
        """Return the loss of segment k of the target rows given segment k of the source rows.

        `batch` gives row and task ids. Without a `key` there is no dropout.
        """
        row_ids = batch["row_ids"]
        keys = (None, None) if key is None else jax.random.split(key)
        memory = model.read(source, key=keys[0], row_ids=row_ids)
        hidden = model.decode(target, memory, key=keys[1], row_ids=row_ids)[:, :-1]
        losses = model.target_losses(hidden, target.tokens[:, 1:])
        smoothed = None
        if self.label_smoothing:
            over_all = losses.log_normalizer - model.mean_logits(hidden)
            smoothed = self.label_smoothing * (over_all - losses.nll)
        return summarise(
            losses,
            masking.eligible(target.segment_ids)[:, 1:].astype(jnp.float32),
            target.language_ids[:, 1:],
            batch["task_ids"],
            num_tasks=self.num_tasks,
            z_loss=self.z_loss,
            added=smoothed,
        )


@OBJECTIVES.register("translation")
@dataclasses.dataclass(frozen=True, eq=False)
class Translation(Objective):
    """Supervised translation of the pairs of `mt.SRC_TGT`."""

    reads = ("translation",)
    decoder = True

    forcing: TeacherForcing

    @classmethod
    def from_config(
        cls, group: ConfigDict, specials: Specials, *, num_tasks: int = 1, z_loss: float = 0.0
    ) -> Self:
        """Return the objective of a group of `config.objectives`."""
        del specials
        return cls(TeacherForcing(group.label_smoothing, num_tasks, z_loss))

    def loss(
        self,
        model: EncoderDecoder,
        batch: Mapping[str, Int[Array, "..."]],
        key: Key[Array, ""],
        step: int | Int[Array, ""],
        deterministic: bool = False,
    ) -> LossOutput:
        """Return the loss of a batch of pairs; `deterministic` leaves out dropout."""
        del step
        source, target = text_of(batch), text_of(batch, "target_")
        return self.forcing.loss(model, source, target, batch, None if deterministic else key)


def text_of(batch: Mapping[str, Int[Array, "b l"]], prefix: str = "") -> Text:
    """Return the source rows of a batch, or the target rows for the prefix "target_"."""
    return Text(*(batch[prefix + name] for name in Text._fields))
