"""After a loss that is not finite: which rows did it."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from xlmjax.training.state import TrainState
from xlmjax.training.step import Batch, StepMetrics, TrainStep


class NonFiniteError(FloatingPointError):
    """A NaN or Inf in loss or gradient, which ends the run; the message says where to look."""


@dataclasses.dataclass(frozen=True)
class Culprits:
    """Row ids by group, and whether the fault is in the rows or in the parameters."""

    cause: str  # "rows", "every row", "all rows together" or "parameters"
    rows: dict[str, list[int]]


def find_culprits(
    train_step: TrainStep, state: TrainState, batches: Mapping[str, Batch]
) -> Culprits:
    """Return the smallest sets of rows of a step whose loss or gradient is not finite alone.

    Runs the step's own forward and backward pass with the other rows blanked, by bisection: some
    2 log2(rows) passes a culprit, on the step's mesh. The state must be the one the step saw.
    """

    @jax.jit
    def finite(model: Any, step: Any, batches: Any, keep: Any) -> jax.Array:
        return train_step.is_finite(model, step, _blank(batches, keep))

    names = sorted(batches)
    ids = {name: _whole(batches[name]["row_ids"]) for name in names}
    bounds = np.cumsum([0, *(len(ids[name]) for name in names)])

    def passes(chosen: np.ndarray) -> bool:
        parts = dict(zip(names, np.split(chosen, bounds[1:-1]), strict=True))
        return bool(finite(state.model, state.step, batches, parts))

    if not passes(np.zeros(bounds[-1], bool)):
        return Culprits("parameters", {})
    found = bisect(passes, int(bounds[-1]))
    if not found:
        cause = "all rows together"
    else:
        cause = "every row" if len(found) == bounds[-1] else "rows"
    chosen = np.zeros(bounds[-1], bool)
    chosen[found or slice(None)] = True
    split = np.split(chosen, bounds[1:-1])
    rows = {name: ids[name][part].tolist() for name, part in zip(names, split, strict=True)}
    return Culprits(cause, rows)


def bisect(passes: Callable[[np.ndarray], bool], count: int, limit: int = 256) -> list[int]:
    """Return the items that fail alone; `passes` takes the chosen items as bool [count].

    After `limit` trials whole ranges that fail are returned as they are.
    """
    found: list[int] = []
    ranges, trials = [(0, count)], 0
    while ranges:
        start, stop = ranges.pop()
        chosen = np.zeros(count, bool)
        chosen[start:stop] = True
        trials += 1
        if passes(chosen):
            continue
        if stop - start == 1 or trials >= limit:
            found.extend(range(start, stop))
            continue
        middle = (start + stop) // 2
        ranges += [(middle, stop), (start, middle)]
    return found


def report(
    workdir: epath.PathLike,
    step: int,
    metrics: StepMetrics,
    culprits: Culprits,
    tasks: Mapping[str, Sequence[str]],
) -> NonFiniteError:
    """Write `nonfinite-<step>.json` into the workdir and return the error to raise."""
    path = epath.Path(workdir) / f"nonfinite-{step}.json"
    if jax.process_index() == 0:
        content = {
            "step": step,
            "loss": repr(float(metrics.loss)),
            "gradient_norm": repr(float(metrics.grad_norm)),
            "cause": culprits.cause,
            "rows": culprits.rows,
            "tasks": {name: list(values) for name, values in tasks.items()},
        }
        path.write_text(json.dumps(content, indent=2) + "\n")
    few = {name: rows[:8] for name, rows in culprits.rows.items() if rows}
    shown = "; ".join(f"{name}: {rows}" for name, rows in few.items())
    cause = f"{culprits.cause} ({shown})" if shown else culprits.cause
    return NonFiniteError(
        f"step {step}: loss {float(metrics.loss)}, gradient norm {float(metrics.grad_norm)}; "
        f"cause: {cause}, see {path}. Nothing of it was applied or saved: mend the rows, lower "
        "optimizer.learning_rate (every row failing means that the parameters have blown up), or "
        "set optimizer.skip_nonfinite=True"
    )


def _blank(batches: Mapping[str, Batch], keep: Mapping[str, Any]) -> dict[str, Batch]:
    """Return the batches with every feature of the other rows 0, which is padding.

    Not by segment ids alone: a gradient of zero times a NaN that padding hides is NaN.
    """

    def blank(x: jax.Array, chosen: jax.Array) -> jax.Array:
        return jnp.where(chosen.reshape(-1, *(1,) * (x.ndim - 1)), x, 0)

    return {
        name: {feature: blank(x, keep[name]) for feature, x in batch.items()}
        for name, batch in batches.items()
    }


def _whole(x: jax.Array) -> np.ndarray:
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))
