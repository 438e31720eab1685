"""From seqio tasks to token stores: what is there is checked, what is missing is made.

The parent process plans and reports; the work is done by the functions of `shards`, in local
processes or on Apache Beam. A store is reused if and only if it was made from the same text, with
the same preprocessing and the same vocabulary.
"""

import contextlib
import errno
import fcntl
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from ml_collections import ConfigDict

from xlmjax.data import store, store_writer
from xlmjax.data.features import RAW_OF
from xlmjax.data.store import Manifest
from xlmjax.data.store_writer import StoreWriter
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.preparation import comparison, examination, shards, text_files
from xlmjax.preparation.doctor import Doctor
from xlmjax.preparation.shards import Mixture, ShardJob, StorePlan

MIXTURES_FILE = "mixture.json"
LOCK_FILE = ".prepare.lock"
# Fewer a shard are not worth a process: small stores have fewer shards.
_MIN_EXAMPLES = 1 << 15


class Runner(Protocol):
    """Where functions of `shards` run."""

    def map(self, function: Callable, items: Iterable[tuple]) -> Iterator[tuple[int, Any]]:
        """Yield (index of the item, result), in any order."""
        ...

    def stop(self) -> None:
        """End what is running."""
        ...


def prepare(
    config: ConfigDict, planner: Runner, runner: Runner, say: Callable[[str], None] = print
) -> None:
    """Make every store that `config` names; finished ones that are up to date are left alone.

    Where another process prepares stores in the same folder, this one waits for it. Raises
    `ValueError` before anything is written where the text or the config has a fault.
    """
    started = time.monotonic()
    Vocabulary.load(config.data.vocabulary)  # its errors, before any process starts
    _check_shards(config.data.num_shards)
    doctor = Doctor.from_config(config.data)
    if "://" in config.data.stores:
        raise ValueError(
            f"data.stores={config.data.stores!r}: stores are written to a mounted file system, "
            "name a folder of one"
        )
    stores = pathlib.Path(config.data.stores)
    with _alone_in(stores, say):
        made = _make(config, stores, doctor, planner, runner, say)
    total = sum(item.made_bytes for item in made) / 1e6
    seconds = time.monotonic() - started
    say(f"{len(made)} stores in {stores}, {total:.1f} MB of text made into tokens, {seconds:.0f} s")


