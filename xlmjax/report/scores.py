"""The evaluations of runs: averages, then languages and tasks, as curves or as tables."""

import collections
import re
from collections.abc import Mapping, Sequence

import numpy as np

from xlmjax import languages
from xlmjax.report.charts import Curve, Scale
from xlmjax.report.page import Page
from xlmjax.report.panels import (
    OPEN_PANELS,
    chart,
    last,
    number,
    share,
    standing,
    title_of,
    with_range,
)
from xlmjax.report.runs import Run

# The metrics of an evaluator that are drawn, the first of each row that there is.
_METRICS = (
    ("perplexity",),
    ("accuracy_csls", "accuracy_cosine"),
    ("accuracy",),
    ("bleu",),
    ("chrf",),
    ("precision_at_1_other_spelling", "precision_at_1"),
    ("spearman",),
)
_SHARES = ("accuracy", "precision")  # metrics that are shares begin with these


def add_evaluations(page: Page, runs: Sequence[Run]) -> None:
    """Add a section for each evaluator; says where scores are of different protocols."""
    names = sorted({evaluation.name for run in runs for evaluation in run.evaluations})
    for name in names:
        page.section(f"Evaluation: {name}")
        of_runs = [next((one for one in run.evaluations if one.name == name), None) for run in runs]
        for run, one in zip(runs, of_runs, strict=True):
            if one is None:
                continue
            for step, protocol in one.left_out.items():
                page.text(
                    f"{run.name}: step {step:,} was scored under another protocol than the last "
                    f"and is not drawn; they differ in: {_differing([one.protocol, protocol])}."
                )
        protocols = [one.protocol for one in of_runs if one and one.protocol]
        differing = _differing(protocols)
        if differing:
            page.text(f"The runs were scored under protocols that differ in: {differing}.")
        columns = [one.log.values if one else {} for one in of_runs]
        steps = [one.log.steps if one else np.array([], np.int64) for one in of_runs]
        _scores(page, runs, steps, columns)


def _scores(
    page: Page,
    runs: Sequence[Run],
    steps: Sequence[np.ndarray],
    columns: Sequence[Mapping[str, np.ndarray]],
) -> None:
    """Add the averages of an evaluator, then its languages and tasks.

    They are curves, or tables where no run has been scored twice.
    """
    known = {name.rpartition("/")[2] for one in columns for name in one}
    metrics = [next(x for x in row if x in known) for row in _METRICS if known & {*row}]
    parts: dict[str, list[tuple[str, str, list[Curve]]]] = collections.defaultdict(list)
    for metric in metrics or sorted(known)[:2]:
        names = dict.fromkeys(name for one in columns for name in one if _is_of(name, metric))
        for name in names:
            owner = name.rpartition("/")[0]
            curves = [
                Curve(index, run.tokens_at(at), one[name], at, markers=True)
                for index, (run, at, one) in enumerate(zip(runs, steps, columns, strict=True))
                if name in one
            ]
            kind = _kind(owner)
            parts["average" if kind == "average" else f"{metric} {kind}"].append(
                (metric, owner, curves)
            )
    averages = parts.pop("average", [])
    charted = any(len(at) > 1 for at in steps)
    if charted and averages:
        charts = []
        for metric, owner, curves in averages:
            scale = with_range(_scale_of(metric), curves)
            title = ", ".join(filter(None, (_words(metric), _words(owner))))
            charts.append(chart(title, curves, runs, scale, 220))
        page.charts(charts, "medium")
    elif averages:
        page.table(
            ["", *(run.name for run in runs)],
            [
                [f"{_words(metric)}, {_words(owner)}", *_values(metric, curves, runs)]
                for metric, owner, curves in averages
            ],
            per_run=True,
        )
    for place, part in enumerate(parts.values()):
        metric, owner, _ = part[0]
        part.sort(key=lambda one: (-1 if _falls(one[0]) else 1) * standing(one[2]))
        count = f"{len(part)} {_kind(owner)}{'s' if len(part) > 1 else ''}"
        title = f"{_words(metric)}: {count}, worst first"
        title = title[0].upper() + title[1:]
        folded = place > 0 or len(part) > OPEN_PANELS
        if folded:
            page.begin_details(title)
        else:
            page.text(title)
        if charted:
            scale = with_range(_scale_of(metric), [x for _, _, curves in part for x in curves])
            charts = [chart(title_of(owner), curves, runs, scale, 120) for _, owner, curves in part]
            page.charts(charts, "small")
        else:
            page.table(
                ["", *(run.name for run in runs)],
                [[title_of(owner), *_values(metric, curves, runs)] for _, owner, curves in part],
                per_run=True,
            )
        if folded:
            page.end_details()


def _kind(owner: str) -> str:
    """Return "average", "language" or "task"."""
    last = owner.rpartition("/")[2]
    if last in ("average", "zero_shot", ""):
        return "average"
    return "language" if last in {language.code for language in languages.LANGUAGES} else "task"


def _values(metric: str, curves: Sequence[Curve], runs: Sequence[Run]) -> list[str]:
    """Return the last value of each run, a dash where it has none."""
    shown = share if _scale_of(metric).percent else number
    values = {curve.run: shown(last(curve.y)) for curve in curves}
    return [values.get(index, "-") for index in range(len(runs))]


def _is_of(name: str, metric: str) -> bool:
    return name.rpartition("/")[2] == metric


def _scale_of(metric: str) -> Scale:
    return Scale(percent=metric.startswith(_SHARES), log=metric == "perplexity")


def _falls(metric: str) -> bool:
    """Return whether a metric is better where it is lower."""
    return metric in ("perplexity", "loss", "bits_per_byte")


def _words(name: str) -> str:
    """Return a metric, or what it is an average of, as a reader says it."""
    words = {"bleu": "BLEU", "chrf": "chrF", "csls": "CSLS"}
    return " ".join(words.get(word, word) for word in re.split("[_/]", name))


def _differing(protocols: Sequence[Mapping[str, object]]) -> str:
    names = sorted({name for one in protocols for name in one})
    return ", ".join(name for name in names if len({str(one.get(name)) for one in protocols}) > 1)
