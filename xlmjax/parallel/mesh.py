"""The device mesh: four axes, a few integers.

`replica` spans slices (slow network, gradients only), `data` and `fsdp` split the batch, `fsdp`
also splits parameters and optimizer state, `tensor` splits heads, feed-forward and vocabulary.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from xlmjax.parallel.rules import STRATEGIES

AXES = ("replica", "data", "fsdp", "tensor")
BATCH_AXES = ("replica", "data", "fsdp")  # what the rows of a batch are split over


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Section `mesh` of the config: sizes of the axes, of which one may be -1, and the rules."""

    replica: int = 1
    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    strategy: str = "fsdp_tensor"

    def __post_init__(self) -> None:
        for name, size in zip(AXES, self.sizes, strict=True):
            if size < 1 and size != -1:
                raise ValueError(
                    f"mesh.{name}={size} is not a size: use 1 or more, or -1 for all the devices "
                    "that the other axes leave"
                )
        inferred = [f"mesh.{name}" for name, size in zip(AXES, self.sizes, strict=True) if size < 0]
        if len(inferred) > 1:
            raise ValueError(f"{' and '.join(inferred)} are -1: only one axis can be inferred")
        if self.strategy not in STRATEGIES:
            raise ValueError(
                f"mesh.strategy={self.strategy!r} is unknown; known: {', '.join(STRATEGIES)}"
            )

    @classmethod
    def from_config(cls, config: Any) -> "MeshConfig":
        """Return the checked section, from a ConfigDict or another object with these fields."""
        return cls(**{field.name: config[field.name] for field in dataclasses.fields(cls)})

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes in the order of `AXES`."""
        return (self.replica, self.data, self.fsdp, self.tensor)

    def resolve(self, num_devices: int) -> tuple[int, ...]:
        """Return the four sizes with -1 replaced, for this number of devices."""
        known = math.prod(size for size in self.sizes if size > 0)
        product = " * ".join(
            f"mesh.{name}={size}" for name, size in zip(AXES, self.sizes, strict=True) if size > 0
        )
        if known > num_devices:
            raise ValueError(
                f"{product} = {known} needs more than the {num_devices} devices there are: lower "
                "an axis, or simulate devices on a CPU with train.num_cpu_devices"
            )
        if -1 not in self.sizes:
            if known != num_devices:
                raise ValueError(
                    f"{product} = {known} leaves {num_devices - known} of {num_devices} devices "
                    "idle: set one axis to -1"
                )
            return self.sizes
        if num_devices % known:
            raise ValueError(
                f"{product} = {known} does not divide {num_devices} devices: choose sizes whose "
                f"product is one of {_divisors(num_devices)}"
            )
        return tuple(num_devices // known if size < 0 else size for size in self.sizes)


def make_mesh(config: Any, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return the mesh of section `mesh` over `devices` (all of them by default).

    Axes are of type Auto: the compiler propagates shardings from the constraints in the model.
    Across slices `replica` is the axis of the slow network.
    """
    config = config if isinstance(config, MeshConfig) else MeshConfig.from_config(config)
    devices = jax.devices() if devices is None else list(devices)
    sizes = config.resolve(len(devices))
    num_slices = len({getattr(device, "slice_index", 0) for device in devices})
    types = (AxisType.Auto,) * len(AXES)
    if num_slices == 1:
        # An axis of the mesh may be a part of an axis of the torus: 2 x 2 x 4 on 4 x 4 chips.
        grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
        return Mesh(grid, AXES, axis_types=types)
    replica, *inner = sizes
    if replica % num_slices:
        raise ValueError(
            f"mesh.replica={replica} does not spread over {num_slices} slices: set it to "
            f"{num_slices} or a multiple"
        )
    grid = mesh_utils.create_hybrid_device_mesh(
        (replica // num_slices, *inner),
        (num_slices, 1, 1, 1),
        devices,
        allow_split_physical_axes=True,
    )
    return Mesh(grid, AXES, axis_types=types)


def platform() -> str:
    """Return "cpu", "gpu" or "tpu": what the program that is being traced will run on."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.default_backend() if mesh.empty else mesh.abstract_device.platform


def batch_divisor(mesh: Mesh) -> int:
    """Return the number of parts that the rows of a batch are split into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_rows(mesh: Mesh, rows: int, field: str = "train.rows", microbatches: int = 1) -> None:
    """Raise unless every device gets the same number of whole rows of every microbatch."""
    parts = batch_divisor(mesh) * microbatches
    if rows < 1 or rows % parts:
        axes = " * ".join(f"mesh.{axis}={mesh.shape[axis]}" for axis in BATCH_AXES)
        split = f"{axes} * train.microbatches={microbatches}" if microbatches > 1 else axes
        nearest = max(parts, round(rows / parts) * parts)
        raise ValueError(
            f"{field}={rows} is not divisible by {split} = {parts}: use {nearest}, or move "
            "devices to mesh.tensor"
        )


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)
