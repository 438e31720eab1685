"""What training text is compared with: the evaluation sets of a config, and itself.

Both are sorted arrays of hashes in `data.stores`/doctor, made once and mapped by every process.
Steps of seqio know their task alone, so the config whose tasks are registered is remembered here.
As in `shards`, seqio is imported inside functions.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from xlmjax.data.store_writer import GrowingArray
from xlmjax.preparation import corpora, doctor, repeats, shards
from xlmjax.preparation.doctor import Doctor, EvaluationIndex, Units
from xlmjax.preparation.repeats import Repeats, RunWriter
from xlmjax.preparation.text_files import FileScan

if TYPE_CHECKING:
    import seqio

    from xlmjax.preparation.preprocessors import Columns, Filter
    from xlmjax.preparation.sources import CorpusSource

# Part of every fingerprint of findings: raise it when the code changes what is found.
VERSION = 1
# Tasks that hold what `data.validation` and `data.test` name, each text once.
_MIXTURE_OF = {"text": "mlm", "parallel": "tlm", "xnli": "xnli"}


@dataclasses.dataclass(frozen=True)
class EvaluationSets:
    """The held-out texts that a config names: "TASK/SPLIT" each, and those that cannot be read."""

    names: tuple[str, ...]
    unreadable: tuple[str, ...]
    fingerprint: str
    scans: tuple[FileScan, ...]


_config: list[dict[str, Any]] = []


def use(config: dict[str, Any]) -> None:
    """Remember the config whose tasks are registered: its evaluation sets are theirs."""
    _config[:] = [config]
    evaluation_sets.cache_clear()
    evaluation_index.cache_clear()
    repeats_of.cache_clear()


@functools.cache
def evaluation_sets() -> EvaluationSets:
    """Return every held-out split that a task of the config has or an evaluator names."""
    import seqio

    if not _config:
        raise ValueError(
            "no config says what the evaluation sets are: call xlmjax.tasks.register(config) "
            "before reading a task whose data.doctor.drop names overlap"
        )
    names, unreadable, content = [], [], []
    scans: dict[tuple[str, int], FileScan] = {}
    for (task, split), required in _held_out(_config[0]).items():
        provider = seqio.TaskRegistry.get(task)
        try:
            text, _, used = shards.look_at(provider.source, split)
        except ValueError as error:
            if required:
                raise
            unreadable.append(f"{task}/{split}: {error}")
            continue
        fingerprint = text_fingerprint(provider, text)
        if fingerprint is None:
            unreadable.append(f"{task}/{split}: its preprocessors are not those of xlmjax.tasks")
        elif fingerprint not in content:
            names.append(f"{task}/{split}")
            content.append(fingerprint)
            scans.update({(scan.path, scan.columns): scan for scan in used})
    return EvaluationSets(
        tuple(names), tuple(unreadable), digest([VERSION, *sorted(content)]), tuple(scans.values())
    )


def _held_out(config: dict[str, Any]) -> dict[tuple[str, str], bool]:
    """Return (task, split) of evaluation sets, and whether preparation needs each anyway."""
    settings = ConfigDict(config)
    named = shards.named_tasks(settings)
    found: dict[tuple[str, str], bool] = {}
    for name, mixture in shards.look_up(config, list(named)).items():
        for task, existing in mixture.splits.items():
            for split in named[name]:
                if split != "train" and split in existing:
                    found[task, split] = True
    for kind, name in _MIXTURE_OF.items():
        for split in ("validation", "test"):
            # The built-in text is the default of all languages, whether or not it has them.
            given = [spec for spec in corpora.specs(settings.data, split, kind) if spec != "demo:"]
            for task, existing in _mixture(config, name).items() if given else ():
                if split in existing:
                    found.setdefault((task, split), False)
    return found


def _mixture(config: dict[str, Any], name: str) -> Mapping[str, tuple[str, ...]]:
    import seqio

    if name not in seqio.MixtureRegistry.names():
        return {}  # no pairs, for instance
    return shards.look_up(config, [name])[name].splits


@functools.cache
def evaluation_index() -> EvaluationIndex:
    """Return the hashes of the evaluation sets of the config in use; makes them where missing."""
    return EvaluationIndex.open(write_evaluation_index()[0])


@functools.cache
def repeats_of(task: str, stores: str) -> Repeats:
    """Return what the training text of a task has more than once; looks where it is missing.

    Raises `ValueError` where the examples of its source have no numbers.
    """
    import seqio

    provider = seqio.TaskRegistry.get(task)
    source = _numbered(provider)
    fingerprint = text_fingerprint(provider, source.fingerprint("train"))
    path = repeats_path(stores, str(fingerprint))
    if not Repeats.is_there(path):
        from xlmjax.preparation.preprocessors import NUMBER, example_hashes

        runs = RunWriter(path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:8]}"))
        path.parent.mkdir(parents=True, exist_ok=True)
        for columns, sides in clean_batches(provider, "train"):
            runs.append(example_hashes(columns, sides), columns[NUMBER])
        runs.flush()
        files = [path.with_name(name) for name in runs.names]
        repeats.merge(files, 0, path)
        for file in files:
            file.unlink()
    return Repeats.open(path)


def filter_of(task: "seqio.Task") -> "Filter | None":
    """Return the step of a task that drops by findings, None where it has none."""
    from xlmjax.preparation.preprocessors import Filter

    own = shards.own_steps(task)
    steps = own.steps if own is not None else ()
    return next((step for step in steps if isinstance(step, Filter)), None)


def look_at_filter(task: "seqio.Task", settings: Doctor) -> tuple[Any, tuple[FileScan, ...]]:
    """Return what the result of a filter depends on beside text and settings, and its files.

    Raises `ValueError` where the filter cannot be applied.
    """
    if doctor.DUPLICATE in settings.drop:
        _numbered(task)
    if not settings.drops_overlap:
        return VERSION, ()
    sets = evaluation_sets()
    return [VERSION, sets.fingerprint], sets.scans


def text_fingerprint(task: "seqio.Task", text: Any) -> str | None:
    """Return a digest of clean text: what `look_at` says of it, cleaning and languages.

    None where the task has no clean text, because its preprocessors are others.
    """
    from xlmjax.preparation.sources import CorpusSource, MarkedSource

    steps = shards.own_steps(task)
    clean = steps.until_clean() if steps is not None else None
    if clean is None or not isinstance(task.source, CorpusSource | MarkedSource):
        return None
    codes = [feature.language for feature in shards.outputs_of(task).values()]
    return digest([text, codes, shards.stable_repr(clean.steps[-1])])


def clean_batches(
    task: "seqio.Task", split: str, shard_info: "seqio.ShardInfo | None" = None
) -> "Iterator[tuple[Columns, list[list[str]]]]":
    """Yield the columns of a task after `Clean`, in order, and the texts among them."""
    from xlmjax.preparation import preprocessors

    steps, outputs = shards.own_steps(task), shards.outputs_of(task)
    clean = steps.until_clean() if steps is not None else None
    if clean is None:
        raise ValueError(
            f"task {task.name!r} has no clean text to examine: register it with xlmjax.tasks.add_*"
        )
    for texts in task.source.batches(split, shard_info):
        columns = clean.run(texts, outputs)
        yield columns, preprocessors.texts_of(columns, outputs)[0]


def write_evaluation_index() -> tuple[pathlib.Path, EvaluationIndex]:
    """Make the index of the evaluation sets of the config in use, unless it is there already."""
    import seqio

    sets = evaluation_sets()
    directory = folder(_config[0]["data"]["stores"]) / f"evaluation-{sets.fingerprint}"
    if (directory / "ngrams.npy").is_file():  # written last
        return directory, EvaluationIndex.open(directory)
    lines, ngrams = [], []
    for name in sets.names:
        task_name, _, split = name.rpartition("/")
        task = seqio.TaskRegistry.get(task_name)
        codes = [feature.language for feature in shards.outputs_of(task).values()]
        for _, sides in clean_batches(task, split):
            for texts, code in zip(sides, codes, strict=True):
                units = Units.of(texts)
                lines.append(units.line_hashes())
                ngrams.append(units.ngram_hashes(doctor.ngram_size(code))[0])
    directory.mkdir(parents=True, exist_ok=True)
    for stem, hashes in (("lines", lines), ("ngrams", ngrams)):
        array = GrowingArray(directory / f"{stem}.npy", np.dtype(np.uint64))
        found = np.unique(np.concatenate([*hashes, np.zeros(0, np.uint64)]))
        array.append(found[found != 0])  # 0 is the line without words
        array.finish()
    return directory, EvaluationIndex.open(directory)


def _numbered(task: "seqio.Task") -> "CorpusSource":
    """Return the source of a task; raises `ValueError` where its examples have no numbers."""
    from xlmjax.preparation.sources import CorpusSource

    if not isinstance(task.source, CorpusSource):
        raise ValueError(
            f"data.doctor.drop names 'duplicate', but the examples of task {task.name!r} come from "
            "seqio without numbers, and which is the first of several equal ones would depend on "
            "the shards: take 'duplicate' out of data.doctor.drop, or write the text to files that "
            "data.train names"
        )
    return task.source


def folder(stores: str) -> pathlib.Path:
    """Return where files of the doctor lie."""
    return pathlib.Path(stores) / "doctor"


def repeats_path(stores: str, fingerprint: str) -> pathlib.Path:
    """Return where `Repeats` of a text lies, without the ends of its files."""
    return folder(stores) / f"repeats-{fingerprint}"


def digest(content: Any) -> str:
    """Return a fingerprint of what JSON can write."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
