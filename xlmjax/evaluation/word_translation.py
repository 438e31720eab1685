"""Words of two languages in one embedding table: translation by CSLS, similarity against people's.

As the paper compares cross-lingual word embeddings (table 5), on the lookup table of tokens alone:
no position, no language, no norm. The vector of a word that the vocabulary has as one piece is the
piece's; that of any other word is the mean of the vectors of its pieces, and such words are
counted. A pair with a word that has an unknown piece, or no piece at all, is left out and counted.
"""

import dataclasses
import functools
import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from xlmjax.evaluation.base import EVALUATORS, Context
from xlmjax.evaluation.by_language import means_by_language
from xlmjax.evaluation.word_lists import WordList, read_word_lists
from xlmjax.ops import similarity
from xlmjax.parallel.partition import replicated

PRECISIONS = (1, 5)


class Words:
    """Distinct words in the order they were met, as pieces, ready to be looked up."""

    def __init__(self, words: Sequence[str], pieces: Sequence[list[int]]):
        self.number = {word: number for number, word in enumerate(words)}
        self.flat = np.array(list(itertools.chain.from_iterable(pieces)), np.int32)
        self.owners = np.repeat(np.arange(len(words)), [len(ids) for ids in pieces])
        self.split = sum(len(ids) > 1 for ids in pieces)

    def __len__(self) -> int:
        return len(self.number)


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """A word list that the vocabulary can write: pairs are numbers of words of the two sides."""

    source: WordList
    first: Words
    second: Words
    pairs: Int[np.ndarray, "n 2"]
    scores: Float[np.ndarray, "n"]  # empty for a dictionary
    alike: tuple[Bool[np.ndarray, "m"], Bool[np.ndarray, "k"]]  # words that translate to themselves
    unknown: int  # pairs left out

    @property
    def facts(self) -> dict[str, Any]:
        """What the protocol tells of it."""
        return {
            "path": self.source.path,
            "pairs": len(self.pairs),
            "unknown_pairs": self.unknown,
            "words": [len(self.first), len(self.second)],
            "words_of_several_pieces": [self.first.split, self.second.split],
            "words_spelt_alike": [int(words.sum()) for words in self.alike],
        }


