"""Translation quality without parallel text: there and back again, compared with the start.

The unsupervised criterion of Lample et al. (2018), by which XLM selects its unsupervised models:
BLEU between a sentence and its translation into another language and back. Both directions can
fail together unseen, for instance by copying, so it ranks models of one run, not runs.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from xlmjax.data import features
from xlmjax.data.batches import spaced
from xlmjax.data.mixture import resolve_names
from xlmjax.evaluation.base import EVALUATORS, Context
from xlmjax.evaluation.bleu import CorpusScorer
from xlmjax.evaluation.translation import (
    as_lines,
    averages,
    best_texts,
    make_translator,
    open_store,
)
from xlmjax.evaluation.translator import check_direction


@dataclasses.dataclass(frozen=True)
class Text:
    """Sentences of one language."""

    task: str
    tokens: list[Int[np.ndarray, "_"]]
    texts: list[str]  # as the vocabulary spells them
    scorer: CorpusScorer


@EVALUATORS.register("round_trip")
class RoundTrip:
    """BLEU and chrF of sentences against their way through other languages back to their own."""

    def __init__(self, name: str, fields: ConfigDict, context: Context):
        where = f"evals.{name}"
        self._vocabulary = context.vocabulary
        self._translate = make_translator(fields, context, where)
        self._steps = {steps: _legs(steps, context, f"{where}.steps") for steps in fields.steps}
        if not self._steps:
            raise ValueError(f'{where}.steps is empty: name round trips like "en-de-en"')
        self._texts: dict[str, Text] = {}
        for task in resolve_names(context.config.data, fields.tasks):
            self._open(task, fields, context, where)
        for steps in self._steps:
            if _start(steps) not in self._texts:
                raise ValueError(
                    f"{where}.steps: {steps!r} begins in {_start(steps)!r}, and {where}.tasks="
                    f"{tuple(fields.tasks)} holds no text of it; add such a task"
                )
        self.files: Mapping[str, str] = {}
        self.details: Mapping[str, Any] = {}
        self.protocol: Mapping[str, Any] = {
            "evaluator": "round_trip",
            "split": fields.split,
            "decoding": self._translate.decoding.facts,
            "vocabulary": context.vocabulary.fingerprint,
            "max_lines": fields.max_lines,
            "reference": "the sentence as the vocabulary spells it",
            "tasks": {steps: self._texts[_start(steps)].task for steps in self._steps},
            "lines": {steps: len(self._texts[_start(steps)].tokens) for steps in self._steps},
            "signatures": {
                steps: self._texts[_start(steps)].scorer.signatures for steps in self._steps
            },
        }

    def evaluate(self, model: Any) -> Iterator[tuple[str, float]]:
        """Yield `<steps>/bleu`, `<steps>/chrf` and their means over the round trips.

        `files` then hold the sentences and where each leg took them.
        """
        files: dict[str, str] = {}
        counts: dict[str, dict[str, int]] = {}
        found = []
        for steps, legs in self._steps.items():
            text = self._texts[_start(steps)]
            tokens: Sequence[Any] = text.tokens
            files[f"{steps}.0.txt"] = as_lines(text.texts)
            self._translate.counts.clear()
            for number, direction in enumerate(legs, 1):
                source, target = (np.full(len(tokens), index) for index in direction)
                results = self._translate(model, tokens, source, target)
                tokens = [best.tokens for best, *_ in results]
                hypotheses = best_texts(self._vocabulary, results)
                files[f"{steps}.{number}.txt"] = as_lines(hypotheses)
            counts[steps] = dict(self._translate.counts)
            scores = text.scorer.score(hypotheses)
            found.append(scores)
            yield from ((f"{steps}/{metric}", value) for metric, value in scores.items())
        self.files = files
        self.details = {"counts": counts, "compiled_shapes": len(self._translate.shapes)}
        yield from averages(found)

    def _open(self, task: str, fields: ConfigDict, context: Context, where: str) -> None:
        store = open_store(task, fields.split, context)
        if store.manifest.kind != "text":
            raise ValueError(
                f"{where}.tasks: {task!r} holds {store.manifest.kind}, not text; name tasks like "
                "ae.LANG or mlm.LANG"
            )
        code = store.language(features.TOKENS)
        if code in self._texts:
            raise ValueError(
                f"{where}.tasks: {self._texts[code].task!r} and {task!r} are both in {code!r}; "
                "name one task a language"
            )
        chosen = spaced(len(store), fields.max_lines).tolist()
        tokens = [store.read(features.TOKENS, index) for index in chosen]
        texts = [context.vocabulary.decode(ids.tolist()) for ids in tokens]
        scorer = CorpusScorer(texts, code, lowercase=fields.lowercase, where=where)
        self._texts[code] = Text(task, tokens, texts, scorer)


def _start(steps: str) -> str:
    return steps.partition("-")[0]


def _legs(steps: str, context: Context, where: str) -> list[tuple[int, int]]:
    """Return the directions of "A-B-A" in language ids."""
    codes = steps.split("-")
    if len(codes) < 3 or codes[0] != codes[-1]:
        raise ValueError(f'{where}: {steps!r} is no way there and back; write it like "en-de-en"')
    return [check_direction(context.model, a, b, where) for a, b in itertools.pairwise(codes)]
