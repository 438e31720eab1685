"""metrics.jsonl as arrays: any length in bounded memory, restarts and cut lines put right."""

import array
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from etils import epath

MAX_LINES = 2_000  # of each kind that are parsed; of a longer log, as many evenly spaced ones
_START = re.compile(rb'\{"step": (\d+), "(\w+)')  # as MetricWriter writes a line
_EVALUATION = b"eval"


@dataclasses.dataclass(frozen=True)
class Log:
    """Values over steps: names -> float64 [steps], NaN where a line lacks the name."""

    steps: np.ndarray  # int64 [steps], increasing
    values: Mapping[str, np.ndarray]

    def column(self, name: str) -> np.ndarray:
        """Return the values of a name; all NaN where no line has it."""
        return self.values.get(name, np.full(len(self.steps), np.nan))


class _Lines:
    """Steps and byte offsets of lines, in the order of their steps."""

    def __init__(self) -> None:
        self.steps = array.array("q")
        self.offsets = array.array("q")

    def add(self, step: int, offset: int) -> None:
        self.steps.append(step)
        self.offsets.append(offset)

    def drop_from(self, step: int) -> None:
        while self.steps and self.steps[-1] >= step:
            self.steps.pop()
            self.offsets.pop()


def read_log(path: epath.PathLike, max_lines: int = MAX_LINES) -> tuple[Log, Log, int]:
    """Return the lines of training, those of evaluations, and how many the former are in the file.

    Where a step comes again, after a resume, the later line holds, and what came after that step
    before is dropped. A last line that a kill cut short is not read. At most `max_lines` of each
    kind are parsed, evenly spaced with the last. Raises `ValueError` with the line of what is no
    JSON, `OSError` where there is no file.
    """
    path = epath.Path(path)
    training, evaluations = _Lines(), _Lines()
    with path.open("rb") as file:
        offset = 0
        for line in file:
            found = _START.match(line) if line.endswith(b"\n") else None
            if found:
                step = int(found[1])
                if found[2] == _EVALUATION:
                    evaluations.drop_from(step + 1)
                    evaluations.add(step, offset)
                else:
                    if training.steps and step <= training.steps[-1]:
                        training.drop_from(step)
                        evaluations.drop_from(step)
                    training.add(step, offset)
            offset += len(line)
        return (
            _parse(file, path, training, max_lines),
            _parse(file, path, evaluations, max_lines),
            len(training.steps),
        )


def _parse(file: BinaryIO, path: epath.Path, lines: _Lines, max_lines: int) -> Log:
    count = len(lines.steps)
    chosen = np.unique(np.linspace(count - 1, 0, min(count, max_lines)).round().astype(int))
    rows: dict[int, dict[str, Any]] = {}
    for index in chosen.tolist():
        file.seek(lines.offsets[index])
        line = file.readline()
        try:
            values = json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"{path}: the line of step {lines.steps[index]} is no JSON ({error}); remove it"
            ) from error
        rows.setdefault(values.pop("step"), {}).update(values)
    return as_log(list(rows.items()))


def as_log(rows: Sequence[tuple[int, Mapping[str, float | None]]]) -> Log:
    """Return rows of (step, name -> value), in the order of their steps, as columns."""
    names = dict.fromkeys(name for _, values in rows for name in values)
    columns = {name: np.full(len(rows), np.nan) for name in names}
    for index, (_, values) in enumerate(rows):
        for name, value in values.items():
            if isinstance(value, int | float):
                columns[name][index] = value
    return Log(np.array([step for step, _ in rows], np.int64), columns)