@contextlib.contextmanager
def _alone_in(stores: pathlib.Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder of stores; what a process that was killed in it left half-written is removed.

    The lock goes with the process, however that ends.
    """
    stores.mkdir(parents=True, exist_ok=True)
    with (stores / LOCK_FILE).open("w") as lock:
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another process prepares stores in {stores}: waiting until it ends")
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            say(f"{stores} is on a file system without locks: run one `prepare` in it at a time")
        else:
            for path in comparison.folder(str(stores)).glob("*.tmp-*"):
                path.unlink()
        yield


def _make(
    config: ConfigDict,
    stores: pathlib.Path,
    doctor: Doctor,
    planner: Runner,
    runner: Runner,
    say: Callable[[str], None],
) -> "list[_Store]":
    """Make what is missing; returns all stores."""
    settings = config.to_dict()
    names = shards.named_tasks(config)
    [(_, mixtures)] = planner.map(shards.resolve, [(settings, tuple(names))])
    wanted = _wanted(names, mixtures)
    scans_file = stores / shards.SCANS_FILE
    plans = _in_order(
        planner.map(shards.describe, [(settings, *item, scans_file) for item in wanted])
    )
    known = text_files.load_scans(scans_file)
    scans = {(scan.path, scan.columns): scan for scan in known}
    scans.update({(scan.path, scan.columns): scan for plan in plans for scan in plan.scans})
    text_files.save_scans(scans_file, scans.values())
    texts = [(plan, _num_shards(plan, config.data.num_shards)) for plan in plans]
    made: list[_Store] = []
    try:
        if doctor.examine or doctor.drop:
            examination.run(config, texts, planner, runner, say)
        made.extend(_Store(stores, *text, say) for text in texts)
        _write_shards(settings, made, runner)
    except BaseException:
        runner.stop()
        for item in made:
            item.sweep()
        raise
    _write_mixtures(stores / MIXTURES_FILE, mixtures, say)
    return made


def _wanted(
    names: Mapping[str, Mapping[str, bool]], mixtures: Mapping[str, Mixture]
) -> list[tuple[str, str]]:
    wanted: dict[tuple[str, str], None] = {}
    for name, splits in names.items():
        for task, existing in mixtures[name].splits.items():
            for split, needed in splits.items():
                if split in existing:
                    wanted[task, split] = None
                elif needed:
                    raise ValueError(
                        f"task {task!r} has no split {split!r}, only {', '.join(existing)}; name "
                        f"its text in data.{split}"
                    )
    return list(wanted)


class _Store:
    """One store on its way: what is there, what is missing, what to say about it."""

    def __init__(
        self, stores: pathlib.Path, plan: StorePlan, num_shards: int, say: Callable[[str], None]
    ):
        self.plan = plan
        self.name = f"{plan.task}/{plan.split}"
        self.made_bytes = 0
        self._say = say
        self._seconds = 0.0
        self.writer = StoreWriter(
            directory=stores / plan.task / plan.split,
            task=plan.task,
            split=plan.split,
            kind=plan.kind,
            features=plan.features,
            vocabulary=plan.vocabulary,
            source_fingerprint=plan.source_fingerprint,
            num_shards=num_shards,
            labels=plan.labels,
        )
        self.missing = self._look()

    def _look(self) -> set[int]:
        """Return the shards to write; says why where a finished store is not good."""
        if self.writer.directory.exists() and (stale := self._why_stale()) is None:
            self._say(f"{self.name}: up to date")
            return set()
        if self.writer.directory.exists() and stale:
            self._say(f"{self.name}: made again: {stale}")
        self.writer.start()
        shards_there = range(self.writer.num_shards)
        missing = {index for index in shards_there if self.writer.finished_shard(index) is None}
        if len(missing) < self.writer.num_shards:
            there = self.writer.num_shards - len(missing)
            self._say(f"{self.name}: {there} of {self.writer.num_shards} shards are there already")
        return missing

    def _why_stale(self) -> str | None:
        """Return None for a store that is up to date, "" for an unfinished one."""
        if not (self.writer.directory / store.MANIFEST).exists():
            return ""
        try:
            manifest = Manifest.load(self.writer.directory)
            for shard in manifest.shards:
                store.check_files(self.writer.directory, shard, checksums=False)
        except ValueError as error:
            return str(error)
        if manifest.vocabulary != self.plan.vocabulary:
            return f"vocabulary was {manifest.vocabulary}, is {self.plan.vocabulary}"
        if manifest.source_fingerprint != self.plan.source_fingerprint:
            return "its text or the preprocessing has changed"
        if manifest.labels != self.plan.labels:
            return f"labels were {manifest.labels}, are {self.plan.labels}"
        return None

    def jobs(self, settings: dict[str, Any]) -> Iterator[ShardJob]:
        """Yield the shards to write."""
        for index in sorted(self.missing):
            yield ShardJob(settings, self.plan.scans, self.writer, index)

    def wrote(self, index: int, seconds: float) -> None:
        """Take note of a shard; with the last one, finish the store and report."""
        self.missing.remove(index)
        self._seconds += seconds
        shard = self.writer.finished_shard(index, checksums=False)
        if shard is None:
            raise ValueError(
                f"{self.writer.directory}: shard {index} vanished after it was written"
            )
        self.made_bytes += sum(_of_sides(shard.bytes))
        if self.missing:
            return
        found = [self.writer.finished_shard(i, False) for i in range(self.writer.num_shards)]
        if not sum(shard.examples for shard in found if shard is not None):
            dropped: dict[str, int] = {}
            for part in filter(None, found):
                for reason, number in part.dropped.items():
                    dropped[reason] = dropped.get(reason, 0) + number
            raise ValueError(
                f"{self.name}: no example is left of its text; dropped: "
                f"{_format_counts(dropped)}; see data.max_words, data.max_tokens, data.doctor"
            )
        self._say(self._report(self.writer.finish()))

    def _report(self, manifest: Manifest) -> str:
        tokens = " + ".join(f"{number:,}" for number in _of_sides(manifest.tokens))
        speed = self.made_bytes / 1e6 / self._seconds if self._seconds else 0.0
        return (
            f"{self.name}: {manifest.examples:,} examples, {tokens} tokens, dropped: "
            f"{_format_counts(manifest.dropped)}, {sum(_of_sides(manifest.bytes)) / 1e6:.1f} MB of "
            f"text" + (f", {speed:.1f} MB/s a core" if speed else "")
        )

    def sweep(self) -> None:
        """Remove what interrupted processes left half-written."""
        if self.missing:
            for path in self.writer.directory.glob("*.tmp-*"):
                path.unlink(missing_ok=True)


def _write_shards(settings: dict[str, Any], made: list[_Store], runner: Runner) -> None:
    jobs = [(item, job) for item in made for job in item.jobs(settings)]
    for index, seconds in runner.map(shards.write_shard, [(job,) for _, job in jobs]):
        item, job = jobs[index]
        item.wrote(job.index, seconds)
    for item in made:
        # All shards may have been there when the manifest was not.
        if not item.missing and not (item.writer.directory / store.MANIFEST).exists():
            item.writer.finish()


def _write_mixtures(
    path: pathlib.Path, mixtures: Mapping[str, Mixture], say: Callable[[str], None]
) -> None:
    """Add what names stand for to `mixture.json`, which several configs may share."""
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for name, mixture in mixtures.items():
        entry = {
            "tasks": list(mixture.tasks),
            "rates": None if mixture.rates is None else list(mixture.rates),
        }
        if mixture.languages is not None:
            entry["languages"] = list(mixture.languages)
        if known.get(name, entry)["tasks"] != entry["tasks"]:
            say(f"{path}: {name!r} stands for other tasks than before: {', '.join(mixture.tasks)}")
        known[name] = entry
    store_writer.write_json(path, known)


def _of_sides(numbers: Mapping[str, int]) -> list[int]:
    """Return the numbers of the features of tokens: raw text is the same once more."""
    return [number for name, number in numbers.items() if name not in RAW_OF]


def _in_order(results: Iterable[tuple[int, Any]]) -> list[Any]:
    return [result for _, result in sorted(results, key=lambda pair: pair[0])]


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in sorted(counts.items())) or "none"


def _num_shards(plan: StorePlan, num_shards: int) -> int:
    if plan.examples is None:
        return num_shards
    return min(num_shards, max(1, int(plan.examples) // _MIN_EXAMPLES))


def _check_shards(num_shards: int) -> None:
    if num_shards < 1:
        raise ValueError(f"data.num_shards={num_shards} must be 1 or more")
