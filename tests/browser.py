"""A headless Chromium that opens a local page: what it logs, asks for, weighs and looks like.

It is spoken to over its DevTools protocol, so nothing but the browser has to be installed.
"""

import asyncio
import base64
import contextlib
import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
LOADED = "document.body?.dataset.ready === 'yes'"  # page.js has drawn what is near the window


@dataclasses.dataclass(frozen=True)
class Visit:
    """What one visit of a page found; seconds are from the navigation on."""

    problems: list[str]  # console errors and warnings, exceptions
    requests: list[str]  # addresses asked for, besides the page itself
    loaded_seconds: float  # until the charts near the window are drawn
    values: dict[str, Any]  # of the expressions
    pictures: list[pathlib.Path]


def find_browser() -> str | None:
    """Return the path of a Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def visit(
    page: pathlib.Path,
    width: int,
    height: int = 900,
    *,
    dark: bool = False,
    scroll: bool = True,
    expressions: dict[str, str] | None = None,
    pictures: pathlib.Path | None = None,
) -> Visit:
    """Open a page at a width in CSS pixels, go down all of it, and tell what happened.

    Each of the JavaScript `expressions` is evaluated at the end. `pictures` is the stem of PNG
    files, one of each window's height of the page.
    """
    with _browser() as address:
        return asyncio.run(
            _visit(address, page, width, height, dark, scroll, expressions or {}, pictures)
        )


@contextlib.contextmanager
def _browser() -> Iterator[str]:
    """Start a browser; yields the address of its protocol."""
    path = find_browser()
    assert path, f"none of {', '.join(NAMES)} is installed"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            path,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr
            for line in process.stderr:
                if found := re.search(r"DevTools listening on (ws://\S+)", line):
                    yield found[1]
                    return
            raise RuntimeError(f"{path} ended without a word on its DevTools")
        finally:
            process.terminate()
            process.wait(timeout=20)
            process.stderr.close()


class _Session:
    """Commands to one tab, and the events that it sends."""

    def __init__(self, connection: WebSocketClientConnection):
        self._connection, self._number, self._id = connection, 0, ""
        self.events: list[dict[str, Any]] = []

    async def open(self) -> None:
        target = await self("Target.createTarget", url="about:blank")
        attached = await self("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._id = attached["sessionId"]

    async def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._id:
            message["sessionId"] = self._id
        await self._connection.write_message(json.dumps(message))
        while True:
            text = await asyncio.wait_for(self._connection.read_message(), timeout=60)
            assert text is not None, "the browser closed the connection"
            answer = json.loads(text)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    async def value(self, expression: str) -> Any:
        result = await self(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, (expression, result["exceptionDetails"])
        return result["result"].get("value")


async def _visit(
    address: str,
    page: pathlib.Path,
    width: int,
    height: int,
    dark: bool,
    scroll: bool,
    expressions: dict[str, str],
    pictures: pathlib.Path | None,
) -> Visit:
    connection = await websocket_connect(address, max_message_size=1 << 28)
    tab = _Session(connection)
    await tab.open()
    phone = width < 600
    await tab(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=phone,
    )
    await tab("Emulation.setTouchEmulationEnabled", enabled=phone)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    await tab("Emulation.setEmulatedMedia", features=[scheme])
    for domain in ("Page", "Runtime", "Log", "Network"):
        await tab(f"{domain}.enable")
    begin = time.monotonic()
    await tab("Page.navigate", url=page.resolve().as_uri())
    while not await tab.value(LOADED):
        assert time.monotonic() - begin < 60, "not ready within a minute"
        await asyncio.sleep(0.02)
    loaded = time.monotonic() - begin
    seen = []
    if scroll:
        bottom, place = 1, 0
        while place < bottom:
            await tab.value(f"window.scrollTo(0, {place})")
            await asyncio.sleep(0.2)
            if pictures:
                shot = await tab("Page.captureScreenshot", format="png")
                path = pictures.with_name(f"{pictures.name}-{len(seen):02d}.png")
                path.write_bytes(base64.b64decode(shot["data"]))
                seen.append(path)
            bottom = await tab.value("document.documentElement.scrollHeight")
            place += height - 60
    values = {name: await tab.value(text) for name, text in expressions.items()}
    connection.close()
    return Visit(
        problems=list(filter(None, map(_problem, tab.events))),
        requests=[
            url for url in map(_request, tab.events) if url and url != page.resolve().as_uri()
        ],
        loaded_seconds=loaded,
        values=values,
        pictures=seen,
    )


def _problem(event: dict[str, Any]) -> str:
    """Return what an event says of an error or a warning; empty for other events."""
    params = event.get("params", {})
    match event.get("method"):
        case "Runtime.exceptionThrown":
            return json.dumps(params["exceptionDetails"])
        case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
            return f"{params['type']}: {[one.get('value') for one in params['args']]}"
        case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
            return f"{params['entry']['level']}: {params['entry']['text']}"
    return ""


def _request(event: dict[str, Any]) -> str:
    """Return the address that an event asks for; none of data inside the page."""
    if event.get("method") != "Network.requestWillBeSent":
        return ""
    url = event["params"]["request"]["url"]
    return "" if url.startswith(("data:", "blob:")) else url
