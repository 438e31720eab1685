"""Held-out tasks in rows that hold their longest example: nothing is left out or cut."""

from collections.abc import Sequence

from xlmjax.data.mixture import Task, open_tasks
from xlmjax.evaluation.base import Context

_LENGTHS = 64  # rows longer than those of training are a multiple of this


def open_uncut(name: str, tasks: Sequence[str], split: str, context: Context) -> list[Task]:
    """Open the tasks of the evaluator `config.evals[name]`.

    Rows have train.length tokens, more where an example that must stay whole is longer. Raises
    `ValueError` where the model has no positions for it.
    """
    config = context.config
    opened = open_tasks(config.data, tasks, split, context.vocabulary, config.train.length)
    return [_uncut(name, task, split, context) for task in opened]


def _uncut(name: str, task: Task, split: str, context: Context) -> Task:
    longest = task.layout.longest
    if longest <= task.layout.length:
        return task
    model = context.config.model
    if model.positions != "rope" and longest > model.max_positions:
        raise ValueError(
            f"evals.{name}: the longest example of {task.name} ({split}) has {longest} tokens, "
            f"the model model.max_positions={model.max_positions}: raise it, use "
            "model.positions='rope', or take the example out of the text"
        )
    length = -(-longest // _LENGTHS) * _LENGTHS
    if model.positions != "rope":
        length = min(length, model.max_positions)
    [task] = open_tasks(context.config.data, [task.name], split, context.vocabulary, length)
    return task
