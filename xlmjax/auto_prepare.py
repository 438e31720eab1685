"""`train` that finds a store missing prepares it in a child process, which may use TensorFlow."""

import logging
import os
import pathlib
import pprint
import subprocess
import sys
import tempfile
import time

from ml_collections import ConfigDict

from xlmjax.data.mixture import resolve_names
from xlmjax.data.store import TokenStore
from xlmjax.parallel import distributed

log = logging.getLogger(__name__)


def ensure_stores(config: ConfigDict, poll_seconds: float = 1.0) -> None:
    """Prepare what the config needs and does not find; process 0 does, the others wait for it.

    Raises ValueError naming what is missing if `data.auto_prepare` is off, or if preparing fails.
    """
    missing = missing_stores(config)
    if not missing:
        return
    shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    if not config.data.auto_prepare:
        raise ValueError(
            f"data.stores={config.data.stores!r} lacks {shown}: run `xlmjax prepare` with the same "
            "--config, or set data.auto_prepare=True"
        )
    if distributed.is_main():
        _prepare(config, shown)
        return
    waited = 0.0
    while missing_stores(config):
        if waited % 60 < poll_seconds:
            log.warning("waiting for process 0 to prepare %s", shown)
        time.sleep(poll_seconds)
        waited += poll_seconds


def missing_stores(config: ConfigDict) -> list[str]:
    """Return the stores (<task>/<split>) and mixtures that the config names and are not there."""
    wanted = [
        ("train", group.mixture or config.data.mixture) for group in config.objectives.values()
    ]
    wanted += [
        (fields.split, fields.tasks) for fields in config.evals.values() if "tasks" in fields
    ]
    missing: dict[str, None] = {}
    for split, names in wanted:
        for name in names:
            try:
                tasks = resolve_names(config.data, [name])
            except ValueError:
                missing[f"{name}/{split}"] = None
                continue
            for task in tasks:
                place = pathlib.Path(config.data.stores) / task / split
                if not TokenStore.is_finished(place):
                    missing[f"{task}/{split}"] = None
    return list(missing)


def _prepare(config: ConfigDict, shown: str) -> None:
    print(f"preparing {shown} in {config.data.stores}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "resolved.py"
        path.write_text(
            "from ml_collections import ConfigDict\n\n\ndef get_config(arg=''):\n"
            f"    return ConfigDict({pprint.pformat(config.to_dict())})\n",
            "utf-8",
        )
        command = [sys.executable, "-m", "xlmjax.cli", "prepare", f"--config={path}"]
        # The child must not take the accelerator that this process holds.
        done = subprocess.run(command, env={**os.environ, "JAX_PLATFORMS": "cpu"}, check=False)
    if done.returncode:
        raise ValueError(
            f"preparing {shown} failed with exit code {done.returncode}; the reason stands above"
        )
