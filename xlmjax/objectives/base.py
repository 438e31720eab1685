"""What an objective is, needs of the vocabulary, and returns."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from xlmjax.languages import LANGUAGES
from xlmjax.ops.cross_entropy import SumWeight, TokenLosses
from xlmjax.registry import Registry


@dataclasses.dataclass(frozen=True, eq=False)
class Specials:
    """Facts of the vocabulary: special ids by name, its size, how often each token occurs."""

    pad: int
    eos: int
    mask: int
    size: int
    # By code of a language [size], 0 for special ids; `sample_alpha` and `min_count` need them.
    counts: Mapping[str, np.ndarray] | None = None
    word_starts: np.ndarray | None = None  # bool [size]: entries that begin a word


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossOutput:
    """Sum of the losses to differentiate, its weight, and metrics; all of it merges by `+`."""

    sum: Float[Array, ""]
    weight: Float[Array, ""]
    metrics: dict[str, SumWeight]

    def __add__(self, other: "LossOutput") -> "LossOutput":
        metrics = {name: value + other.metrics[name] for name, value in self.metrics.items()}
        return LossOutput(self.sum + other.sum, self.weight + other.weight, metrics)


class Objective(abc.ABC):
    """(model, clean batch, key, step) -> LossOutput, with the facts that a run is checked against.

    Subclasses are registered in `OBJECTIVES` and override the facts that are not as here.
    """

    reads: ClassVar[tuple[str, ...]] = ("text", "pair", "labelled")  # fields of data.layout
    layouts: ClassVar[tuple[str, ...]] = ("stream", "pack", "pad")  # of text
    whole: ClassVar[bool] = False  # does packed text have to be of whole sentences?
    decoder: ClassVar[bool | None] = None  # needs one, takes none, or does with either
    causal: ClassVar[bool] = False  # whether a position of its rows sees none after it

    @classmethod
    @abc.abstractmethod
    def from_config(
        cls, group: ConfigDict, specials: Specials, *, num_tasks: int = 1, z_loss: float = 0.0
    ) -> Self:
        """Return the objective of a group of `config.objectives`; a wrong field: ValueError."""

    @abc.abstractmethod
    def loss(
        self,
        model: Any,
        batch: Mapping[str, Int[Array, "..."]],
        key: Key[Array, ""],
        step: int | Int[Array, ""],
        deterministic: bool = False,
    ) -> LossOutput:
        """Return the loss of a clean batch (data/features.py); `deterministic`: no dropout."""

    def check_languages(  # noqa: B027 most take any
        self, codes: Sequence[str], known: Sequence[str]
    ) -> None:
        """Raise `ValueError` where data in these languages is none for the objective.

        `known`: languages that the model has an embedding of.
        """


class LanguageModel(Objective):
    """An objective that predicts tokens of plain rows, so that it has a perplexity."""

    def for_evaluation(self) -> Self:
        """Return the objective without what is random in training."""
        return self

    @abc.abstractmethod
    def predictable(self, segment_ids: Int[Array, "b l"]) -> Bool[Array, "b l"]:
        """Return which positions may be predicted."""


OBJECTIVES: Registry[type[Objective]] = Registry("objective")


def summarise(
    losses: TokenLosses,
    weights: Float[Array, "b k"],
    language_ids: Int[Array, "b k"],
    task_ids: Int[Array, "b"],
    *,
    num_tasks: int,
    z_loss: float = 0.0,
    added: Float[Array, "b k"] | None = None,
) -> LossOutput:
    """Return the loss of weighted predictions with the metrics "loss" and "accuracy".

    Both also come by language and by task, as "language/loss" and so on: vectors over the ids of
    the language table and over the batch's task ids. `z_loss` times the squared log normalizer
    (Chowdhery et al. 2022, section 5) is part of what is differentiated, not of the metrics, and so
    is what is `added` to the loss of each prediction.
    """
    tasks = jnp.broadcast_to(task_ids[:, None], weights.shape)
    metrics = {}
    for name, values in (("loss", losses.nll), ("accuracy", losses.correct.astype(jnp.float32))):
        metrics[name] = SumWeight((values * weights).sum(), weights.sum())
        metrics[f"language/{name}"] = by_id(values, weights, language_ids, len(LANGUAGES))
        metrics[f"task/{name}"] = by_id(values, weights, tasks, num_tasks)
    differentiated = losses.nll + z_loss * jnp.square(losses.log_normalizer)
    if added is not None:
        differentiated += added
    return LossOutput((differentiated * weights).sum(), weights.sum(), metrics)


def by_id(
    values: Float[Array, "*n"], weights: Float[Array, "*n"], ids: Int[Array, "*n"], size: int
) -> SumWeight:
    """Return the weighted sum of the values of each id in [0, size)."""
    values, weights, ids = (x.reshape(-1) for x in (values, weights, ids))
    members = jax.nn.one_hot(ids, size)
    columns = jnp.stack([values * weights, weights])
    # "highest": a TPU would otherwise round the values to bfloat16.
    return SumWeight(*jnp.einsum("cn,ni->ci", columns, members, precision="highest"))
