"""Evaluators: what they measure, apart from when they run; importing this registers them all."""

from xlmjax.evaluation.base import EVALUATORS, Context, Scheduled, make_evaluators
from xlmjax.evaluation.perplexity import Perplexity

__all__ = ["EVALUATORS", "Context", "Perplexity", "Scheduled", "make_evaluators"]
