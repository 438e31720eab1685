"""Evaluators: what they measure, apart from when they run; importing this registers them all."""

from xlmjax.evaluation.base import (
    EVALUATORS,
    Context,
    Scheduled,
    StoppedError,
    Timing,
    evaluation_times,
    make_evaluators,
)
from xlmjax.evaluation.classification import ClassificationAccuracy
from xlmjax.evaluation.perplexity import Perplexity
from xlmjax.evaluation.retrieval import Retrieval
from xlmjax.evaluation.round_trip import RoundTrip
from xlmjax.evaluation.translation import Translation
from xlmjax.evaluation.word_translation import WordTranslation

__all__ = [
    "EVALUATORS",
    "ClassificationAccuracy",
    "Context",
    "Perplexity",
    "Retrieval",
    "RoundTrip",
    "Scheduled",
    "StoppedError",
    "Timing",
    "Translation",
    "WordTranslation",
    "evaluation_times",
    "make_evaluators",
]
