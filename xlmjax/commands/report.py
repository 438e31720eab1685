"""`xlmjax report`: one HTML page about a run, or several beside each other."""

import argparse
import datetime

from etils import epath
from ml_collections import ConfigDict

HELP = """Write one self-contained HTML page about runs, from the files of their workdirs:
losses per language and task, sampled against planned mixture, epochs, evaluations, throughput,
goodput, and what differs between their configs. Runs may still be going on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which runs, and where the page goes."""
    parser.add_argument(
        "--workdir",
        required=True,
        action="append",
        metavar="DIR[,DIR...]",
        help="of a run, or of a sweep; several: with commas, or the flag again",
    )
    parser.add_argument("--out", default="", help="default: report.html in the first workdir given")


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Read the runs, write the page, and say where it is."""
    from xlmjax.report.runs import find_workdirs, read_runs
    from xlmjax.report.sections import make_page

    del config  # each run has its own
    workdirs = find_workdirs(args.workdir)
    first = args.workdir[0] if epath.Path(args.workdir[0]).exists() else workdirs[0]
    out = epath.Path(args.out or f"{first.rstrip('/')}/report.html")
    if out.is_dir():
        raise ValueError(f"--out={out} is a folder: name a file in it")
    if not out.parent.exists():
        raise ValueError(f"--out={out}: there is no folder {out.parent}; make it first")
    runs = read_runs(workdirs)
    text = make_page(runs, datetime.datetime.now()).render()
    out.write_text(text)
    what = f"{len(runs)} runs" if len(runs) > 1 else "1 run"
    print(f"{out}: {what}, {len(text.encode()) / 1e6:.2f} MB")
