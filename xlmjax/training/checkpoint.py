"""Checkpoints: asynchronous saves, what to keep, and coming back from whatever was left behind.

A checkpoint `<workdir>/checkpoints/<step>` holds `state` (step, model and optimizer state as
nested dicts of arrays) and `metadata` (what the run is, and a checksum of every array). Orbax
writes it under a temporary name and renames it, so a killed save leaves the ones before as they
were.
"""

import contextlib
import dataclasses
import json
import logging
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from xlmjax.models.config import ModelConfig
from xlmjax.parallel import distributed, replicas
from xlmjax.storage_errors import (
    CheckpointError,
    DamagedError,
    StorageError,
    is_forbidden,
    is_full,
    reading,
)
from xlmjax.training.checkpoint_settings import CheckpointConfig, higher_is_better
from xlmjax.training.fingerprint import checksums
from xlmjax.training.state import (
    StateSpec,
    TrainState,
    from_pure_dict,
    named_leaves,
    nest,
    to_pure_dict,
)

FOLDER = "checkpoints"
STATE, METADATA = "state", "metadata"
FORMAT = 1
_FIELDS = ("format", "model", "vocabulary", "optimizer", "checksums")
# Fields of ModelConfig that may differ between a checkpoint and the run that continues it.
FREE_FIELDS = (
    "dropout",
    "attention_dropout",
    "dtype",
    "attention",
    "remat",
    "scan_layers",
    "head_tile",
    "eos_id",  # the vocabulary is compared by itself
    "classifier_dropout",
)
# What a checkpoint from before a field of ModelConfig existed has there: a new field's default
# means "as before".
DEFAULTS = {field.name: field.default for field in dataclasses.fields(ModelConfig)}

_LONGEST_READ = 86_400  # seconds that a process waits for another one's; hangs are the watchdog's

T = TypeVar("T")

log = logging.getLogger(__name__)


# Of what several processes met in a checkpoint, the last of these is what all raise.
_GRAVITY = (DamagedError, StorageError, CheckpointError, ValueError)


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a run must have in common with a checkpoint to continue it."""

    model: Mapping[str, Any]  # fields of ModelConfig
    vocabulary: str  # fingerprint
    optimizer: str  # name
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # what fixes its batches

    def differences(self, found: Mapping[str, Any], parameters_only: bool = False) -> list[str]:
        """Return one phrase a field that differs from a checkpoint's metadata."""
        pairs = [
            (f"model.{field}", found["model"].get(field, DEFAULTS.get(field)), plain(value))
            for field, value in self.model.items()
            if field not in FREE_FIELDS
        ]
        pairs.append(("vocabulary", found["vocabulary"], self.vocabulary))
        if not parameters_only:
            pairs.append(("optimizer.name", found["optimizer"], self.optimizer))
            theirs = found.get("data", {})
            ours = self.data if theirs else {}  # not compared where either side does not say
            pairs += [(name, theirs.get(name), plain(value)) for name, value in ours.items()]
        return [
            f"{name} is {theirs!r} there and {ours!r} here"
            for name, theirs, ours in pairs
            if theirs != ours
        ]


def plain(value: Any) -> Any:
    """Return a value as JSON reads it back."""
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    return list(map(plain, value)) if isinstance(value, tuple | list) else value


class Checkpoints:
    """The checkpoints of one workdir.

    concurrent_gb: 10^9 bytes of arrays that a save copies at a time, no less than the largest of
    them, to be written in chunks of 64 MiB; None copies them all at once, which is faster and takes
    the memory of a second state.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        config: CheckpointConfig,
        identity: Identity,
        concurrent_gb: int | None = None,
    ):
        self.folder = epath.Path(workdir).absolute() / FOLDER
        self._config = config
        self._identity = identity
        self._chunk_bytes = None if concurrent_gb is None else 2**26
        keep: list[Any] = [policies.LatestN(config.keep)]
        if config.keep_every:
            keep.append(policies.EveryNSteps(config.keep_every))
        highest = bool(config.best_metric) and higher_is_better(config.best_metric)
        if config.best_metric:
            keep.append(
                policies.BestN(
                    get_metric_fn=self._score,
                    reverse=not highest,
                    n=config.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        handlers: dict[str, Any] = {
            STATE: ocp.StandardCheckpointHandler(save_concurrent_gb=concurrent_gb),
            METADATA: ocp.JsonCheckpointHandler(),
        }
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(keep),
            best_fn=self._score if config.best_metric else None,
            best_mode="max" if highest else "min",
            cleanup_tmp_directories=True,
        )
        with reading(self.folder):
            self._manager = ocp.CheckpointManager(
                self.folder,
                item_handlers=handlers if concurrent_gb is not None else None,
                options=options,
            )

    def _score(self, values: Mapping[str, float]) -> float:
        return values[self._config.best_metric]

    @property
    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    @property
    def best_step(self) -> int | None:
        """Step of the best checkpoint by `checkpoint.best_metric`, if there is one."""
        return self._manager.best_step() if self._config.best_metric else None

    def save(self, state: TrainState, values: Mapping[str, float] | None = None) -> None:
        """Begin to save a state; `values` are the evaluations of its step, for best-k.

        Returns when the arrays are copied to the host. Raises `CheckpointError` if this or the
        save before it failed, `StorageError` where trying again may help, `ValueError` if `values`
        lack the metric to keep it by. A step that is saved already is not saved again.
        """
        step, metrics = int(state.step), self._tracked(values)
        with self._explained(step):
            self.wait()
            if step in self._manager.all_steps():
                return
            metadata = {
                "format": FORMAT,
                "step": step,
                "model": {name: plain(value) for name, value in self._identity.model.items()},
                "vocabulary": self._identity.vocabulary,
                "optimizer": self._identity.optimizer,
                "data": {name: plain(value) for name, value in self._identity.data.items()},
                "checksums": checksums(state),
            }
            tree = to_pure_dict(state)
            how = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=self._chunk_bytes), tree)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{
                        STATE: ocp.args.StandardSave(tree, how),
                        METADATA: ocp.args.JsonSave(metadata),
                    }
                ),
                metrics=metrics,
                force=True,
            )

    def check(self) -> None:
        """Raise `CheckpointError` if the save in the background has failed; does not wait."""
        with self._explained(None):
            self._manager.check_for_errors()

    def wait(self) -> None:
        """Wait for the save in the background; raises `CheckpointError` if it failed."""
        with self._explained(None):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait and release the threads."""
        with self._explained(None):
            self._manager.close()

    def restore(self, spec: StateSpec) -> TrainState | None:
        """Return the state of the latest intact checkpoint on the mesh of `spec`; None without any.

        One that lacks something, or whose arrays do not match their checksums, is moved aside, with
        a warning, and the one before is taken. Raises `CheckpointError` if none is intact, reading
        is forbidden or memory ran out, `StorageError` where trying again may help, ValueError if
        the latest is of another model, vocabulary or optimizer; nothing is moved then.
        """
        damaged: dict[int, DamagedError] = {}
        for step in reversed(self.steps):
            try:
                state = restore_state(self.folder / str(step), spec, self._identity)
            except DamagedError as error:
                damaged[step] = error
                continue
            for bad, problem in damaged.items():
                self._set_aside(bad, problem, step)
            return state
        if damaged:
            problems = "; ".join(map(str, damaged.values()))
            raise CheckpointError(
                f"no checkpoint in {self.folder} is intact: {problems}. "
                "Mend or restore the folder, or move it away to begin again"
            )
        return None

    def _set_aside(self, step: int, problem: DamagedError, good: int) -> None:
        place, aside = self.folder / str(step), self.folder / f"corrupt-{step}"
        log.warning(
            "CHECKPOINT %s IS DAMAGED (%s): moved to %s, falling back to step %d",
            place,
            problem,
            aside.name,
            good,
        )
        if distributed.is_main():
            if aside.exists():
                aside.rmtree()
            place.rename(aside)
        distributed.barrier(f"set-aside-{step}")
        self._manager.reload()

    def _tracked(self, values: Mapping[str, float] | None) -> dict[str, float] | None:
        metric = self._config.best_metric
        if not metric or not values:
            return None
        if metric not in values:
            owner = metric.split("/")[1]
            known = sorted(name for name in values if name.split("/")[1] == owner)
            raise ValueError(
                f"checkpoint.best_metric={metric!r} is not what config.evals.{owner} gives: "
                f"{', '.join(known)}"
            )
        return {metric: values[metric]}

    @contextlib.contextmanager
    def _explained(self, step: int | None) -> Iterator[None]:
        """Turn whatever a failed save raises into one sentence."""
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:
            # Orbax leaves a task an array behind, each of which would print this same error.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            good = [s for s in ocp.utils.checkpoint_steps(self.folder) if s != step]
            intact = f"checkpoint {max(good)} is intact" if good else "there is none before it"
            what = f"{type(error).__name__}: {error}"
            kind: type[CheckpointError] = StorageError
            remedy = "Run"
            if is_full(error):
                what, kind, remedy = "the disk is full", CheckpointError, "Make room and run"
            elif is_forbidden(error):
                kind, remedy = CheckpointError, "Allow it and run"
            raise kind(
                f"saving a checkpoint into {self.folder} failed ({what}); {intact}. "
                f"{remedy} the same command again to go on from there"
            ) from error


def restore_state(place: epath.Path, spec: StateSpec, identity: Identity) -> TrainState:
    """Return the state of one checkpoint on the mesh of `spec`, checked against its checksums.

    Raises ValueError if it is of another model, `DamagedError` if it is not what was saved, and as
    `read_arrays` does: on every process, whichever of them noticed.
    """

    metadata = _together(lambda: _metadata_of(place, identity))
    state = from_pure_dict(spec.abstract, read_arrays(place, to_pure_dict(spec.abstract)))
    _check(checksums(state), metadata["checksums"])
    return state


def restore_model(place: epath.Path, spec: StateSpec, identity: Identity) -> Any:
    """Return the model alone, for evaluation; the optimizer may be another. Raises as above."""
    metadata = _together(lambda: _metadata_of(place, identity, parameters_only=True))
    nested = read_arrays(place, {"model": to_pure_dict(spec.abstract.model)})
    model = from_pure_dict(spec.abstract.model, nested["model"])
    found = {f"model/{name}": value for name, value in checksums(model).items()}
    _check(found, {name: metadata["checksums"].get(name) for name in found})
    return model


def _metadata_of(
    place: epath.Path, identity: Identity, parameters_only: bool = False
) -> dict[str, Any]:
    metadata = read_metadata(place)
    differences = identity.differences(metadata, parameters_only)
    if differences:
        raise ValueError(
            f"checkpoint {place} is of another run: {'; '.join(differences)}. Use another "
            "--workdir, or checkpoint.init_from to take its parameters only; if only the data is "
            "another and you mean to go on with it, set checkpoint.same_data=False"
        )
    return metadata


def _together(read: Callable[[], T]) -> T:
    """Return what `read` returns if it succeeded on every process, else raise the same on all.

    A process that went on alone would wait for the others for ever in the next collective, and one
    that took a checkpoint for damaged would move it from under those that could not reach it.
    """
    result, problem, gravity = None, None, 0
    try:
        result = read()
    except _GRAVITY as error:
        problem = error
        gravity = next(i for i, kind in enumerate(_GRAVITY, 1) if isinstance(error, kind))
    found = json.dumps((gravity, str(problem)))
    told = distributed.exchange("restore", found, timeout_seconds=_LONGEST_READ)
    gravest, message = max(map(json.loads, told))
    if not gravest:
        return cast(T, result)
    if problem is not None and gravity == gravest:
        raise problem
    raise _GRAVITY[gravest - 1](f"on another process: {message}")


def _check(found: Mapping[str, int], expected: Mapping[str, int | None]) -> None:
    wrong = [name for name, value in expected.items() if found.get(name) != value]
    if wrong:
        raise DamagedError(f"{len(wrong)} checksums differ, first {', '.join(wrong[:3])}")


def read_metadata(place: epath.Path) -> dict[str, Any]:
    """Return what a checkpoint says about itself; raises as `reading` does."""
    with reading(place / METADATA):
        # The handler alone: a manager's restore has barriers that one failing process would block.
        handler = ocp.JsonCheckpointHandler()
        metadata: dict[str, Any] = handler.restore(place / METADATA, ocp.args.JsonRestore())
        found, *_ = operator.itemgetter(*_FIELDS)(metadata)
    if found != FORMAT:
        raise ValueError(f"checkpoint {place} has format {found}, this version reads {FORMAT}")
    return metadata


def read_arrays(place: epath.Path, abstract: dict[str, Any]) -> dict[str, Any]:
    """Return the arrays of a checkpoint that `abstract` (nested ShapeDtypeStructs) asks for.

    All processes call it together, and one of those that hold a part of an array reads it. Raises
    as `reading` does, on every process.
    """
    leaves = named_leaves(abstract)
    readers = replicas.readers(leaves)
    wanted = leaves | {name: leaves[name].update(sharding=one) for name, one in readers.items()}
    here = {name: leaf for name, leaf in wanted.items() if leaf.sharding.addressable_devices}
    arrays = _together(lambda: _read(place, here))
    for name in readers:  # one at a time: many in flight take memory, and on CPUs all threads
        arrays[name] = jax.block_until_ready(replicas.spread(arrays.pop(name, None), leaves[name]))
    return nest(arrays)


def _read(place: epath.Path, leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Return name -> array, of those that `leaves` (name -> ShapeDtypeStruct) asks for."""
    if not leaves:  # which Orbax refuses; other processes read all there is
        return {}
    abstract = nest(leaves)
    with reading(place / STATE):
        handler = ocp.PyTreeCheckpointHandler()
        arguments = ocp.checkpoint_utils.construct_restore_args(abstract)
        restored = named_leaves(
            handler.restore(
                place / STATE,
                args=ocp.args.PyTreeRestore(
                    item=abstract, restore_args=arguments, partial_restore=True
                ),
            )
        )
        jax.block_until_ready(restored)
        missing = [
            name for name, leaf in restored.items() if isinstance(leaf, jax.ShapeDtypeStruct)
        ]
        if missing:
            raise KeyError(f"no {', '.join(missing[:3])}")
    return restored


def saved_steps(workdir: epath.PathLike) -> list[int]:
    """Return the steps of a workdir's complete checkpoints, in order."""
    folder = epath.Path(workdir) / FOLDER
    return sorted(ocp.utils.checkpoint_steps(folder)) if folder.exists() else []


def find_checkpoint(path: epath.PathLike, field: str) -> epath.Path:
    """Return the checkpoint that a path names: a workdir (its latest), or one checkpoint itself."""
    root = epath.Path(path).absolute()
    if (root / STATE).exists():
        return root
    for folder in (root / FOLDER, root):
        steps = ocp.utils.checkpoint_steps(folder) if folder.exists() else []
        if steps:
            return folder / str(max(steps))
    raise ValueError(
        f"{field}={str(path)!r} holds no checkpoint: name a workdir with {FOLDER}/<step>, or one "
        "of these folders"
    )
