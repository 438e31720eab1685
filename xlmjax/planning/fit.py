"""Does a train step fit on a slice, and how long would it take: judged by the compiler alone.

`Programs` remembers what compilers answered, and `report` turns an answer (planning/program.py)
into memory, a roofline and the cost of the run.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

import xlmjax
from xlmjax.planning import interconnect
from xlmjax.planning.hardware import Accelerator
from xlmjax.planning.program import Exchange, Program, from_json
from xlmjax.planning.roofline import Forecast, Roofline, bytes_sent, forecast
from xlmjax.training.state import TrainState

_FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")  # variables that compilers read
# What decides the program of a step and how it is read; other rooms only feed it.
_SOURCES = (
    "models",
    "objectives",
    "ops",
    "parallel",
    "training",
    "planning/compiled.py",
    "planning/traffic.py",
    "planning/program.py",
    "dry_run.py",
    "experiment.py",
)


@dataclasses.dataclass(frozen=True)
class StateBytes:
    """Bytes on the device that holds most, from the shardings alone, without padding."""

    parameters: int
    optimizer: int
    gradient: int  # of the parameters' shapes and shardings; lives during the step


@dataclasses.dataclass(frozen=True)
class FitReport:
    """One plan on one slice."""

    plan: Mapping[str, Any]  # field of the config -> value
    device: str
    num_devices: int
    num_chips: int
    tokens: int  # places a step
    num_steps: int
    state: StateBytes
    program: Program
    memory_limit: float | None  # bytes of a device that a program may take; None: not known
    model_flops: float | None  # of one step, over all devices
    sent: Mapping[str, float]  # "all-gather fsdp" -> bytes that a device sends a step
    roofline: Roofline | None  # None without a program or figures of the device
    forecast: Forecast | None
    assumptions: tuple[str, ...]

    @property
    def headroom(self) -> float | None:
        """Bytes of a device that are left, negative where they lack; None where not known.

        A compiler may fit a program whose memory by kind adds up to more than there is, sharing
        space between them (`shared`); how much that leaves it does not say.
        """
        program = self.program
        limit = program.available or self.memory_limit
        needed = program.memory.total if program.memory else program.required
        return None if limit is None or needed is None or self.shared else limit - needed

    @property
    def shared(self) -> float:
        """Bytes by which the memory of a program that fits, by kind, exceeds what there is."""
        memory, limit = self.program.memory, self.memory_limit
        return max(memory.total - limit, 0.0) if memory and limit else 0.0


def state_bytes(state: TrainState) -> StateBytes:
    """Return the bytes of an abstract state on one device; every device holds as many."""
    parameters = _bytes_on_device(state.model)
    return StateBytes(parameters, _bytes_on_device(state.opt_state), parameters)


def _bytes_on_device(tree: Any) -> int:
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def report(
    program: Program,
    *,
    plan: Mapping[str, Any],
    mesh: jax.sharding.Mesh,
    state: TrainState,
    tokens: int,
    num_steps: int,
    model_flops: float | None,
    accelerator: Accelerator | None,
    assumptions: tuple[str, ...] = (),
) -> FitReport:
    """Return what a program means on its devices; without `accelerator` it tells no time."""
    chips = {(interconnect.slice_of(d), *getattr(d, "coords", (d.id,))) for d in mesh.devices.flat}
    limit = times = future = None
    if accelerator is not None:
        limit = accelerator.usable_bytes or accelerator.memory_bytes
    if accelerator is not None and program.fits:
        times = roofline_of(program, mesh, accelerator, (model_flops or 0.0) / mesh.size)
        future = forecast(
            times.step,
            tokens=tokens,
            model_flops=model_flops,
            peak_flops=accelerator.peak_flops,
            num_devices=mesh.size,
            num_chips=len(chips),
            num_steps=num_steps,
        )
    return FitReport(
        plan=plan,
        device=mesh.devices.flat[0].device_kind,
        num_devices=mesh.size,
        num_chips=len(chips),
        tokens=tokens,
        num_steps=num_steps,
        state=state_bytes(state),
        program=program,
        memory_limit=limit,
        model_flops=model_flops,
        sent={_name(exchange): _sent(exchange, mesh) for exchange in program.exchanges},
        roofline=times,
        forecast=future,
        assumptions=assumptions,
    )


def _name(exchange: Exchange) -> str:
    return f"{exchange.kind} {'*'.join(exchange.axes) or 'other'}"


def _sent(exchange: Exchange, mesh: jax.sharding.Mesh) -> float:
    group = interconnect.group_along(mesh, exchange.axes)
    return bytes_sent(exchange.kind, exchange.bytes, len(group))


def roofline_of(
    program: Program, mesh: jax.sharding.Mesh, accelerator: Accelerator, least_flops: float = 0.0
) -> Roofline:
    """Return the seconds of each resource of a device; a network of unknown speed has none.

    `least_flops` of a device are needed whatever the program shows: it hides those of kernels.
    """
    seconds = {
        "compute": max(program.flops, least_flops) / accelerator.peak_flops,
        "memory": program.traffic / accelerator.memory_bandwidth,
    }
    network = accelerator.network
    if network is None:
        return Roofline(seconds)
    whole = interconnect.group_along(mesh, ())
    for exchange in program.exchanges:
        group = interconnect.group_along(mesh, exchange.axes)
        if len({interconnect.slice_of(device) for device in group}) == 1:
            taken = interconnect.seconds(exchange.kind, exchange.bytes, group, whole, network)
            seconds["ici"] = seconds.get("ici", 0.0) + taken
        elif network.dcn is not None:
            taken = _sent(exchange, mesh) / network.dcn
            seconds["dcn"] = seconds.get("dcn", 0.0) + taken
    return Roofline(seconds)


class CompilerEndedError(ValueError):
    """The compiler's process ended: neither a program nor a refusal."""


