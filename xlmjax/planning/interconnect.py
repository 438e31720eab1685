"""Which links the devices along axes of a mesh have to each other, and how fast they are."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from xlmjax.planning.hardware import Network
from xlmjax.planning.roofline import bytes_sent

# Links close to a ring along a whole axis of the torus from this size on: a pod of v5e and v6e is
# 16 x 16, and v4, v5p and 7x are wired by cubes of 4 x 4 x 4.
_RING = {2: 16, 3: 4}


def bandwidth(group: Sequence[jax.Device], slice_: Sequence[jax.Device], network: Network) -> float:
    """Return the bytes/s that each device of a group sends to the group, all at once, both ways.

    `slice_` are all devices of its slice. Along every axis of the torus that the group extends over
    a ring uses two links of each device, a line that does not close one (Austin et al. 2025, "How
    to scale your model", section 3).
    """
    links = sum(2 if closed else 1 for _, closed in _axes(group, slice_, network))
    return max(links, 1) * network.link  # two devices of one chip are nearer than any link


def seconds(
    kind: str,
    size: float,
    group: Sequence[jax.Device],
    slice_: Sequence[jax.Device],
    network: Network,
) -> float:
    """Return the seconds of a collective in a group of one slice; `size` as for `bytes_sent`.

    In an all-to-all half of the devices send half of their `size` bytes over the middle of each
    axis of the torus. There every line of k chips has one link each way and every ring two, so the
    links carry size * k / 4 or size * k / 8 bytes, and the busiest axis decides.
    """
    if kind != "all-to-all" or len(group) < 2:
        return bytes_sent(kind, size, len(group)) / bandwidth(group, slice_, network)
    busiest = max(
        (k / (8 if closed else 4) for k, closed in _axes(group, slice_, network)),
        default=1 / 2,  # two devices of one chip
    )
    return size * busiest / network.link


def group_along(mesh: jax.sharding.Mesh, axes: Sequence[str]) -> list[jax.Device]:
    """Return the first group of devices that differ in these axes alone; without any, a slice."""
    first = mesh.devices.flat[0]
    if not axes:
        return [device for device in mesh.devices.flat if slice_of(device) == slice_of(first)]
    index = tuple(slice(None) if name in axes else 0 for name in mesh.axis_names)
    return list(np.asarray(mesh.devices[index]).flat)


def slice_of(device: jax.Device) -> int:
    """Return the number of the slice of a device; there is one where nothing numbers them."""
    return getattr(device, "slice_index", 0)


def _axes(
    group: Sequence[jax.Device], slice_: Sequence[jax.Device], network: Network
) -> Iterator[tuple[int, bool]]:
    """Yield places along each axis that the group extends over, and whether they close a ring."""
    ring = _RING[network.torus_axes]
    for extent, whole in zip(_extents(group), _extents(slice_), strict=True):
        if extent > 1:
            yield extent, extent == whole and whole % ring == 0


def _extents(devices: Sequence[jax.Device]) -> list[int]:
    """Return how many places along each axis of the torus the devices stand at."""
    return [len(set(places)) for places in zip(*(d.coords for d in devices), strict=True)]
