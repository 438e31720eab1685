"""`xlmjax eval`: score a checkpoint with the evaluations of a config."""

import argparse

from ml_collections import ConfigDict

HELP = """Score a checkpoint of a workdir with the evaluators of `config.evals`; prints one line a
metric and writes eval/NAME-STEP.json into the workdir. Mesh and number of devices are free."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the checkpoint is."""
    parser.add_argument("--workdir", required=True, help="of the training run")
    parser.add_argument("--step", type=int, default=-1, help="which checkpoint; the latest if < 0")


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Evaluate and print."""
    import jax
    from etils import epath

    from xlmjax.evaluation import make_evaluators
    from xlmjax.experiment import build_experiment, start_jax
    from xlmjax.parallel.distributed import is_main
    from xlmjax.training.checkpoint import FOLDER, find_checkpoint, restore_model

    start_jax(config)
    experiment = build_experiment(config)
    if not config.evals:
        raise ValueError("config.evals is empty: add an evaluator, see `perplexity` in base.py")
    path = epath.Path(args.workdir)
    place = find_checkpoint(path / FOLDER / str(args.step) if args.step >= 0 else path, "--workdir")
    with jax.set_mesh(experiment.mesh):
        evaluators = make_evaluators(experiment.evaluation_context)
        model = restore_model(place, experiment.spec, experiment.identity)
        for evaluator in evaluators:
            for name, value in evaluator.run(model, int(place.name), path).items():
                if is_main():
                    print(f"{name} {value:.6g}")
