"""Kernels compile for real TPU slices, sharded, forward and backward, and save memory."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from xlmjax.ops.attention import attention
from xlmjax.ops.dropout import Dropout
from xlmjax.parallel.mesh import BATCH_AXES, MeshConfig, make_mesh, platform
from xlmjax.parallel.partition import over_shards
from xlmjax.planning.topology import tpu_devices

pytestmark = pytest.mark.tpu

ROWS = 16  # 4 on each of 4 by 4 chips, of a fourth of the heads


class Case(NamedTuple):
    """What is compiled, beside topology and implementation."""

    heads: int = 8
    queries: int = 512
    keys: int = 512
    head_dim: int = 64
    dtype: str = "bfloat16"
    causal: bool = False
    rate: float = 0.0


@functools.cache
def compiled(implementation, topology, case):
    """Return the program of value and gradients for a slice of 16 chips."""
    pytest.importorskip("libtpu")
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=4), tpu_devices(topology))

    def abstract(shape, dtype, *spec):
        return jax.ShapeDtypeStruct(
            shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec))
        )

    def run(q, k, v, direction, ids, kv_ids, seeds):
        def mix(q, k, v):
            return attention(
                q,
                k,
                v,
                segment_ids=ids,
                kv_segment_ids=kv_ids,
                causal=case.causal,
                dropout=Dropout(seeds, case.rate) if case.rate else None,
                implementation=implementation,
                platform=platform(),
                over_shards=over_shards,
            )

        value, vjp = jax.vjp(mix, q, k, v)
        return value, *vjp(direction)

    lengths = (case.queries, case.keys, case.keys, case.queries)
    with jax.set_mesh(mesh):
        assert platform() == "tpu"
        split = (BATCH_AXES, None, "tensor", None)
        arguments = [
            abstract((ROWS, length, case.heads, case.head_dim), case.dtype, *split)
            for length in lengths
        ]
        arguments += [
            abstract((ROWS, length), jnp.int32, BATCH_AXES, None)
            for length in (case.queries, case.keys)
        ]
        arguments.append(abstract((ROWS, 2), jnp.uint32, BATCH_AXES, None))
        return jax.jit(run).lower(*arguments).compile()


@pytest.mark.parametrize(
    ("implementation", "topology", "case"),
    [
        ("pallas", "v5e:4x4", Case(rate=0.1)),
        ("pallas", "v5p:2x2x4", Case(keys=500, head_dim=128, dtype="float32")),
        ("pallas", "v6e:4x4", Case(causal=True, rate=0.1)),
        ("splash", "v5e:4x4", Case()),
        ("splash", "v5p:2x2x4", Case(keys=500, head_dim=128, dtype="float32")),
        ("splash", "v6e:4x4", Case(causal=True)),
    ],
    ids=str,
)
def test_kernels_compile_for_slices(implementation, topology, case):
    program = compiled(implementation, topology, case).as_text()
    assert "tpu_custom_call" in program
    assert "all-gather" not in program  # every chip works on its own rows and heads


LONG = Case(heads=48, queries=2048, keys=2048, rate=0.1)  # more than fits the chip's own memory


def test_the_kernel_takes_a_third_of_the_memory_of_the_plain_products_or_less():
    ours, plain = (
        compiled(name, "v5e:4x4", LONG).memory_analysis().temp_size_in_bytes
        for name in ("pallas", "xla")
    )
    assert plain > 3 * ours
