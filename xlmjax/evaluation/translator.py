"""Sentences of token ids to their translations: batched by length, each a row of its own."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from xlmjax import languages
from xlmjax.data import features
from xlmjax.data.layout import Delimiters
from xlmjax.data.sentences import DELIMITERS, SentenceBatches
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.evaluation.pipelined import fetched
from xlmjax.models.beam import beam_search
from xlmjax.models.config import ModelConfig
from xlmjax.models.generation import Generated, Source, generate
from xlmjax.parallel.partition import batch_sharding, replicated, use_rules

METHODS = ("greedy", "sample", "beam")
CUT, AT_LIMIT, EMPTY = "sources_cut", "outputs_at_limit", "outputs_empty"

Tokens = Sequence[int] | Int[np.ndarray, "_"]  # of one sentence, without delimiters


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """How translations are found; section `decoding` of an evaluator, explained in configs/base.py.

    `n_best` hypotheses a sentence are returned. Raises `ValueError` naming the field.
    """

    method: str = "greedy"
    beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool = False
    temperature: float = 1.0
    seed: int = 0
    n_best: int = 1
    max_ratio: float = 1.5
    max_extra: int = 10
    max_length: int = 0
    over_limit: str = "error"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r} is unknown; known: {', '.join(METHODS)}")
        if self.over_limit not in ("error", "cut"):
            raise ValueError(f"over_limit={self.over_limit!r} is unknown; known: error, cut")
        if self.temperature <= 0:
            raise ValueError(
                f"temperature={self.temperature} must be above 0; method='greedy' is its limit"
            )
        for field, low in (
            ("beams", 1),
            ("n_best", 1),
            ("max_ratio", 0),
            ("max_extra", 2),
            ("max_length", 0),
        ):
            if getattr(self, field) < low:
                raise ValueError(f"{field}={getattr(self, field)} must be {low} or more")
        if 0 < self.max_length <= DELIMITERS:
            raise ValueError(
                f"max_length={self.max_length} has no room beside {DELIMITERS} delimiters; raise it"
            )
        if self.n_best > self.width:
            what = f"beams={self.beams} has" if self.method == "beam" else f"{self.method} finds"
            raise ValueError(
                f"n_best={self.n_best} is more than the hypotheses that {what}; lower it, or use "
                "method='beam' with as many beams"
            )

    @classmethod
    def from_config(cls, fields: Mapping[str, Any], where: str) -> "DecodingConfig":
        """Return the checked section; an error begins with `where`."""
        try:
            return cls(**fields)
        except ValueError as error:
            raise ValueError(f"{where}.{error}") from None

    @property
    def width(self) -> int:
        """Hypotheses a sentence that the search ends with."""
        return self.beams if self.method == "beam" else 1

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the output, for a protocol."""
        other = {
            "greedy": ("beams", "length_penalty", "early_stopping", "temperature", "seed"),
            "sample": ("beams", "length_penalty", "early_stopping"),
            "beam": ("temperature", "seed"),
        }[self.method]
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in other}

    def longest(self, length: int, limit: int) -> int:
        """Return the longest output for a source of `length` tokens, both with their delimiters."""
        return min(int(self.max_ratio * length + self.max_extra), limit)


class Hypothesis(NamedTuple):
    """A translation without delimiters, and its score: see models.generation.Generated."""

    tokens: Int[np.ndarray, "_"]
    score: float


