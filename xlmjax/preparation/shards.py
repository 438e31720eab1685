"""What runs in the processes of `prepare`: pure functions of picklable arguments.

seqio and TensorFlow take seconds and hundreds of megabytes to import, so this module imports them
inside its functions: the parent process imports it without them.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import itertools
import json
import os
import pathlib
import re
import sys
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from xlmjax.data import features
from xlmjax.data.features import LABEL, RAW_OF
from xlmjax.data.store import FeatureSpec
from xlmjax.data.store_writer import StoreWriter
from xlmjax.preparation import text_files
from xlmjax.preparation.text_files import FileScan

if TYPE_CHECKING:
    import seqio

    from xlmjax.preparation.preprocessors import InBatches

# Part of every fingerprint: raise it when the code that makes tokens of text changes its result.
PREPARATION_VERSION = 1
# By name: the tasks stand above this package, and are the only ones who know what to register.
TASKS_MODULE = "xlmjax.tasks"
SCANS_FILE = "scans.json"  # in data.stores
_BATCH = 512
_SOURCES_OF = {
    "tlm": "data.pairs and data.train.parallel",
    "mt": "data.pairs and data.train.parallel",
    "xnli": "data.validation.xnli",
}
OWN_MIXTURES = ("mlm", "clm", "ae", "tlm", "mt", "xnli")


@dataclasses.dataclass(frozen=True)
class StorePlan:
    """What the store of one split of a task is made from; `examples` is None if unknown.

    `text_fingerprint` is that of the clean text, None where steps that are not ours make tokens.
    """

    task: str
    split: str
    kind: str
    features: dict[str, FeatureSpec]
    labels: tuple[str, ...]
    vocabulary: str
    text_fingerprint: str | None
    source_fingerprint: str
    examples: int | None
    scans: tuple[FileScan, ...]


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """One shard to write: the config, what is known of its files, where it goes."""

    config: dict[str, Any]
    scans: tuple[FileScan, ...]
    writer: StoreWriter
    index: int


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What a name of the config stands for; `rates` is None where `data.mixing` decides.

    `languages` are those that a mixture of our own was looked for in, None for other names.
    """

    tasks: tuple[str, ...]
    rates: tuple[float, ...] | None
    languages: tuple[str, ...] | None
    splits: dict[str, tuple[str, ...]]


def named_tasks(config: ConfigDict) -> dict[str, dict[str, bool]]:
    """Return every mixture or task that a config names, its splits, and whether each must be."""
    names: dict[str, dict[str, bool]] = {}
    groups = config.objectives.values()
    for listed in (config.data.mixture, *(group.mixture for group in groups)):
        for name in listed:
            # Validation text comes along where there is some: it is small, and asked for later.
            names[name] = {"train": True, "validation": False}
    for evaluator in config.evals.values():
        for name in evaluator.get("tasks", ()):
            names.setdefault(name, {})[evaluator.split] = True
    return names


def resolve(config: dict[str, Any], names: Sequence[str]) -> dict[str, Mixture]:
    """Return the tasks behind mixture or task names; raises `ValueError` naming what is known."""
    register(config)
    return look_up(config, names)


def look_up(config: dict[str, Any], names: Sequence[str]) -> dict[str, Mixture]:
    """Do what `resolve` does where the tasks of the config are registered already."""
    import seqio

    mixtures = {}
    for name in names:
        ours = name in OWN_MIXTURES
        if name in seqio.TaskRegistry.names():
            tasks, rates = [seqio.TaskRegistry.get(name)], None
        elif name in seqio.MixtureRegistry.names():
            mixture = seqio.MixtureRegistry.get(name)
            tasks = mixture.tasks
            # Our own mixtures leave the rates to `data.mixing`; a user's mixture brings its own.
            rates = None if ours else tuple(mixture.get_rate(task) for task in tasks)
        else:
            raise ValueError(_unknown(name, config, seqio))
        splits = {task.name: tuple(task.source.splits) for task in tasks}
        codes = tuple(config["data"]["languages"]) if ours else None
        mixtures[name] = Mixture(tuple(task.name for task in tasks), rates, codes, splits)
    return mixtures


