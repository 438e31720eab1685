"""Causal language modelling: every position predicts the next token of its segment."""

import dataclasses
from collections.abc import Mapping
from typing import Self

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key
from ml_collections import ConfigDict

from xlmjax.models.xlm import XLM
from xlmjax.objectives.base import OBJECTIVES, LanguageModel, LossOutput, Specials, summarise
from xlmjax.ops import masking


@OBJECTIVES.register("causal_lm")
@dataclasses.dataclass(frozen=True, eq=False)
class CausalLanguageModel(LanguageModel):
    """Position t predicts token t + 1 of the same segment, separators included.

    On pair rows the second sentence is predicted given the first; positions restart there in
    training as in evaluation (XLM trains on positions that run on, and evaluates on restarted
    ones). A prediction counts for the language of the token it predicts.
    """

    decoder = False
    causal = True

    num_tasks: int = 1
    z_loss: float = 0.0

    @classmethod
    def from_config(
        cls, group: ConfigDict, specials: Specials, *, num_tasks: int = 1, z_loss: float = 0.0
    ) -> Self:
        """Return the objective of a group of `config.objectives`; its mask fields do not apply."""
        del group, specials
        return cls(num_tasks, z_loss)

    def predictable(self, segment_ids: Int[Array, "b l"]) -> Bool[Array, "b l"]:
        """Return which positions are predicted: all but the first of each segment."""
        return masking.eligible(segment_ids)

    def loss(
        self,
        model: XLM,
        batch: Mapping[str, Int[Array, "..."]],
        key: Key[Array, ""],
        step: int | Int[Array, ""],
        deterministic: bool = False,
    ) -> LossOutput:
        """Return the loss of a batch; `deterministic` leaves out dropout."""
        del step
        tokens, segments = batch["tokens"], batch["segment_ids"]
        hidden = model.encode(
            tokens,
            batch["positions"],
            segments,
            batch["language_ids"],
            causal=self.causal,
            key=None if deterministic else key,
            row_ids=batch["row_ids"],
        )
        weights = self.predictable(segments)[:, 1:]
        return summarise(
            model.token_losses(hidden[:, :-1], tokens[:, 1:]),
            weights.astype(jnp.float32),
            batch["language_ids"][:, 1:],
            batch["task_ids"],
            num_tasks=self.num_tasks,
            z_loss=self.z_loss,
        )
