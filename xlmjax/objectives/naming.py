"""Names for the metrics of an objective, shared by training and evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xlmjax import languages


def means(metrics: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, float]:
    """Return name -> mean: `loss`, `en/loss` for a language, `mlm.en/loss` for a task.

    Metrics are (sum, weight) scalars, or vectors over language ids (`language/loss`) or over the
    batch's task ids (`task/loss`), which `tasks` names. What has no weight has no mean and is
    left out.
    """
    owners = _owners(tasks)
    found: dict[str, float] = {}
    for name, (total, weight) in metrics.items():
        kind, slash, metric = name.partition("/")
        if not slash:
            if weight > 0:
                found[name] = float(total / weight)
            continue
        for index in np.flatnonzero(np.asarray(weight) > 0):
            found[f"{owners[kind][index]}/{metric}"] = float(total[index] / weight[index])
    return found


def target_counts(metrics: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, float]:
    """Return `en/targets` of each language and `mlm.en/targets` of each task that has any.

    These are the weights of the losses, as `means` takes them.
    """
    owners = _owners(tasks)
    return {
        f"{owners[kind][index]}/targets": float(weight[index])
        for name, (_, weight) in metrics.items()
        for kind, _, metric in [name.partition("/")]
        if metric == "loss"
        for index in np.flatnonzero(np.asarray(weight) > 0)
    }


def _owners(tasks: Sequence[str]) -> dict[str, list[str]]:
    """Return the names behind the indices of vectors over languages and over tasks."""
    codes = [language.code for language in languages.LANGUAGES]
    return {"language": codes, "task": list(tasks)}
