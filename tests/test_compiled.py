"""Reading compiled programs: the ways their text says one thing, and what a real one does."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from xlmjax.parallel.mesh import MeshConfig, make_mesh
from xlmjax.planning.compiled import (
    Collective,
    Shape,
    collectives,
    instructions,
    memory,
    products,
)

F32, BF16 = (lambda *sizes: Shape("f32", sizes)), (lambda *sizes: Shape("bf16", sizes))

# As TPU's compiler writes it: layouts, fusions, a loop without its number of turns.
TEXT = """
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8,16]{1,0})->f32[8,16]{1,0}}

%region_0.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%all-reduce-scatter.3 (p.1: f32[8,16]) -> f32[4,16] {
  %p.1 = f32[8,16]{1,0:T(8,128)} parameter(0)
  %all-reduce.7 = f32[8,16]{1,0:T(8,128)} all-reduce(%p.1), replica_groups=[4,2]<=[2,2,2]T(0,2,1), to_apply=%region_0.1
  ROOT %slice = f32[4,16]{1,0:T(8,128)} dynamic-slice(%all-reduce.7), dynamic_slice_sizes={4,16}
}

%fused_computation (p.2: bf16[8,16], p.3: bf16[16,32]) -> f32[8,32] {
  %p.2 = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
  %p.3 = bf16[16,32]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %convolution.1 = f32[8,32]{1,0:T(8,128)} convolution(%p.2, %p.3), dim_labels=bf_io->bf
}

%body (state: (s32[], bf16[8,16], /*index=2*/bf16[16,32])) -> (s32[], bf16[8,16], bf16[16,32]) {
  %state = (s32[]{:T(128)}, bf16[8,16]{1,0}, /*index=2*/bf16[16,32]{1,0}) parameter(0)
  %x = bf16[8,16]{1,0} get-tuple-element(%state), index=1
  %w = bf16[16,32]{1,0} get-tuple-element(%state), index=2
  %y = f32[8,32]{1,0} fusion(%x, %w), kind=kOutput, calls=%fused_computation
  %all-gather-start.1 = (bf16[4,16]{1,0}, bf16[8,16]{1,0}) all-gather-start(%x), replica_groups={{0,4},{1,5},{2,6},{3,7}}, dimensions={0}
  %all-gather-done.1 = bf16[8,16]{1,0} all-gather-done(%all-gather-start.1)
  ROOT %next = (s32[]{:T(128)}, bf16[8,16]{1,0}, bf16[16,32]{1,0}) tuple(%state, %x, %w)
}

%condition (state.1: (s32[], bf16[8,16], bf16[16,32])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, bf16[8,16]{1,0}, bf16[16,32]{1,0}) parameter(0)
  %constant.9 = s32[]{:T(128)} constant(12), metadata={op_name="jit(step)/while/cond"}
  %i = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %constant.9), direction=LT
}

