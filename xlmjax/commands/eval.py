"""`xlmjax eval`: score a checkpoint, or a sweep of runs, with the evaluations of a config."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from xlmjax.commands import processes
from xlmjax.sweep import Run, is_sweep, workdirs

HELP = """Score a checkpoint of a workdir with the evaluators of `config.evals`; prints one line a
metric and writes eval/NAME-STEP.json into the workdir. Mesh and number of devices are free. With
a `config.sweep` it prints one table over the runs below the workdir, and writes sweep.json."""
DEFAULT_CONFIG = ""  # config.json of --workdir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the checkpoint is."""
    parser.add_argument("--workdir", required=True, help="of the training run, or of the sweep")
    parser.add_argument("--step", type=int, default=-1, help="which checkpoint; the latest if < 0")
    processes.add_arguments(parser)


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Evaluate and print."""
    if not config.evals:
        raise ValueError("config.evals is empty: add an evaluator, see `perplexity` in base.py")
    processes.join(config, args)
    if not is_sweep(config):
        score(config, epath.Path(args.workdir), args.step)
        return
    if config.checkpoint.average > 1:
        raise ValueError(
            f"checkpoint.average={config.checkpoint.average} is of one run; a sweep selects among "
            "the single checkpoints that training evaluated"
        )
    if args.step >= 0:
        raise ValueError(
            "--step is of one run; a sweep selects among all steps that were evaluated"
        )
    from xlmjax.parallel.distributed import is_main

    places = workdirs(config, args.workdir)
    for one, workdir in places:
        _complete(one, workdir)
    if is_main():
        print(report(config, places, epath.Path(args.workdir)))


def score(config: ConfigDict, workdir: epath.PathLike, step: int = -1, quiet: bool = False) -> None:
    """Score one checkpoint of a workdir, the latest where `step` is negative.

    With `checkpoint.average`, the mean of it and those before it.
    """
    import jax

    from xlmjax.evaluation import make_evaluators
    from xlmjax.experiment import (
        build_experiment,
        kept_vocabulary,
        start_jax,
        trained_checkpoint,
    )
    from xlmjax.parallel.distributed import is_main
    from xlmjax.training.averaging import checkpoints_to_average, restore_average
    from xlmjax.training.checkpoint_settings import CheckpointConfig

    start_jax(config, workdir)
    experiment = build_experiment(config, vocabulary=kept_vocabulary(config, workdir))
    count = CheckpointConfig.from_config(config.checkpoint).average
    place = trained_checkpoint(workdir, step, "--workdir")
    averaged = [int(one.name) for one in checkpoints_to_average(place, count)] if count > 1 else []
    with jax.set_mesh(experiment.mesh):
        evaluators = make_evaluators(experiment.evaluation_context)
        model = restore_average(place, experiment.spec, experiment.identity, count)
        for evaluator in evaluators:
            values = evaluator.run(model, int(place.name), epath.Path(workdir), averaged)
            for name, value in values.items():
                if is_main() and not quiet:
                    print(f"{name} {value:.6g}")


def _complete(one: Run, workdir: epath.Path) -> None:
    """Score the last checkpoint of a run where that is missing; refuse unfinished runs."""
    from xlmjax.evaluation.base import FOLDER
    from xlmjax.training.checkpoint import find_checkpoint

    step = int(find_checkpoint(workdir, "--workdir").name)
    if step < one.config.train.num_steps:
        raise ValueError(
            f"{workdir} stands at step {step:,} of {one.config.train.num_steps:,}: run `xlmjax "
            "train` with the same config until it is done"
        )
    needed = {one.config.sweep.select, one.config.sweep.report}
    if not all((workdir / FOLDER / f"{name}-{step}.json").is_file() for name in needed):
        score(one.config, workdir, quiet=True)


def report(
    config: ConfigDict, places: Sequence[tuple[Run, epath.Path]], workdir: epath.Path
) -> str:
    """Return the table of a sweep; writes it with its protocol to sweep.json in `workdir`."""
    from xlmjax.evaluation import selection

    names = config.sweep.select, config.sweep.report
    candidates: list[selection.Candidate] = []
    protocol: Mapping[str, Any] = {}
    for one, place in places:
        found, protocol = selection.read_candidates(one.point, one.seed, place, *names)
        candidates += found
    outcome = selection.outcome_of(candidates, protocol, *names)
    path = workdir / "sweep.json"
    path.write_text(json.dumps(outcome.content, indent=2, sort_keys=True) + "\n", "utf-8")
    return f"{outcome.text}\nWith its protocol: {path}"
