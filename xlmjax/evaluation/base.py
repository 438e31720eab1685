"""What an evaluator is, when it runs, and where its results go."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
from etils import epath
from ml_collections import ConfigDict

from xlmjax.models.config import ModelConfig
from xlmjax.objectives import Specials
from xlmjax.registry import Registry
from xlmjax.storage_errors import writing

FOLDER = "eval"


class StoppedError(Exception):
    """An evaluation that ended early, as it was asked to."""


@dataclasses.dataclass(frozen=True)
class Context:
    """What evaluators may stand on: the mesh, the vocabulary, sizes of the model and the config."""

    mesh: jax.sharding.Mesh
    strategy: str
    vocabulary: Any  # data.vocabulary.Vocabulary
    specials: Specials
    model: ModelConfig
    clean: Callable[[str], str]  # what preparation does to a text before the vocabulary
    config: ConfigDict  # the whole


class Evaluator(Protocol):
    """Measures a model; knows nothing of steps, prefixes or folders.

    One that has texts to show beside its numbers keeps those of the last evaluation in `files`, a
    mapping of file names to contents.
    """

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Everything that someone needs to know to compare the numbers."""

    @property
    def details(self) -> Mapping[str, Any]:
        """What the last evaluation found that is no single number, for the file of results."""

    def evaluate(self, model: Any) -> Iterator[tuple[str, float]]:
        """Yield (name, value) pairs, each once it is known: between two it may be stopped."""


class Timing(Protocol):
    """When an evaluator runs."""

    def is_due(self, step: int, num_steps: int) -> bool:
        """Return whether it runs after `step` updates of `num_steps`."""


@dataclasses.dataclass(frozen=True)
class Every:
    """After every n-th update."""

    steps: int

    def is_due(self, step: int, num_steps: int) -> bool:
        """Return whether `step` is a multiple of n; never before the first update."""
        return self.steps > 0 and step > 0 and step % self.steps == 0


@dataclasses.dataclass(frozen=True)
class Final:
    """After the last update."""

    def is_due(self, step: int, num_steps: int) -> bool:
        """Return whether the run is over."""
        return step == num_steps


@dataclasses.dataclass(frozen=True)
class Scheduled:
    """An evaluator of the config, under its name there, and when it runs."""

    name: str
    evaluator: Evaluator
    timings: tuple[Timing, ...]

    def is_due(self, step: int, num_steps: int) -> bool:
        """Return whether any of its timings says so."""
        return any(timing.is_due(step, num_steps) for timing in self.timings)

    def run(
        self,
        model: Any,
        step: int,
        workdir: epath.PathLike | None = None,
        averaged: Sequence[int] = (),
        stop: Callable[[], bool] = lambda: False,
    ) -> dict[str, float]:
        """Return `eval/<name>/...` -> value; in a workdir, write `eval/<name>-<step>.json`.

        Texts of the evaluator go into the folder `eval/<name>-<step>`. Where the model is the mean
        of several checkpoints, `averaged` are their steps: the protocol tells them, and both names
        end in `-average<n>`. An error tells the evaluator and the step. `stop` is asked after each
        value; once it says so, nothing is written and `StoppedError` raised.
        """
        values = {}
        try:
            for name, value in self.evaluator.evaluate(model):
                values[name] = value
                if stop():
                    raise StoppedError
        except Exception as error:
            error.add_note(f"in evaluator {self.name!r} (config.evals.{self.name}) at step {step}")
            raise
        if workdir is not None and jax.process_index() == 0:
            stem = f"{self.name}-{step}" + (f"-average{len(averaged)}" if averaged else "")
            place = epath.Path(workdir) / FOLDER / stem
            protocol = dict(self.evaluator.protocol)
            if averaged:
                protocol["averaged_checkpoints"] = list(averaged)
            content = {
                "step": step,
                "protocol": protocol,
                "values": values,
                **self.evaluator.details,
            }
            path = place.parent / f"{stem}.json"
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                for name, text in getattr(self.evaluator, "files", {}).items():
                    place.mkdir(exist_ok=True)
                    (place / name).write_bytes(text.encode("utf-8"))
                path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        return {f"eval/{self.name}/{name}": value for name, value in values.items()}


class Factory(Protocol):
    """Makes an evaluator from its entry in `config.evals`."""

    def __call__(self, name: str, fields: Any, context: Context) -> Evaluator:
        """Return the evaluator; raises ValueError naming the field to change."""


EVALUATORS: Registry[Factory] = Registry("evaluator")


def evaluation_times(config: ConfigDict) -> dict[str, tuple[Timing, ...]]:
    """Return when each entry of `config.evals` runs, by its name; needs no data.

    Raises `ValueError` where an entry is of no known kind.
    """
    for name, fields in config.evals.items():
        if fields.name not in EVALUATORS:
            raise ValueError(
                f"evals.{name}.name={fields.name!r} is unknown; known: {', '.join(EVALUATORS)}"
            )
    return {name: (Every(fields.every), Final()) for name, fields in sorted(config.evals.items())}


def make_evaluators(context: Context) -> list[Scheduled]:
    """Return the evaluators of `config.evals`, each with its timings."""
    entries = context.config.evals
    return [
        Scheduled(name, EVALUATORS[entries[name].name](name, entries[name], context), timings)
        for name, timings in evaluation_times(context.config).items()
    ]
