"""The mixture of a run as plain numbers: written into its workdir, read without its stores."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xlmjax.data import features
from xlmjax.data.mixing import Schedule, Stage
from xlmjax.data.mixture import Group, Task

# Objectives that predict one side of a pair, or one label an example; the others predict any token.
_TARGET_SIDE, _LABELS = "translation", "classification"


@dataclasses.dataclass(frozen=True)
class TaskRecord:
    """One epoch of a task: rows, real tokens, and possible targets by language code."""

    name: str
    rows: int
    tokens: int
    targets: dict[str, float]


@dataclasses.dataclass(frozen=True)
class GroupRecord:
    """The mixture of one entry of `config.objectives`, with the schedule that draws from it."""

    name: str
    rows: int  # of a step
    tasks: tuple[TaskRecord, ...]
    first_rows: tuple[int, ...]  # global row at which each stage begins
    quotas: tuple[tuple[int, ...], ...]  # rows a block of every task, by stage

    def epochs(self, step: int) -> dict[str, float]:
        """Return task -> how often it has been read after `step` updates."""
        stages = [Stage(*pair) for pair in zip(self.first_rows, self.quotas, strict=True)]
        sizes = [task.rows for task in self.tasks]
        schedule = Schedule(sizes, stages, seed=0, block=sum(self.quotas[0]))
        read = schedule.rows_until(step * self.rows) / schedule.sizes
        return {task.name: float(x) for task, x in zip(self.tasks, read, strict=True)}

    def target_shares(self, step: int) -> tuple[dict[str, float], dict[str, float]]:
        """Return the share of targets that each task, and each language, has after `step` updates.

        Targets are drawn alike from all that an objective may predict, so shares are those of
        possible targets.
        """
        epochs = self.epochs(step)
        by_task: dict[str, float] = {}
        by_language: dict[str, float] = {}
        for task in self.tasks:
            for code, amount in task.targets.items():
                seen = epochs[task.name] * amount
                by_task[task.name] = by_task.get(task.name, 0.0) + seen
                by_language[code] = by_language.get(code, 0.0) + seen
        total = sum(by_task.values()) or 1.0
        return (
            {name: amount / total for name, amount in by_task.items()},
            {code: amount / total for code, amount in by_language.items()},
        )


def record_groups(groups: Sequence[Group], objectives: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the mixtures of a run as JSON can hold them; `objectives` is the config's section."""
    return [dataclasses.asdict(_record(group, objectives[group.name].name)) for group in groups]


def read_groups(content: Sequence[Mapping[str, Any]]) -> tuple[GroupRecord, ...]:
    """Return what `record_groups` made, or read back from JSON."""
    return tuple(
        GroupRecord(
            name=group["name"],
            rows=group["rows"],
            tasks=tuple(TaskRecord(**task) for task in group["tasks"]),
            first_rows=tuple(group["first_rows"]),
            quotas=tuple(map(tuple, group["quotas"])),
        )
        for group in content
    )


def _record(group: Group, objective: str) -> GroupRecord:
    schedule = group.mixture.schedule
    first_rows = tuple(map(int, schedule.first_rows))
    rates = [schedule.rates_at(row) for row in first_rows]
    return GroupRecord(
        name=group.name,
        rows=group.rows,
        tasks=tuple(
            TaskRecord(
                task.name, task.layout.num_rows, task.layout.num_tokens, _targets(task, objective)
            )
            for task in group.mixture.tasks
        ),
        first_rows=first_rows,
        quotas=tuple(tuple(np.rint(x * schedule.block).astype(int).tolist()) for x in rates),
    )


def _targets(task: Task, objective: str) -> dict[str, float]:
    """Return language -> how many targets an epoch of a task may give."""
    manifest = task.store.manifest
    sides = manifest.sides
    if objective == _LABELS:
        return {task.languages[0]: float(manifest.examples)}
    if objective == _TARGET_SIDE and features.TARGET_TOKENS in sides:
        sides = (features.TARGET_TOKENS,)
    pieces = {side: manifest.tokens[side] for side in sides}
    if objective == _TARGET_SIDE:  # each target sentence and its end
        total = float(sum(pieces.values()) + manifest.examples)
    else:
        total = float(task.layout.num_tokens)
    found: dict[str, float] = {}
    for side, count in pieces.items():
        code = task.store.language(side)
        found[code] = found.get(code, 0.0) + total * count / max(sum(pieces.values()), 1)
    return found