ENTRY %main.1_spmd (param: f32[8,16]) -> f32[8,16] {
  %param = f32[8,16]{1,0:T(8,128)} parameter(0)
  %while.1 = (s32[]{:T(128)}, bf16[8,16]{1,0}, /*index=2*/bf16[16,32]{1,0}) while(%tuple.1), condition=%condition, body=%body
  %scatter = f32[4,16]{1,0:T(8,128)} fusion(%param), kind=kCustom, calls=%all-reduce-scatter.3
  %reduce-scatter.2 = f32[8,4]{1,0:T(8,128)} reduce-scatter(%param), replica_groups=mesh['a'=2,'b'=2,'c'=2] {'b','c'}, dimensions={1}, to_apply=%region_0.1
  %all-reduce.9 = (f32[8,16]{1,0}, f32[3]{0}) all-reduce(%param, %other), replica_groups={}, to_apply=%region_0.1
  %collective-permute-start.1 = (f32[8,16]{1,0}, f32[8,16]{1,0}, u32[], u32[]) collective-permute-start(%param), source_target_pairs={{0,2},{2,0},{1,3}}
  ROOT %all-to-all.1 = f32[8,16]{1,0:T(8,128)} all-to-all(%param), replica_groups={{0,1},{2,3},{4,5},{6,7}}, dimensions={0}
}
"""  # noqa: E501


@pytest.fixture(scope="module")
def over():
    return make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))


def test_collectives_of_every_kind_and_spelling(over):
    found = {(x.kind, x.axes): x for x in collectives(TEXT, over)}
    everything = ("data", "fsdp", "tensor")
    expected = [
        Collective("all-gather", (BF16(8, 16),), 256, ("data",), 12),
        Collective("reduce-scatter", (F32(8, 16),), 512, ("fsdp",), 1),
        Collective("reduce-scatter", (F32(8, 4),), 512, ("fsdp", "tensor"), 1),
        Collective("all-reduce", (F32(8, 16), F32(3)), 524, everything, 1),
        Collective("collective-permute", (F32(8, 16),), 512, ("fsdp",), 1),
        Collective("all-to-all", (F32(8, 16),), 512, ("tensor",), 1),
    ]
    assert found == {(x.kind, x.axes): x for x in expected}


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("mesh['a'=1,'b'=2,'c'=4], device_ids=([4,2]T(1,0)) {'b'}", ("tensor",)),
        ("mesh['a'=1,'b'=2,'c'=4], device_ids=([4,2]T(1,0)) {'c'}", ("data", "fsdp")),
        ("mesh['a'=8,'b'=1] {'a'}", ("data", "fsdp", "tensor")),
        ("mesh['a'=8] {'a':(2)2}", ("fsdp",)),
        ("mesh['a'=4,'b'=2] {'a':(1)2,'b'}", ("data", "tensor")),
        ("{{0,1},{2,4},{3,5},{6,7}}", ()),  # no axes of the mesh
        ("something new", ()),
    ],
)
def test_groups_that_are_named_after_another_mesh(over, groups, axes):
    before = "replica_groups={{0,1},{2,3},{4,5},{6,7}}"
    assert before in TEXT
    found = collectives(TEXT.replace(before, f"replica_groups={groups}"), over)
    assert {x.axes for x in found if x.kind == "all-to-all"} == {axes}


def test_pieces_of_a_collective_beside_products_count_once(over):
    gather = "bf16[8,16]{1,0} all-gather(%p.2), replica_groups={{0,4},{1,5},{2,6},{3,7}}, "
    source = 'metadata={op_name="jit(step)/while/body/dot_general"}'
    start = "  %p.2 = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)\n"
    assert start in TEXT
    pieces = [
        f"  %all-gather.{number} = {gather}channel_id={channel}, {source}\n"
        for number, channel in ((20, 7), (21, 7), (22, 8))
    ]
    plain, text = collectives(TEXT, over), TEXT.replace(start, start + "".join(pieces))
    added = [x for x in collectives(text, over) if x not in plain]
    assert added == []  # the same as the one that is there already, but for its channel
    assert len(collectives(text, over)) == len(plain) + 2


def test_products_name_their_operands_and_count_the_turns_of_the_loop():
    (product,) = products(TEXT)
    assert product.shapes == (F32(8, 32),)
    assert product.operands == (BF16(8, 16), BF16(16, 32))
    assert product.times == 12
    assert {x.times for x in instructions(TEXT) if x.opcode == "all-to-all"} == {1}


def test_a_number_of_turns_in_the_text_comes_first():
    turns = 'while(%tuple.1), backend_config={"known_trip_count":{"n":"5"}},'
    (product,) = products(TEXT.replace("while(%tuple.1),", turns))
    assert product.times == 5


@pytest.mark.parametrize(
    ("start", "steps", "turns"), [(0, (1,), 12), (0, (1, 1), 6), (1, (1,), 11), (1, (2,), 6)]
)
def test_a_loop_may_begin_late_and_count_by_more_than_one(start, steps, turns):
    """The compiler unrolls loops of products beside exchanges, and runs turns before them."""
    text, counter = TEXT, "%i.0"
    lines = [f"  {counter} = s32[] get-tuple-element(%state), index=0\n"]
    for number, step in enumerate(steps):
        lines.append(f"  %c.{number} = s32[]{{:T(128)}} constant({step}), metadata={{}}\n")
        lines.append(f"  %i.{number + 1} = s32[]{{:T(128)}} add({counter}, %c.{number})\n")
        counter = f"%i.{number + 1}"
    root, loop = "  ROOT %next", "  %while.1"
    for before, added in (
        (root, "".join(lines)),
        (loop, f"  %s = s32[] constant({start})\n  %tuple.1 = (s32[]) tuple(%s, %param)\n"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, added + before)
    (product,) = products(text.replace("tuple(%state, %x", f"tuple({counter}, %x"))
    assert product.times == turns


@pytest.mark.parametrize(
    ("dtype", "sizes", "size"),
    [("pred", (3,), 3), ("s4", (4,), 2), ("f8e4m3fn", (5,), 5), ("bf16", (), 2), ("f32", (0,), 0)],
)
def test_sizes_of_shapes(dtype, sizes, size):
    assert Shape(dtype, sizes).bytes == size


def test_a_program_of_this_backend(over):
    """Gathered over fsdp, summed over tensor, in a loop of three turns."""

    def program(x, w):
        def turn(x, _):
            return jnp.tanh(x @ w), None

        return jax.lax.scan(turn, x, None, length=3)[0]

    def place(*spec):
        return NamedSharding(over, PartitionSpec(*spec))

    x = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=place("data"))
    w = jax.ShapeDtypeStruct((16, 16), jnp.float32, sharding=place("fsdp", "tensor"))
    compiled = jax.jit(program, out_shardings=place("data")).lower(x, w).compile()
    text = compiled.as_text()
    assert sum(product.times for product in products(text)) == 3
    axes = {axis for found in collectives(text, over) for axis in found.axes}
    assert axes <= {"fsdp", "tensor"}
    assert axes
    found = memory(compiled)
    assert found.arguments == (4 * 16 + 8 * 8) * 4
    assert found.outputs == 4 * 16 * 4
    assert found.total >= found.arguments + found.outputs + found.temporary