class SentenceTranslator:
    """Translates sentences `</s> x </s>`, each on its own.

    A translation depends on the sentence, its languages and, for samples, its number, up to the
    rounding of scores: not on the number of rows a batch or of devices, nor on what else is
    translated. So the output's length is bounded by that of its own source, `max_ratio * length +
    max_extra`, where XLM takes the longest source of the batch. It compiles once a length of
    `data.sentences.bucket`; `shapes` lists the [rows, length] compiled so far. An empty sentence
    has empty translations of score 0.

    `counts` says how many sources were cut, and how many (best) outputs were as long as they might
    be or empty. Raises `ValueError` naming a field of `decoding`, prefixed with `where`, on a beam
    wider than the vocabulary.
    """

    def __init__(
        self,
        mesh: jax.sharding.Mesh,
        strategy: str,
        vocabulary: Vocabulary,
        cfg: ModelConfig,
        *,
        rows: int,
        decoding: DecodingConfig,
        where: str = "",
    ):
        if not cfg.decoder_layers:
            raise ValueError(
                "model.decoder_layers=0: an encoder alone does not translate; name the config of a "
                "translation run"
            )
        if decoding.method == "beam" and decoding.beams >= vocabulary.size:
            raise ValueError(
                f"{where}beams={decoding.beams}: the vocabulary has only {vocabulary.size} words; "
                "lower it"
            )
        self.decoding = decoding
        self.limit = decoding.max_length or cfg.max_positions
        if cfg.longest_row is not None and self.limit > cfg.longest_row:
            raise ValueError(
                f"{where}max_length={self.limit}: the model has model.max_positions="
                f"{cfg.max_positions}; lower it"
            )
        self.counts: collections.Counter[str] = collections.Counter()
        self.shapes: list[tuple[int, ...]] = []
        self._strategy, self._rows = strategy, rows
        self._delimiters = Delimiters(eos=vocabulary.eos, pad=vocabulary.pad)
        self._sharding = batch_sharding(mesh)
        self._apply = jax.jit(self._decode, out_shardings=replicated(mesh))

    def __call__(
        self,
        model: Any,
        tokens: Sequence[Tokens],
        source_ids: Int[np.ndarray, "n"],
        target_ids: Int[np.ndarray, "n"],
        first_number: int = 1,
    ) -> list[tuple[Hypothesis, ...]]:
        """Return the n best translations of each sentence, in the order of the sentences.

        `source_ids` and `target_ids` are of languages. Sentences are numbered from `first_number`,
        in errors and for samples. Raises `ValueError` on a sentence longer than the model's
        positions unless such are to be cut.
        """
        fitted = [self._fit(ids, number) for number, ids in enumerate(tokens, first_number)]
        nothing = Hypothesis(np.zeros(0, np.int32), 0.0)
        results = [(nothing,) * self.decoding.n_best] * len(fitted)
        filled = np.array([index for index, ids in enumerate(fitted) if len(ids)], np.int64)
        batches = SentenceBatches(
            [fitted[index] for index in filled],
            source_ids[filled],
            self._rows,
            self._delimiters,
            self._sharding,
            self.limit,
        )
        longest = np.array(
            [self.decoding.longest(len(fitted[i]) + DELIMITERS, self.limit) for i in filled],
            np.int32,
        )

        def apply(chosen: Int[np.ndarray, "k"], batch: Any) -> Generated:
            limits = _rows(longest[chosen], self._rows, DELIMITERS)  # an empty row ends at once
            targets = _rows(target_ids[filled[chosen]], self._rows, target_ids[filled[chosen[0]]])
            row_ids = _rows(first_number + filled[chosen], self._rows, 0)
            found: Generated = self._apply(model, batch, targets, limits, row_ids)
            return found

        for chosen, found in fetched(batches, apply):
            for row, index in enumerate(chosen.tolist()):
                results[filled[index]] = tuple(
                    Hypothesis(found.tokens[row, k, 1 : found.lengths[row, k] - 1], float(score))
                    for k, score in enumerate(found.scores[row])
                )
                self.counts[AT_LIMIT] += int(found.lengths[row, 0] == longest[index])
        self.counts[EMPTY] += sum(not len(result[0].tokens) for result in results)
        return results

    def _decode(self, model: Any, batch: Any, targets: Any, limits: Any, row_ids: Any) -> Generated:
        self.shapes.append(batch[features.TOKENS].shape)  # where it is traced
        decoding = self.decoding
        names = (features.TOKENS, features.SEGMENT_IDS, features.LANGUAGE_IDS)
        source = Source(*(batch[name] for name in names))
        fixed: dict[str, Any] = {
            "max_length": decoding.longest(source.tokens.shape[1], self.limit),
            "eos": self._delimiters.eos,
            "pad": self._delimiters.pad,
        }
        with use_rules(self._strategy):
            if decoding.method == "beam":
                return beam_search(
                    model,
                    source,
                    targets,
                    limits,
                    beams=decoding.beams,
                    length_penalty=decoding.length_penalty,
                    early_stopping=decoding.early_stopping,
                    n_best=decoding.n_best,
                    **fixed,
                )
            if decoding.method == "sample":
                fixed["temperature"] = decoding.temperature
                fixed["key"], fixed["row_ids"] = jax.random.key(decoding.seed), row_ids
            return generate(model, source, targets, limits, **fixed)

    def _fit(self, tokens: Tokens, number: int) -> Tokens:
        if len(tokens) + DELIMITERS <= self.limit:
            return tokens
        if self.decoding.over_limit == "error":
            raise ValueError(
                f"sentence {number} has {len(tokens) + DELIMITERS} tokens, delimiters included, "
                f"more than {self.limit} (max_length, or model.max_positions without it); split "
                "it, or cut such sentences (over_limit='cut')"
            )
        self.counts[CUT] += 1
        return tokens[: self.limit - DELIMITERS]


def check_direction(cfg: ModelConfig, source: str, target: str, where: str) -> tuple[int, int]:
    """Return the language ids of a direction; raises `ValueError` where the model lacks one."""
    ids = []
    for code, side, what in ((source, "source", "an encoder"), (target, "target", "a decoder")):
        try:
            ids.append(languages.get(code).id)
        except KeyError as error:
            raise ValueError(f"{where}: {error.args[0]}") from None
        if ids[-1] not in cfg.language_ids:
            known = ", ".join(languages.LANGUAGES[index].code for index in cfg.language_ids)
            raise ValueError(
                f"{where}: {code!r} is a {side} language without {what} embedding; the model "
                f"has data.languages: {known}"
            )
    return ids[0], ids[1]


def _rows(values: Any, rows: int, empty: int) -> Int[np.ndarray, "b"]:
    return np.pad(values, (0, rows - len(values)), constant_values=empty).astype(np.int32)
