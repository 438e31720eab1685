"""`xlmjax prepare`: token stores from text."""

import argparse

from ml_collections import ConfigDict

from xlmjax.preparation import prepare, runners

HELP = """Write the token stores of every task that a config names (data.mixture, objectives,
evals). Stores that are up to date are left alone; the same command continues an interrupted run.
The data doctor looks at the text first: duplicates, wrong scripts, control characters, pairs that
are no translations, overlap with evaluation sets. It counts and shows; data.doctor.drop drops."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--processes",
        type=int,
        help="local processes (default: one a core)",
    )
    parser.add_argument(
        "--runner", default="", metavar="BEAM_RUNNER", help="run on Apache Beam, e.g. DirectRunner"
    )
    parser.add_argument(
        "--runner-options", default="", help="options of the Beam pipeline, as one string"
    )


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Prepare; prints a line a store."""
    processes = getattr(args, "processes", None)
    with runners.LocalRunner(
        runners.available_cores() if processes is None else processes
    ) as local:
        options = getattr(args, "runner_options", "")
        remote = runners.BeamRunner(args.runner, options) if args.runner else local
        prepare.prepare(config, planner=local, runner=remote)
