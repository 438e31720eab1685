"""`xlmjax train`: pretrain, or go on where the last checkpoint stands."""

import argparse
import json
import pathlib
import shutil
import sys

from ml_collections import ConfigDict

from xlmjax.commands import processes
from xlmjax.configuration import apply_flat
from xlmjax.sweep import is_sweep, workdirs

HELP = """Train as the config says, into a workdir. The same command goes on after any end: kill,
preemption, hang, full disk. A config with a `sweep` is several runs, one after another. Exit
codes: 143 asked to stop (preemption, SIGTERM), 75 hung, lost another process or storage out of
reach, both to be started again; 130 Ctrl-C, which saves too; 2 what has to be mended first; 1 a
loss that is not finite. See docs/running.md."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the workdir and the proof of exact resumption."""
    parser.add_argument("--workdir", required=True, help="checkpoints, metrics and evaluations")
    parser.add_argument(
        "--verify-resume",
        type=int,
        nargs="?",
        const=12,
        default=0,
        metavar="STEPS",
        help="train STEPS steps (default %(const)s) straight, and again with a stop and a restart; "
        "compare all parameters bit by bit and exit",
    )
    processes.add_arguments(parser)


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Train; the exit codes are those of `HELP`."""
    import jax

    from xlmjax.parallel.distributed import TRY_AGAIN, end_process
    from xlmjax.storage_errors import StorageError
    from xlmjax.train import train
    from xlmjax.training.diagnosis import NonFiniteError
    from xlmjax.training.preemption import PREEMPTED

    processes.join(config, args)
    if args.verify_resume:
        print(verify_resume(config, pathlib.Path(args.workdir), args.verify_resume))
        return
    places = workdirs(config, args.workdir) if is_sweep(config) else [(None, args.workdir)]
    for number, (one, workdir) in enumerate(places, 1):
        if one is not None:
            print(f"run {number} of {len(places)}: {workdir}", flush=True)
        try:
            result = train(config if one is None else one.config, workdir)
        except NonFiniteError as error:
            raise SystemExit(f"xlmjax train: {error}") from error
        except StorageError as error:
            if args.traceback:
                raise
            if jax.process_count() > 1:  # the others wait for this one
                end_process(f"train: {error}")
            print(f"xlmjax train: {error}", file=sys.stderr, flush=True)
            raise SystemExit(TRY_AGAIN) from error
        if result.preempted:
            raise SystemExit(PREEMPTED)


def verify_resume(config: ConfigDict, workdir: pathlib.Path, num_steps: int) -> str:
    """Return a sentence of proof, or raise ValueError naming what differs.

    The second run saves at a third of the way, is stopped at two thirds without saving, and so
    repeats a third of its steps from the checkpoint.
    """
    import jax
    import numpy as np

    from xlmjax.train import train
    from xlmjax.training.state import named_leaves

    if num_steps < 3:
        raise ValueError(f"--verify-resume={num_steps}: a stop and a restart need 3 steps or more")
    short = apply_flat(
        config,
        {
            "train.num_steps": num_steps,
            "checkpoint.every": num_steps // 3,
            "log.every": 1,
            "log.tensorboard": False,
            "log.progress": "none",
            "checkpoint.keep_every": 0,
            "checkpoint.resume_from": "",
            "checkpoint.best_metric": "",
        },
    )
    short.evals = ConfigDict()
    shutil.rmtree(workdir / "verify", ignore_errors=True)
    straight, resumed = workdir / "verify" / "straight", workdir / "verify" / "resumed"
    expected = named_leaves(train(short, straight).state)
    train(short, resumed, stop_after=2 * num_steps // 3)
    actual = named_leaves(train(short, resumed).state)
    differing = [
        name
        for name, leaf in expected.items()
        if not np.array_equal(*(_bytes(jax.device_get(x)) for x in (leaf, actual[name])))
    ]
    losses = [_losses(folder) for folder in (straight, resumed)]
    if differing or losses[0] != losses[1]:
        raise ValueError(
            f"a resumed run differs from a straight one in {', '.join(differing) or 'its losses'}: "
            f"{losses[0]} and {losses[1]}"
        )
    return (
        f"resume verified: {len(expected)} arrays bit-identical after {num_steps} steps, "
        f"straight and stopped at step {2 * num_steps // 3}; loss {losses[0][-1]:.6f}"
    )


def _bytes(array):
    import numpy as np

    return np.ascontiguousarray(array).view(np.uint8)


def _losses(folder: pathlib.Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["train/loss"] for line in lines]
