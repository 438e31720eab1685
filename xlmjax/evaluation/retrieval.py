"""Sentence retrieval: does a sentence find its translation among all of a test set?

As on Tatoeba (Artetxe & Schwenk 2019): both sides of every pair are encoded on their own, pooled,
and matched by similarity in both directions. Beside the accuracies, the cosine and L2 distance of
translations against those of all other pairs, as the paper compares embeddings (table 5).
"""

import dataclasses
import functools
import pathlib
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Int
from ml_collections import ConfigDict

from xlmjax import languages
from xlmjax.data import features
from xlmjax.data.batches import spaced
from xlmjax.data.layout import Delimiters
from xlmjax.data.mixture import resolve_names
from xlmjax.data.sentences import DELIMITERS
from xlmjax.data.store import TokenStore
from xlmjax.evaluation.base import EVALUATORS, Context
from xlmjax.evaluation.by_language import means_by_language
from xlmjax.evaluation.sentence_encoder import SentenceEncoder, predicts_next
from xlmjax.models.config import ModelConfig
from xlmjax.ops import similarity
from xlmjax.parallel.mesh import check_rows
from xlmjax.parallel.partition import replicated

Tokens = Int[np.ndarray, "_"]  # of one sentence, without delimiters
SIDES = (features.TOKENS, features.TARGET_TOKENS)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The sentence pairs of one task that are compared."""

    name: str
    languages: tuple[str, str]
    tokens: tuple[list[Tokens], list[Tokens]]
    dropped: dict[str, int]  # by reason

    def __len__(self) -> int:
        return len(self.tokens[0])


class Distinct:
    """Sentences, each held once however many tasks have it: English is a side of most pairs."""

    def __init__(self) -> None:
        self.tokens: list[Tokens] = []
        self.language_ids: list[int] = []
        self._numbers: dict[tuple[int, bytes], int] = {}

    def add(self, language: str, texts: list[Tokens]) -> Int[np.ndarray, "n"]:
        """Return the numbers of some sentences of a language, new or met before."""
        language_id = languages.get(language).id
        numbers = []
        for tokens in texts:
            key = (language_id, tokens.tobytes())
            if key not in self._numbers:
                self._numbers[key] = len(self.tokens)
                self.tokens.append(tokens)
                self.language_ids.append(language_id)
            numbers.append(self._numbers[key])
        return np.array(numbers)


@EVALUATORS.register("retrieval")
class Retrieval:
    """Accuracy of matching translations both ways, by cosine, CSLS and margin; mean similarity.

    "Forward" looks the sentences of a task's first language up in its second, "backward" the
    reverse; an accuracy without a direction is the mean of both. With `centered` the mean vector of
    each side of a task is taken off its vectors first (Libovický et al. 2020, section 3).
    """

    def __init__(self, name: str, fields: ConfigDict, context: Context):
        config, where = context.config, f"evals.{name}"
        check_rows(context.mesh, fields.rows, f"{where}.rows")
        context.model.depth_of(fields.layer, f"{where}.layer")
        limit = _limit(fields.max_tokens, context.model, where)
        if fields.neighbours < 1:
            raise ValueError(f"{where}.neighbours={fields.neighbours} must be 1 or more")
        self._pairs = [
            _open(config, task, fields, limit, context, where)
            for task in resolve_names(config.data, fields.tasks)
        ]
        self._sentences = Distinct()
        self._numbers = [
            [
                self._sentences.add(code, tokens)
                for code, tokens in zip(pairs.languages, pairs.tokens, strict=True)
            ]
            for pairs in self._pairs
        ]
        self._centered = fields.centered
        self._encode = SentenceEncoder(
            context.mesh,
            context.strategy,
            Delimiters.of(context.config.data, context.vocabulary),
            rows=fields.rows,
            layer=fields.layer,
            pooling=fields.pooling,
            limit=limit,
            causal=predicts_next(context.config),
            field=f"{where}.pooling",
        )
        self._align = jax.jit(
            functools.partial(similarity.align, k=fields.neighbours),
            out_shardings=replicated(context.mesh),
        )
        self.details: Mapping[str, Any] = {}
        self.protocol: Mapping[str, Any] = {
            "evaluator": "retrieval",
            "split": fields.split,
            "layer": fields.layer,
            "pooling": fields.pooling,
            "centered": fields.centered,
            "neighbours": fields.neighbours,
            "max_pairs": fields.max_pairs,
            "max_tokens": limit,
            "vocabulary": context.vocabulary.fingerprint,
            "tasks": {
                pairs.name: {
                    "pairs": len(pairs),
                    "dropped": pairs.dropped,
                    "languages": pairs.languages,
                }
                for pairs in self._pairs
            },
        }

    def evaluate(self, model: Any) -> Iterator[tuple[str, float]]:
        """Yield `<task>/<metric>`, `<language>/<metric>` and `average/<metric>`.

        A language has the arithmetic mean over the tasks that it is a side of, its sentences looked
        up in the other side ("from") and found there ("into"); an average is that over all tasks.
        """
        vectors = self._encode(
            model, self._sentences.tokens, np.array(self._sentences.language_ids)
        )
        found = []
        for pairs, (first, second) in zip(self._pairs, self._numbers, strict=True):
            metrics = self._compare(vectors[first], vectors[second])
            found.append(metrics)
            yield from ((f"{pairs.name}/{metric}", value) for metric, value in metrics.items())
        sides = (
            ((pairs.languages[side],), _seen_from(side, metrics))
            for pairs, metrics in zip(self._pairs, found, strict=True)
            for side in (0, 1)
        )
        yield from means_by_language(sides)
        for metric in found[0]:
            yield f"average/{metric}", statistics.fmean(metrics[metric] for metrics in found)

    def _compare(
        self, x: Float32[np.ndarray, "n e"], y: Float32[np.ndarray, "n e"]
    ) -> dict[str, float]:
        n = len(x)
        if self._centered:
            x, y = x - x.mean(axis=0), y - y.mean(axis=0)
        sums = jax.device_get(self._align(_filled(x), _filled(y), n))
        metrics = {}
        for index, measure in enumerate(similarity.MEASURES):
            forward, backward = int(sums.forward[index]), int(sums.backward[index])
            metrics[f"accuracy_{measure}"] = (forward + backward) / (2 * n)
            metrics[f"accuracy_{measure}_forward"] = forward / n
            metrics[f"accuracy_{measure}_backward"] = backward / n
        return metrics | sums.means(n)


def _seen_from(side: int, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a task, directions named as its first (0) or second language goes."""
    names = {"forward": ("from", "into")[side], "backward": ("into", "from")[side]}
    renamed = {}
    for metric, value in metrics.items():
        stem, _, last = metric.rpartition("_")
        renamed[f"{stem}_{names.get(last, last)}"] = value
    return renamed


