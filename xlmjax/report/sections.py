"""What a report shows, section by section: from runs to the tables and charts of a page."""

import datetime
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from xlmjax.planning.mixture_plan import MANY_EPOCHS
from xlmjax.planning.mixture_record import GroupRecord
from xlmjax.report.charts import Curve, Scale, draw_shares, thinned
from xlmjax.report.overview import add_overview
from xlmjax.report.page import Page
from xlmjax.report.panels import (
    OPEN_PANELS,
    Chart,
    chart,
    last,
    share,
    standing,
    title_of,
    with_range,
)
from xlmjax.report.runs import Run, config_differences, restart_differences, series
from xlmjax.report.scores import add_evaluations

LARGE_POINTS, SMALL_POINTS = 600, 80  # of a curve
OPEN_MIXTURES = 3  # of more runs than this the mixtures are folded away


def make_page(runs: Sequence[Run], now: datetime.datetime) -> Page:
    """Return the page about some runs, made at a time."""
    names = [run.name for run in runs]
    what = f"{len(runs)} runs" if len(runs) > 1 else "1 run"
    page = Page(
        ", ".join(names) if len(names) < 4 else f"{', '.join(names[:3])} and {len(names) - 3} more",
        f"{what}, read {now:%Y-%m-%d %H:%M}. x axes are real tokens, delimiters included.",
        names,
    )
    add_overview(page, runs)
    _losses(page, runs)
    _mixtures(page, runs)
    add_evaluations(page, runs)
    _speed(page, runs)
    _optimisation(page, runs)
    _configs(page, runs)
    return page


def _losses(page: Page, runs: Sequence[Run]) -> None:
    page.section("Training loss")
    page.text("Cross entropy per target, in nats, over the steps between two lines of the log.")
    found = [series(run.training, "loss", sorted(run.config["objectives"])) for run in runs]
    several = any(len(run.config["objectives"]) > 1 for run in runs)
    title = "weighted total of the objectives" if several else "all targets"
    _whole(page, runs, [(title, "train/loss")], size="large", clipped=True)
    groups = _owners(found, "group")
    if groups:
        page.charts(_panels(runs, found, "group", groups, 220), "medium")
    for kind, title in (("language", "languages"), ("task", "tasks")):
        owners = _owners(found, kind)
        if not owners:
            continue
        folded = kind == "task" or len(owners) > OPEN_PANELS
        if folded:
            page.begin_details(f"By {kind}: {len(owners)} {title}, the highest loss first")
        else:
            page.text(f"By {kind}, the highest loss first; all on one scale:")
        page.charts(_panels(runs, found, kind, owners, 120), "small")
        if folded:
            page.end_details()


def _mixtures(page: Page, runs: Sequence[Run]) -> None:
    page.section("Mixture")
    page.text(
        "Bars are the plan: the share of targets that the rates give a task or language up to the "
        "last step, and its epochs at the end of the run. Dots are what the run has had: targets "
        f"counted on the device, and epochs up to the last step. The line is at {MANY_EPOCHS:g} "
        "epochs."
    )
    for index, run in enumerate(runs):
        folded = len(runs) > OPEN_MIXTURES
        if folded:
            page.begin_details(run.name)
        if run.mixture_note:
            page.text(f"{run.name}: {run.mixture_note}")
        groups = sorted(run.config["objectives"])
        counts = series(run.training, "targets", groups)
        if run.mixtures and not counts["task"]:
            page.text(f"{run.name}: its log has no counts of targets, so no dots show them.")
        for group in run.mixtures:
            several = len(groups) > 1
            title = f"{run.name}, {group.name}" if several else run.name
            prefix = f"{group.name}: " if several else ""
            sampled = {kind: _sampled(counts[kind], prefix) for kind in ("task", "language")}
            page.charts(_mixture(title, index, run, group, sampled), "medium")
        if folded:
            page.end_details()


def _mixture(
    title: str,
    index: int,
    run: Run,
    group: GroupRecord,
    sampled: Mapping[str, Mapping[str, float]],
) -> list[Chart]:
    """Return targets by task, epochs by task, and targets by language, of one group."""
    by_task, by_language = group.target_shares(run.step)
    now, end = group.epochs(run.step), group.epochs(max(run.num_steps, run.step))
    epochs = [(name, end[name], now[name]) for name in sorted(now, key=lambda x: -by_task[x])]
    labels = ("planned", "sampled")
    drawings = {
        "share of targets by task": draw_shares(
            _against(by_task, sampled["task"]), index, labels, True
        ),
        "epochs by task": draw_shares(epochs, index, ("at the end", "by now"), False, MANY_EPOCHS),
        "share of targets by language": draw_shares(
            _against(by_language, sampled["language"]), index, labels, True
        ),
    }
    return [(f"{title}: {what}", [], drawing) for what, drawing in drawings.items()]


