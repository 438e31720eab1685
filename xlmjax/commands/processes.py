"""Flags that name the processes of a run, where neither a TPU pod nor Slurm does."""

import argparse

from ml_collections import ConfigDict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the three flags, each with the environment variable that it stands for."""
    group = parser.add_argument_group(
        "several processes", "needed neither on TPU pods nor under Slurm, where they are found"
    )
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="a free port of process 0's machine (XLMJAX_COORDINATOR)",
    )
    group.add_argument(
        "--num-processes",
        "--num_processes",
        type=int,
        metavar="N",
        help="of the whole run (XLMJAX_NUM_PROCESSES)",
    )
    group.add_argument(
        "--process-id",
        "--process_id",
        type=int,
        metavar="I",
        help="of this one, from 0 (XLMJAX_PROCESS_ID)",
    )


def join(config: ConfigDict, args: argparse.Namespace) -> None:
    """Connect this process to the others of its run, if there are any."""
    from xlmjax.parallel import distributed

    distributed.initialize(
        args.coordinator, args.num_processes, args.process_id, config.train.heartbeat_seconds
    )
