"""Objectives: (model, clean batch, key) -> LossOutput."""

from xlmjax.objectives.base import OBJECTIVES, LossOutput, Specials
from xlmjax.objectives.masked_lm import MaskedLanguageModel

__all__ = ["OBJECTIVES", "LossOutput", "MaskedLanguageModel", "Specials"]
