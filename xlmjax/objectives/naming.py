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
    codes = [language.code for language in languages.LANGUAGES]
    owners = {"language": codes, "task": list(tasks)}
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
