"""Inference examples: one hypothesis, and for each label a premise that gives it that label.

The hypothesis is drawn first and meets all three labels, so the hypothesis alone says nothing about
the label; and premises of different labels are made of the same words as far as grammar allows.
"""

from collections.abc import Callable

from xlmjax.preparation import demo_meaning
from xlmjax.preparation.demo_meaning import Clause, Draw, Joined, Meaning

LABELS = ("entailment", "neutral", "contradiction")
Premises = tuple[Meaning, Meaning, Meaning]


def _negated(clause: Clause) -> Clause:
    return clause._replace(negative=not clause.negative)


def _reports(draw: Draw) -> tuple[Clause, Premises]:
    """What is known is so; what is thought or said may or may not be."""
    hypothesis = demo_meaning.action(draw, definite=True)._replace(fronted=False, modal="")
    if hypothesis.object and hypothesis.object.determiner not in demo_meaning.DEFINITE:
        hypothesis = hypothesis._replace(object=hypothesis.object._replace(determiner="the"))
    opinion = draw.pick(("think", "say"))
    turned = _negated(hypothesis) if draw.percent(50) else hypothesis
    return hypothesis, (
        demo_meaning.reported(draw, "know", hypothesis),
        demo_meaning.reported(draw, opinion, turned),
        demo_meaning.reported(draw, "know", _negated(hypothesis)),
    )


_FAMILIES: tuple[Callable[[Draw], tuple[Clause, Premises]], ...] = (_reports,)


def examples(draw: Draw) -> list[tuple[Meaning, Meaning, str]]:
    """Return (premise, hypothesis, label) for each of the three labels, in a random order."""
    hypothesis, premises = draw.pick(_FAMILIES)(draw)
    labelled = list(zip(premises, LABELS, strict=True))
    shuffled = [labelled.pop(draw.below(len(labelled))) for _ in LABELS]
    return [(premise, hypothesis, label) for premise, label in shuffled]


__all__ = ["LABELS", "Joined", "examples"]
