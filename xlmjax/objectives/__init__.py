"""Objectives: (model, clean batch, key, step) -> LossOutput."""

from xlmjax.objectives.back_translation import BackTranslation
from xlmjax.objectives.base import OBJECTIVES, LanguageModel, LossOutput, Objective, Specials
from xlmjax.objectives.causal_lm import CausalLanguageModel
from xlmjax.objectives.classification import Classification
from xlmjax.objectives.denoising import Denoising
from xlmjax.objectives.masked_lm import MaskedLanguageModel
from xlmjax.objectives.translation import Translation

__all__ = [
    "OBJECTIVES",
    "BackTranslation",
    "CausalLanguageModel",
    "Classification",
    "Denoising",
    "LanguageModel",
    "LossOutput",
    "MaskedLanguageModel",
    "Objective",
    "Specials",
    "Translation",
]
