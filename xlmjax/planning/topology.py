"""TPU slices without TPUs: devices that only the compiler of the `libtpu` wheel knows."""

import importlib.util
import math
import os
import re

import jax
from jax.experimental import topologies

# How people call a generation -> what libtpu calls it, and how many of its chips are one device.
GENERATIONS: dict[str, tuple[str, dict[str, object]]] = {
    "v4": ("v4", {"chip_config_name": "megacore"}),
    "v5e": ("v5e", {}),
    "v5p": ("v5p", {}),
    "v6e": ("v6e", {}),
    "v7x": ("tpu7x", {}),
}
# Axes of the torus, and chips of a pod, which is the largest slice: libtpu makes up larger ones.
_PODS = {"v4": (3, 4096), "v5e": (2, 256), "v5p": (3, 8960), "v6e": (2, 256), "v7x": (3, 9216)}
_LONGEST = 16  # chips along an axis where there are two
_NAME = re.compile(r"(?:([1-9]\d*)\*)?(\w+):(\d+(?:x\d+){1,2})")


def tpu_devices(topology: str) -> list[jax.Device]:
    """Return the devices of a slice such as "v5e:4x4", or of several: "2*v5e:16x16".

    Programs lowered for them can be compiled and not run. Raises `ValueError` on a name that
    libtpu does not know, and where libtpu is not installed.
    """
    match = _NAME.fullmatch(topology)
    if match is None or match[2] not in GENERATIONS:
        raise ValueError(
            f"topology {topology!r} is unknown: write GENERATION:AxB or GENERATION:AxBxC, several "
            f"slices as 2*GENERATION:AxB; generations: {', '.join(GENERATIONS)}"
        )
    slices, generation, shape = int(match[1] or 1), match[2], match[3]
    sizes, (axes, chips) = [int(size) for size in shape.split("x")], _PODS[generation]
    too_long = axes == 2 and max(sizes) > _LONGEST
    if len(sizes) != axes or math.prod(sizes) > chips or too_long:
        raise ValueError(
            f"topology {topology!r} is no slice of {generation}: it has {axes} sizes"
            f"{f' up to {_LONGEST}' if axes == 2 else ''}, at most {chips} chips; several slices "
            f"are N*{generation}:..."
        )
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"topology {topology!r} needs the TPU compiler, which runs on any Linux machine: "
            "install it with `uv sync --group tpu`"
        )
    # Without these libtpu asks the metadata server of a cloud that we are not in.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing runs, so nothing collides
    name, options = GENERATIONS[generation]
    options = {**options, **({"num_slices": slices} if slices > 1 else {})}
    if len(sizes) == 2 and max(sizes) < 4 and min(sizes) == 1:
        options["chips_per_host_bounds"] = (*sizes, 1)
    try:
        return list(
            topologies.get_topology_desc(
                platform="tpu", topology_name=f"{name}:{shape}", **options
            ).devices
        )
    except Exception as error:  # libtpu raises whatever it likes
        reason = str(error).splitlines()[0]
        raise ValueError(f"topology {topology!r}: libtpu does not know it: {reason}") from None
