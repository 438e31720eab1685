"""Laws of the mesh, the rule tables and the constraints."""

import glob
import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import requests
from flax import nnx
from jax._src import clusters
from jax._src.clusters import cloud_tpu_cluster

from xlmjax.cli import main
from xlmjax.parallel import distributed, mesh, partition, rules


def config(**fields):
    return mesh.MeshConfig(**fields)


class Toy(nnx.Module):
    """A table, a matrix and a norm of distinct sizes."""

    def __init__(self):
        self.table = nnx.Param(jnp.zeros((40, 16)), axes=("vocab", "embed"))
        self.mlp = nnx.Param(jnp.zeros((3, 16, 24)), axes=("layers", "embed", "mlp"))
        self.norm = nnx.Param(jnp.zeros((3, 16)), axes=("layers", "norm"))


def shardings(strategy, **fields):
    over = mesh.make_mesh(config(strategy=strategy, **fields))
    toy = partition.param_shardings(jax.eval_shape(Toy), over, strategy)
    return {name: getattr(toy, name).get_value().spec for name in ("table", "mlp", "norm")}


def test_mesh_infers_the_axis_that_is_minus_one():
    made = mesh.make_mesh(config(data=-1, fsdp=2, tensor=2))
    assert dict(made.shape) == {"replica": 1, "data": 2, "fsdp": 2, "tensor": 2}
    assert set(made.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fsdp": 3}, r"mesh.fsdp=3 .* does not divide 8 devices: .* 1, 2, 4, 8"),
        ({"fsdp": 4, "tensor": 4}, r"= 16 needs more than the 8 devices .*train.num_cpu_devices"),
        ({"data": 2, "fsdp": 2}, r"= 4 leaves 4 of 8 devices idle: set one axis to -1"),
        ({"data": -1, "fsdp": -1}, r"mesh.data and mesh.fsdp are -1: only one"),
        ({"tensor": 0}, r"mesh.tensor=0 is not a size"),
        ({"strategy": "zero"}, r"mesh.strategy='zero' is unknown; known: data, fsdp, tensor"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        mesh.make_mesh(config(**fields))


def test_slices_need_replicas():
    class Chip:
        def __init__(self, number):
            self.slice_index = number // 4

    with pytest.raises(
        ValueError, match=r"mesh.replica=1 does not spread over 2 slices: set it to 2"
    ):
        mesh.make_mesh(config(), [Chip(number) for number in range(8)])


def test_rows_that_do_not_divide_are_refused():
    over = mesh.make_mesh(config(data=2, fsdp=2, tensor=2))
    mesh.check_rows(over, 24, microbatches=3)
    with pytest.raises(ValueError, match=r"train.rows=10 .*mesh.data=2 \* mesh.fsdp=2 = 4: use 8"):
        mesh.check_rows(over, 10)
    with pytest.raises(ValueError, match=r"train.microbatches=3 = 12"):
        mesh.check_rows(over, 16, microbatches=3)


def test_strategies_name_known_axes_only():
    for table in rules.STRATEGIES.values():
        for name, axes in table:
            assert name in rules.NAMES
            assert set([axes] if isinstance(axes, str) else axes) <= set(mesh.AXES)


def test_parameters_follow_their_axes_and_the_layer_dimension_stays_whole():
    spec = jax.sharding.PartitionSpec
    both = shardings("fsdp_tensor", fsdp=4, tensor=2)
    assert both == {
        "table": spec("tensor", "fsdp"),
        "mlp": spec(None, "fsdp", "tensor"),
        "norm": spec(None, None),
    }
    assert shardings("data")["mlp"] == spec(None, None, None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((3, 17, 24), r"mlp of shape \(3, 17, 24\): 'embed' has size 17.*change model.embed_dim"),
        ((3, 16, 25), r"'mlp' has size 25, which mesh.tensor=2 = 2 does not.*model.mlp_dim"),
        ((16, 24), r"parameter mlp of shape \(16, 24\) has rank 2, not that of"),
    ],
)
def test_a_parameter_that_does_not_fit_the_mesh_is_refused(value, message):
    over = mesh.make_mesh(config(fsdp=4, tensor=2))
    abstract = jax.eval_shape(Toy)
    abstract.mlp.set_value(jax.ShapeDtypeStruct(value, jnp.float32))
    with pytest.raises(ValueError, match=message):
        partition.param_shardings(abstract, over, "fsdp_tensor")
    whole = partition.param_shardings(abstract, over, "fsdp_tensor", statistics=True)
    assert whole.mlp.get_value().spec == jax.sharding.PartitionSpec()


def test_constrain_is_the_identity_without_a_mesh():
    x = jnp.ones((3, 5))
    assert partition.constrain(x, "act_batch", "act_embed") is x


def test_constrain_lays_out_and_keeps_the_values():
    over = mesh.make_mesh(config(fsdp=2, tensor=2))
    x = jnp.arange(8.0 * 3 * 6).reshape(8, 3, 6)

    @jax.jit
    def inside(x):
        with partition.use_rules("tensor"):
            return partition.constrain(x, "act_batch", "act_length", "act_mlp")

    with jax.set_mesh(over):
        y = inside(x)
    expected = jax.sharding.PartitionSpec(mesh.BATCH_AXES, None, "tensor")
    assert y.sharding.is_equivalent_to(jax.sharding.NamedSharding(over, expected), 3)
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize(
    ("shape", "names", "message"),
    [
        ((8, 6), ("act_batch", "act_width"), "unknown axis 'act_width'; known: vocab"),
        ((8, 6), ("act_batch",), r"rank 2, not that of \('act_batch',\)"),
        ((8, 7), ("act_batch", "act_mlp"), "'act_mlp' has size 7.*change model.mlp_dim"),
        ((6, 8), ("act_batch", None), "'act_batch' has size 6.*= 4 does not.*change train.rows"),
    ],
)
def test_constrain_refuses(shape, names, message):
    over = mesh.make_mesh(config(fsdp=2, tensor=2))
    with jax.set_mesh(over), pytest.raises(ValueError, match=message):
        partition.constrain(jnp.zeros(shape), *names)


def test_one_process_needs_no_coordinator(monkeypatch):
    for name in ("XLMJAX_COORDINATOR", "XLMJAX_NUM_PROCESSES", "XLMJAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    distributed.initialize()
    distributed.initialize("localhost:1", 1, 0)
    assert distributed.is_main()
    assert distributed.agree(7) == 7
    assert distributed.exchange("name", "value") == ["value"]


SLURM = {name: "2" for name in ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS")}
SLURM |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environment", "chips", "metadata", "cluster"),
    [
        ({}, False, None, None),
        ({"SLURM_STEP_NUM_TASKS": "2", **SLURM}, False, None, "slurm"),
        ({"SLURM_STEP_NUM_TASKS": "1", **SLURM}, False, None, None),
        (SLURM, False, None, None),  # in a job's script, not in a step
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, False, None, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True, 404, "gketpu"),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_SKIP_MDS_QUERY": "1"}, True, None, "gketpu"),
        ({}, True, 200, "gcetpu"),
        ({"MEGASCALE_NUM_SLICES": "2"}, True, 200, "gcetpu"),
        ({}, True, 404, None),
        ({}, True, None, None),
        ({"TPU_SKIP_MDS_QUERY": "1"}, True, 200, None),
    ],
)
def test_processes_join_where_jax_can_tell_who_they_are(
    monkeypatch, environment, chips, metadata, cluster
):
    """On hosts that all have /dev/vfio/0 and libtpu, as machines with other cards may."""

    def ask(key):
        if metadata is None:
            raise requests.exceptions.ConnectionError
        return "0", metadata

    def initialize(**_):
        kinds = [k for k in clusters.ClusterEnv._cluster_types if not k.opt_in_only_method]
        joined.append(next((k.name for k in kinds if k.is_env_present()), "refused by JAX"))

    joined = []
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: n == "libtpu" or find_spec(n))
    monkeypatch.setattr(glob, "glob", lambda pattern: ["/dev/vfio/0"] * ("vfio" in pattern))
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", chips)
    monkeypatch.setattr(cloud_tpu_cluster, "get_metadata", ask)
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    for name in list(os.environ):
        if name.startswith(("XLMJAX_", "SLURM_", "TPU_", "MEGASCALE_")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    distributed.initialize()
    assert joined == ([cluster] if cluster else [])


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"XLMJAX_NUM_PROCESSES": "2"}, "also needs XLMJAX_COORDINATOR, XLMJAX_PROCESS_ID"),
        ({"XLMJAX_NUM_PROCESSES": "two"}, "XLMJAX_NUM_PROCESSES='two' is not an integer"),
    ],
)
def test_half_a_coordinator_is_refused(monkeypatch, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        distributed.initialize()
    monkeypatch.setenv("XLMJAX_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match="XLMJAX_PROCESS_ID=2 is not in"):
        distributed.initialize("localhost:1234", 2, 2)
    with pytest.raises(ValueError, match="has no port"):
        distributed.initialize("localhost", 2, 1)


def test_the_flags_of_a_group_stand_for_the_environment(monkeypatch, capsys):
    for name in ("XLMJAX_COORDINATOR", "XLMJAX_NUM_PROCESSES", "XLMJAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    assert main(["train", "--workdir=x", "--num_processes=2", "--process-id=1"]) == 2
    assert "a run of several processes also needs XLMJAX_COORDINATOR" in capsys.readouterr().err


def raised(error, cause=None):
    try:
        raise error from cause
    except Exception as found:
        return found


GLOO = "UNKNOWN: Gloo AllReduce failed: Connection reset by peer\nmore"
LOST = (
    GLOO,
    "FAILED_PRECONDITION: Buffer Definition Event: Gloo all-reduce failed: "
    "[external/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:35681",
    "INTERNAL: Gloo context initialization failed: connect timeout",
    "INTERNAL: Barrier failed because: 1/2 tasks were not heard of",
    "UNKNOWN: Failed to send RPC to coordination service.",
    "INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited or there was a network "
    "error.",
    "UNAVAILABLE: x",
)
OURS = (
    "RESOURCE_EXHAUSTED: out of memory",
    "INTERNAL: Mosaic failed to compile TPU kernel: unsupported shape cast",
    "INTERNAL: opt-barrier is not supported here",
    "INTERNAL: failed to enable peer access from device 0 to device 1",
    "INTERNAL: RET_CHECK failure (hlo_verifier.cc:1) shapes\n  all-reduce, connection, gloo",
    'FAILED_PRECONDITION: Error reading "model/0.0": ZSTD_decompressStream() failed',
    "UNKNOWN: CpuCallback error calling callback: KeyError: 'x'",
)


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        *((jax.errors.JaxRuntimeError(text), True) for text in LOST),
        *((jax.errors.JaxRuntimeError(text), False) for text in OURS),
        (ValueError(GLOO), True),  # what fetching a result raises
        (raised(OSError("saving failed"), jax.errors.JaxRuntimeError("UNAVAILABLE: x")), True),
        (ValueError("train.rows=7"), False),
    ],
)
def test_who_loses_the_others_ends_and_who_errs_does_not(monkeypatch, error, ends):
    sentences = []
    monkeypatch.setattr(distributed, "end_process", sentences.append)

    def run():
        with distributed.end_without_the_lost():
            raise error

    with pytest.raises(type(error)):
        run()  # alone
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    if not ends:
        with pytest.raises(type(error)):
            run()
        assert not sentences
        return
    run()
    [sentence] = sentences
    assert sentence.startswith("process 0 of 2 cannot go on with the others (")
    assert "\n" not in sentence
