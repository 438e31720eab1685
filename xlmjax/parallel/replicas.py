"""Arrays of which several processes hold the same part: one of them reads it, for all.

The mesh axes that a sharding leaves out are its spare ones. At each point of them is a replica:
devices that hold the whole array among them.
"""

import collections
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, Sharding


def readers(leaves: Mapping[str, Any]) -> dict[str, NamedSharding]:
    """Return name -> the sharding of the one replica that is to read an array for all of them.

    `leaves` are ShapeDtypeStructs with shardings; those of which no part is held by two processes
    are left out. The largest are first to choose the processes that have least to read so far.
    """
    load: collections.Counter[int] = collections.Counter()  # process -> bytes
    chosen = {}
    for name, leaf in sorted(leaves.items(), key=lambda item: -_num_bytes(item[1])):
        if replicas := _replicas(leaf.sharding):
            chosen[name], processes = min(
                replicas, key=lambda replica: max(load[process] for process in replica[1])
            )
            for process in processes:
                load[process] += _num_bytes(leaf) // len(processes)
    return chosen


def spread(array: jax.Array | None, leaf: Any) -> jax.Array:
    """Return an array with the sharding of `leaf`, from the replica that has been read.

    `array` is None on a process that has no device of that replica. Every process calls this, for
    the same arrays in the same order. Takes the memory of two more such arrays meanwhile.
    """
    read = {} if array is None else {part.device: part.data for part in array.addressable_shards}
    zeros = jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)
    parts = [read.get(part.device, part.data) for part in zeros.addressable_shards]
    return _sum(leaf.sharding)(
        jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, parts)
    )


@functools.cache
def _sum(sharding: NamedSharding) -> Any:
    """Return the sum over replicas, of bits: exact, NaNs too, where all but one are zeros."""

    def add(x: jax.Array) -> jax.Array:
        width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
        bits = jax.lax.psum(jax.lax.bitcast_convert_type(x, width), _spare(sharding))
        return jax.lax.bitcast_convert_type(bits, x.dtype)

    # The replicas of what comes in differ, which the check would not allow.
    return jax.jit(
        jax.shard_map(
            add,
            mesh=sharding.mesh,
            in_specs=sharding.spec,
            out_specs=sharding.spec,
            check_vma=False,
        )
    )


@functools.cache
def _replicas(sharding: Sharding) -> list[tuple[NamedSharding, set[int]]]:
    """Return the sharding and the processes of each replica; none where one process has them all.

    That is, where devices that differ in spare axes alone are of the same process.
    """
    if not isinstance(sharding, NamedSharding):
        return []
    mesh, spare = sharding.mesh, _spare(sharding)
    processes = np.vectorize(lambda device: device.process_index, otypes=[int])(mesh.devices)
    found, places = [], []
    for point in np.ndindex(*(mesh.shape[axis] for axis in spare)):
        at = dict(zip(spare, point, strict=True))
        part = tuple(
            slice(at[axis], at[axis] + 1) if axis in at else slice(None) for axis in mesh.axis_names
        )
        one = Mesh(mesh.devices[part], mesh.axis_names, axis_types=mesh.axis_types)
        places.append(processes[part])
        found.append((NamedSharding(one, sharding.spec), {*places[-1].flat}))
    return found if any((place != places[0]).any() for place in places) else []


def _spare(sharding: NamedSharding) -> tuple[str, ...]:
    groups = (group if isinstance(group, tuple) else (group,) for group in sharding.spec)
    used = {axis for group in groups for axis in group}
    return tuple(axis for axis in sharding.mesh.axis_names if axis not in used)


def _num_bytes(leaf: Any) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize
