"""Bokeh figures of curves and of shares, small and without colours of their own.

Colours follow the theme of the reader's browser, so page.js sets them: by the tag `run-<index>`
of what belongs to one run, and by the kind of everything else.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from bokeh.embed import json_item
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    CustomJSHover,
    CustomJSTickFormatter,
    FactorRange,
    FixedTicker,
    HoverTool,
    Range,
    Range1d,
)
from bokeh.models.renderers import DataRenderer
from bokeh.plotting import figure

PLANNED = "planned"  # tag of what is planned rather than measured
LIMIT = "limit"  # tag of a line that values should stay below

# Functions of page.js: 1234567 as 1.23M, 0.1234 as 12.3 %.
SHORT_NUMBER, PERCENT = "shortNumber", "percent"
DASHES = ("solid", "dashed", "dotted", "dotdash")
SMALL = 200  # CSS pixels; charts below this height have fewer and smaller labels
NUM_COLORS = 6  # of page.js; runs beyond them are told apart by dashes


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line of a chart: y over x, which increases; `run` is the index of its run."""

    run: int
    x: np.ndarray  # tokens
    y: np.ndarray
    steps: np.ndarray
    markers: bool = False


@dataclasses.dataclass(frozen=True)
class Scale:
    """How the values of a chart are drawn: their format, and an axis by powers of ten."""

    percent: bool = False
    log: bool = False
    start: float = 0.0  # of the axis
    end: float = 1.0


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A chart for the page: a Bokeh document in JSON, and columns that stand in its tokens' place.

    In the template `["@0"]` is the place of the first column. Many small charts share a template:
    Bokeh takes a twentieth of a second for a document, and 5 kB.
    """

    template: str
    height: int  # CSS pixels
    columns: Sequence[Sequence[float | None]] = ()


def draw_curves(
    curves: Sequence[Curve], names: Sequence[str], scale: Scale, height: int, x_end: float
) -> Drawing:
    """Return a chart of curves over tokens, from 0 to `x_end`; `names` are those of the runs."""
    columns: list[list[float | None]] = []
    lines = []
    for curve in curves:
        kept = np.isfinite(curve.y) & ((curve.y > 0) | (not scale.log))
        x, y = _rounded(curve.x[kept], 5), _rounded(curve.y[kept], 4)
        columns += [x, y, curve.steps[kept].tolist()]
        lines.append((curve.run, names[curve.run], curve.markers or len(y) == 1))
    return Drawing(_curves_template(tuple(lines), scale, height, x_end), height, columns)


@functools.lru_cache(maxsize=1024)
def _curves_template(
    lines: tuple[tuple[int, str, bool], ...], scale: Scale, height: int, x_end: float
) -> str:
    """Return the document of a chart of lines: (run, its name, whether points are marked)."""
    plot = _figure(
        height=height,
        x_range=Range1d(start=0, end=x_end),
        y_range=Range1d(start=scale.start, end=scale.end),
        y_axis_type="log" if scale.log else "auto",
    )
    small = height < SMALL
    plot.xaxis.formatter = _ticks(False)
    plot.yaxis.formatter = _ticks(scale.percent)
    ticks = 3 if small else 6
    plot.xaxis.ticker = BasicTicker(desired_num_ticks=ticks)
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=ticks)
    if scale.log:
        plot.yaxis.ticker = FixedTicker(ticks=log_ticks(scale.start, scale.end, ticks))
    plot.axis.minor_tick_line_color = None
    plot.axis.major_label_text_font_size = "10px" if small else "11px"
    renderers: list[DataRenderer] = []
    for run, name, marked in lines:
        place = 3 * len(renderers)  # of its first column
        source = ColumnDataSource(
            {column: [f"@{place + i}"] for i, column in enumerate(("x", "y", "step"))}
        )
        tag = f"run-{run}"
        line = plot.line(
            "x",
            "y",
            source=source,
            line_width=1.5 if small else 2,
            line_dash=DASHES[run // NUM_COLORS % len(DASHES)],
            name=name,
        )
        line.tags = [tag]
        renderers.append(line)
        if marked:
            plot.scatter("x", "y", source=source, size=5).tags = [tag]
    plot.add_tools(
        HoverTool(
            renderers=renderers,
            mode="vline",
            line_policy="nearest",
            tooltips="$name <b>@y{custom}</b><br>@x{custom} tokens, step @step{0,0}",
            formatters={"@y": _hover(scale.percent), "@x": _hover(False)},
        )
    )
    return _document(plot)


def draw_shares(
    rows: Sequence[tuple[str, float, float]],
    run: int,
    labels: tuple[str, str],
    percent: bool,
    limit: float | None = None,
) -> Drawing:
    """Return bars of what is planned with dots of what is measured: rows of (name, planned, dot).

    The first row is on top; a dot of NaN is not drawn. `labels` say what bar and dot are, `limit`
    where a line stands.
    """
    names = [name for name, _, _ in rows]
    step = 20 if len(rows) <= 40 else 15
    top = max([x for _, *values in rows for x in values if np.isfinite(x)], default=1.0) or 1.0
    height = step * len(rows) + 36
    plot = _figure(
        height=height,
        y_range=FactorRange(factors=names[::-1]),
        x_range=Range1d(start=0, end=1.06 * top),
    )
    plot.xaxis.formatter = _ticks(percent)
    plot.xaxis.ticker = BasicTicker(desired_num_ticks=4)
    plot.xaxis.minor_tick_line_color = None
    plot.axis.major_label_text_font_size = "11px"
    plot.yaxis.major_tick_line_color = None
    plot.ygrid.grid_line_color = None
    source = ColumnDataSource(
        {
            "name": names,
            "planned": _rounded(np.array([x for _, x, _ in rows]), 4),
            "seen": _rounded(np.array([x for _, _, x in rows]), 4),
        }
    )
    dots = [(name, x) for name, _, x in rows if np.isfinite(x)]
    bars = plot.hbar("name", right="planned", height=0.7, source=source)
    bars.tags = [PLANNED]
    if dots:
        x, y = [x for _, x in dots], [name for name, _ in dots]
        plot.scatter(x, y, size=8).tags = [f"run-{run}"]
    if limit is not None and limit < 1.06 * top:
        plot.vspan(x=[limit]).tags = [LIMIT]
    plot.add_tools(
        HoverTool(
            renderers=[bars],
            mode="hline",
            tooltips=f"@name<br>{labels[0]} <b>@planned{{custom}}</b><br>"
            f"{labels[1]} <b>@seen{{custom}}</b>",
            formatters={"@planned": _hover(percent), "@seen": _hover(percent)},
        )
    )
    return Drawing(_document(plot), height)


def log_ticks(start: float, end: float, most: int) -> list[float]:
    """Return round numbers from `start` to `end`, both above 0, at most `most` and an even spread.

    Bokeh's own ticks of an axis by powers of ten crowd at its upper end.
    """
    decades = range(math.floor(math.log10(start)), math.ceil(math.log10(end)) + 1)
    found: list[float] = []
    for mantissas in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [x * 10.0**power for power in decades for x in mantissas]
        found = [x for x in found if start <= x <= end]
        if len(found) <= most:
            return found
    return found[:: -(-len(found) // most)]


def thinned(curve: Curve, points: int) -> Curve:
    """Return the curve as at most `points` means over neighbouring lines of the log.

    Each stands where its last line does; NaN values count as absent.
    """
    count = len(curve.y)
    if count <= points:
        return curve
    edges = np.linspace(0, count, points + 1).round().astype(int)
    known = np.isfinite(curve.y)
    sums = np.add.reduceat(np.where(known, curve.y, 0.0), edges[:-1])
    counts = np.add.reduceat(known.astype(float), edges[:-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums / counts
    last = edges[1:] - 1
    return dataclasses.replace(curve, x=curve.x[last], y=means, steps=curve.steps[last])


def _figure(
    height: int, x_range: Range, y_range: Range, y_axis_type: Literal["auto", "log"] = "auto"
) -> figure:
    # Without tools but hovering, a finger on a chart still scrolls the page.
    return figure(
        height=height,
        x_range=x_range,
        y_range=y_range,
        y_axis_type=y_axis_type,
        sizing_mode="stretch_width",
        toolbar_location=None,
        tools="",
        min_border=2,
        outline_line_color=None,
        background_fill_color=None,
        border_fill_color=None,
    )


def _hover(percent: bool) -> CustomJSHover:
    return CustomJSHover(code=f"return {PERCENT if percent else SHORT_NUMBER}(value, 4)")


def _ticks(percent: bool) -> CustomJSTickFormatter:
    return CustomJSTickFormatter(code=f"return {PERCENT if percent else SHORT_NUMBER}(tick, 3)")


def _document(plot: figure) -> str:
    return json.dumps(json_item(plot), separators=(",", ":"))


def _rounded(values: np.ndarray, digits: int) -> list[float | None]:
    """Return numbers of so many significant digits; None for NaN."""
    return [float(f"{x:.{digits}g}") if np.isfinite(x) else None for x in values.tolist()]