class CompilerCrashError(CompilerEndedError):
    """It ended on its own account, as it will again for the same plan."""


class Programs:
    """Answers of compilers on disk, by what decides them: `{key}.json` in a folder."""

    def __init__(self, folder: str | os.PathLike[str] | None = None):
        """Use `folder`, by default one under the user's cache folder."""
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        self.folder = pathlib.Path(folder or pathlib.Path(home) / "xlmjax" / "fit")
        self.asked = self.kept = 0  # answers that compilers were asked for, and that were here

    def get(self, facts: Mapping[str, Any], ask: Callable[[], Program]) -> Program:
        """Return the answer for `facts` (config, topology, ...: JSON), asking only once.

        Versions of the compiler and of the sources that make the program are part of the key. A
        `CompilerCrashError` is an answer too: it is raised again for the same facts.
        """
        path = self.folder / f"{key_of(facts)}.json"
        if path.is_file():
            self.kept += 1
            fields = json.loads(path.read_text("utf-8"))
            if "crashed" in fields:
                raise CompilerCrashError(f"{fields['crashed']} (delete {path} to try it again)")
            return from_json(fields)
        self.asked += 1
        try:
            program = ask()
        except CompilerCrashError as error:
            self._keep(path, {"crashed": str(error)})
            raise
        self._keep(path, dataclasses.asdict(program))
        return program

    def _keep(self, path: pathlib.Path, fields: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(fields, indent=1), "utf-8")
        partial.rename(path)


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the digest of facts, versions, flags of compilers and sources."""
    versions = {name: _version(name) for name in ("jax", "jaxlib", "libtpu", "flax", "optax")}
    flags = {name: os.environ.get(name, "") for name in _FLAGS}
    text = json.dumps([facts, versions, flags, _sources()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


@functools.cache
def _sources() -> str:
    """Return the digest of the sources as this process found them."""
    root = pathlib.Path(xlmjax.__file__).parent
    digest = hashlib.sha256()
    for name in _SOURCES:
        path = root / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()
