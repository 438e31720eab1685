"""Charts with their title and last values, on one scale, and numbers as the page writes them."""

from collections.abc import Sequence

import numpy as np

from xlmjax import languages
from xlmjax.report.charts import Curve, Drawing, Scale, draw_curves
from xlmjax.report.runs import Run

OPEN_PANELS = 40  # more small charts than this are folded away

Chart = tuple[str, list[tuple[int, str]], Drawing]  # title, (run, its last value), drawing


def number(value: float, digits: int = 3) -> str:
    """Return a number as the page writes it: 1234567 as 1.23M."""
    if not np.isfinite(value):
        return "-"
    units = (("T", 1e12, 1e12), ("B", 1e9, 1e9), ("M", 1e6, 1e6), ("k", 1e3, 1e4))
    for unit, one, at_least in units:
        if abs(value) >= at_least:
            return f"{float(f'{value / one:.{digits}g}'):g}{unit}"
    if abs(value) >= 1e3:
        return f"{value:,.0f}"
    return f"{float(f'{value:.{digits}g}'):g}"


def share(value: float) -> str:
    """Return a share as percent; NaN as a dash."""
    return f"{number(100 * value)} %" if np.isfinite(value) else "-"


def last(values: np.ndarray) -> float:
    """Return the last value that is a number, NaN where none is."""
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else float("nan")


def median(run: Run, name: str) -> float:
    """Return the median over the log of a metric of training, NaN where it is not there."""
    values = run.training.column(name)
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def title_of(owner: str) -> str:
    """Return how a chart names its owner: a language by name and code."""
    group, _, code = owner.rpartition(": ")
    try:
        named = f"{languages.get(code).name} ({code})"
    except KeyError:
        return owner
    return f"{group}: {named}" if group else named


def chart(
    title: str, curves: Sequence[Curve], runs: Sequence[Run], scale: Scale, height: int
) -> Chart:
    """Return a chart over the tokens of all runs, `height` CSS pixels high."""
    shown = share if scale.percent else number
    values = [(curve.run, shown(last(curve.y))) for curve in curves]
    end = 1.02 * max(float(run.tokens[-1]) for run in runs)
    names = [run.name for run in runs]
    return title, values, draw_curves(curves, names, scale, height, end)


def with_range(
    scale: Scale, curves: Sequence[Curve], clipped: bool = False, from_zero: bool = False
) -> Scale:
    """Return the scale with one range for all curves; `clipped` leaves the first fall outside."""
    values = np.concatenate([curve.y for curve in curves])
    values = values[np.isfinite(values) & ((values > 0) | (not scale.log))]
    if not len(values):
        return scale
    low, high = float(values.min()), float(values.max())
    if clipped and len(values) > 20:
        high = max(float(np.quantile(values, 0.95)), low)
    if scale.log:
        return Scale(scale.percent, True, low / 1.25, high * 1.25)
    if from_zero or scale.percent:
        low = min(low, 0.0)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return Scale(scale.percent, False, low - margin * (low != 0), high + margin)


def standing(curves: Sequence[Curve]) -> float:
    """Return the last value of the first run, for the order of charts."""
    value = last(curves[0].y) if curves else float("nan")
    return value if np.isfinite(value) else 0.0
