"""Objectives: (model, clean batch, key, step) -> LossOutput."""

from xlmjax.objectives.base import OBJECTIVES, LossOutput, Specials
from xlmjax.objectives.causal_lm import CausalLanguageModel
from xlmjax.objectives.classification import Classification
from xlmjax.objectives.masked_lm import MaskedLanguageModel

__all__ = [
    "OBJECTIVES",
    "CausalLanguageModel",
    "Classification",
    "LossOutput",
    "MaskedLanguageModel",
    "Specials",
]
