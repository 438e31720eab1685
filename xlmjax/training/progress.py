"""How a run shows itself: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Mapping
from typing import Any, TextIO

from tqdm import tqdm

MODES = ("auto", "bar", "lines", "none")


class Progress:
    """Shows step, loss, real tokens/s and ETA; `note` prints a line without breaking the bar."""

    def __init__(
        self,
        mode: str,
        step: int,
        num_steps: int,
        *,
        active: bool = True,
        stream: TextIO | None = None,
    ):
        if mode not in MODES:
            raise ValueError(f"log.progress={mode!r} is unknown; known: {', '.join(MODES)}")
        self._stream = stream or sys.stderr
        if mode == "auto":
            mode = "bar" if self._stream.isatty() else "lines"
        self._mode = mode if active else "none"
        self._num_steps = num_steps
        self._bar: Any = None
        if self._mode == "bar":
            self._bar = tqdm(
                total=num_steps,
                initial=step,
                unit="step",
                dynamic_ncols=True,
                file=self._stream,
                bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}",
            )

    def advance(self) -> None:
        """Count one step."""
        if self._bar is not None:
            self._bar.update()

    def report(self, step: int, values: Mapping[str, float]) -> None:
        """Show what a logging window told."""
        parts = []
        if "train/loss" in values:
            parts.append(f"loss {values['train/loss']:.4f}")
        if "perf/tokens_per_second" in values:
            parts.append(f"{values['perf/tokens_per_second']:,.0f} tokens/s")
        if "perf/mfu" in values:
            parts.append(f"MFU {values['perf/mfu']:.1%}")
        if "perf/steps_per_second" in values:
            left = (self._num_steps - step) / values["perf/steps_per_second"]
            parts.append(f"ETA {_duration(left)}")
        if "perf/slowest_process" in values:
            parts.append(
                f"slowest host {values['perf/slowest_process']:.0f}: "
                f"{values['perf/host_seconds_slowest']:.3f} s a step, "
                f"median {values['perf/host_seconds_median']:.3f}"
            )
        text = ", ".join(parts)
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif self._mode == "lines":
            self._print(f"step {step}/{self._num_steps}: {text}")

    def note(self, text: str) -> None:
        """Print one line."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        elif self._mode == "lines":
            self._print(text)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