@EVALUATORS.register("word_translation")
class WordTranslation:
    """Precision of translating words both ways, and correlation with scores of similarity.

    The precision at n of A_B is the share of the distinct words of A of which one translation is
    among the n nearest by CSLS of the distinct words of B in the same dictionary. Words that are
    spelt alike have one vector, so beside it stands the precision over the words of which no
    translation is the word itself.
    """

    def __init__(self, name: str, fields: ConfigDict, context: Context):
        where = f"evals.{name}"
        if fields.neighbours < 1:
            raise ValueError(f"{where}.neighbours={fields.neighbours} must be 1 or more")
        if not fields.dictionaries and not fields.similarities:
            raise ValueError(
                f"{where}: dictionaries and similarities are both empty; list A-B:PATH in one"
            )
        self._dictionaries, self._similarities = (
            [
                _lexicon(words, context, f"{where}.{field}")
                for words in read_word_lists(fields[field], f"{where}.{field}", scored)
            ]
            for field, scored in (("dictionaries", False), ("similarities", True))
        )
        for lexicon in self._similarities:
            if np.ptp(lexicon.scores) == 0:
                raise ValueError(
                    f"{lexicon.source.path}: all scores are {lexicon.scores[0]:g}; nothing can "
                    "correlate with them"
                )
        whole = replicated(context.mesh)
        self._look_up = jax.jit(look_up, static_argnums=3, out_shardings=whole)
        self._top = jax.jit(
            functools.partial(similarity.top_matches, measure="csls", k=fields.neighbours),
            static_argnums=2,
            out_shardings=whole,
        )
        self._align = jax.jit(similarity.align, out_shardings=whole)
        self.details: Mapping[str, Any] = {}
        self.protocol: Mapping[str, Any] = {
            "evaluator": "word_translation",
            "neighbours": fields.neighbours,
            "words_of_several_pieces": "mean of the vectors of the pieces",
            "vocabulary": context.vocabulary.fingerprint,
            "dictionaries": {entry.source.name: entry.facts for entry in self._dictionaries},
            "similarities": {entry.source.name: entry.facts for entry in self._similarities},
        }

    def evaluate(self, model: Any) -> Iterator[tuple[str, float]]:
        """Yield `<a>_<b>/<metric>`, `<language>/<metric>` and `average/<metric>`.

        A language has the mean over all that it is a side of, an average that over all, of those
        that have the metric. A correlation that does not exist, because all words are equally
        similar, is left out.
        """
        found: dict[str, dict[str, float]] = {}
        for lexicon in self._dictionaries:
            x, y = self._vectors(model, lexicon)
            forward, backward = lexicon.source.name, "_".join(lexicon.source.languages[::-1])
            found.setdefault(forward, {}).update(self._precision(x, y, lexicon, 0))
            found.setdefault(backward, {}).update(self._precision(y, x, lexicon, 1))
            aligned = (z[numbers] for z, numbers in zip((x, y), lexicon.pairs.T, strict=True))
            sums = jax.device_get(self._align(*aligned, len(lexicon.pairs)))
            found[forward].update(sums.means(len(lexicon.pairs)))
        for lexicon in self._similarities:
            x, y = self._vectors(model, lexicon)
            cosines = _cosines(x[lexicon.pairs[:, 0]], y[lexicon.pairs[:, 1]])
            correlations = {
                "pearson": similarity.pearson(cosines, lexicon.scores),
                "spearman": similarity.spearman(cosines, lexicon.scores),
            }
            if not np.isnan(list(correlations.values())).any():
                found.setdefault(lexicon.source.name, {}).update(correlations)
        averages: dict[str, list[float]] = {}
        for name, metrics in found.items():
            for metric, value in metrics.items():
                yield f"{name}/{metric}", value
                averages.setdefault(metric, []).append(value)
        yield from means_by_language((name.split("_"), own) for name, own in found.items())
        for metric, values in averages.items():
            yield f"average/{metric}", statistics.fmean(values)

    def _vectors(self, model: Any, lexicon: Lexicon) -> list[Float[np.ndarray, "n e"]]:
        table = model.embeddings.tokens[...]
        return [
            jax.device_get(self._look_up(table, words.flat, words.owners, len(words)))
            for words in (lexicon.first, lexicon.second)
        ]

    def _precision(
        self, x: Float[np.ndarray, "n e"], y: Float[np.ndarray, "m e"], lexicon: Lexicon, side: int
    ) -> dict[str, float]:
        """Return the precisions of looking the words of a side up on the other one."""
        best = jax.device_get(self._top(x, y, min(max(PRECISIONS), len(y))))
        right = np.zeros(best.shape, bool)
        for pair in lexicon.pairs.tolist():
            source, target = pair[side], pair[1 - side]
            right[source] |= best[source] == target
        found = {}
        for n in PRECISIONS:
            hits = np.asarray(right[:, :n].any(axis=1))
            found[f"precision_at_{n}"] = float(hits.mean())
            others = hits[~lexicon.alike[side]]
            if len(others):
                found[f"precision_at_{n}_other_spelling"] = float(others.mean())
        return found


def look_up(
    table: Float[Array, "v e"], pieces: Int[Array, "p"], owners: Int[Array, "p"], num_words: int
) -> Float[Array, "n e"]:
    """Return the mean vector of the pieces of each word, in float32; `owners` are word numbers."""
    vectors = table.astype(jnp.float32)[pieces]
    totals = jax.ops.segment_sum(vectors, owners, num_words)
    return totals / jax.ops.segment_sum(jnp.ones(len(pieces)), owners, num_words)[:, None]


def _cosines(x: Float[np.ndarray, "n e"], y: Float[np.ndarray, "n e"]) -> Float[np.ndarray, "n"]:
    x, y = x.astype(np.float64), y.astype(np.float64)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return (x * y).sum(axis=1) / np.maximum(lengths, 1e-12)


def _lexicon(words: WordList, context: Context, field: str) -> Lexicon:
    known: tuple[dict[str, list[int]], dict[str, list[int]]] = ({}, {})
    kept: list[tuple[str, ...]] = []
    scores: list[float] = []
    for index, pair in enumerate(words.pairs):
        clean = tuple(context.clean(word) for word in pair)
        pieces = tuple(
            context.vocabulary.encode(word, code)
            for word, code in zip(clean, words.languages, strict=True)
        )
        if any(not ids or context.vocabulary.unk in ids for ids in pieces):
            continue
        kept.append(clean)
        scores.extend(words.scores[index : index + 1])
        for side in (0, 1):
            known[side].setdefault(clean[side], pieces[side])
    if len(kept) < 2:
        raise ValueError(
            f"{field}: {words.path}: the vocabulary can write {len(kept)} of {len(words.pairs)} "
            "pairs; 2 or more are needed"
        )
    first, second = (Words(tuple(side), tuple(side.values())) for side in known)
    pairs = np.array([(first.number[a], second.number[b]) for a, b in kept])
    same = {a for a, b in kept if a == b}
    alike = tuple(np.array([word in same for word in side.number]) for side in (first, second))
    unknown = len(words.pairs) - len(kept)
    return Lexicon(words, first, second, pairs, np.array(scores), (alike[0], alike[1]), unknown)
