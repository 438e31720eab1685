"""What a run says of itself: to the other processes, to whoever watches it, in its workdir."""

import importlib.metadata
import json
import pathlib
import subprocess
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from xlmjax.configuration import leaves
from xlmjax.data.layout import layout_field
from xlmjax.data.mixture import Group as DataGroup
from xlmjax.experiment import Experiment
from xlmjax.planning.mixture_record import record_groups
from xlmjax.storage_errors import writing
from xlmjax.training.agreement import software
from xlmjax.training.checkpoint import saved_steps
from xlmjax.training.state import named_leaves, parameter_axes


def facts(experiment: Experiment, data: Sequence[DataGroup], workdir: epath.Path) -> dict[str, Any]:
    """Return what has to be equal on all processes of a run, before any of them has restored."""
    config = leaves(experiment.config.to_dict(), "config.")
    return {
        **software(),
        **config,
        "--workdir": str(workdir),
        "its checkpoints": saved_steps(workdir),
        "devices": f"{jax.local_device_count()} {jax.local_devices()[0].device_kind}",
        "vocabulary": experiment.vocabulary.fingerprint,
        **data_identity(experiment, data),
    }


def data_identity(experiment: Experiment, data: Sequence[DataGroup]) -> dict[str, Any]:
    """Return what the batch of a step depends on; a run that goes on must have all of it."""
    config = experiment.config
    # Said so that checkpoints from before groups had a layout and a length still match.
    lengths = {group.name: group.mixture.length for group in data}
    same_length = set(lengths.values()) == {experiment.train.length}
    layouts = config.data.layout.to_dict()
    if not any(layout_field(task.store) == "translation" for g in data for task in g.mixture.tasks):
        layouts.pop("translation", None)
    layouts |= {
        f"objectives.{group.name}": config.objectives[group.name].layout
        for group in data
        if config.objectives[group.name].layout
    }
    layouts |= {
        f"objectives.{group.name}.{field}": number
        for group in data
        for field in ("sentences", "sentence_length")
        if (number := config.objectives[group.name].get(field))
    }
    # Said only where it is not what runs from before the field had.
    bos = {"data.bos": True} if config.data.bos else {}
    stores = {
        f"the store of {task.name}": task.store.manifest.source_fingerprint
        for group in data
        for task in group.mixture.tasks
    }
    return {
        "seed": config.seed,
        "train.length": experiment.train.length if same_length else lengths,
        "data.layout": layouts,
        "data.mixing": config.data.mixing.to_dict(),
        "rows by objective": {group.name: group.rows for group in data},
        "tasks by objective": {
            group.name: [task.name for task in group.mixture.tasks] for group in data
        },
        **bos,
        **stores,
    }


def describe(experiment: Experiment) -> list[str]:
    """Return what a user wants to see first: devices, mesh, size of the model."""
    device = jax.devices()[0]
    axes = " x ".join(f"{axis} {size}" for axis, size in experiment.mesh.shape.items())
    parameters = sum(leaf.size for leaf in jax.tree.leaves(experiment.spec.abstract.model))
    return [
        f"{jax.device_count()} devices ({device.device_kind}) in {jax.process_count()} processes, "
        f"mesh {axes}, strategy {experiment.strategy}",
        f"{parameters:,} parameters, vocabulary {experiment.vocabulary.size:,}, "
        f"{len(experiment.model.language_ids)} languages, {experiment.model.dtype}",
    ]


def losses_of_layout(data: Sequence[DataGroup]) -> list[str]:
    """Return a line for each task of which the rows do not hold everything."""
    lines = []
    for task in (task for group in data for task in group.mixture.tasks):
        counts = {f"dropped ({reason})": n for reason, n in task.layout.dropped.items()}
        counts["cut at the end of the longer side"] = task.layout.truncated
        parts = [f"{count:,} examples {what}" for what, count in counts.items() if count]
        if parts:
            lines.append(f"{task.name}, rows of {task.layout.length}: {', '.join(parts)}")
    return lines


def write_description(
    workdir: epath.Path, experiment: Experiment, start: int, data: Sequence[DataGroup] = ()
) -> None:
    """Write config.json: resolved config, versions, mesh, mixtures, and a table of the parameters.

    A run that goes on from step n writes config-n.json beside it. A copy of the vocabulary makes
    the workdir usable from anywhere (`experiment.kept_vocabulary`).
    """
    axes = parameter_axes(experiment.spec.abstract.model)
    parameters = {
        name: {
            "shape": list(leaf.shape),
            "dtype": str(leaf.dtype),
            "axes": list(axes[name]),
            "sharding": str(leaf.sharding.spec),
        }
        for name, leaf in named_leaves(experiment.spec.abstract.model).items()
    }
    packages = ("xlmjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    content = {
        "config": experiment.config.to_dict(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "code": software()["the code of xlmjax"],
        "commit": commit(),
        "mesh": dict(experiment.mesh.shape),
        "devices": f"{jax.device_count()} {jax.devices()[0].device_kind}",
        "vocabulary": experiment.vocabulary.fingerprint,
        "parameters": parameters,
        "mixtures": record_groups(data, experiment.config.objectives),
    }
    text = json.dumps(content, indent=2, default=str) + "\n"
    path = workdir / (f"config-{start}.json" if start else "config.json")
    with writing(path):
        workdir.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        copy, vocabulary = workdir / experiment.vocabulary.kept_file, experiment.vocabulary.model
        if not copy.exists() or copy.read_bytes() != vocabulary:
            copy.write_bytes(vocabulary)


def commit() -> str:
    """Return the commit of the checkout that runs, with `-dirty` where files differ from it.

    Empty where the package is installed from a wheel, or git is not there.
    """
    root = pathlib.Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
