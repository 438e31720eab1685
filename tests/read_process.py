"""A process that saves and reads arrays: `python -m tests.read_process FOLDER FIELDS DEVICES`.

FIELDS is JSON for `MeshConfig`, DEVICES the number of this process's. Prints the bytes that it read
from storage and whether what it holds is bit for bit what was saved, of all arrays and of a single
one; the same where every process reads for itself; and the error where the last cannot read.
"""

import json
import sys
import unittest.mock

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from xlmjax.parallel import distributed, replicas
from xlmjax.parallel.mesh import MeshConfig, make_mesh
from xlmjax.storage_errors import CheckpointError
from xlmjax.training import checkpoint

# Name -> (shape, type, axes of the mesh): of sizes that 8 devices do not divide, too.
ARRAYS = {
    "table": ((1000, 257), "float32", (None, None)),
    "moment": ((1000, 257), "float32", (None, None)),
    "kernel": ((3, 128, 511), "float32", (None, "fsdp", None)),
    "half": ((129, 1024), "bfloat16", (None, "fsdp")),
    "split": ((512, 256), "float32", (("data", "fsdp"), None)),
    "bias": ((777,), "float32", (None,)),
    "step": ((), "int32", ()),
}
# More than are in flight on a device of XLA's CPUs (32): who waits there holds a thread of others.
MANY = {f"scale_{i}": ((64,), "float32", (None,)) for i in range(300)}


def bits_of(name):
    """Any bits at all: NaNs, infinities and negative zeros are among them."""
    shape, dtype, _ = (ARRAYS | MANY)[name]
    size = 2 if dtype == "bfloat16" else 4
    data = np.random.default_rng([*name.encode()]).bytes(int(np.prod(shape)) * size)
    return np.frombuffer(data, f"u{size}").reshape(shape)


def save(place, arrays, mesh):
    """Save arrays with their bits; returns name -> ShapeDtypeStruct."""
    tree, abstract = {}, {}
    for name, (shape, dtype, axes) in arrays.items():
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        bits = bits_of(name)
        tree[name] = jax.make_array_from_callback(
            shape, sharding, lambda index, bits=bits, dtype=dtype: bits[index].view(dtype)
        )
        abstract[name] = jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(place / checkpoint.STATE, ocp.args.PyTreeSave(tree))
    return abstract


def read(place, abstract):
    """Return the bytes read from storage, and whether all parts are what was saved."""
    before = bytes_read()
    arrays = checkpoint.read_arrays(place, abstract)
    count = bytes_read() - before
    same = [
        leaf.sharding == abstract[name].sharding
        and np.array_equal(
            np.asarray(part.data).view(bits_of(name).dtype), bits_of(name)[part.index]
        )
        for name, leaf in arrays.items()
        for part in leaf.addressable_shards
    ]
    return count, all(same) and arrays.keys() == abstract.keys()


def bytes_read():
    """Return the bytes that TensorStore has read from files so far: arrays and their index."""
    name = "/tensorstore/kvstore/file/bytes_read"
    found = tensorstore.experimental_collect_matching_metrics(name)
    return sum(value["value"] for metric in found for value in metric["values"])


def main(folder, fields, num_devices):
    jax.config.update("jax_num_cpu_devices", int(num_devices))
    distributed.initialize()
    mesh = make_mesh(MeshConfig(**json.loads(fields)))
    jax.set_mesh(mesh)  # as in a run
    place = epath.Path(folder)
    abstract, many = save(place, ARRAYS, mesh), save(place / "many", MANY, mesh)
    found = {
        "many": read(place / "many", many),
        "together": read(place, abstract),
        "single": read(place, {"table": abstract["table"]}),
    }
    with unittest.mock.patch.object(replicas, "readers", return_value={}):
        found["alone"] = read(place, abstract)
    if jax.process_index() == jax.process_count() - 1:
        ocp.PyTreeCheckpointHandler.restore = unittest.mock.Mock(side_effect=TimeoutError("gone"))
    try:
        read(place, abstract)
    except CheckpointError as error:
        found["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
