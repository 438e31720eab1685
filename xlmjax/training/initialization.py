"""What a run starts from: its own checkpoint, another run's, another run's parameters, or scratch.

The order is fixed and the first that applies wins: the workdir's latest checkpoint,
`checkpoint.resume_from`, `checkpoint.init_from`, fresh parameters.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from xlmjax.training.checkpoint import (
    STATE,
    CheckpointConfig,
    CheckpointError,
    Checkpoints,
    Identity,
    find_checkpoint,
    read_arrays,
    read_metadata,
    restore_state,
)
from xlmjax.training.state import (
    StateSpec,
    TrainState,
    from_pure_dict,
    named_leaves,
    nest,
    parameter_axes,
)


def initial_state(
    checkpoints: Checkpoints,
    config: CheckpointConfig,
    identity: Identity,
    spec: StateSpec,
    key: jax.Array,
) -> tuple[TrainState, str]:
    """Return the state to start from and a sentence that says where it is from."""
    state = checkpoints.restore(spec)
    if state is not None:
        return state, f"going on from step {int(state.step)} of {checkpoints.folder}"
    if config.resume_from:
        place = find_checkpoint(config.resume_from, "checkpoint.resume_from")
        state = restore_state(place, spec, identity)
        return state, f"going on from step {int(state.step)} of {place}"
    state = spec.create(key)
    if config.init_from:
        model, report = _initialised(config.init_from, state.model, identity)
        return dataclasses.replace(state, model=model), report
    return state, "fresh parameters"


HALVES = ("encoder", "decoder")


def _initialised(init_from: str, model: Any, identity: Identity) -> tuple[Any, str]:
    """Return a fresh model with the parameters of `checkpoint.init_from`, and what became of them.

    The halves of an encoder-decoder each take theirs from a checkpoint of their own or from the
    same one: from the half of that name, or from the only model that it holds.
    """
    places = init_from.split(",")
    halves = [half for half in HALVES if hasattr(model, half)]
    if len(places) > max(1, len(halves)):
        raise ValueError(
            f"checkpoint.init_from={init_from!r}: one checkpoint, or with a decoder two, "
            "ENCODER,DECODER"
        )
    if not halves or (len(places) == 1 and _has_decoder(init_from)):
        place = find_checkpoint(init_from, "checkpoint.init_from")
        model, report = load_parameters(place, model, identity)
        return model, f"parameters from {place}: {report}"
    lines, values = [], named_leaves(model)
    for half, source in zip(halves, places * (len(halves) // len(places)), strict=True):
        if not source:
            lines.append(f"{half}: fresh parameters")
            continue
        place = find_checkpoint(source, "checkpoint.init_from")
        renames = ((f"{half}/(.*)", r"\1"),)
        loaded, report = load_parameters(place, getattr(model, half), identity, renames)
        values |= {f"{half}/{name}": leaf for name, leaf in named_leaves(loaded).items()}
        other = tuple(f"{name}/" for name in halves if name != half)
        skipped = tuple(name for name in report.skipped if not name.startswith(other))
        report = dataclasses.replace(report, skipped=skipped)
        lines.append(f"{half}: parameters from {place}: {report}")
    return from_pure_dict(model, nest(values)), "; ".join(lines)


def _has_decoder(init_from: str) -> bool:
    metadata = read_metadata(find_checkpoint(init_from, "checkpoint.init_from"))
    return bool(metadata["model"].get("decoder_layers"))


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of each parameter."""

    loaded: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]  # (there, here)
    fresh: tuple[str, ...]  # in the model, not in the checkpoint
    skipped: tuple[str, ...]  # in the checkpoint, not in the model or of another shape

    def __str__(self) -> str:
        """Return one line, with the names of all that was not simply loaded."""
        parts = [f"{len(self.loaded)} loaded"]
        if self.renamed:
            pairs = ", ".join(f"{there} -> {here}" for there, here in self.renamed)
            parts.append(f"{len(self.renamed)} renamed ({pairs})")
        for name, values in (("fresh", self.fresh), ("skipped", self.skipped)):
            if values:
                parts.append(f"{len(values)} {name} ({', '.join(values)})")
        return ", ".join(parts)


