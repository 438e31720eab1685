"""What the files of a workdir say of a run: no devices, no stores, nothing that trains."""

import collections
import dataclasses
import datetime
import itertools
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from xlmjax import languages
from xlmjax.configuration import leaves, load_config
from xlmjax.data.mixture import open_groups
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.planning.mixture_record import GroupRecord, read_groups, record_groups
from xlmjax.report.log import MAX_LINES, Log, as_log, read_log

METRICS = "metrics.jsonl"
_CONFIG = re.compile(r"config(?:-(\d+))?\.json")
_RESULT = re.compile(r"(.+?)-(\d+)(?:-average(\d+))?\.json")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluator of a run: values over steps, all measured under one protocol."""

    name: str
    log: Log
    protocol: Mapping[str, Any]
    left_out: Mapping[int, Mapping[str, Any]]  # step -> protocol, where it is not the last's


@dataclasses.dataclass(frozen=True)
class Run:
    """One run as its workdir tells it; `starts` are the steps at which it began or went on."""

    name: str
    workdir: str
    starts: Mapping[int, Mapping[str, Any]]  # step -> the description written there
    training: Log
    lines: int  # of training in the log; `training` has at most MAX_LINES of them
    written: datetime.datetime  # when the log was last written
    evaluations: Sequence[Evaluation]
    mixtures: Sequence[GroupRecord]
    mixture_note: str  # why there are none, or where they are from
    unreadable: Sequence[str]  # results that are left out: a run may be writing them

    @property
    def description(self) -> Mapping[str, Any]:
        """What the last start wrote: config, versions, mesh, parameters."""
        return self.starts[max(self.starts)]

    @property
    def config(self) -> Mapping[str, Any]:
        """The config of the last start."""
        return self.description["config"]

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return int(self.training.steps[-1])

    @property
    def num_steps(self) -> int:
        """The steps that the config asks for."""
        return int(self.config["train"]["num_steps"])

    @property
    def parameters(self) -> int:
        """Number of parameters of the model."""
        table = self.description.get("parameters", {}).values()
        return sum(math.prod(entry["shape"]) for entry in table)

    @property
    def tokens(self) -> np.ndarray:
        """Real tokens read by each line of the log, float64 [lines].

        Of lines without rates the tokens a step are those of the next line that has them; where
        none has, they are all places of the rows.
        """
        rates = self.training.column("perf/tokens_per_second")
        with np.errstate(invalid="ignore", divide="ignore"):
            a_step = rates / self.training.column("perf/steps_per_second")
        known = np.flatnonzero(np.isfinite(a_step))
        train = self.config["train"]
        if not len(known):
            return self.training.steps * float(train["rows"] * train["length"])
        following = known[
            np.minimum(np.searchsorted(known, np.arange(len(a_step))), len(known) - 1)
        ]
        return np.cumsum(a_step[following] * np.diff(self.training.steps, prepend=0))

    def tokens_at(self, steps: np.ndarray) -> np.ndarray:
        """Return the real tokens read by some steps, between lines in proportion."""
        return np.interp(steps, np.append(0, self.training.steps), np.append(0.0, self.tokens))


def find_workdirs(given: Sequence[str]) -> list[str]:
    """Return the workdirs behind `--workdir` values: paths, lists with commas, folders of runs.

    Raises `ValueError` where one is missing, or has no log and no runs below it.
    """
    found: list[str] = []
    for value in given:
        one = value.rstrip("/")
        paths = [one] if epath.Path(one).exists() else [x for x in value.split(",") if x]
        for path in paths:
            found += _runs_in(path.rstrip("/"))
    return list(dict.fromkeys(found))


def read_runs(workdirs: Sequence[str], max_lines: int = MAX_LINES) -> list[Run]:
    """Return the runs of some workdirs, each under the shortest name that tells it from the others.

    Raises `ValueError` naming the file, and what to do, where a workdir cannot be read.
    """
    return [
        _read_run(path, name, max_lines)
        for path, name in zip(workdirs, _short_names(workdirs), strict=True)
    ]


def config_differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return (field, its value in every run) of each leaf that is not the same in all of them."""
    columns = [leaves(run.config) for run in runs]
    names = sorted({name for column in columns for name in column})
    rows = [(name, [_shown(column, name) for column in columns]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def restart_differences(run: Run) -> list[tuple[int, str, str, str]]:
    """Return (step, field, before, after) of what changed when the run went on."""
    starts = sorted(run.starts)
    found = []
    for before, after in itertools.pairwise(starts):
        old, new = (leaves(run.starts[step]["config"]) for step in (before, after))
        for name in sorted({*old, *new}):
            if _shown(old, name) != _shown(new, name):
                found.append((after, name, _shown(old, name), _shown(new, name)))
    return found


def series(log: Log, metric: str, groups: Sequence[str] = ()) -> dict[str, dict[str, np.ndarray]]:
    """Return "language" and "task" -> owner -> values of `<owner>/<metric>`.

    With several groups an owner reads "group: owner", and the groups themselves are "group".
    """
    codes = {language.code for language in languages.LANGUAGES}
    found: dict[str, dict[str, np.ndarray]] = {"language": {}, "task": {}, "group": {}}
    for name, values in log.values.items():
        *owner, last = name.split("/")
        if last != metric or not owner or owner[0] != "train" or len(owner) == 1:
            continue
        if len(groups) > 1 and len(owner) == 2 and owner[1] in groups:
            found["group"][owner[1]] = values
            continue
        kind = "language" if owner[-1] in codes else "task"
        found[kind][": ".join(owner[1:])] = values
    return found


def _runs_in(path: str) -> list[str]:
    place = epath.Path(path)
    if (place / METRICS).exists():
        return [path]
    if not place.is_dir():
        raise ValueError(f"--workdir={path}: no such folder; name that of a run of `xlmjax train`")
    below = sorted(x.name for x in place.iterdir() if (x / METRICS).exists())
    if not below:
        raise ValueError(
            f"--workdir={path}: no {METRICS} in it or a folder below; name the workdir of a run "
            "that `xlmjax train` has begun"
        )
    return [f"{path}/{name}" for name in below]


def _short_names(workdirs: Sequence[str]) -> list[str]:
    parts = [pathlib.PurePath(os.path.abspath(path)).parts for path in workdirs]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(workdirs)


def _read_run(workdir: str, name: str, max_lines: int) -> Run:
    folder = epath.Path(workdir)
    training, during, lines = read_log(folder / METRICS, max_lines)
    if not lines:
        raise ValueError(
            f"{folder / METRICS}: no line of a training step yet; wait until the run has logged "
            "once (log.every steps)"
        )
    starts = _read_starts(folder)
    mixtures, note = _read_mixtures(folder, starts[max(starts)])
    evaluations, unreadable = _read_evaluations(folder, during, int(training.steps[-1]))
    return Run(
        name=name,
        workdir=workdir,
        starts=starts,
        training=training,
        lines=lines,
        written=datetime.datetime.fromtimestamp((folder / METRICS).stat().mtime),
        evaluations=evaluations,
        mixtures=mixtures,
        mixture_note=note,
        unreadable=unreadable,
    )


def _read_starts(folder: epath.Path) -> dict[int, Mapping[str, Any]]:
    found = {}
    for path in folder.iterdir():
        if match := _CONFIG.fullmatch(path.name):
            found[int(match[1] or 0)] = _read_json(path)
    if not found:
        raise ValueError(
            f"{folder}/config.json: no such file; it is written when a run starts, so copy it from "
            "where the run is"
        )
    for step, content in found.items():
        config = content.get("config") if isinstance(content, dict) else None
        if not isinstance(config, dict) or not isinstance(config.get("train"), dict):
            raise ValueError(
                f"{folder}/config{f'-{step}' if step else ''}.json: no field `config.train`; this "
                "is not the config that `xlmjax train` writes"
            )
    return found


def _read_json(path: epath.Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path}: no JSON ({error}); copy the file again from where the run is, or remove it"
        ) from error


def _read_mixtures(
    folder: epath.Path, description: Mapping[str, Any]
) -> tuple[Sequence[GroupRecord], str]:
    """Return the planned mixtures; of runs that have not written theirs, from the stores."""
    if "mixtures" in description:
        return read_groups(description["mixtures"]), ""
    try:
        config = load_config(str(folder / "config.json"), ["--config.data.verify=False"])
        groups = open_groups(config, Vocabulary.load(config.data.vocabulary))
        records = read_groups(record_groups(groups, config.objectives))
    except (ValueError, KeyError, OSError) as error:
        return (), f"The plan is not in config.json, and its stores cannot be read here: {error}"
    return records, f"The plan is computed from the stores in {config.data.stores} as they are now."


def _read_evaluations(
    folder: epath.Path, during: Log, last: int
) -> tuple[list[Evaluation], list[str]]:
    """Return what eval/*.json hold, and for steps without a file what the log does.

    Besides, the names of files that are no whole results. Results of steps after the last of the
    log are of updates that were lost, and are left out.
    """
    results: dict[str, dict[int, Mapping[str, Any]]] = collections.defaultdict(dict)
    unreadable = []
    place = folder / "eval"
    for path in sorted(place.iterdir()) if place.exists() else ():
        match = _RESULT.fullmatch(path.name)
        if match and int(match[2]) <= last:
            name = match[1] + (f" (mean of {match[3]} checkpoints)" if match[3] else "")
            content = _read_result(path)
            if content is None:
                unreadable.append(f"eval/{path.name}")
            else:
                results[name][int(match[2])] = content
    found = []
    for name in sorted({*results, *_evaluators(during)}):
        files = results.get(name, {})
        protocol = files[max(files)]["protocol"] if files else {}
        rows = {
            step: content["values"]
            for step, content in files.items()
            if content["protocol"] == protocol
        }
        left_out = {step: files[step]["protocol"] for step in sorted({*files} - {*rows})}
        prefix = f"eval/{name}/"
        own = {metric: x for metric, x in during.values.items() if metric.startswith(prefix)}
        for index, step in enumerate(during.steps.tolist()):
            if step in files:
                continue
            values = {
                metric.removeprefix(prefix): float(column[index])
                for metric, column in own.items()
                if np.isfinite(column[index])
            }
            if values:
                rows[step] = values
        found.append(Evaluation(name, as_log(sorted(rows.items())), protocol, left_out))
    return found, unreadable


def _read_result(path: epath.Path) -> Mapping[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except ValueError:
        return None
    whole = isinstance(content, dict) and {"values", "protocol"} <= content.keys()
    return content if whole else None


def _evaluators(during: Log) -> set[str]:
    return {name.split("/")[1] for name in during.values if name.startswith("eval/")}


def _shown(column: Mapping[str, Any], name: str) -> str:
    return json.dumps(column[name]) if name in column else "-"