def _filled(vectors: Float32[np.ndarray, "n e"]) -> Float32[np.ndarray, "m e"]:
    """Return the vectors with zeros up to a multiple of the block: sets of any size, few shapes."""
    return np.pad(vectors, ((0, -len(vectors) % similarity.BLOCK), (0, 0)))


def _limit(max_tokens: int, model: ModelConfig, where: str) -> int:
    """Return the longest sentence, delimiters included."""
    if max_tokens < 0 or 0 < max_tokens <= DELIMITERS:
        raise ValueError(
            f"{where}.max_tokens={max_tokens}: give 0 for model.max_positions, or more than the "
            f"{DELIMITERS} delimiters of a sentence"
        )
    if model.positions != "rope" and max_tokens > model.max_positions:
        raise ValueError(
            f"{where}.max_tokens={max_tokens} is longer than model.max_positions="
            f"{model.max_positions}: lower it"
        )
    return max_tokens or model.max_positions


def _open(
    config: ConfigDict, task: str, fields: ConfigDict, limit: int, context: Context, where: str
) -> Pairs:
    """Read the pairs of a task; those with a side longer than `limit` are dropped and counted."""
    store = TokenStore.open(
        pathlib.Path(config.data.stores) / task / fields.split,
        context.vocabulary.fingerprint,
        verify=config.data.verify,
    )
    if store.manifest.kind != "pair":
        raise ValueError(
            f"{where}.tasks: {task!r} holds {store.manifest.kind}, not pairs; name tasks like "
            "tlm.A_B"
        )
    codes = store.language(SIDES[0]), store.language(SIDES[1])
    unknown = sorted(set(codes) - set(config.data.languages))
    if unknown:
        raise ValueError(
            f"{where}.tasks: {task!r} is in {', '.join(unknown)}, which data.languages does not "
            "list; the model has no embedding for it"
        )
    longest = np.maximum(*(store.lengths(side) for side in SIDES)) + DELIMITERS
    fitting = np.flatnonzero(longest <= limit)
    dropped = {}
    if len(fitting) < len(longest):
        dropped[f"longer than {limit} tokens"] = len(longest) - len(fitting)
    chosen = fitting[spaced(len(fitting), fields.max_pairs)]
    if len(chosen) < 2:
        raise ValueError(
            f"{where}.tasks: {task!r} has {len(chosen)} pairs of at most {limit} tokens a side in "
            f"split {fields.split!r}; 2 or more can be compared"
        )
    tokens = [[store.read(side, index) for index in chosen.tolist()] for side in SIDES]
    return Pairs(task, codes, (tokens[0], tokens[1]), dropped)
