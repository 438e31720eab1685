"""The table of runs: how far they are, what they train, on what, and how fast."""

from collections.abc import Callable, Sequence

import numpy as np

from xlmjax.report.page import Page
from xlmjax.report.panels import last, median, number, share
from xlmjax.report.runs import Run


def add_overview(page: Page, runs: Sequence[Run]) -> None:
    """Add the table, a column for each run; what no run tells is left out."""
    page.section("Runs")
    _table(
        page,
        runs,
        [
            ("status", _status),
            ("tokens", lambda run: number(run.tokens[-1])),
            ("training loss", lambda run: number(last(run.training.column("train/loss")), 4)),
            ("parameters", lambda run: number(run.parameters)),
            ("mesh", _mesh),
            ("devices", lambda run: str(run.description.get("devices", "-"))),
            ("tokens/s, median", lambda run: number(median(run, "perf/tokens_per_second"))),
            ("MFU, median", lambda run: share(median(run, "perf/mfu"))),
            ("goodput", lambda run: share(last(run.training.column("perf/goodput")))),
            ("steps not finite", _nonfinite),
            ("commit", lambda run: run.description.get("commit") or "-"),
            ("last written", lambda run: f"{run.written:%Y-%m-%d %H:%M}"),
        ],
    )
    page.begin_details("Models, data and versions")
    _table(
        page,
        runs,
        [
            ("workdir", lambda run: run.workdir),
            ("model", _model),
            ("objectives", _objectives),
            ("languages", lambda run: str(len(run.config["data"]["languages"]))),
            ("vocabulary", lambda run: str(run.description.get("vocabulary", "-"))),
            ("started at step", lambda run: ", ".join(f"{step:,}" for step in sorted(run.starts))),
            ("code", lambda run: str(run.description.get("code", "-"))),
            ("versions", _versions),
        ],
    )
    page.end_details()
    for run in runs:
        if run.unreadable:
            page.text(
                f"{run.name}: {', '.join(run.unreadable)}: no whole result of an evaluation, left "
                "out; where the run is not writing it at this moment, score the checkpoint again."
            )
        if run.lines > len(run.training.steps):
            page.text(
                f"{run.name}: {len(run.training.steps):,} of {run.lines:,} lines of the log are "
                "read, evenly spaced."
            )


def _table(
    page: Page, runs: Sequence[Run], rows: Sequence[tuple[str, Callable[[Run], str]]]
) -> None:
    table = [[name, *map(read, runs)] for name, read in rows]
    page.table(
        ["", *(run.name for run in runs)],
        [row for row in table if {*row[1:]} != {"-"}],
        per_run=True,
    )


def _status(run: Run) -> str:
    if run.step >= run.num_steps:
        return f"finished, {run.step:,} steps"
    return f"at step {run.step:,} of {run.num_steps:,} ({share(run.step / run.num_steps)})"


def _model(run: Run) -> str:
    model = run.config["model"]
    decoder = model.get("decoder_layers", 0)
    layers = f"{model['num_layers']}{f' + {decoder}' if decoder else ''} layers"
    return f"{layers}, width {model['embed_dim']}, {model['num_heads']} heads, {model['dtype']}"


def _objectives(run: Run) -> str:
    parts = []
    for name, group in sorted(run.config["objectives"].items()):
        mixture = group.get("mixture") or run.config["data"]["mixture"]
        parts.append(f"{group.get('name', name)} on {', '.join(mixture)}")
    return "; ".join(parts)


def _mesh(run: Run) -> str:
    mesh = run.description.get("mesh", {})
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.items())
    return f"{axes}, {run.config.get('mesh', {}).get('strategy', '')}".strip(", ") or "-"


def _nonfinite(run: Run) -> str:
    total = np.nansum(run.training.column("optim/nonfinite_steps"))
    return f"{int(total):,}" if total else "-"


def _versions(run: Run) -> str:
    versions = run.description.get("versions", {})
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or "-"
