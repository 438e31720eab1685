"""Masked language modelling on text rows; on pair rows it is translation language modelling."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from xlmjax.models.xlm import XLM
from xlmjax.objectives.base import OBJECTIVES, LanguageModel, LossOutput, Specials, summarise
from xlmjax.ops import masking
from xlmjax.ops.schedules import Schedule, piecewise


@OBJECTIVES.register("masked_lm")
@dataclasses.dataclass(frozen=True, eq=False)
class MaskedLanguageModel(LanguageModel):
    """Predict tokens that were masked on device (Devlin et al. 2019; Lample & Conneau 2019).

    Translation language modelling is this on rows that hold a sentence and its translation: the
    layout makes the row, the loss is the same.

    In evaluation (`corrupt="mask_only"`) every target becomes the mask token, the last position
    of a segment is spared as well as the first, and each row has a target, as in XLM; give the
    same key at every step, and the masks are the same.
    """

    specials: Specials
    rate: Schedule  # of the eligible tokens, over the steps
    max_rate: float = 0.0  # sets the number of target slots; 0 means the largest rate
    mask_keep_random: tuple[float, float, float] = (0.8, 0.1, 0.1)
    sample_alpha: float = 0.0  # choose targets in proportion to count^-alpha
    num_tasks: int = 1
    z_loss: float = 0.0
    corrupt: Literal["train", "mask_only"] = "train"

    @classmethod
    def from_config(
        cls,
        group: ConfigDict,
        specials: Specials,
        *,
        num_tasks: int = 1,
        z_loss: float = 0.0,
        corrupt: Literal["train", "mask_only"] = "train",
    ) -> Self:
        """Return the objective of a group of `config.objectives`."""
        return cls(
            specials,
            piecewise(group.rate, "rate"),
            group.max_rate,
            tuple(group.mask_keep_random),
            group.sample_alpha,
            num_tasks,
            z_loss,
            corrupt,
        )

    def __post_init__(self):
        if not self.max_rate:
            object.__setattr__(self, "max_rate", self.rate.maximum)
        if not 0 <= self.rate.minimum <= self.rate.maximum <= self.max_rate < 1:
            raise ValueError(
                f"rate={self.rate.points} and max_rate={self.max_rate}: rates lie in [0, 1), and "
                f"max_rate bounds them all; set it to 0 to take the largest"
            )
        shares = self.mask_keep_random
        if len(shares) != 3 or min(shares) < 0 or not np.isclose(sum(shares), 1):
            raise ValueError(f"mask_keep_random={shares}: give three shares that sum to 1")
        if not 0 <= self.sample_alpha < 1:
            raise ValueError(f"sample_alpha={self.sample_alpha}: give a number in [0, 1)")
        if self.sample_alpha and self.specials.counts is None:
            raise ValueError(
                f"sample_alpha={self.sample_alpha} needs the counts of the tokens, which this "
                f"vocabulary comes without; set it to 0"
            )

    def for_evaluation(self) -> Self:
        """Return the same objective with the corruption of evaluation."""
        return dataclasses.replace(self, corrupt="mask_only")

    def loss(
        self,
        model: XLM,
        batch: Mapping[str, Int[Array, "..."]],
        key: Key[Array, ""],
        step: int | Int[Array, ""],
        deterministic: bool = False,
    ) -> LossOutput:
        """Return the loss of a clean batch; `deterministic` leaves out dropout, not the masks."""
        key_mask, key_dropout = jax.random.split(key)
        masked = self.mask(batch, key_mask, step)
        # Only where there is a target: the vocabulary projection is the largest product of all,
        # and of the last layer the other positions need keys and values alone.
        hidden = model.encode(
            masked.inputs,
            batch["positions"],
            batch["segment_ids"],
            batch["language_ids"],
            picks=masked.picks,
            key=None if deterministic else key_dropout,
            row_ids=batch["row_ids"],
        )
        losses = model.token_losses(hidden, masked.targets)
        languages = jnp.take_along_axis(batch["language_ids"], masked.picks, axis=1)
        return summarise(
            losses,
            masked.weights,
            languages,
            batch["task_ids"],
            num_tasks=self.num_tasks,
            z_loss=self.z_loss,
        )

    def predictable(self, segment_ids: Int[Array, "b l"]) -> Bool[Array, "b l"]:
        """Return which positions may be targets."""
        return masking.eligible(segment_ids, spare_last=self.corrupt == "mask_only")

    def mask(
        self,
        batch: Mapping[str, Int[Array, "..."]],
        key: Key[Array, ""],
        step: int | Int[Array, ""],
    ) -> masking.Masked:
        """Return the corrupted rows of a clean batch and their targets."""
        evaluates = self.corrupt == "mask_only"
        mask, keep, _ = (1.0, 0.0, 0.0) if evaluates else self.mask_keep_random
        return masking.mask_tokens(
            batch["tokens"],
            self.predictable(batch["segment_ids"]),
            key,
            batch["row_ids"],
            self.rate(step),
            masking.Corruption(self.specials.mask, self.specials.size, mask, keep),
            slots=masking.num_slots(self.max_rate, batch["tokens"].shape[1]),
            at_least=1 if evaluates else 0,
            token_weights=self._token_weights(),
        )

    def _token_weights(self) -> Float[Array, "v"] | None:
        if not self.sample_alpha or self.specials.counts is None:
            return None
        counts = sum(self.specials.counts.values(), np.zeros(self.specials.size))
        weights = np.maximum(counts, 1.0) ** -self.sample_alpha
        return jnp.asarray(np.where(counts > 0, weights, 0.0), jnp.float32)