def describe(
    config: dict[str, Any], task: str, split: str, scans: pathlib.Path | None = None
) -> StorePlan:
    """Look at the source of a task without making tokens; `scans` is the file of an earlier run.

    Raises `ValueError` where a file is missing, is not UTF-8, lacks a column, ...
    """
    seqio = register(config)
    from xlmjax.preparation import comparison

    if scans is not None:
        text_files.remember(text_files.load_scans(scans))
    provider = seqio.TaskRegistry.get(task)
    specs = {name: _feature_spec(task, name, item) for name, item in outputs_of(provider).items()}
    for raw in _raws(provider, split):
        specs[raw] = FeatureSpec("uint8", specs[RAW_OF[raw]].language)
    vocabularies = {item.vocabulary.model.fingerprint for item in outputs_of(provider).values()}
    if len(vocabularies) != 1:
        raise ValueError(f"task {task!r}: its features have different vocabularies")
    text, examples, used = look_at(provider.source, split)
    content = [PREPARATION_VERSION, text, [stable_repr(step) for step in provider.preprocessors]]
    if split == "train" and (filtered := comparison.filter_of(provider)) is not None:
        fingerprint, more = comparison.look_at_filter(provider, filtered.doctor)
        content.append(fingerprint)
        used += more
    return StorePlan(
        task=task,
        split=split,
        kind=_kind(provider),
        features=specs,
        labels=_labels(provider),
        vocabulary=vocabularies.pop(),
        text_fingerprint=comparison.text_fingerprint(provider, text),
        source_fingerprint=hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16],
        examples=examples,
        scans=used,
    )


def write_shard(job: ShardJob) -> float:
    """Write one shard and its record; returns the seconds it took.

    Depends on nothing but the job and the files it names, so any process may run it, again too.
    """
    seqio = register(job.config)
    from xlmjax.preparation import preprocessors

    text_files.remember(job.scans)
    started = time.monotonic()
    writer = job.writer
    task = seqio.TaskRegistry.get(writer.task)
    shard_info = seqio.ShardInfo(job.index, writer.num_shards)
    with writer.shard(job.index) as shard, preprocessors.counting_drops() as dropped:
        for columns, labels in example_batches(task, writer.split, shard_info):
            shard.append(
                lengths={name: flat.lengths for name, flat in columns.items()},
                tokens={name: flat.tokens for name, flat in columns.items()},
                characters={name: flat.characters for name, flat in columns.items()},
                num_bytes={name: flat.num_bytes for name, flat in columns.items()},
                labels=labels,
            )
        writer.record(job.index, shard.finish(dropped))
    return time.monotonic() - started


class Flat(NamedTuple):
    """A feature of a batch: tokens (or bytes) end to end, how many an example, size of the text."""

    tokens: np.ndarray
    lengths: np.ndarray
    characters: int
    num_bytes: int


def example_batches(
    task: "seqio.Task", split: str, shard_info: "seqio.ShardInfo"
) -> Iterator[tuple[dict[str, Flat], np.ndarray | None]]:
    """Yield what a store keeps of `task.get_dataset`, in batches: features, and labels if any.

    The work on our own sources is Python on batches, and is called directly: tf.data's handling of
    single examples would take three quarters of the time.
    """
    from xlmjax.preparation.sources import CorpusSource

    outputs, raws = outputs_of(task), _raws(task, split)
    steps = own_steps(task)
    if steps is not None and isinstance(task.source, CorpusSource):
        for texts in task.source.batches(split, shard_info):
            columns = steps.run(texts, outputs)
            flat = {name: _flatten(columns, name) for name in outputs}
            flat |= {name: _flatten_raw([text.encode() for text in columns[name]]) for name in raws}
            yield flat, columns.get(LABEL)
        return
    dataset = task.get_dataset(
        split=split, shuffle=False, shard_info=shard_info, try_in_mem_cache=False
    )
    for batch in dataset.ragged_batch(_BATCH):
        labels = batch[LABEL].numpy() if LABEL in task.output_features else None
        flat = {name: _unwrap(batch, name, outputs[name].vocabulary.model) for name in outputs}
        flat |= {name: _flatten_raw(batch[name].numpy()) for name in raws}
        yield flat, labels