def _against(
    planned: Mapping[str, float], sampled: Mapping[str, float]
) -> list[tuple[str, float, float]]:
    """Return rows (name, planned, sampled) by falling plan; what was not counted is NaN."""
    absent = 0.0 if sampled else np.nan
    names = sorted({*planned, *sampled}, key=lambda name: (-planned.get(name, 0.0), name))
    return [(title_of(name), planned.get(name, 0.0), sampled.get(name, absent)) for name in names]


def _sampled(counts: Mapping[str, np.ndarray], prefix: str) -> dict[str, float]:
    """Return owner -> share of all targets of one group."""
    sums = {
        name.removeprefix(prefix): float(np.nansum(values))
        for name, values in counts.items()
        if name.startswith(prefix)
    }
    total = sum(sums.values())
    return {name: value / total for name, value in sums.items()} if total else {}


def _speed(page: Page, runs: Sequence[Run]) -> None:
    page.section("Throughput and goodput")
    page.text(
        "Goodput is the share of the wall time, over all starts, in steps that count. MFU is the "
        "model's FLOPs against the peak of the devices, where that is known."
    )
    _whole(
        page,
        runs,
        [
            ("real tokens a second", "perf/tokens_per_second"),
            ("MFU", "perf/mfu"),
            ("goodput", "perf/goodput"),
        ],
        size="medium",
        from_zero=True,
    )
    kinds = dict.fromkeys(
        name
        for run in runs
        for name in run.training.values
        if name.startswith("perf/share_") or name == "perf/goodput"
    )
    rows = []
    for name in kinds:
        values = [last(run.training.column(name)) for run in runs]
        if any(value > 0 for value in values):
            label = "steps that count" if name == "perf/goodput" else name.split("_", 1)[1]
            rows.append((-np.nanmax(values), [label, *map(share, values)]))
    if len(rows) > 1:
        rows.sort(key=lambda row: row[0])
        page.table(
            ["wall time", *(run.name for run in runs)], [row for _, row in rows], per_run=True
        )


def _optimisation(page: Page, runs: Sequence[Run]) -> None:
    page.section("Optimisation")
    _whole(
        page,
        runs,
        [
            ("learning rate", "optim/learning_rate"),
            ("norm of the gradient, before clipping", "optim/grad_norm"),
        ],
        size="medium",
        clipped=True,
        from_zero=True,
    )


def _configs(page: Page, runs: Sequence[Run]) -> None:
    if len(runs) > 1:
        page.section("Config differences")
        rows = config_differences(runs)
        if rows:
            page.table(
                ["field", *(run.name for run in runs)],
                [[name, *values] for name, values in rows],
                per_run=True,
            )
        else:
            page.text("The configs are the same in every field.")
    changes = [(run, *change) for run in runs for change in restart_differences(run)]
    if changes:
        page.section("Changed at restarts")
        page.table(
            ["run", "step", "field", "before", "after"],
            [
                [run.name, f"{step:,}", name, before, after]
                for run, step, name, before, after in changes
            ],
            per_run=False,
        )


def _whole(
    page: Page,
    runs: Sequence[Run],
    names: Sequence[tuple[str, str]],
    size: str,
    clipped: bool = False,
    from_zero: bool = False,
) -> None:
    """Add a chart of each (title, metric) that any run has."""
    charts = []
    for title, name in names:
        curves = [
            Curve(index, run.tokens, run.training.column(name), run.training.steps)
            for index, run in enumerate(runs)
            if np.isfinite(run.training.column(name)).any()
        ]
        if not curves:
            continue
        scale = Scale(percent=name in ("perf/mfu", "perf/goodput"))
        curves = [thinned(curve, LARGE_POINTS) for curve in curves]
        scale = with_range(scale, curves, clipped, from_zero)
        charts.append(chart(title, curves, runs, scale, 320 if size == "large" else 220))
    if charts:
        page.charts(charts, size)


def _panels(
    runs: Sequence[Run],
    found: Sequence[Mapping[str, Mapping[str, np.ndarray]]],
    kind: str,
    owners: Sequence[str],
    height: int,
) -> list[Chart]:
    """Return a chart of the loss of each owner, all on one scale, the highest first."""
    curves = {
        owner: [
            thinned(
                Curve(index, run.tokens, of[kind][owner], run.training.steps),
                SMALL_POINTS if height < 200 else LARGE_POINTS,
            )
            for index, (run, of) in enumerate(zip(runs, found, strict=True))
            if owner in of[kind]
        ]
        for owner in owners
    }
    scale = with_range(Scale(), [x for each in curves.values() for x in each], clipped=True)
    order = sorted(curves, key=lambda owner: -standing(curves[owner]))
    return [chart(title_of(owner), curves[owner], runs, scale, height) for owner in order]


def _owners(found: Iterable[Mapping[str, Mapping[str, np.ndarray]]], kind: str) -> list[str]:
    return list(dict.fromkeys(owner for one in found for owner in one[kind]))
