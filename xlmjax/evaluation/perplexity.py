"""Masked or causal perplexity of held-out tasks: fixed masks, every example once.

As XLM evaluates (specification 5.2): masks depend on a fixed seed, the task and the row only, so
they are the same at every step of every run; every target is replaced by the mask symbol, never
kept or replaced at random. Sums and weights are added up over all batches before the one division,
and rows that only fill the last batch weigh nothing, so the result does not depend on the number of
rows a batch or of devices.
"""

import functools
import itertools
import math
import statistics
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from xlmjax.data.batches import EvaluationBatches
from xlmjax.data.mixture import Task
from xlmjax.evaluation.base import EVALUATORS, Context
from xlmjax.evaluation.uncut import open_uncut
from xlmjax.objectives import OBJECTIVES, LanguageModel, naming
from xlmjax.ops.cross_entropy import SumWeight
from xlmjax.parallel.mesh import check_rows
from xlmjax.parallel.partition import batch_sharding, replicated, use_rules

SEED = 0  # of the masks
_PREDICTABLE = "predictable"  # places that could be targets, of all real ones


def _language_model(name: str, field: str) -> type[LanguageModel]:
    """Return the objective of this name, which must be one that has a perplexity."""
    known = {n: kind for n in OBJECTIVES if issubclass(kind := OBJECTIVES[n], LanguageModel)}
    if name not in known:
        raise ValueError(f"{field}={name!r} is unknown; known: {', '.join(known)}")
    return known[name]


@EVALUATORS.register("perplexity")
class Perplexity:
    """Loss, perplexity and accuracy per task, per language and on average over a kind of task."""

    def __init__(self, name: str, fields: ConfigDict, context: Context):
        check_rows(context.mesh, fields.rows, f"evals.{name}.rows")
        kind = _language_model(fields.objective, f"evals.{name}.objective")
        self._tasks = open_uncut(name, fields.tasks, fields.split, context)
        self._rows = fields.rows
        self._max_rows = fields.max_rows
        self._mesh = context.mesh
        group = ConfigDict()
        group.rate, group.max_rate, group.sample_alpha = ((0, fields.rate),), 0.0, 0.0
        group.mask_keep_random = (1.0, 0.0, 0.0)
        objective = kind.from_config(group, context.specials).for_evaluation()
        self._score = jax.jit(
            functools.partial(_score, objective, context.strategy),
            out_shardings=replicated(context.mesh),
        )
        self.details: Mapping[str, Any] = {}
        self.protocol: Mapping[str, Any] = {
            "evaluator": "perplexity",
            "objective": fields.objective,
            "split": fields.split,
            "rate": fields.rate,
            "max_rows": fields.max_rows,
            "mask_seed": SEED,
            "vocabulary": context.vocabulary.fingerprint,
            "tasks": {task.name: _facts(task) for task in self._tasks},
        }

    def evaluate(self, model: Any) -> Iterator[tuple[str, float]]:
        """Yield `<task>/<metric>`, `<language>/<metric>` and `<kind>/average/<metric>`.

        A language is scored over all tasks of the evaluator; an average is the arithmetic mean over
        the tasks of a kind (mlm, tlm, clm), as XLM's (specification 4.5). `bits_per_byte`, which
        compares vocabularies, is the mean loss in bits times the symbols that can be predicted
        (words and inner end symbols) over the bytes of the text.
        """
        kinds: dict[str, list[dict[str, float]]] = {}
        languages: dict[str, Any] = {}
        for task in self._tasks:
            total = self._total(model, task)
            predictable, real = total.pop(_PREDICTABLE)
            for name in [name for name in total if "/" in name]:
                pair = total.pop(name)
                if name.startswith("language/"):
                    languages[name] = languages.get(name, 0.0) + pair
            metrics = _with_perplexity(naming.means(total, []))
            if "loss" in metrics:
                symbols = predictable / real * task.layout.num_tokens
                manifest = task.store.manifest
                num_bytes = sum(manifest.bytes[side] for side in manifest.sides)
                metrics["bits_per_byte"] = metrics["loss"] / math.log(2) * symbols / num_bytes
                kinds.setdefault(task.name.partition(".")[0], []).append(metrics)
            yield from ((f"{task.name}/{metric}", value) for metric, value in metrics.items())
        yield from _with_perplexity(naming.means(languages, [])).items()
        for kind, found in kinds.items():
            for metric in found[0]:
                mean = statistics.fmean(metrics[metric] for metrics in found)
                yield f"{kind}/average/{metric}", mean

    def _total(self, model: Any, task: Task) -> dict[str, Any]:
        """Return metric -> float64 [2] or [2, n]: sum and weight over all rows of a task."""
        sharding = batch_sharding(self._mesh)
        batches = EvaluationBatches(
            [task], self._rows, task.layout.length, sharding, self._max_rows
        )
        key = jax.random.fold_in(jax.random.key(SEED), zlib.crc32(task.name.encode()))
        total: dict[str, Any] = {}
        waiting = None  # fetched from the device while the next batch runs
        for batch in itertools.chain(batches, (None,)):
            scored = None if batch is None else self._score(model, batch, key)
            if waiting is not None:
                for name, pair in jax.device_get(waiting).items():
                    total[name] = total.get(name, 0.0) + np.array(pair, np.float64)
            waiting = scored
        return total


def _score(objective: Any, strategy: str, model: Any, batch: Any, key: jax.Array) -> Any:
    segments = batch["segment_ids"]
    places = SumWeight(objective.predictable(segments).sum(), (segments != 0).sum())
    with use_rules(strategy):
        metrics = objective.loss(model, batch, key, 0, deterministic=True).metrics
    return {**metrics, _PREDICTABLE: places}


def _with_perplexity(means: Mapping[str, float]) -> dict[str, float]:
    """Return the means and, beside each `.../loss`, `.../perplexity` = exp(loss)."""
    found = dict(means)
    for name, value in means.items():
        if name == "loss" or name.endswith("/loss"):
            found[f"{name.removesuffix('loss')}perplexity"] = math.exp(min(value, 700.0))
    return found


def _facts(task: Task) -> dict[str, Any]:
    return {
        "length": task.layout.length,
        "examples": task.store.manifest.examples,
        "rows": task.layout.num_rows,
        "tokens": task.layout.num_tokens,
        "dropped": dict(task.layout.dropped),
    }