def own_steps(task: "seqio.Task") -> "InBatches | None":
    """Return the Python steps of a task, None where other preprocessors have a part in it."""
    from xlmjax.preparation.preprocessors import InBatches

    steps = task.preprocessors[:-1] if task.supports_caching else task.preprocessors
    return steps[0] if len(steps) == 1 and isinstance(steps[0], InBatches) else None


def _flatten(columns: Mapping[str, Any], name: str) -> Flat:
    rows = columns[name]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    tokens = np.fromiter(itertools.chain.from_iterable(rows), np.uint32, lengths.sum())
    characters, num_bytes = (int(columns[f"{name}_{of}"].sum()) for of in ("characters", "bytes"))
    return Flat(tokens, lengths, characters, num_bytes)


def _flatten_raw(texts: Sequence[bytes]) -> Flat:
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    joined = b"".join(texts)
    return Flat(np.frombuffer(joined, np.uint8), lengths, len(joined.decode()), len(joined))


def _unwrap(batch: Mapping[str, Any], name: str, vocabulary: Any) -> Flat:
    tokens, lengths = batch[name].flat_values.numpy(), batch[name].row_lengths().numpy()
    if f"{name}_bytes" in batch:
        sizes = (int(batch[f"{name}_{of}"].numpy().sum()) for of in ("characters", "bytes"))
        return Flat(tokens, lengths, *sizes)
    # A user's own preprocessors do not count.
    texts = [vocabulary.decode(row) for row in np.split(tokens, np.cumsum(lengths)[:-1])]
    return Flat(tokens, lengths, sum(map(len, texts)), sum(len(text.encode()) for text in texts))


def outputs_of(task: "seqio.Task") -> dict[str, "seqio.Feature"]:
    """Return the features of tokens of a task; raises `ValueError` where no store can hold it."""
    names = (features.TOKENS, features.TARGET_TOKENS)
    outputs = {name: task.output_features[name] for name in names if name in task.output_features}
    raws = set(RAW_OF) & set(task.output_features)
    others = sorted(set(task.output_features) - set(outputs) - {LABEL} - raws)
    translates = raws == set(RAW_OF) and set(outputs) == set(names)
    if others or features.TOKENS not in outputs or (raws and not translates):
        raise ValueError(
            f"task {task.name!r}: output features {sorted(task.output_features)} cannot be stored; "
            "a text task has `tokens`, a pair task `tokens` and `target_tokens`, either may have a "
            "`label`, and a translation task is a pair with `source_text` and `reference` "
            "(xlmjax.tasks.add_text, add_pair, add_classification, add_translation)"
        )
    return outputs


def _kind(task: "seqio.Task") -> str:
    if features.REFERENCE in task.output_features:
        return "translation"
    return "pair" if features.TARGET_TOKENS in task.output_features else "text"


def _raws(task: "seqio.Task", split: str) -> list[str]:
    """Return the features of raw text that a store keeps: nothing in training reads them."""
    return [name for name in RAW_OF if name in task.output_features and split != "train"]


def _labels(task: "seqio.Task") -> tuple[str, ...]:
    """Return the names of the labels of a task, none where its examples carry none."""
    from xlmjax.preparation.vocabulary import LabelFeature

    feature = task.output_features.get(LABEL)
    if feature is None:
        return ()
    if not isinstance(feature, LabelFeature) or len(feature.names) < 2:
        raise ValueError(
            f"task {task.name!r}: its `label` names no labels; make it a LabelFeature "
            "(xlmjax.tasks.add_classification)"
        )
    return feature.names


