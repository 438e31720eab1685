"""How a source becomes a seqio task of ours, and how a whole registration is taken back."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import seqio
from ml_collections import ConfigDict

from xlmjax.data import features
from xlmjax.preparation import comparison, preprocessors
from xlmjax.preparation.cleaning import Cleaning
from xlmjax.preparation.doctor import Doctor
from xlmjax.preparation.sources import CorpusSource, MarkedSource
from xlmjax.preparation.vocabulary import (
    LabelFeature,
    RawFeature,
    SeqioVocabulary,
    TextFeature,
)

_names: set[str] = set()


def add_text(
    name: str,
    source: seqio.DataSource,
    language: str,
    data: ConfigDict,
    before: Sequence[Callable] = (),
) -> None:
    """Register a task of one language; `before` turns what the source gives into `text`.

    It is a list of steps from dataset to dataset, here and below.
    """
    _add(name, source, _sides((language,), data), data, before)


def add_pair(
    name: str,
    source: seqio.DataSource,
    languages: tuple[str, str],
    data: ConfigDict,
    before: Sequence[Callable] = (),
) -> None:
    """Register a task of two texts; `before` makes `text` and `target_text`."""
    _add(name, source, _sides(languages, data), data, before)


def add_translation(
    name: str,
    source: seqio.DataSource,
    languages: tuple[str, str],
    data: ConfigDict,
    before: Sequence[Callable] = (),
) -> None:
    """Register a task of translations from a source to a target language.

    `before`, steps from dataset to dataset, makes `text` in the source and `target_text` in the
    target language. Examples of every split but "train" are kept whatever their length, and have
    both texts as they were given besides, in `source_text` and `reference`.
    """
    outputs: dict[str, seqio.Feature] = {
        **_sides(languages, data),
        **{name: RawFeature() for name in features.RAW_OF},
    }
    _add(name, source, outputs, data, before, first=(preprocessors.KeepRaw(),))


def add_classification(
    name: str,
    source: seqio.DataSource,
    languages: Sequence[str],
    labels: Sequence[str],
    data: ConfigDict,
    before: Sequence[Callable] = (),
) -> None:
    """Register a task of labelled texts, or of labelled pairs where `languages` are two.

    `before` makes `text`, for pairs `target_text`, and `label`: the name of a label, or its index
    in `labels`.
    """
    outputs: dict[str, seqio.Feature] = dict(_sides(languages, data))
    outputs[features.LABEL] = LabelFeature(names=tuple(labels))
    _add(name, source, outputs, data, before, (preprocessors.Label(tuple(labels)),))


def _sides(languages: Sequence[str], data: ConfigDict) -> dict[str, TextFeature]:
    """Return the features of tokens of examples in one language or two."""
    names = (features.TOKENS, features.TARGET_TOKENS)
    return {
        name: TextFeature(SeqioVocabulary(data.vocabulary, language), language=language)
        for name, language in zip(names, languages, strict=False)
    }


def add_mixture(name: str, tasks: Sequence[str], data: ConfigDict) -> None:
    """Register a mixture with XLM's rates, n ~ (number of examples)^alpha.

    Only `seqio.get_mixture_or_task(name).get_dataset()` uses them: a run of xlmjax takes its rates
    from `data.mixing` and the token counts of the stores.
    """
    exponent = {"alpha": data.mixing.alpha, "temperature": 1 / data.mixing.temperature}
    rate = functools.partial(_rate, exponent=exponent.get(data.mixing.kind, 1.0))
    seqio.MixtureRegistry.add(name, tasks, default_rate=rate)


def _rate(task: seqio.Task, exponent: float) -> float:
    return task.num_input_examples("train") ** exponent


def _add(
    name: str,
    source: seqio.DataSource,
    outputs: Mapping[str, seqio.Feature],
    data: ConfigDict,
    before: Sequence[Callable],
    more: tuple[preprocessors.Step, ...] = (),
    first: tuple[preprocessors.Step, ...] = (),
) -> None:
    if before or not isinstance(source, CorpusSource):
        source = MarkedSource(source, before)
    doctor = Doctor.from_config(data)
    filters = (
        preprocessors.Filter(
            doctor,
            evaluation=comparison.evaluation_index,
            repeats=functools.partial(comparison.repeats_of, name, data.stores),
        ),
    )
    steps = (
        *first,
        preprocessors.Clean(Cleaning.from_config(data)),
        *(filters if doctor.drop else ()),
        *more,
        preprocessors.Tokenise(data.max_tokens),
    )
    seqio.TaskRegistry.add(
        name,
        source=source,
        preprocessors=[
            preprocessors.InBatches(steps),
            seqio.CacheDatasetPlaceholder(required=False),
        ],
        output_features=outputs,
    )


@contextlib.contextmanager
def remembering() -> Iterator[None]:
    """Note what is registered inside, for `forget`."""
    before = _registered()
    try:
        yield
    finally:
        _names.update(_registered() - before)


def forget() -> None:
    """Take back everything that was registered while `remembering`."""
    for name in _names:
        seqio.MixtureRegistry.remove(name)
        seqio.TaskRegistry.remove(name)
    _names.clear()


def _registered() -> set[str]:
    return {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