def load_parameters(
    place: epath.Path,
    model: Any,
    identity: Identity,
    renames: Sequence[tuple[str, str]] = (),
) -> tuple[Any, Report]:
    """Return the model with the parameters that a checkpoint has for it, and a report.

    Parameters match by name, after the first of `renames` (regex, replacement) that matches the
    whole name in the checkpoint, and by shape. Rows of the language table match by language. Raises
    ValueError if the vocabularies differ, or if nothing matches.
    """
    metadata = read_metadata(place)
    if metadata["vocabulary"] != identity.vocabulary:
        raise ValueError(
            f"checkpoint.init_from: {place} is of vocabulary {metadata['vocabulary']}, the run of "
            f"{identity.vocabulary}: set data.vocabulary to that model's file"
        )
    there = named_leaves(_stored_parameters(place))
    here, axes = named_leaves(model), parameter_axes(model)
    names = {old: _rename(old, renames) for old in there}
    wanted = {
        old: new
        for old, new in names.items()
        if new in here and _fits(there[old].shape, here[new].shape, axes[new])
    }
    if not wanted:
        raise ValueError(
            f"checkpoint.init_from: {place} has none of the model's parameters; it has "
            f"{', '.join(sorted(there)[:5])}, ..."
        )
    placed = {
        f"model/{old}": jax.ShapeDtypeStruct(
            there[old].shape,
            there[old].dtype,
            sharding=_whole(here[new]) if "languages" in axes[new] else here[new].sharding,
        )
        for old, new in wanted.items()
    }
    arrays = named_leaves(read_arrays(place, nest(placed))["model"])
    values = dict(here)
    for old, new in wanted.items():
        values[new] = arrays[old]
        if "languages" in axes[new]:
            rows = _language_rows(metadata["model"]["language_ids"], identity.model["language_ids"])
            values[new] = _take_rows(arrays[old], here[new], rows)
    report = Report(
        loaded=tuple(new for old, new in wanted.items() if old == new),
        renamed=tuple((old, new) for old, new in wanted.items() if old != new),
        fresh=tuple(sorted(set(here) - set(wanted.values()))),
        skipped=tuple(sorted(set(there) - set(wanted))),
    )
    return from_pure_dict(model, nest(values)), report


def _stored_parameters(place: epath.Path) -> Any:
    """Return the nested shapes of the parameters in a checkpoint."""
    try:
        tree = ocp.PyTreeCheckpointHandler().metadata(place / STATE).tree
    except Exception as error:
        raise CheckpointError(f"{place / STATE} cannot be read: {error}") from error
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree["model"])


def _rename(name: str, renames: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in renames:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    return name


def _fits(there: Sequence[int], here: Sequence[int], axes: Sequence[str]) -> bool:
    """Return whether shapes agree in all but the number of languages."""
    return len(there) == len(here) and all(
        a == b or axis == "languages" for a, b, axis in zip(there, here, axes, strict=True)
    )


def _whole(x: Any) -> jax.sharding.Sharding:
    return NamedSharding(x.sharding.mesh, PartitionSpec())


def _language_rows(theirs: Sequence[int], ours: Sequence[int]) -> np.ndarray:
    """Return the row of each of our languages in their table, -1 for a new language."""
    return np.array([theirs.index(x) if x in theirs else -1 for x in ours], np.int32)


def _take_rows(table: jax.Array, fresh: jax.Array, rows: np.ndarray) -> jax.Array:
    def take(table: jax.Array, fresh: jax.Array) -> jax.Array:
        return jnp.where((rows >= 0)[:, None], table[rows], fresh)

    return jax.jit(take, out_shardings=fresh.sharding)(table, fresh)