def _feature_spec(task: str, name: str, feature: "seqio.Feature") -> FeatureSpec:
    from xlmjax.preparation.vocabulary import TextFeature

    if not isinstance(feature, TextFeature) or not feature.language:
        raise ValueError(
            f"task {task!r}: output feature {name!r} names no language; make it a TextFeature "
            "(xlmjax.tasks.add_text, add_pair)"
        )
    return FeatureSpec(feature.vocabulary.model.dtype.name, feature.language)


def look_at(source: "seqio.DataSource", split: str) -> tuple[Any, int | None, tuple[FileScan, ...]]:
    """Return what tells the text of a source from any other, its examples, and its files."""
    import seqio

    from xlmjax.preparation.sources import CorpusSource, MarkedSource

    if isinstance(source, CorpusSource):
        corpus = source.corpus(split)
        return source.fingerprint(split), len(corpus), corpus.scans
    if isinstance(source, MarkedSource):
        text, examples, scans = look_at(source.source, split)
        return [text, [stable_repr(step) for step in source.before]], examples, scans
    if isinstance(source, seqio.TfdsDataSource):
        source.tfds_dataset.builder.download_and_prepare()
    return _fingerprint_of_other(source, split), source.num_input_examples(split), ()


def _fingerprint_of_other(source: "seqio.DataSource", split: str) -> list:
    """Describe a source that is not ours: its settings, and its files as far as they are local."""
    files = [
        (path, os.stat(path).st_size, os.stat(path).st_mtime_ns)
        for path in source.list_shards(split)
        if os.path.isfile(path)
    ]
    return [type(source).__name__, stable_repr(source), split, files]


def stable_repr(thing: Any) -> str:
    """Return a `repr` that is the same in every process."""
    if isinstance(thing, functools.partial):
        arguments = sorted(thing.keywords.items())
        return f"{stable_repr(thing.func)}{tuple(map(stable_repr, thing.args))}{arguments}"
    if isinstance(thing, types.FunctionType):
        return f"{thing.__module__}.{thing.__qualname__}"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def _unknown(name: str, config: Mapping[str, Any], seqio: types.ModuleType) -> str:
    if name in OWN_MIXTURES:
        what = _SOURCES_OF.get(name, "data.train.text")
        return f"data.mixture: {name!r} stands for nothing: {what} must not be empty"
    ours = re.compile(rf"({'|'.join(OWN_MIXTURES)})\.")
    own = [task for task in seqio.TaskRegistry.names() if ours.match(task)]
    other = (
        "wiki40b.mlm.LANG, wmt19.tlm.A_B, wmt19.mt.SRC_TGT, opus.SUBSET.tlm.A_B, demo.mlm.LANG, "
        "demo.ae.LANG, demo.tlm.A_B, demo.mt.SRC_TGT, demo.xnli.LANG"
    )
    modules = ", ".join(config["data"]["modules"]) or "none"
    return (
        f"data.mixture: unknown task or mixture {name!r}; known: {', '.join(sorted(own))}, "
        f"{other}; data.modules: {modules}"
    )


@contextlib.contextmanager
def _stderr_closed() -> Iterator[None]:
    """Swallow what TensorFlow's C++ says on import, before it can be told to be quiet."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


_registered: list[str] = []


def register(config: dict[str, Any]) -> types.ModuleType:
    """Register the tasks of a config, once a process; returns seqio."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # text needs no accelerator
    with _stderr_closed() if "tensorflow" not in sys.modules else contextlib.nullcontext():
        import absl.logging
        import seqio

        tasks = importlib.import_module(TASKS_MODULE)
    absl.logging.set_verbosity(absl.logging.ERROR)
    key = repr(config)
    if _registered != [key]:
        tasks.register(ConfigDict(config))
        _registered[:] = [key]
    return seqio
