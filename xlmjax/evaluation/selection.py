"""Which run and step of a sweep to report, by which held-out score, and what that gives.

Two customs are reported beside each other, as results of cross-lingual transfer differ by points
between them: `source` takes one model a seed for all languages, the best on the development sets of
the languages that it was fine-tuned in (true zero-shot transfer); `each` takes for every language
the model that is best on that language's own development set. Numbers are means over seeds, and
their sample standard deviations.
"""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from xlmjax.evaluation.base import FOLDER

SUFFIX = "/accuracy"
_OF_ONE_RUN = ("seed", "learning_rate")  # facts of a protocol that a sweep replaces by its own
TITLES = {"source": "source dev", "each": "each dev"}  # customs of selection


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What one run scored at one step, per task."""

    point: str
    seed: int
    step: int
    select: Mapping[str, float]  # on the tasks of the evaluator that selects
    report: Mapping[str, float]  # on those of the one that is reported


@dataclasses.dataclass(frozen=True)
class Row:
    """A task, or a mean over tasks, under one custom of selection."""

    name: str
    mean: float
    deviation: float | None  # over seeds; None of a single one


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A sweep under both customs: for people, and for a file."""

    text: str
    content: dict[str, Any]


def outcome_of(
    candidates: Sequence[Candidate], protocol: Mapping[str, Any], selected_by: str, reported: str
) -> Outcome:
    """Return what a sweep gives; `protocol` is that of the evaluator `reported` of its runs."""
    sources = [
        task
        for task, languages in protocol["languages"].items()
        if set(languages) <= set(protocol["source_languages"])
    ]
    chosen = {mode: select(candidates, sources, mode) for mode in TITLES}
    rows = {mode: summarise(found, sources) for mode, found in chosen.items()}
    seeds = sorted({candidate.seed for candidate in candidates})
    content = {
        "protocol": {
            **{name: fact for name, fact in protocol.items() if name not in _OF_ONE_RUN},
            "seeds": seeds,
            "sweep": sorted({candidate.point for candidate in candidates}),
            "steps": sorted({candidate.step for candidate in candidates}),
            "selected_by": selected_by,
            "reported": reported,
            "deviation": "sample standard deviation over seeds",
        },
        "rows": {
            mode: {row.name: {"mean": row.mean, "deviation": row.deviation} for row in found}
            for mode, found in rows.items()
        },
        "selected": {
            mode: {
                str(seed): {
                    task: {"point": x.point, "step": x.step, "accuracy": x.report[task]}
                    for task, x in own.items()
                }
                for seed, own in found.items()
            }
            for mode, found in chosen.items()
        },
    }
    lines = [
        table({TITLES[mode]: found for mode, found in rows.items()}),
        "",
        f"Accuracy in percent, mean over {len(seeds)} seeds with the standard deviation between "
        f"them. Run and step selected by {selected_by!r} on {', '.join(sources)} (source dev), or "
        f"on each language's own (each dev); scores of {reported!r}.",
    ]
    if selected_by == reported:
        lines.append(
            "The sets that select are the sets that are reported, so both columns are optimistic "
            "where there is a choice; config.sweep.report can name another evaluator."
        )
    return Outcome("\n".join(lines), content)


def read_candidates(
    point: str, seed: int, workdir: epath.Path, select: str, report: str
) -> tuple[list[Candidate], Mapping[str, Any]]:
    """Return the scores of every step at which a run was evaluated, and the protocol reported.

    `select` and `report` name entries of `config.evals`. Raises `ValueError` where there are none.
    """
    found, protocol = [], {}
    for path in sorted((workdir / FOLDER).glob(f"{report}-*.json")):
        step = path.stem.rpartition("-")[2]
        chooser = path.with_name(f"{select}-{step}.json")
        if step.isdigit() and path.stem == f"{report}-{step}" and chooser.is_file():
            content = json.loads(path.read_text("utf-8"))
            protocol = content["protocol"]
            chosen = json.loads(chooser.read_text("utf-8"))
            scores = [_accuracies(one["values"], one["protocol"]) for one in (chosen, content)]
            found.append(Candidate(point, seed, int(step), *scores))
    if not found:
        raise ValueError(
            f"{workdir / FOLDER} holds no {report}-STEP.json beside a {select}-STEP.json: run "
            "`xlmjax train` with the same config first, or mend config.sweep.select and "
            "config.sweep.report"
        )
    return found, protocol


def select(
    candidates: Sequence[Candidate], sources: Sequence[str], mode: str
) -> dict[int, dict[str, Candidate]]:
    """Return seed -> reported task -> the candidate that stands for it.

    `sources` are the tasks whose mean decides where `mode` is "source". Of equals the earliest step
    of the first run wins. Raises `ValueError` where the evaluator that selects lacks a task.
    """
    chosen: dict[int, dict[str, Candidate]] = {}
    for seed in sorted({candidate.seed for candidate in candidates}):
        own = [candidate for candidate in candidates if candidate.seed == seed]
        own.sort(key=lambda candidate: candidate.step)

        def best(tasks: Sequence[str], own: Sequence[Candidate] = own) -> Candidate:
            absent = sorted(set(tasks) - set(own[0].select))
            if absent or not tasks:
                raise ValueError(
                    f"config.sweep.select scores no {', '.join(absent) or 'source language'}: name "
                    "an evaluator of the same tasks, with source_languages among them"
                )
            return max(own, key=lambda c: statistics.fmean(c.select[task] for task in tasks))

        chosen[seed] = {
            task: best(sources if mode == "source" else [task]) for task in own[0].report
        }
    return chosen


def summarise(chosen: Mapping[int, Mapping[str, Candidate]], sources: Sequence[str]) -> list[Row]:
    """Return a row a task, then `average` over all and `zero-shot` over all but the sources."""
    tasks = list(next(iter(chosen.values())))
    means = {task: [task] for task in tasks}
    means["average"] = tasks
    if others := [task for task in tasks if task not in sources]:
        means["zero-shot"] = others
    return [_row(name, chosen, over) for name, over in means.items()]


def _row(name: str, chosen: Mapping[int, Mapping[str, Candidate]], tasks: Sequence[str]) -> Row:
    """Return the mean accuracy over some tasks, over seeds."""
    values = [statistics.fmean(own[task].report[task] for task in tasks) for own in chosen.values()]
    return Row(name, statistics.fmean(values), statistics.stdev(values) if values[1:] else None)


def table(columns: Mapping[str, Sequence[Row]]) -> str:
    """Return a plain table in percent: a line a task, a column a custom of selection."""
    first = next(iter(columns.values()))
    width = max(len(row.name) for row in first)
    lines = [" " * width + "".join(f"  {title:>14}" for title in columns)]
    for number, row in enumerate(first):
        cells = (_cell(rows[number]) for rows in columns.values())
        lines.append(f"{row.name:<{width}}" + "".join(f"  {cell:>14}" for cell in cells))
    return "\n".join(lines)


def _cell(row: Row) -> str:
    spread = "" if row.deviation is None else f" ± {100 * row.deviation:.1f}"
    return f"{100 * row.mean:.1f}{spread}"


def _accuracies(values: Mapping[str, float], protocol: Mapping[str, Any]) -> dict[str, float]:
    return {task: values[f"{task}{SUFFIX}"] for task in protocol["examples"]}
