"""How a source becomes a seqio task of ours, and how a whole registration is taken back."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import seqio
from ml_collections import ConfigDict

from xlmjax.data import features
from xlmjax.preparation import preprocessors
from xlmjax.preparation.cleaning import Cleaning
from xlmjax.preparation.vocabulary import LabelFeature, SeqioVocabulary, TextFeature

_names: set[str] = set()


def add_text(
    name: str,
    source: seqio.DataSource,
    language: str,
    data: ConfigDict,
    before: Sequence[Callable] = (),
) -> None:
    """Register a task of one language; `before` turns what the source gives into `text`."""
    vocabulary = SeqioVocabulary(data.vocabulary)
    outputs = {features.TOKENS: TextFeature(vocabulary, language=language)}
    _add(name, source, outputs, data, before)


def add_pair(
    name: str,
    source: seqio.DataSource,
    languages: tuple[str, str],
    data: ConfigDict,
    before: Sequence[Callable] = (),
) -> None:
    """Register a task of two texts; `before` makes `text` and `target_text`."""
    vocabulary = SeqioVocabulary(data.vocabulary)
    outputs = {
        feature: TextFeature(vocabulary, language=language)
        for feature, language in zip(
            (features.TOKENS, features.TARGET_TOKENS), languages, strict=True
        )
    }
    _add(name, source, outputs, data, before)


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
    vocabulary = SeqioVocabulary(data.vocabulary)
    outputs: dict[str, seqio.Feature] = {
        feature: TextFeature(vocabulary, language=language)
        for feature, language in zip(
            (features.TOKENS, features.TARGET_TOKENS), languages, strict=False
        )
    }
    outputs[features.LABEL] = LabelFeature(names=tuple(labels))
    _add(name, source, outputs, data, before, (preprocessors.Label(tuple(labels)),))


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
) -> None:
    steps = (
        preprocessors.Clean(Cleaning.from_config(data)),
        *more,
        preprocessors.Tokenise(data.max_tokens),
    )
    seqio.TaskRegistry.add(
        name,
        source=source,
        preprocessors=[
            *before,
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
