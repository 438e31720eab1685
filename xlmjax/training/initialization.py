"""What a run starts from: its own checkpoint, another run's, another run's parameters, or scratch.

The order is fixed and the first that applies wins: the workdir's latest checkpoint,
`checkpoint.resume_from`, `checkpoint.init_from`, fresh parameters.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from xlmjax.data.vocabulary import Vocabulary
from xlmjax.data.vocabulary_change import VocabularyChange
from xlmjax.storage_errors import reading
from xlmjax.training.checkpoint import (
    STATE,
    Checkpoints,
    Identity,
    find_checkpoint,
    read_arrays,
    read_metadata,
    restore_state,
)
from xlmjax.training.checkpoint_settings import CheckpointConfig
from xlmjax.training.initial_vectors import with_vectors
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
    vocabulary: Vocabulary,
) -> tuple[TrainState, str]:
    """Return the state to start from and a sentence that says where it is from.

    `vocabulary` is the run's: what the pieces of `checkpoint.init_vocabulary` become ones of, and
    whose pieces the words of `checkpoint.init_vectors` are.
    """
    state = checkpoints.restore(spec)
    if state is not None:
        return state, f"going on from step {int(state.step)} of {checkpoints.folder}"
    if config.resume_from:
        place = find_checkpoint(config.resume_from, "checkpoint.resume_from")
        state = restore_state(place, spec, identity)
        return state, f"going on from step {int(state.step)} of {place}"
    state = spec.create(key)
    if config.init_from:
        change = None
        if config.init_vocabulary:
            before = Vocabulary.load(config.init_vocabulary, "checkpoint.init_vocabulary")
            change = VocabularyChange(before, vocabulary)
        model, report = _initialised(config, state.model, identity, change)
        return dataclasses.replace(state, model=model), report
    if config.init_vectors:
        model, report = with_vectors(state.model, config.init_vectors, vocabulary)
        return dataclasses.replace(state, model=model), f"fresh parameters but {report}"
    return state, "fresh parameters"


HALVES = ("encoder", "decoder")


def _initialised(
    config: CheckpointConfig, model: Any, identity: Identity, change: VocabularyChange | None
) -> tuple[Any, str]:
    """Return a fresh model with the parameters of `checkpoint.init_from`, and what became of them.

    The halves of an encoder-decoder each take theirs from a checkpoint of their own or from the
    same one: from the half of that name, or from the only model that it holds.
    """
    init_from, sizes = config.init_from, config.init_rms
    places = init_from.split(",")
    halves = [half for half in HALVES if hasattr(model, half)]
    if len(places) > max(1, len(halves)):
        raise ValueError(
            f"checkpoint.init_from={init_from!r}: one checkpoint, or with a decoder two, "
            "ENCODER,DECODER"
        )
    if not halves or (len(places) == 1 and _has_decoder(init_from)):
        place = find_checkpoint(init_from, "checkpoint.init_from")
        model, report = load_parameters(place, model, identity, change=change, sizes=sizes)
        _check_sizes(sizes, report.loaded)
        return model, f"parameters from {place}: {report}"
    lines, values, found = [], named_leaves(model), []
    for half, source in zip(halves, places * (len(halves) // len(places)), strict=True):
        if not source:
            lines.append(f"{half}: fresh parameters")
            continue
        place = find_checkpoint(source, "checkpoint.init_from")
        renames = ((f"{half}/(.*)", r"\1"),)
        loaded, report = load_parameters(
            place, getattr(model, half), identity, renames, change, sizes
        )
        found += [*report.loaded, *(here for _, here in report.renamed)]
        values |= {f"{half}/{name}": leaf for name, leaf in named_leaves(loaded).items()}
        other = tuple(f"{name}/" for name in halves if name != half)
        skipped = tuple(name for name in report.skipped if not name.startswith(other))
        report = dataclasses.replace(report, skipped=skipped)
        lines.append(f"{half}: parameters from {place}: {report}")
    _check_sizes(sizes, found)
    return from_pure_dict(model, nest(values)), "; ".join(lines)


def _check_sizes(sizes: Sequence[tuple[str, float]], loaded: Sequence[str]) -> None:
    for pattern, _ in sizes:
        if not any(re.fullmatch(pattern, name) for name in loaded):
            raise ValueError(
                f"checkpoint.init_rms: {pattern!r} matches none of the loaded parameters: "
                f"{', '.join(sorted({*loaded}))}"
            )


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
    vocabulary: str = ""  # what became of the pieces of another one
    scaled: tuple[tuple[str, float], ...] = ()  # (here, factor)

    def __str__(self) -> str:
        """Return one line, with the names of all that was not simply loaded."""
        parts = [f"{len(self.loaded)} loaded"]
        if self.renamed:
            pairs = ", ".join(f"{there} -> {here}" for there, here in self.renamed)
            parts.append(f"{len(self.renamed)} renamed ({pairs})")
        for name, values in (("fresh", self.fresh), ("skipped", self.skipped)):
            if values:
                parts.append(f"{len(values)} {name} ({', '.join(values)})")
        parts += filter(None, (self.vocabulary,))
        parts += [f"{name} times {factor:.3g}" for name, factor in self.scaled]
        return ", ".join(parts)


def load_parameters(
    place: epath.Path,
    model: Any,
    identity: Identity,
    renames: Sequence[tuple[str, str]] = (),
    change: VocabularyChange | None = None,
    sizes: Sequence[tuple[str, float]] = (),
) -> tuple[Any, Report]:
    """Return the model with the parameters that a checkpoint has for it, and a report.

    Parameters match by name, after the first of `renames` (regex, replacement) that matches the
    whole name in the checkpoint, and by shape. Rows of the language table match by language, those
    of the vocabulary by `change` where it is another. The first of `sizes` (regex, root mean
    square) that matches the whole name in the model says how large a parameter becomes. Raises
    ValueError if the vocabularies differ without a `change`, or from what it says, or if nothing
    matches.
    """
    metadata = read_metadata(place)
    if metadata["vocabulary"] == identity.vocabulary:
        change = None
    elif change is None:
        raise ValueError(
            f"checkpoint.init_from: {place} is of vocabulary {metadata['vocabulary']}, the run of "
            f"{identity.vocabulary}: set data.vocabulary to that model's file, or name it in "
            "checkpoint.init_vocabulary to move to the new one"
        )
    elif metadata["vocabulary"] != change.before.fingerprint:
        raise ValueError(
            f"checkpoint.init_from: {place} is of vocabulary {metadata['vocabulary']}, and "
            f"checkpoint.init_vocabulary={change.before.path} is {change.before.fingerprint}: name "
            "the file that the checkpoint was trained with"
        )
    free = {"languages"} if change is None else {"languages", "vocab"}
    there = named_leaves(_stored_parameters(place))
    here, axes = named_leaves(model), parameter_axes(model)
    names = {old: _rename(old, renames) for old in there}
    wanted = {
        old: new
        for old, new in names.items()
        if new in here and _fits(there[old].shape, here[new].shape, axes[new], free)
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
            sharding=_whole(here[new]) if free & {*axes[new]} else here[new].sharding,
        )
        for old, new in wanted.items()
    }
    arrays = named_leaves(read_arrays(place, nest(placed))["model"])
    values, scaled = dict(here), []
    for old, new in wanted.items():
        values[new] = arrays[old]
        if "languages" in axes[new]:
            rows = _language_rows(metadata["model"]["language_ids"], identity.model["language_ids"])
            values[new] = _take_rows(arrays[old], here[new], rows)
        if change is not None and "vocab" in axes[new]:
            values[new] = _mean_rows(arrays[old], here[new], *change.gathered)
        for pattern, size in sizes:
            if re.fullmatch(pattern, new):
                values[new], factor = _sized(values[new], size)
                if not math.isfinite(factor):
                    raise ValueError(
                        f"checkpoint.init_rms: {new} of {place} is all zeros and has no size: "
                        f"leave it out of {pattern!r}"
                    )
                scaled.append((new, factor))
                break
    report = Report(
        loaded=tuple(new for old, new in wanted.items() if old == new),
        renamed=tuple((old, new) for old, new in wanted.items() if old != new),
        fresh=tuple(sorted(set(here) - set(wanted.values()))),
        skipped=tuple(sorted(set(there) - set(wanted))),
        vocabulary="" if change is None else str(change),
        scaled=tuple(scaled),
    )
    return from_pure_dict(model, nest(values)), report


def _stored_parameters(place: epath.Path) -> Any:
    """Return the nested shapes of the parameters in a checkpoint."""
    with reading(place / STATE):
        tree = ocp.PyTreeCheckpointHandler().metadata(place / STATE).tree
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree["model"])


def _rename(name: str, renames: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in renames:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    return name


def _fits(
    there: Sequence[int], here: Sequence[int], axes: Sequence[str], free: Collection[str]
) -> bool:
    """Return whether shapes agree in all but some axes."""
    return len(there) == len(here) and all(
        a == b or axis in free for a, b, axis in zip(there, here, axes, strict=True)
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


def _sized(x: jax.Array, size: float) -> tuple[jax.Array, float]:
    """Return an array of a root mean square, and the factor that made it so."""

    def scale(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        factor = size / jnp.sqrt(jnp.mean(jnp.square(x)))
        return x * factor, factor

    scaled, factor = jax.jit(scale, out_shardings=(x.sharding, _whole(x)))(x)
    return scaled, float(factor)


def _mean_rows(
    table: jax.Array, fresh: jax.Array, pieces: np.ndarray, owners: np.ndarray
) -> jax.Array:
    """Return rows (axis 0) that are means of rows of `table`; fresh ones where nothing is theirs.

    Row owners[i] of the result takes row pieces[i] of `table`; `owners` are in order.
    """
    counts = np.bincount(owners, minlength=len(fresh))
    over = np.maximum(counts, 1).astype(np.float32).reshape(-1, *[1] * (fresh.ndim - 1))

    def mean(table: jax.Array, fresh: jax.Array) -> jax.Array:
        sums = jax.ops.segment_sum(table[pieces], owners, len(counts), indices_are_sorted=True)
        return jnp.where(counts.reshape(over.shape) > 0, sums / over, fresh)

    return jax.jit(mean, out_shardings=fresh.sharding)(table, fresh)
