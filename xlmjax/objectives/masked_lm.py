"""Masked language modelling, and translation language modelling on pair rows."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from xlmjax import languages
from xlmjax.models.xlm import XLM
from xlmjax.objectives.base import OBJECTIVES, LossOutput, Specials, by_id
from xlmjax.ops import masking
from xlmjax.ops.cross_entropy import SumWeight
from xlmjax.ops.schedules import Schedule, piecewise


@OBJECTIVES.register("masked_lm")
@dataclasses.dataclass(frozen=True, eq=False)
class MaskedLanguageModel:
    """BERT-style masking of clean rows, on device (Devlin et al. 2019); on pair rows it is TLM."""

    specials: Specials
    rate: Schedule
    max_rate: float
    mask_keep_random: tuple[float, float, float]
    sample_alpha: float
    num_tasks: int = 1
    num_languages: int = len(languages.LANGUAGES)
    z_loss: float = 0.0

    @classmethod
    def from_config(
        cls,
        group: ConfigDict,
        specials: Specials,
        *,
        num_tasks: int = 1,
        z_loss: float = 0.0,
        corrupt: str = "train",
    ) -> "MaskedLanguageModel":
        """Return the objective of a group of `config.objectives`."""
        rate = piecewise(group.rate, "rate")
        shares = (1.0, 0.0, 0.0) if corrupt == "mask_only" else tuple(group.mask_keep_random)
        return cls(
            specials,
            rate,
            group.max_rate or rate.maximum,
            shares,
            group.sample_alpha,
            num_tasks=num_tasks,
            z_loss=z_loss,
        )

    def loss(
        self,
        model: XLM,
        batch: dict[str, Array],
        key: Key[Array, ""],
        step,
        deterministic: bool = False,
    ) -> LossOutput:
        """Return the loss of a clean batch; `deterministic` turns dropout off, not the masking."""
        tokens, row_ids = batch["tokens"], batch["row_ids"]
        key_mask, key_dropout = jax.random.split(key)
        masked = masking.mask_tokens(
            tokens,
            batch["segment_ids"],
            jax.vmap(functools.partial(jax.random.fold_in, key_mask))(row_ids),
            self.rate(step),
            slots=masking.num_targets(self.max_rate, tokens.shape[1]),
            mask_id=self.specials.mask,
            vocab_size=self.specials.size,
            mask_keep_random=self.mask_keep_random,
            weights=self._weights(),
        )
        hidden = model.encode(
            masked.inputs,
            batch["positions"],
            batch["segment_ids"],
            batch["language_ids"],
            key=None if deterministic else key_dropout,
            row_ids=row_ids,
        )
        hidden = jnp.take_along_axis(hidden, masked.picks[:, :, None], axis=1)
        nll, correct, log_normalizer = model.token_losses(hidden, masked.targets)
        weights = masked.weights
        optimised = nll + self.z_loss * jnp.square(log_normalizer) if self.z_loss else nll
        languages_ = jnp.take_along_axis(batch["language_ids"], masked.picks, axis=1)
        tasks = jnp.broadcast_to(batch["task_ids"][:, None], weights.shape)
        metrics = {}
        for name, values in (("loss", nll), ("accuracy", correct.astype(jnp.float32))):
            metrics[name] = SumWeight((values * weights).sum(), weights.sum())
            metrics[f"language/{name}"] = by_id(values, weights, languages_, self.num_languages)
            metrics[f"task/{name}"] = by_id(values, weights, tasks, self.num_tasks)
        return LossOutput((optimised * weights).sum(), weights.sum(), metrics)

    def _weights(self):
        if not self.sample_alpha:
            return None
        counts = self.specials.counts
        return jnp.asarray(
            np.where(counts > 0, np.maximum(counts, 1.0) ** -self.sample_alpha, 0.0), jnp.float32
        )
