"""One HTML file: sections of tables and charts, with everything that draws them inside."""

import base64
import gzip
import html
import importlib.resources
import json
import pathlib
import re
from collections.abc import Iterator, Sequence

import bokeh

from xlmjax.report.charts import DASHES, NUM_COLORS, Drawing


class Page:
    """Collects HTML and charts in reading order; every text that it is given is escaped."""

    def __init__(self, title: str, subtitle: str, runs: Sequence[str]):
        """`runs` are the names that the switches at the top and the charts are about."""
        self._title, self._subtitle, self._runs = title, subtitle, runs
        self._body: list[str] = []
        self._contents: list[tuple[str, str]] = []
        self._charts: list[tuple[int, list[int]]] = []  # template, columns
        self._templates: dict[str, int] = {}  # text -> place in the page
        self._columns: dict[str, int] = {}

    def section(self, title: str) -> None:
        """Begin a section."""
        anchor = re.sub(r"\W+", "-", title.lower())
        self._contents.append((anchor, title))
        self._body.append(f'<h2 id="{escape(anchor)}">{escape(title)}</h2>')

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._body.append(f"<p>{escape(text)}</p>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], per_run: bool) -> None:
        """Add a table; the first cell of a row names it, the others are of a run each if so."""

        def cells(row: Sequence[str], tag: str) -> Iterator[str]:
            first, *others = row
            yield f'<th scope="row">{escape(first)}</th>'
            for index, cell in enumerate(others):
                mark = f' class="run {_classes(index)}"' if per_run else ""
                yield f"<{tag}{mark}>{escape(cell)}</{tag}>"

        body = "".join(f"<tr>{''.join(cells(row, 'td'))}</tr>" for row in rows)
        self._body.append(
            f'<div class="wide"><table><thead><tr>{"".join(cells(head, "th"))}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def charts(
        self, plots: Sequence[tuple[str, Sequence[tuple[int, str]], Drawing]], size: str
    ) -> None:
        """Add charts side by side, as many as fit: (title, last values of runs, drawing) of each.

        `size` is "large", "medium" or "small".
        """
        parts = []
        for title, values, plot in plots:
            name = f"chart-{len(self._charts)}"
            columns = [json.dumps(column, separators=(",", ":")) for column in plot.columns]
            self._charts.append(
                (
                    self._templates.setdefault(plot.template, len(self._templates)),
                    [self._columns.setdefault(text, len(self._columns)) for text in columns],
                )
            )
            shown = "".join(
                f' <span class="value {_classes(run)}">{escape(value)}</span>'
                for run, value in values
            )
            parts.append(
                f"<figure><figcaption><b>{escape(title)}</b>{shown}</figcaption>"
                f'<div id="{name}" class="chart" style="height:{plot.height}px"></div></figure>'
            )
        self._body.append(f'<div class="grid {escape(size)}">{"".join(parts)}</div>')

    def begin_details(self, title: str) -> None:
        """Begin a part that is folded away until the reader opens it."""
        self._body.append(f"<details><summary>{escape(title)}</summary>")

    def end_details(self) -> None:
        """End it."""
        self._body.append("</details>")

    def render(self) -> str:
        """Return the page."""
        switches = "".join(
            f'<button type="button" class="{_classes(index)}" data-run="{index}" '
            'aria-pressed="true"><svg viewBox="0 0 22 8" aria-hidden="true">'
            '<line x1="0" y1="4" x2="22" y2="4" '
            f'class="dash-{index // NUM_COLORS % len(DASHES)}"/></svg>{escape(name)}</button>'
            for index, name in enumerate(self._runs)
        )
        contents = "".join(
            f'<a href="#{escape(anchor)}">{escape(title)}</a>' for anchor, title in self._contents
        )
        script = pathlib.Path(bokeh.__file__).parent / "server/static/js/bokeh.min.js"
        drawings = json.dumps(
            {
                "templates": list(self._templates),
                "columns": list(self._columns),
                "charts": self._charts,
            },
            separators=(",", ":"),
        )
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
            f"<title>{escape(self._title)}</title>\n<style>\n{_own('page.css')}</style>\n</head>\n"
            f"<body>\n<header><h1>{escape(self._title)}</h1><p>{escape(self._subtitle)}</p>"
            f"<nav>{contents}</nav></header>\n"
            f'<div id="switches" role="group" aria-label="Runs shown">{switches}</div>\n'
            "<noscript><p>The charts need JavaScript; the tables do not.</p></noscript>"
            f"<main>\n{''.join(self._body)}\n</main>\n"
            f"<footer>Charts: Bokeh {escape(bokeh.__version__)} (BSD-3-Clause), inside this "
            "file; nothing is fetched.</footer>\n"
            f'<script type="text/plain" id="bokeh">{_packed(script.read_bytes())}</script>\n'
            f'<script type="text/plain" id="drawings">{_packed(drawings.encode())}</script>\n'
            f"<script>\n{_own('page.js')}</script>\n</body>\n</html>\n"
        )


def escape(text: str) -> str:
    """Return a text as HTML shows it, in quotes too."""
    return html.escape(text, quote=True)


def _classes(run: int) -> str:
    return f"run-{run} hue-{run % NUM_COLORS}"


def _own(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text("utf-8")


def _packed(content: bytes) -> str:
    """Return bytes as base64 of gzip: a third of the size, and no text that HTML could end."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()
