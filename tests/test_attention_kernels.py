"""Kernels compute what `xla` does in float32, in value and gradient, and skip what they may skip.

On the CPU they run by Pallas' interpreter; test_attention_tpu compiles those of TPUs.
"""

import dataclasses
import functools
import gzip
import itertools
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_helpers import CLASSIC
from xlmjax.data.packing import pack
from xlmjax.models.layers import Attention, Rows
from xlmjax.ops import attention_pallas, attention_triton, dropout
from xlmjax.ops.attention import attention
from xlmjax.ops.attention_pallas import TILE
from xlmjax.ops.attention_tiles import shared_tiles, spans
from xlmjax.parallel.mesh import MeshConfig, make_mesh
from xlmjax.parallel.partition import over_shards, use_rules

B, H = 2, 3
KEY = jax.random.key(0)
PAIRS = pathlib.Path(__file__).parents[2] / "shared" / "data" / "tatoeba"


class Case(NamedTuple):
    """Rows of some kind and size."""

    kind: str  # packed | padded | unsorted
    queries: int
    keys: int
    head_dim: int = 64
    causal: bool = False
    dtype: str = "float32"
    rate: float = 0.0


def segments(kind, length, seed=0):
    """Return segment ids [B, length] that end in padding, a different amount in each row."""
    generator = np.random.default_rng(seed)
    ids = np.zeros((B, length), np.int32)
    for row in range(B):
        end = length - 5 - 17 * row
        starts = generator.integers(0, 2, end) * generator.integers(0, 2, end)
        if kind == "packed":  # of about 12 tokens
            ids[row, :end] = 1 + np.cumsum(starts * generator.integers(0, 2, end))
        elif kind == "padded":
            ids[row, : end // 2] = 1
        else:
            ids[row] = generator.integers(0, 5, length)
    return ids


def outcome(implementation, case, arrays, **options):
    """Return the value, and the gradients of q, k and v along a direction, in float32."""
    q, k, v, direction = arrays
    kv_ids = segments(case.kind, case.keys)
    ids = kv_ids if case.queries == case.keys else segments(case.kind, case.queries, seed=1)
    drop = None
    if case.rate:
        drop = dropout.Dropout(dropout.row_seeds(jax.random.key(1), jnp.arange(B)), case.rate)

    @jax.jit
    def run(q, k, v, direction):
        def mix(q, k, v):
            return attention(
                q,
                k,
                v,
                segment_ids=ids,
                kv_segment_ids=kv_ids,
                causal=case.causal,
                dropout=drop,
                implementation=implementation,
                **options,
            )

        value, vjp = jax.vjp(mix, q, k, v)
        return value, *vjp(direction)

    return [np.asarray(x, np.float32) for x in run(q, k, v, direction)]


def arrays_of(case, heads=H):
    keys = jax.random.split(KEY, 4)
    lengths = (case.queries, case.keys, case.keys, case.queries)
    return [
        jax.random.normal(key, (B, length, heads, case.head_dim)).astype(case.dtype)
        for key, length in zip(keys, lengths, strict=True)
    ]


def assert_parity(implementation, case):
    arrays = arrays_of(case)
    actual = outcome(implementation, case, arrays)
    with jax.default_matmul_precision("highest"):  # a GPU's float32 is tf32 otherwise
        expected = outcome("xla", case, [x.astype(jnp.float32) for x in arrays])
    tolerance = 1e-5 if case.dtype == "float32" else 2e-2
    for name, mine, reference in zip(("value", "dq", "dk", "dv"), actual, expected, strict=True):
        scale = np.abs(reference).max()
        assert scale > 0.1
        np.testing.assert_allclose(mine / scale, reference / scale, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(
    "case",
    [
        Case("packed", 257, 257, rate=0.3),
        Case("packed", 130, 130, head_dim=128, causal=True),
        Case("packed", 100, 257, rate=0.2),  # segments without a key among them
        Case("padded", 130, 130, dtype="bfloat16"),
        Case("padded", 257, 257, head_dim=128, rate=0.3),
        Case("packed", 257, 257, head_dim=128, causal=True, dtype="bfloat16", rate=0.1),
        Case("packed", 100, 257, head_dim=128, causal=True, dtype="bfloat16"),
    ],
    ids=str,
)
@pytest.mark.parametrize("implementation", ["pallas", "triton"])
def test_ours_equal_xla(implementation, case):
    assert_parity(implementation, case)


@pytest.mark.parametrize("implementation", ["pallas", "triton"])
def test_ours_equal_xla_on_segments_in_any_order(implementation, monkeypatch):
    monkeypatch.setattr(attention_pallas, "_WINDOW_BYTES", TILE * 128 * 4)  # a tile a window
    assert_parity(implementation, Case("unsorted", 300, 300, head_dim=24, causal=True, rate=0.3))


@pytest.mark.parametrize(
    "case",
    [
        Case("packed", 257, 257),
        Case("packed", 130, 130, head_dim=128, causal=True, dtype="bfloat16"),
        Case("packed", 130, 130, causal=True),
        Case("padded", 257, 257),
        Case("packed", 100, 257),
    ],
    ids=str,
)
def test_splash_equals_xla(case):
    assert_parity("splash", case)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs a GPU")
@pytest.mark.parametrize(
    "case",
    [
        Case("packed", 257, 257, dtype="bfloat16"),
        Case("packed", 257, 257, causal=True, dtype="bfloat16"),
        Case("padded", 512, 512, head_dim=128, dtype="bfloat16"),
        Case("packed", 100, 257, dtype="bfloat16"),
    ],
    ids=str,
)
def test_cudnn_equals_xla(case):
    assert_parity("cudnn", case)


def test_cudnn_lowers_for_gpus_and_gets_the_segments(monkeypatch):
    """Only the text of the program can be had without a GPU: fused calls with a bias."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    case = Case("packed", 101, 101, dtype="bfloat16")
    ids = segments(case.kind, case.queries)

    def loss(q, k, v):
        out = attention(q, k, v, segment_ids=ids, implementation="cudnn", platform="gpu")
        return out.astype(jnp.float32).sum()

    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*arrays_of(case)[:3])
    lowered = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "fmhaScaleBiasSoftmax" in lowered
    assert "fmhaScaleBiasSoftmaxBackward" in lowered
    assert f"{B}x1x102x102xbf16" in lowered  # an even length


@pytest.mark.parametrize(
    "case",
    [
        Case("packed", 130, 130, head_dim=64, dtype="bfloat16", rate=0.1),
        Case("packed", 100, 257, head_dim=128, causal=True),
    ],
    ids=str,
)
def test_triton_lowers_for_gpus(case):
    """Down to Triton's own language; only a GPU's compiler goes further."""
    ids, kv_ids = segments(case.kind, case.queries), segments(case.kind, case.keys)
    drop = None
    if case.rate:
        drop = dropout.Dropout(dropout.row_seeds(jax.random.key(1), jnp.arange(B)), case.rate)

    def loss(q, k, v):
        out = attention(
            q,
            k,
            v,
            segment_ids=ids,
            kv_segment_ids=kv_ids,
            causal=case.causal,
            dropout=drop,
            implementation="triton",
            platform="gpu",
        )
        return out.astype(jnp.float32).sum()

    gpu = jax.sharding.AbstractDevice("NVIDIA H100", 132, "gpu")
    mesh = jax.sharding.AbstractMesh(
        (1,), ("x",), (jax.sharding.AxisType.Auto,), abstract_device=gpu
    )
    with jax.sharding.use_abstract_mesh(mesh):
        traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*arrays_of(case)[:3])
        lowered = traced.lower(lowering_platforms=("cuda",)).as_text()
    for kernel in ("forward", "backward_queries", "backward_keys"):
        assert f"attention_{kernel}" in lowered
    assert lowered.count("custom_call @__gpu$xla.gpu.triton") == 3


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
@pytest.mark.parametrize(
    ("implementation", "rate"), [("pallas", 0.3), ("splash", 0.0), ("triton", 0.3)]
)
def test_kernels_run_on_shards_of_rows_and_heads(implementation, rate):
    case = Case("packed", 140, 140, rate=rate)
    arrays = arrays_of(case, heads=4)
    expected = outcome("xla", case, arrays)
    with jax.set_mesh(make_mesh(MeshConfig(data=2, tensor=4))), use_rules("tensor"):
        actual = outcome(implementation, case, arrays, over_shards=over_shards)
    for mine, reference in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=1e-5)


def test_heads_that_the_mesh_does_not_divide_are_refused():
    case = Case("packed", 140, 140)
    with (
        jax.set_mesh(make_mesh(MeshConfig(data=2, tensor=4))),
        pytest.raises(ValueError, match=r"'act_heads' has size 3, which mesh.tensor=4"),
    ):
        outcome("pallas", case, arrays_of(case), over_shards=over_shards)


def test_a_layer_is_the_same_with_the_kernel():
    """The model hands on what a kernel needs: segments, seeds, the platform, the mesh."""
    ids = segments("packed", 36)
    seeds = dropout.row_seeds(jax.random.key(2), jnp.arange(B))
    told = Rows(jnp.broadcast_to(jnp.arange(36), ids.shape), ids, seeds)
    x = jax.random.normal(KEY, (*ids.shape, CLASSIC.embed_dim))
    mixed = {}
    for name in ("xla", "pallas"):
        layer = Attention(dataclasses.replace(CLASSIC, attention=name), KEY)
        with jax.set_mesh(make_mesh(MeshConfig(data=2, tensor=4))):
            mixed[name] = jax.jit(layer, static_argnums=2)(x, told, False)
    np.testing.assert_allclose(mixed["pallas"], mixed["xla"], rtol=1e-5, atol=1e-5)
    assert not np.allclose(mixed["xla"], layer(x, told._replace(seeds=None), False))


@pytest.mark.parametrize(
    ("implementation", "tile"), [("pallas", TILE), ("triton", attention_triton.TILE)]
)
def test_kernels_compute_the_tiles_of_the_spans_and_no_other(implementation, tile):
    """Whatever is computed with a poisoned tile is poisoned, by 0 * NaN if by nothing else."""
    tiles = 4
    ids = np.zeros(tiles * tile, np.int32)
    ids[: -tile // 2] = 1 + np.arange(len(ids) - tile // 2) // (0.7 * tile)
    ids = np.tile(ids, (tiles, 1))  # in row i, tile i is poisoned
    keys = jax.random.split(KEY, 4)
    q, k, v, do = (jax.random.normal(key, (*ids.shape, 1, 8)) for key in keys)
    poison = np.where(np.arange(tiles)[:, None] == np.arange(ids.shape[1]) // tile, np.nan, 1)
    poison = poison[:, :, None, None]

    @jax.jit
    def run(q, k, v, do):
        options = {"segment_ids": ids, "implementation": implementation}
        value = attention(q, k, v * poison, **options)
        _, vjp = jax.vjp(lambda v: attention(q, k, v, **options), v)
        return value, vjp(do * poison)[0]

    computed = [
        np.isnan(x).reshape(tiles, tiles, -1).any(axis=2) for x in run(q, k, v, do)
    ]  # [poisoned, where it shows]
    shared = shared_tiles(ids, ids, False, tile)
    start, stop = (np.asarray(x)[0] for x in spans(shared))
    expected = (start[:, None] <= np.arange(tiles)) & (np.arange(tiles) < stop[:, None])
    assert expected.sum() == 10  # the diagonal and its neighbours
    np.testing.assert_array_equal(computed[0].T, expected)
    np.testing.assert_array_equal(computed[1], expected)


def test_a_tile_that_only_causality_hides_is_skipped():
    ids = np.ones((1, 3 * TILE), np.int32)
    start, stop = spans(shared_tiles(ids, ids, True, TILE))
    np.testing.assert_array_equal(start, [[0, 0, 0]])
    np.testing.assert_array_equal(stop, [[1, 2, 3]])


def skipped(ids):
    """Return the share of tiles that the kernels skip."""
    start, stop = spans(shared_tiles(ids, ids, False, TILE))
    return 1 - np.maximum(stop - start, 0).sum() / (start.size * start.shape[1])


def test_full_streams_skip_nothing_and_padded_rows_most():
    assert skipped(np.ones((3, 1024), np.int32)) == 0
    short = np.zeros((3, 1024), np.int32)
    short[:, :40] = 1
    assert skipped(short) == 1 - 1 / 64


@pytest.mark.skipif(not PAIRS.exists(), reason="Tatoeba's pairs are not on this machine")
@pytest.mark.parametrize(("length", "least", "most"), [(512, 0.3, 0.45), (2048, 0.75, 0.85)])
def test_packed_rows_of_real_pairs_skip_most_tiles_at_equal_output(length, least, most):
    with gzip.open(PAIRS / "en-fr.tsv.gz", "rt", encoding="utf-8") as lines:
        # About a token for each four bytes, and two delimiters a sentence.
        sizes = np.array([len(line.encode()) // 4 + 4 for line in lines])
    first, items = pack(sizes, length)
    ids = np.zeros((len(first) - 1, length), np.int32)
    for row, (begin, end) in enumerate(itertools.pairwise(first)):
        filled = sizes[items[begin:end]]
        ids[row, : filled.sum()] = np.repeat(np.arange(1, len(filled) + 1), filled)
    assert least < skipped(ids) < most
    middle = ids[len(ids) // 2 :][:1]
    q, k, v = (jax.random.normal(key, (1, length, 1, 8)) for key in jax.random.split(KEY, 3))
    ours, plain = (
        jax.jit(functools.partial(attention, segment_ids=middle, implementation=name))(q, k, v)
        for name in ("pallas", "xla")
    )
    np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)
