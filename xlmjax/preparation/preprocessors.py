"""Seqio preprocessors: name the texts, clean them, turn them into tokens.

Examples come in with `text` and, for pairs, `target_text`, perhaps with a `label`; they leave with
`tokens` and `target_tokens`, translations with `source_text` and `reference` as well. The work is
Python on columns of many examples at once (`InBatches`), several times faster than on single ones.
What is dropped is counted, see `counting_drops`.

Everything here is a frozen dataclass with a `__call__`, so that its `repr` tells all it depends on:
a token store is made again when that changes.
"""

import collections
import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from xlmjax import languages
from xlmjax.data import features
from xlmjax.data.features import LABEL
from xlmjax.preparation import cleaning, doctor
from xlmjax.preparation.cleaning import Cleaning
from xlmjax.preparation.doctor import Doctor, EvaluationIndex
from xlmjax.preparation.repeats import Repeats

TEXT, TARGET_TEXT = "text", "target_text"
UNLABELLED = "unlabelled"
HELD_OUT = "held_out"  # bool: the example is of an evaluation split, and never too long
NUMBER = "number"  # int64: of the example in the whole corpus, where the source has one
# Feature of tokens -> feature of the text it is made from.
TEXT_OF = {features.TOKENS: TEXT, features.TARGET_TOKENS: TARGET_TEXT}
RAW_FROM = {raw: TEXT_OF[tokens] for raw, tokens in features.RAW_OF.items()}
_BATCH = 512

# Columns of a batch of examples: lists of `str` or of lists of ids, arrays of anything else.
Columns = dict[str, Any]

_counters: list[collections.Counter] = []
_lock = threading.Lock()


@contextlib.contextmanager
def counting_drops() -> Iterator[collections.Counter]:
    """Count by reason the examples that preprocessors drop while datasets are read inside."""
    counter: collections.Counter = collections.Counter()
    with _lock:
        _counters.append(counter)
    try:
        yield counter
    finally:
        with _lock:
            _counters.remove(counter)


def count_drops(reason: str, number: int = 1) -> None:
    """Tell whoever counts that examples were dropped; called while a dataset is read."""
    with _lock:
        for counter in _counters if number else ():
            counter[reason] += number


