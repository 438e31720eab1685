"""Translation quality on held-out parallel text: SacreBLEU and chrF of every direction.

Every example once, decoded on its own, so that the result is the same on any number of devices and
with any number of rows a batch. References are the lines of the corpus as they stood there, not
what the vocabulary makes of them.
"""

import dataclasses
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from xlmjax.data import features
from xlmjax.data.batches import spaced
from xlmjax.data.mixture import resolve_names
from xlmjax.data.store import TokenStore
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.evaluation.base import EVALUATORS, Context
from xlmjax.evaluation.bleu import CorpusScorer
from xlmjax.evaluation.translator import (
    DecodingConfig,
    Hypothesis,
    SentenceTranslator,
    check_direction,
)
from xlmjax.parallel.mesh import check_rows

KIND = "translation"  # of stores


@dataclasses.dataclass(frozen=True)
class Lines:
    """The examples of one task that are translated."""

    name: str
    directions: tuple[int, int]  # language ids
    tokens: list[Int[np.ndarray, "_"]]
    sources: list[str]
    references: list[str]
    scorer: CorpusScorer


@EVALUATORS.register("translation")
class Translation:
    """Corpus BLEU and chrF of each task `mt.SRC_TGT`, and their means over the tasks."""

    def __init__(self, name: str, fields: ConfigDict, context: Context):
        where = f"evals.{name}"
        self._vocabulary = context.vocabulary
        self._translate = make_translator(fields, context, where)
        self._tasks = [
            self._open(task, fields, context, where)
            for task in resolve_names(context.config.data, fields.tasks)
        ]
        self.files: Mapping[str, str] = {}
        self.details: Mapping[str, Any] = {}
        self.protocol: Mapping[str, Any] = {
            "evaluator": "translation",
            "split": fields.split,
            "decoding": self._translate.decoding.facts,
            "vocabulary": context.vocabulary.fingerprint,
            "max_lines": fields.max_lines,
            "lines": {task.name: len(task.tokens) for task in self._tasks},
            "signatures": {task.name: task.scorer.signatures for task in self._tasks},
        }

    def evaluate(self, model: Any) -> Iterator[tuple[str, float]]:
        """Yield `<task>/<metric>` of bleu, chrf and maybe tokenised_bleu, and `average/<metric>`.

        `files` then hold hypotheses, references and sources, `details` what was cut short.
        """
        files: dict[str, str] = {}
        counts: dict[str, dict[str, int]] = {}
        found = []
        for task in self._tasks:
            source, target = (np.full(len(task.tokens), index) for index in task.directions)
            self._translate.counts.clear()
            results = self._translate(model, task.tokens, source, target)
            counts[task.name] = dict(self._translate.counts)
            hypotheses = best_texts(self._vocabulary, results)
            scores = task.scorer.score(hypotheses)
            found.append(scores)
            columns = {"hyp": hypotheses, "ref": task.references, "src": task.sources}
            files |= {f"{task.name}.{name}.txt": as_lines(c) for name, c in columns.items()}
            yield from ((f"{task.name}/{metric}", value) for metric, value in scores.items())
        self.files = files
        self.details = {"counts": counts, "compiled_shapes": len(self._translate.shapes)}
        yield from averages(found)

    def _open(self, task: str, fields: ConfigDict, context: Context, where: str) -> Lines:
        store = open_store(task, fields.split, context)
        needed = {features.TOKENS, features.TARGET_TOKENS, *features.RAW_OF}
        if store.manifest.kind != KIND or not needed <= {*store.manifest.features}:
            raise ValueError(
                f"{where}.tasks: {task!r} ({fields.split}) is a store of "
                f"{store.manifest.kind} with {', '.join(store.manifest.features)}; name tasks like "
                f"mt.SRC_TGT, and a split other than train, which holds the raw text besides"
            )
        source, target = (store.language(f) for f in (features.TOKENS, features.TARGET_TOKENS))
        directions = check_direction(context.model, source, target, f"{where}.tasks: {task}")
        chosen = spaced(len(store), fields.max_lines).tolist()
        sources, references = (
            [store.text(feature, index) for index in chosen]
            for feature in (features.SOURCE_TEXT, features.REFERENCE)
        )
        scorer = CorpusScorer(
            references,
            target,
            lowercase=fields.lowercase,
            tokenize=fields.tokenize,
            tokenised=fields.tokenised,
            where=where,
        )
        tokens = [store.read(features.TOKENS, index) for index in chosen]
        return Lines(task, directions, tokens, sources, references, scorer)


def make_translator(fields: ConfigDict, context: Context, where: str) -> SentenceTranslator:
    """Return what `decoding` and `rows` of an evaluator ask for."""
    check_rows(context.mesh, fields.rows, f"{where}.rows")
    if fields.max_lines < 0:
        raise ValueError(f"{where}.max_lines={fields.max_lines} must be 0 (all lines) or more")
    return SentenceTranslator(
        context.mesh,
        context.strategy,
        context.vocabulary,
        context.model,
        rows=fields.rows,
        decoding=DecodingConfig.from_config(fields.decoding, f"{where}.decoding"),
        where=f"{where}.decoding.",
    )


def open_store(task: str, split: str, context: Context) -> TokenStore:
    """Open the held-out store of a task."""
    data = context.config.data
    place = pathlib.Path(data.stores) / task / split
    return TokenStore.open(place, context.vocabulary.fingerprint, verify=data.verify)


def best_texts(vocabulary: Vocabulary, results: Sequence[tuple[Hypothesis, ...]]) -> list[str]:
    """Return the text of the best hypothesis of each sentence, without line breaks."""
    return [one_line(vocabulary.decode(best.tokens.tolist())) for best, *_ in results]


def one_line(text: str) -> str:
    """Return a text whose line breaks, which byte pieces may spell, are spaces."""
    return " ".join(text.splitlines())


def as_lines(texts: Sequence[str]) -> str:
    """Return the content of a file with a text a line."""
    return "".join(f"{one_line(text)}\n" for text in texts)


def averages(found: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, float]]:
    """Yield `average/<metric>`: the arithmetic means over some corpora."""
    for metric in found[0]:
        yield f"average/{metric}", statistics.fmean(scores[metric] for scores in found)
