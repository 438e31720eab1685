"""From the metrics of steps to numbers with names, in metrics.jsonl and TensorBoard.

The loop dispatches step n + 1 before it looks at what step n returned, so nothing waits for the
device; sums and weights of a logging window add up on the host, in float64.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from etils import epath
from tensorboardX import SummaryWriter

from xlmjax.objectives import naming
from xlmjax.storage_errors import writing
from xlmjax.training.step import StepMetrics

METRICS_FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"


@dataclasses.dataclass(frozen=True)
class Throughput:
    """What turns token counts into rates."""

    padded_tokens: int  # of one step, over all groups
    flops_per_token: Callable[[float], float]  # of the model, by the share of tokens predicted
    peak_flops: float | None  # of all devices together; None where the kind is not known


class Window:
    """Metrics of the steps since the last line of the log.

    `train/loss` and its kin are the cross entropy per target over the window, per task and per
    language, `train/<task>/targets` and `train/<language>/targets` how many targets it had. With
    several groups these stand under `train/<group>/`, and `train/loss` is the weighted total that
    is optimised, averaged over the steps.
    """

    def __init__(self, tasks: Mapping[str, Sequence[str]], throughput: Throughput):
        """Tasks: group -> names, in the order of the task ids of its batches."""
        self._tasks = tasks
        self._throughput = throughput
        self._begin()

    def _begin(self) -> None:
        self._totals: dict[str, dict[str, np.ndarray]] = {}
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._learning_rate = math.nan
        self._real = self._predicted = 0.0
        self._steps = self._nonfinite = 0

    def add(self, metrics: StepMetrics, timed: bool = True) -> None:
        """Add one step, fetched from the device; of a non-finite one only that it was.

        One that is not `timed` does not count in the rates.
        """
        self._steps += timed
        self._learning_rate = float(metrics.learning_rate)
        if metrics.nonfinite:
            self._nonfinite += 1
            return
        self._losses.append(float(metrics.loss))
        self._norms.append(float(metrics.grad_norm))
        self._real += timed * float(metrics.real_tokens)
        self._predicted += timed * float(metrics.predicted_tokens)
        for group, named in metrics.groups.items():
            totals = self._totals.setdefault(group, {})
            for name, (value, weight) in named.items():
                totals[name] = totals.get(name, 0.0) + np.array((value, weight), np.float64)

    @property
    def timed_steps(self) -> int:
        """Steps of the window that count in the rates."""
        return self._steps

    def close(self, seconds: float) -> dict[str, float]:
        """Return name -> value of the window, which lasted so many seconds, and begin a new one."""
        values: dict[str, float] = {}
        several = len(self._tasks) > 1
        if several and self._losses:
            values["train/loss"] = float(np.mean(self._losses))
        for group, totals in self._totals.items():
            prefix = f"train/{group}" if several else "train"
            tasks = self._tasks[group]
            named = naming.means(totals, tasks) | naming.target_counts(totals, tasks)
            values |= {f"{prefix}/{name}": value for name, value in named.items()}
        values |= self._rates(seconds)
        values["optim/learning_rate"] = self._learning_rate
        if self._norms:
            values["optim/grad_norm"] = float(np.mean(self._norms))
        values["optim/nonfinite_steps"] = float(self._nonfinite)
        self._begin()
        return values

    def _rates(self, seconds: float) -> dict[str, float]:
        if not self._steps:
            return {}
        spec, real = self._throughput, self._real / seconds
        rates = {
            "perf/steps_per_second": self._steps / seconds,
            "perf/tokens_per_second": real,
            "perf/padded_tokens_per_second": self._steps * spec.padded_tokens / seconds,
            "perf/predicted_tokens_per_second": self._predicted / seconds,
        }
        if spec.peak_flops and self._real:
            flops = spec.flops_per_token(self._predicted / self._real)
            rates["perf/mfu"] = real * flops / spec.peak_flops
        return rates


class MetricWriter:
    """Appends to metrics.jsonl and TensorBoard; on process 0 only, elsewhere it does nothing."""

    def __init__(
        self, workdir: epath.PathLike, step: int, *, tensorboard: bool, active: bool = True
    ):
        """`step` is where the run goes on: later lines, of updates that were lost, are dropped.

        `evaluated` tells whether the log has the evaluations of this step.
        """
        self._file = self._summary = None
        self.evaluated = False
        if not active:
            return
        folder = epath.Path(workdir)
        self._path = folder / METRICS_FILE
        with writing(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            drop_after(self._path, step)
            self.evaluated = has_evaluations(self._path, step)
            self._file = self._path.open("a")
        if tensorboard:
            self._summary = SummaryWriter(
                str(folder / TENSORBOARD), purge_step=step + 1, filename_suffix=f".{step}"
            )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line; NaN and Inf, which JSON cannot hold, become null."""
        if self._file is None or not values:
            return
        clean = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with writing(self._path):
            self._file.write(json.dumps({"step": step, **clean}) + "\n")
            self._file.flush()
        if self._summary is not None:
            for name, value in values.items():
                if math.isfinite(value):
                    self._summary.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the files."""
        if self._file is not None:
            self._file.close()
        if self._summary is not None:
            self._summary.close()


def drop_after(path: epath.Path, step: int) -> None:
    """Keep the lines of a metrics file up to `step`, so that a resumed run reads as one.

    A line cut short by a kill goes too. The file is replaced in one move.
    """
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if len(kept) == len(lines):
        return
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept))
    partial.replace(path)


def has_evaluations(path: epath.Path, step: int) -> bool:
    """Return whether the last lines of a metrics file hold evaluations of this step, the last."""
    lines = path.read_text().splitlines() if path.exists() else []
    last = itertools.takewhile(lambda line: line["step"] == step, map(json.loads, reversed(lines)))
    return any(name.startswith("eval/") for line in last for name in line)
