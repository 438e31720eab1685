"""The data doctor at work on whole stores: what `prepare` counts, shows and, if asked, drops.

An examination reads the clean text of a store without making tokens. Each shard leaves a record and
the hashes of its examples; putting them together gives `findings.json` beside the store. The
hashes of all evaluation sets, and of what a text has twice, are files in `data.stores`/doctor that
every process maps. As in `shards`, seqio is imported inside functions.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from xlmjax.data.store_writer import write_json
from xlmjax.preparation import comparison, doctor, repeats, shards, text_files
from xlmjax.preparation.cleaning import Cleaning
from xlmjax.preparation.doctor import Doctor, EvaluationIndex
from xlmjax.preparation.repeats import Repeats, RunWriter
from xlmjax.preparation.text_files import FileScan

FINDINGS_FILE = "findings.json"
_MAX_SHOWN_CHARACTERS = 300


@dataclasses.dataclass(frozen=True)
class Job:
    """The text of one store to examine: what from, in how many shards, where results go.

    `stores` maps a name "TASK/SPLIT" to the folder of each store that has this text. `evaluation`
    is the folder of the index of the sets `compared_with`, None where nothing is to be compared,
    `repeats` where to write what the text has twice, None where nothing asks.
    """

    config: dict[str, Any]
    scans: tuple[FileScan, ...]
    task: str
    split: str
    stores: dict[str, pathlib.Path]
    num_shards: int
    fingerprint: str
    evaluation: pathlib.Path | None
    compared_with: tuple[str, ...]
    repeats: pathlib.Path | None

    @property
    def work(self) -> pathlib.Path:
        """Folder of what the shards leave; of its own for each text and setting."""
        return comparison.folder(self.config["data"]["stores"]) / f"{self.fingerprint}.work"

    def record(self, index: int) -> pathlib.Path:
        """Return where shard `index` leaves its record."""
        return self.work / f"shard-{index:05d}-of-{self.num_shards:05d}.json"


# What runs in the processes of `prepare`.


@dataclasses.dataclass(frozen=True)
class IndexReport:
    """Where the index of the evaluation sets is, and what it holds."""

    directory: pathlib.Path
    sets: comparison.EvaluationSets
    lines: int
    ngrams: int


def index_evaluation_sets(config: dict[str, Any], scans: pathlib.Path) -> IndexReport:
    """Make the index of the evaluation sets of a config, unless it is there already."""
    shards.register(config)
    text_files.remember(text_files.load_scans(scans))
    directory, index = comparison.write_evaluation_index()
    return IndexReport(directory, comparison.evaluation_sets(), len(index.lines), len(index.ngrams))


def examine_shard(job: Job, index: int) -> None:
    """Examine one shard and write its record; one that an earlier attempt left is good."""
    if job.record(index).exists():
        return
    seqio = shards.register(job.config)
    from xlmjax.preparation.preprocessors import NUMBER, example_hashes

    text_files.remember(job.scans)
    settings = Doctor.from_config(ConfigDict(job.config["data"]))
    task = seqio.TaskRegistry.get(job.task)
    codes = [feature.language for feature in shards.outputs_of(task).values()]
    evaluation = EvaluationIndex.open(job.evaluation) if job.evaluation is not None else None
    job.work.mkdir(parents=True, exist_ok=True)
    runs = RunWriter(job.record(index).with_suffix(""))
    tally = _Tally(codes, settings.max_shown)
    for columns, sides in comparison.clean_batches(
        task, job.split, seqio.ShardInfo(index, job.num_shards)
    ):
        numbers = columns.get(NUMBER, np.arange(tally.examined, tally.examined + len(sides[0])))
        runs.append(example_hashes(columns, sides), numbers)
        tally.append(sides, numbers, doctor.examine(sides, codes, settings, evaluation))
    runs.flush()
    write_json(job.record(index), {**tally.record(), "runs": runs.names})


def put_together(job: Job) -> None:
    """Write the findings of all shards beside the stores, and remove what they left."""
    from xlmjax.preparation.sources import CorpusSource

    seqio = shards.register(job.config)
    text_files.remember(job.scans)
    task = seqio.TaskRegistry.get(job.task)
    settings = Doctor.from_config(ConfigDict(job.config["data"]))
    corpus = task.source.corpus(job.split) if isinstance(task.source, CorpusSource) else None
    paths = [job.record(index) for index in range(job.num_shards)]
    records = [json.loads(path.read_text("utf-8")) for path in paths]
    runs = [job.work / name for record in records for name in record["runs"]]
    duplicates, most = repeats.merge(runs, settings.max_shown, job.repeats)
    findings = _sum(records, settings.max_shown)
    findings[doctor.DUPLICATE] = {
        "examples": duplicates,
        "shown": [{"number": number, "times": times} for number, times in most] if corpus else [],
    }
    cleaning = Cleaning.from_config(ConfigDict(job.config["data"]))
    for finding in findings.values():
        for shown in finding["shown"]:
            number = shown.pop("number")
            if corpus is None:
                continue
            if "texts" not in shown:
                [example] = corpus.examples(number, number + 1)
                texts = [cleaning((text or b"").decode()) for text in example]
                shown["texts"] = [_shorten(text) for text in texts[: len(corpus.languages)]]
            shown["place"] = corpus.place(number)
    if job.evaluation is None:
        findings = {name: found for name, found in findings.items() if name not in doctor.OVERLAP}
    content = {
        "made_from": job.fingerprint,
        "examined": sum(record["examined"] for record in records),
        "max_length_ratio": settings.max_length_ratio,
        "min_script_share": settings.min_script_share,
        "compared_with": job.compared_with,
        "findings": {name: findings[name] for name in doctor.FINDINGS if name in findings},
    }
    for name, directory in job.stores.items():
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / FINDINGS_FILE, {"store": name, **content})
    for path in job.work.iterdir():
        path.unlink(missing_ok=True)
    job.work.rmdir()


class _Tally:
    """Counts and first examples of the findings of one shard."""

    def __init__(self, codes: Sequence[str], max_shown: int):
        self._codes = codes
        self._max_shown = max_shown
        self.examined = 0
        self._findings: dict[str, dict[str, Any]] = {
            name: {"examples": 0, "by_language": {}, "shown": []} for name in doctor.FINDINGS
        }

    def append(
        self, sides: Sequence[Sequence[str]], numbers: np.ndarray, flags: doctor.Flags
    ) -> None:
        self.examined += len(numbers)
        for name, found in flags.items():
            finding, examples = self._findings[name], found.any(axis=0)
            finding["examples"] += int(examples.sum())
            if len(found) == len(self._codes):
                for code, side in zip(self._codes, found, strict=True):
                    by_language = finding["by_language"]
                    by_language[code] = by_language.get(code, 0) + int(side.sum())
            for place in np.flatnonzero(examples)[: self._max_shown - len(finding["shown"])]:
                texts = [_shorten(texts[place]) for texts in sides]
                finding["shown"].append({"number": int(numbers[place]), "texts": texts})

    def record(self) -> dict[str, Any]:
        return {"examined": self.examined, "findings": self._findings}


def _sum(records: Sequence[Mapping[str, Any]], max_shown: int) -> dict[str, dict[str, Any]]:
    """Add up the findings of shards; the first shown of the whole are among those of each."""
    total: dict[str, dict[str, Any]] = {}
    for name in doctor.FINDINGS:
        parts = [record["findings"][name] for record in records]
        codes = dict.fromkeys(code for part in parts for code in part["by_language"])
        total[name] = {
            "examples": sum(part["examples"] for part in parts),
            "by_language": {
                code: sum(part["by_language"].get(code, 0) for part in parts) for code in codes
            },
            "shown": [shown for part in parts for shown in part["shown"]][:max_shown],
        }
    return total


def _shorten(text: str) -> str:
    cut = text[:_MAX_SHOWN_CHARACTERS]
    return cut if cut == text else f"{cut}... ({len(text):,} characters)"


# What the parent does.


def run(
    config: ConfigDict,
    plans: Sequence[tuple[shards.StorePlan, int]],
    planner: Any,
    runner: Any,
    say: Callable[[str], None],
) -> None:
    """Examine the text of some stores, of so many shards each, and show what was found.

    Text that was examined before with the same settings is not read again.
    """
    raw, stores = config.to_dict(), pathlib.Path(config.data.stores)
    scans = stores / shards.SCANS_FILE
    [(_, index)] = planner.map(index_evaluation_sets, [(raw, scans)])
    _say_what_is_compared(index, say)
    jobs: dict[str, Job] = {}
    paths = {}
    for plan, num_shards in plans:
        name, directory = f"{plan.task}/{plan.split}", stores / plan.task / plan.split
        if plan.text_fingerprint is None:
            say(f"{name}: not examined, because its preprocessors are not those of xlmjax.tasks")
            continue
        job = _job(raw, plan, plan.text_fingerprint, num_shards, index)
        paths[name] = directory / FINDINGS_FILE
        kept = job.repeats is None or Repeats.is_there(job.repeats)
        if _made_from(paths[name]) != job.fingerprint or not kept:
            jobs.setdefault(job.fingerprint, job).stores[name] = directory
    parts = [(job, index) for job in jobs.values() for index in range(job.num_shards)]
    for _ in runner.map(examine_shard, parts):
        pass
    for _ in runner.map(put_together, [(job,) for job in jobs.values()]):
        pass
    for line in format_findings({name: _load(path) for name, path in paths.items()}):
        say(line)


def _job(
    config: dict[str, Any], plan: shards.StorePlan, text: str, num_shards: int, index: IndexReport
) -> Job:
    """Return the examination of a text of fingerprint `text`, of no store so far."""
    settings = Doctor.from_config(ConfigDict(config["data"]))
    trains = plan.split == "train"
    content = [
        comparison.VERSION,
        text,
        [settings.max_length_ratio, settings.min_script_share, settings.max_shown],
        index.sets.fingerprint if trains else None,
    ]
    drops = trains and doctor.DUPLICATE in settings.drop
    return Job(
        config=config,
        scans=plan.scans,
        task=plan.task,
        split=plan.split,
        stores={},
        num_shards=num_shards,
        fingerprint=comparison.digest(content),
        evaluation=index.directory if trains else None,
        compared_with=index.sets.names if trains else (),
        repeats=comparison.repeats_path(config["data"]["stores"], text) if drops else None,
    )


def _say_what_is_compared(index: IndexReport, say: Callable[[str], None]) -> None:
    for reason in index.sets.unreadable:
        say(f"data doctor: training text is not compared with {reason}")
    say(
        f"data doctor: training text is compared with {index.lines:,} lines and {index.ngrams:,} "
        f"n-grams of {len(index.sets.names)} evaluation sets"
    )


def _load(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


def _made_from(path: pathlib.Path) -> str | None:
    try:
        return _load(path)["made_from"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def format_findings(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table of findings a store: those without any are only counted."""
    rows = []
    for store, content in found.items():
        findings = content["findings"]
        counts = [
            findings[name]["examples"] if name in findings else None for name in doctor.FINDINGS
        ]
        if any(counts):
            cells = ("-" if count is None else f"{count:,}" for count in counts)
            rows.append([store, f"{content['examined']:,}", *cells])
    if rows:
        # A name takes two lines: the table is to fit a terminal.
        first, second = zip(*(name.rpartition("_")[::2] for name in doctor.FINDINGS), strict=True)
        table = [["", "", *first], ["store", "examined", *second], *rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for name, *rest in table:
            numbers = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
            yield "  ".join([name.ljust(widths[0]), *numbers])
    by_language: dict[str, int] = {}
    for content in found.values():
        for code, count in content["findings"][doctor.WRONG_SCRIPT]["by_language"].items():
            by_language[code] = by_language.get(code, 0) + count
    wrong = ", ".join(f"{code} {count:,}" for code, count in by_language.items() if count)
    yield (
        f"data doctor: {len(rows)} of {len(found)} stores have findings; examples of them are in "
        f"{FINDINGS_FILE} of each store"
    )
    if wrong:
        yield f"data doctor: wrong script by language, all stores together: {wrong}"
