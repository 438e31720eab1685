"""Accuracy of a classifier per task and on average, with confusion matrices: XNLI and its kind.

Every example once, none cut: rows are as long as the longest asks. Counts are
integers, so the result is the same on any number of devices and with any number of rows a batch.
"""

import functools
import logging
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from ml_collections import ConfigDict

from xlmjax.data.batches import EvaluationBatches
from xlmjax.data.mixture import Task
from xlmjax.evaluation.base import EVALUATORS, Context
from xlmjax.evaluation.uncut import open_uncut
from xlmjax.objectives.classification import examples
from xlmjax.parallel.mesh import check_rows
from xlmjax.parallel.partition import batch_sharding, replicated, use_rules

log = logging.getLogger(__name__)


@EVALUATORS.register("classification")
class ClassificationAccuracy:
    """Accuracy of every task, and the arithmetic mean over tasks, as XNLI is reported."""

    def __init__(self, name: str, fields: ConfigDict, context: Context):
        config = context.config
        check_rows(context.mesh, fields.rows, f"evals.{name}.rows")
        self._tasks = open_uncut(name, fields.tasks, fields.split, context)
        self._labels = _labels(name, self._tasks, config)
        for task in self._tasks:
            context.model.check_sides(len(task.store.manifest.sides), task.name)
            for code in sorted({*task.languages} - {*config.data.languages}):
                log.warning(
                    "evals.%s: %s is in %r, which data.languages does not list: the model has no "
                    "embedding for it and takes that of its first language",
                    name,
                    task.name,
                    code,
                )
        self._sources = {*fields.source_languages}
        self._rows = fields.rows
        self._mesh = context.mesh
        self._score = jax.jit(
            functools.partial(_confusion, len(self._labels), context.strategy),
            out_shardings=replicated(context.mesh),
        )
        self.details: Mapping[str, Any] = {}
        self.protocol: Mapping[str, Any] = {
            "evaluator": "classification",
            "split": fields.split,
            "labels": list(self._labels),
            "pooling": config.model.pooling,
            "vocabulary": context.vocabulary.fingerprint,
            "trained_on": {
                group: list(entry.mixture or config.data.mixture)
                for group, entry in config.objectives.items()
            },
            "initial_parameters": config.checkpoint.init_from,
            "seed": config.seed,
            "learning_rate": config.optimizer.learning_rate,
            "source_languages": list(fields.source_languages),
            "languages": {task.name: sorted({*task.languages}) for task in self._tasks},
            "examples": {task.name: task.store.manifest.examples for task in self._tasks},
        }

    def evaluate(self, model: Any) -> Iterator[tuple[str, float]]:
        """Yield `<task>/accuracy`, `average/accuracy` and `zero_shot/accuracy`.

        The last is the mean over tasks in other languages than `source_languages`. `details` hold
        the confusion matrices.
        """
        matrices: dict[str, Int[np.ndarray, "n n"]] = {}
        accuracies: dict[str, float] = {}
        for task in self._tasks:
            matrix = matrices[task.name] = self._total(model, task)
            accuracies[task.name] = float(np.trace(matrix) / matrix.sum())
            yield f"{task.name}/accuracy", accuracies[task.name]
        self.details = {
            "confusion": {name: matrix.tolist() for name, matrix in matrices.items()},
            "confusion_axes": "[label, prediction]",
        }
        yield "average/accuracy", statistics.fmean(accuracies.values())
        others = [task.name for task in self._tasks if not self._sources & {*task.languages}]
        if others:
            yield "zero_shot/accuracy", statistics.fmean(accuracies[name] for name in others)

    def _total(self, model: Any, task: Task) -> Int[np.ndarray, "n n"]:
        """Return how often each label (row) got each prediction (column)."""
        sharding = batch_sharding(self._mesh)
        total = np.zeros((len(self._labels),) * 2, np.int64)
        for batch in EvaluationBatches([task], self._rows, task.layout.length, sharding):
            total += np.asarray(self._score(model, batch))
        return total


def _confusion(num_labels: int, strategy: str, model: Any, batch: Any) -> Int[Array, "n n"]:
    picks, labels = examples(batch["labels"])
    names = ("tokens", "positions", "segment_ids", "language_ids")
    with use_rules(strategy):
        scores = model.classify(*(batch[name] for name in names), picks)
    cells = labels * num_labels + scores.argmax(axis=-1)
    cells = jnp.where(labels >= 0, cells, num_labels**2)  # a cell of their own for empty slots
    counts = jnp.bincount(cells.reshape(-1), length=num_labels**2 + 1)[:-1]
    return counts.reshape(num_labels, num_labels)


def _labels(name: str, tasks: Sequence[Task], config: ConfigDict) -> tuple[str, ...]:
    """Return the labels of the classifier; raises `ValueError` where a task has others."""
    wanted = next(
        (tuple(g.labels) for g in config.objectives.values() if g.name == "classification"), ()
    )
    for task in tasks:
        found = task.store.manifest.labels
        if not found or found != wanted:
            raise ValueError(
                f"evals.{name}.tasks: {task.name} ({task.store.manifest.split}) is labelled with "
                f"{found or 'nothing'}, the classifier of config.objectives with "
                f"{wanted or 'nothing'}"
            )
    return wanted
