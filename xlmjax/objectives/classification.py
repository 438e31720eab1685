"""Classification of texts and pairs: one label an example, several examples a row."""

import dataclasses
from collections.abc import Mapping
from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from xlmjax.models.xlm import XLM
from xlmjax.objectives.base import OBJECTIVES, LossOutput, Objective, Specials, summarise
from xlmjax.ops.cross_entropy import TokenLosses

SHORTEST = 3  # tokens of the shortest example: `</s> x </s>`


@OBJECTIVES.register("classification")
@dataclasses.dataclass(frozen=True, eq=False)
class Classification(Objective):
    """Cross entropy of the label of each example (Lample & Conneau 2019, section 5.1).

    An example is a segment of a row; its label stands at its first token. A prediction counts for
    the language of that token.
    """

    reads = ("labelled",)
    decoder = False

    labels: tuple[str, ...]  # names, in the order of their ids
    num_tasks: int = 1

    @classmethod
    def from_config(
        cls, group: ConfigDict, specials: Specials, *, num_tasks: int = 1, z_loss: float = 0.0
    ) -> Self:
        """Return the objective of a group of `config.objectives`; its mask fields do not apply."""
        del specials, z_loss
        return cls(tuple(group.labels), num_tasks)

    def __post_init__(self):
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels={self.labels}: name two labels or more, each once")

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
        picks, labels = examples(batch["labels"])
        scores = model.classify(
            batch["tokens"],
            batch["positions"],
            batch["segment_ids"],
            batch["language_ids"],
            picks,
            key=None if deterministic else key,
            row_ids=batch["row_ids"],
        )
        return summarise(
            label_losses(scores, labels),
            (labels >= 0).astype(jnp.float32),
            jnp.take_along_axis(batch["language_ids"], picks, axis=1),
            batch["task_ids"],
            num_tasks=self.num_tasks,
        )


def examples(labels: Int[Array, "b l"]) -> tuple[Int[Array, "b k"], Int[Array, "b k"]]:
    """Return where the examples of each row begin, and their labels; -1 where there is none.

    `labels` are -1 but at the first token of an example. K is as many examples as a row can hold.
    """
    slots = labels.shape[1] // SHORTEST
    picks = jnp.argsort(labels < 0, axis=1, stable=True)[:, :slots]
    return picks, jnp.take_along_axis(labels, picks, axis=1)


def label_losses(scores: Float[Array, "b k n"], labels: Int[Array, "b k"]) -> TokenLosses:
    """Return the losses of label scores; those of label -1 are of no meaning."""
    normalizer = jax.nn.logsumexp(scores, axis=-1)
    own = jnp.take_along_axis(scores, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    return TokenLosses(normalizer - own, own >= scores.max(axis=-1), normalizer)