@dataclasses.dataclass(frozen=True)
class Rename:
    """Take features of a source by name or path: `(("text", "premise/en"),)`; drop the others."""

    names: tuple[tuple[str, str], ...]

    def __call__(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Map every example."""

        def rename(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            renamed = {}
            for new, path in self.names:
                value = example
                for key in path.split("/"):
                    value = value[key]
                renamed[new] = value
            return renamed

        return dataset.map(rename)


@dataclasses.dataclass(frozen=True)
class KeepRaw:
    """Step: keep both texts as they were given, as `source_text` and `reference`; comes first."""

    def __call__(self, columns: Columns, outputs: Mapping[str, seqio.Feature]) -> Columns:
        """Return the examples with two columns more."""
        return {**columns, **{raw: columns[text] for raw, text in RAW_FROM.items()}}


@dataclasses.dataclass(frozen=True)
class Clean:
    """Step: clean every text; drop examples where one is empty or has too many words."""

    cleaning: Cleaning

    def __call__(self, columns: Columns, outputs: Mapping[str, seqio.Feature]) -> Columns:
        """Return the examples that are kept."""
        cleaned = {
            name: list(map(self.cleaning, columns[name]))
            for name in (TEXT, TARGET_TEXT)
            if name in columns
        }
        faults = [
            next(filter(None, (self.cleaning.fault(text, held_out) for text in row)), None)
            for *row, held_out in zip(*cleaned.values(), columns[HELD_OUT], strict=True)
        ]
        for fault, number in collections.Counter(filter(None, faults)).items():
            count_drops(fault, number)
        return _keep(columns | cleaned, [fault is None for fault in faults])


@dataclasses.dataclass(frozen=True)
class Filter:
    """Step: drop training examples that have a finding of `doctor.drop`; comes after `Clean`.

    Of duplicates the first stays. What the findings are told from, beside the text, is opened by
    `evaluation` and `repeats` when the first example comes.
    """

    doctor: Doctor
    evaluation: Callable[[], EvaluationIndex] = dataclasses.field(repr=False)
    repeats: Callable[[], Repeats] = dataclasses.field(repr=False)

    def __call__(self, columns: Columns, outputs: Mapping[str, seqio.Feature]) -> Columns:
        """Return the examples that are kept; `outputs` hold the languages."""
        trains = ~np.asarray(columns[HELD_OUT], bool)
        if not trains.any():
            return columns
        sides, codes = texts_of(columns, outputs)
        drop = self.doctor.drop
        evaluation = self.evaluation() if self.doctor.drops_overlap else None
        flags = doctor.examine(sides, codes, self.doctor, evaluation, drop)
        if doctor.DUPLICATE in drop:
            again = self.repeats().were_there(example_hashes(columns, sides), columns[NUMBER])
            flags[doctor.DUPLICATE] = again[None]
        keep = np.ones(len(trains), bool)
        for finding in filter(flags.__contains__, doctor.FINDINGS):
            found = flags[finding].any(axis=0) & trains & keep
            count_drops(finding, int(np.count_nonzero(found)))
            keep &= ~found
        return _keep(columns, keep)


def texts_of(
    columns: Columns, outputs: Mapping[str, seqio.Feature]
) -> tuple[list[list[str]], list[str]]:
    """Return the columns of clean text, one or two, and their languages."""
    names = [name for name in TEXT_OF if name in outputs]
    return [columns[TEXT_OF[name]] for name in names], [outputs[name].language for name in names]


def example_hashes(columns: Columns, sides: Sequence[Sequence[str]]) -> np.ndarray:
    """Return a hash of every example, of its label too if it has one: uint64 [examples]."""
    labels = [list(map(str, columns[LABEL]))] if LABEL in columns else []
    return doctor.text_hashes([*sides, *labels])


@dataclasses.dataclass(frozen=True)
class Tokenise:
    """Step: replace texts by token ids; drop examples with one of more than `max_tokens`.

    Beside `tokens` it adds `tokens_language` (an id of `xlmjax.languages`), `tokens_characters`
    and `tokens_bytes` (the size of the text), and the same for `target_tokens`.
    """

    max_tokens: int = 0

    def __call__(self, columns: Columns, outputs: Mapping[str, seqio.Feature]) -> Columns:
        """Return the examples that are kept; `outputs` hold vocabulary and language."""
        columns = dict(columns)
        held_out = columns.pop(HELD_OUT)
        columns.pop(NUMBER, None)
        keep = np.ones(len(held_out), bool)
        for name, source in TEXT_OF.items():
            if name not in outputs:
                continue
            texts = columns.pop(source)
            number = len(texts)
            code = outputs[name].language
            columns[name] = ids = outputs[name].vocabulary.model.encode_batch(texts, code)
            language = languages.get(code).id
            sizes = (len(text.encode()) for text in texts)
            columns[f"{name}_language"] = np.full(number, language, np.int32)
            columns[f"{name}_characters"] = np.fromiter(map(len, texts), np.int32, number)
            columns[f"{name}_bytes"] = np.fromiter(sizes, np.int32, number)
            if self.max_tokens:
                lengths = np.fromiter(map(len, ids), np.int32, number)
                keep &= held_out | (lengths <= self.max_tokens)
        count_drops(cleaning.MAX_TOKENS, int(np.count_nonzero(~keep)))
        return _keep(columns, keep)


@dataclasses.dataclass(frozen=True)
class Label:
    """Step: replace the name of a label by its index in `names`; an index stays what it is.

    Examples of label -1, which is how TFDS marks those without one, are dropped and counted. Raises
    `ValueError` on a label that is none of the names.
    """

    names: tuple[str, ...]

    def __call__(self, columns: Columns, outputs: Mapping[str, seqio.Feature]) -> Columns:
        """Return the examples that are kept."""
        values = columns[LABEL]
        if len(values) and isinstance(values[0], bytes):
            ids = {name.encode(): index for index, name in enumerate(self.names)}
            if unknown := sorted(set(values) - set(ids)):
                raise ValueError(
                    f"label {unknown[0].decode()!r} is not one of {', '.join(self.names)}; mend "
                    "the data, or name it among the labels of the task"
                )
            values = [ids[value] for value in values]
        labels = np.array(values, np.int32)
        if len(labels) and not -1 <= labels.min() <= labels.max() < len(self.names):
            raise ValueError(
                f"labels from {labels.min()} to {labels.max()} where there are {len(self.names)} "
                f"names, {', '.join(self.names)}: name every label of the task"
            )
        count_drops(UNLABELLED, int(np.count_nonzero(labels < 0)))
        return _keep({**columns, LABEL: labels}, labels >= 0)


def _keep(columns: Columns, keep: Sequence[bool] | np.ndarray) -> Columns:
    if all(keep):
        return columns
    return {
        name: list(itertools.compress(column, keep))
        if isinstance(column, list)
        else column[np.asarray(keep, bool)]
        for name, column in columns.items()
    }


Step = Callable[[Columns, Mapping[str, seqio.Feature]], Columns]


@dataclasses.dataclass(frozen=True)
class InBatches:
    """Run Python steps on batches of examples; examples come out one by one, in order."""

    steps: tuple[Step, ...]
    # Set by seqio when a dataset is read.
    output_features: Mapping[str, seqio.Feature] | None = dataclasses.field(
        default=None, repr=False
    )

    def __call__(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Map a dataset of texts to one of tokens; scalars of the examples are kept."""
        outputs = {
            name: feature
            for name, feature in (self.output_features or {}).items()
            if name in TEXT_OF
        }
        spec = dict(dataset.element_spec)
        names_in = tuple(spec)
        for name in (HELD_OUT, NUMBER):
            spec.pop(name, None)
        for name in outputs:
            del spec[TEXT_OF[name]]
            spec[name] = tf.TensorSpec([None], tf.int32)
            for fact in ("language", "characters", "bytes"):
                spec[f"{name}_{fact}"] = tf.TensorSpec([], tf.int32)
        if any(isinstance(step, Label) for step in self.steps):
            spec[LABEL] = tf.TensorSpec([], tf.int32)
        raws = RAW_FROM if any(isinstance(step, KeepRaw) for step in self.steps) else ()
        spec.update(dict.fromkeys(raws, tf.TensorSpec([], tf.string)))
        dtypes = [feature.dtype for feature in spec.values()]

        def run(*arrays: np.ndarray) -> list[np.ndarray]:
            columns = self.run(dict(zip(names_in, arrays, strict=True)), outputs)
            lengths = [
                np.fromiter(map(len, columns[name]), np.int64, len(columns[name]))
                for name in outputs
            ]
            for name, sizes in zip(outputs, lengths, strict=True):
                flat = itertools.chain.from_iterable(columns[name])
                columns[name] = np.fromiter(flat, np.int32, sizes.sum())
            for name in raws:
                columns[name] = np.array([text.encode() for text in columns[name]], object)
            return [columns[name] for name in spec] + lengths

        def map_batch(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            arrays = tf.numpy_function(
                run, [batch[name] for name in names_in], dtypes + [tf.int64] * len(outputs)
            )
            for array in arrays:
                array.set_shape([None])
            columns = dict(zip(spec, arrays, strict=False))
            for name, lengths in zip(outputs, arrays[len(spec) :], strict=True):
                columns[name] = tf.RaggedTensor.from_row_lengths(
                    columns[name], lengths, validate=False
                )
            return columns

        return dataset.batch(_BATCH).map(map_batch).unbatch()

    def until_clean(self) -> "InBatches | None":
        """Return the steps up to `Clean`, None where there is no such step."""
        for place, step in enumerate(self.steps, 1):
            if isinstance(step, Clean):
                return dataclasses.replace(self, steps=self.steps[:place])
        return None

    def run(self, columns: Columns, outputs: Mapping[str, seqio.Feature]) -> Columns:
        """Run the steps on columns whose texts are still UTF-8 bytes."""
        columns = dict(columns)
        for name in (TEXT, TARGET_TEXT):
            if name in columns:
                columns[name] = [text.decode() for text in columns[name]]
                number = len(columns[name])
        columns.setdefault(HELD_OUT, np.zeros(number, bool))
        for step in self.steps:
            columns = step(columns, outputs)
        return columns
