"""What a compiled program does, read off the compiler's own text: collectives, products, memory."""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator

import jax
import numpy as np

from xlmjax.planning.interconnect import slice_of

_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.+?) ([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)|branch_computations=\{(.*?)\}"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_FUSIONS = ("fused_computation", "async_collective_fusion")
_SOURCE = re.compile(r'channel_id=\d+|op_name="[^"]*"')
_NAME = re.compile(r"%([\w.\-]+)")
_ACROSS_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')


@dataclasses.dataclass(frozen=True)
class Shape:
    """Element type and dimensions of one array on one device."""

    dtype: str  # as in the text: f32, bf16, pred, ...
    dimensions: tuple[int, ...]
    # In a memory other than the main one, the VMEM of a TPU; the same array is now here, now there.
    on_chip: bool = dataclasses.field(default=False, compare=False)

    @property
    def bytes(self) -> int:
        """Size without padding."""
        bits = 8 if self.dtype == "pred" else int(re.findall(r"\d+", self.dtype)[0])
        return math.prod(self.dimensions) * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One operation of the program, on one device."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]  # of its results
    operands: tuple[Shape, ...]
    operand_names: tuple[str, ...]
    rest: str  # of its line: operands and attributes
    computation: str
    times: int  # that it runs in one call of the program
    fused: bool  # inside a fusion: what it makes stays in registers

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it runs."""
        return tuple(_called(self.rest))


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange among devices.

    `bytes` are of the larger side on one device: what an all-gather returns, what a reduce-scatter
    takes.
    """

    kind: str
    shapes: tuple[Shape, ...]
    bytes: int
    axes: tuple[str, ...]  # of the mesh; empty where its groups are no product of axes
    times: int  # that it runs in one call: in a loop, once a turn


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    arguments: int
    outputs: int
    aliased: int  # of the outputs, in the place of donated arguments
    temporary: int
    code: int

    @property
    def total(self) -> int:
        """All of it at the same time."""
        return self.arguments + self.outputs - self.aliased + self.temporary + self.code


def memory(compiled: jax.stages.Compiled) -> Memory:
    """Return the memory of a compiled program by kind, as its compiler reports it.

    Raises `ValueError` for a backend whose compiler does not.
    """
    found = compiled.memory_analysis()
    if found is None:
        raise ValueError("the compiler of this backend does not report the memory of programs")
    return Memory(
        arguments=found.argument_size_in_bytes,
        outputs=found.output_size_in_bytes,
        aliased=found.alias_size_in_bytes,
        temporary=found.temp_size_in_bytes,
        code=found.generated_code_size_in_bytes,
    )


def collectives(text: str, mesh: jax.sharding.Mesh) -> list[Collective]:
    """Return the collectives of a program (`compiled.as_text()`) that was compiled for a mesh.

    TPU's compiler writes a reduce-scatter as a fusion of an all-reduce and a slice, whose name says
    so; it counts as the former here. It also runs a collective in pieces beside products, one a
    fusion, which have channel and source in common; they count once. A program for several slices
    is that of one of them, and what goes to the others is sent and received: that runs along
    `replica`, as the mesh has it.
    """
    across = mesh
    mesh = _one_slice(mesh)
    partitions = _partitions(mesh)
    found, pieces = [], set()
    for instruction in instructions(text):
        if transfer := _ACROSS_SLICES.search(instruction.rest):
            if instruction.opcode == "send":
                shapes = instruction.shapes[:1]
                kind = transfer[1].lower().replace("_", "-")
                axes = tuple(
                    name for name in across.shape if across.shape[name] != mesh.shape[name]
                )
                found.append(Collective(kind, shapes, shapes[0].bytes, axes, instruction.times))
            continue
        kind, start = instruction.opcode.removesuffix("-start"), "-start" in instruction.opcode
        if kind not in _KINDS:
            continue
        shapes = instruction.shapes
        if instruction.computation.startswith(_FUSIONS):
            piece = (kind, shapes, *_SOURCE.findall(instruction.rest))
            if piece in pieces:
                continue
            pieces.add(piece)
        if start and kind == "all-gather":
            shapes = shapes[len(shapes) // 2 :]  # behind the operands
        elif start and kind == "collective-permute":
            shapes = shapes[1:2]
        axes = _axes(instruction.rest, mesh, partitions)
        size = sum(shape.bytes for shape in shapes)
        if kind == "reduce-scatter":
            size *= math.prod(mesh.shape[axis] for axis in axes)
        elif kind == "all-reduce" and instruction.computation.startswith("all-reduce-scatter"):
            kind = "reduce-scatter"
        if size:
            found.append(Collective(kind, shapes, size, axes, instruction.times))
    return found


def num_slices(mesh: jax.sharding.Mesh) -> int:
    """Return the number of slices, joined by the slow network, that a mesh lies on."""
    return len({slice_of(device) for device in mesh.devices.flat})


def _one_slice(mesh: jax.sharding.Mesh) -> jax.sharding.Mesh:
    """Return the part of a mesh that lies on its first slice; its first axis goes across."""
    each = mesh.devices.shape[0] // num_slices(mesh)
    return jax.sharding.Mesh(mesh.devices[:each], mesh.axis_names)


def products(text: str) -> list[Instruction]:
    """Return the matrix products of a program; TPU's compiler calls them convolutions."""
    return [x for x in instructions(text) if x.opcode in ("dot", "convolution")]


def product_flops(product: Instruction) -> int:
    """Return the floating-point operations of one run of a matrix product.

    A convolution stands for a batched product where its window meets one place of each batch: what
    it meets of padding and of the holes of a dilated operand does not count.
    """
    (left, right), (out,) = (shape.dimensions for shape in product.operands), product.shapes
    if product.opcode == "dot":
        contracted = _numbers(r"lhs_contracting_dims=\{([\d,]*)\}", product.rest)
        return 2 * math.prod(out.dimensions) * math.prod(left[axis] for axis in contracted)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", product.rest)
    if labels is None:
        raise ValueError(f"convolution {product.name} has no dim_labels: {product.rest[:200]}")
    sizes = [
        dict(zip(names, sizes, strict=True))
        for names, sizes in zip(labels.groups(), (left, right, out.dimensions), strict=True)
    ]
    window = re.search(r"window=\{(.*?)\}", product.rest)
    fields = dict(re.findall(r"(\w+)=(\S+)", window[1] if window else ""))
    met = 1
    for number, axis in enumerate(sorted(set(sizes[2]) - {"b", "f"})):
        stride, hole, step = (
            int(fields[name].split("x")[number]) if name in fields else 1
            for name in ("stride", "lhs_dilate", "rhs_dilate")
        )
        before = int(fields["pad"].split("x")[number].split("_")[0]) if "pad" in fields else 0
        place = np.arange(sizes[2][axis])[:, None] * stride - before
        place = place + np.arange(sizes[1][axis]) * step
        inside = (place >= 0) & (place <= (sizes[0][axis] - 1) * hole) & (place % hole == 0)
        met *= int(inside.sum())
    return 2 * sizes[2]["b"] * sizes[2]["f"] * sizes[1]["i"] * met


def _numbers(pattern: str, text: str) -> list[int]:
    found = re.search(pattern, text)
    return [int(number) for number in found[1].split(",") if number] if found else []


def instructions(text: str) -> Iterator[Instruction]:
    """Yield the instructions of a program that run, inside loops and fusions too.

    A loop without a number of turns in the text (a search, a decoder) counts as one turn.
    """
    computations, entry = _computations(text)
    times: dict[str, int] = {entry: 1}
    fused: set[str] = set()
    for name in _callers_first(computations, entry):
        shapes = {line[0]: _shapes(line[1]) for line in computations[name]}
        for label, shape, opcode, rest in computations[name]:
            operands = _NAME.findall(rest.partition(")")[0])
            yield Instruction(
                label,
                opcode,
                _shapes(shape),
                tuple(s for operand in operands for s in shapes.get(operand, ())),
                tuple(operands),
                rest,
                name,
                times[name],
                name in fused,
            )
            turns = _turns(rest, computations[name], computations)
            for called in _called(rest):
                if name in fused or opcode not in ("while", "conditional", "call"):
                    fused.add(called)
                times[called] = times.get(called, 0) + times[name] * turns


_Line = tuple[str, str, str, str]  # name, shape, opcode, rest
_Lines = list[_Line]


def _computations(text: str) -> tuple[dict[str, _Lines], str]:
    """Return name -> instructions of every computation, and the name of the one that is called."""
    found: dict[str, _Lines] = {}
    entry = current = ""
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = header[2]
            found[current] = []
            entry = current if header[1] else entry
        elif match := _INSTRUCTION.match(line):
            found[current].append((match[1], match[2], match[3], match[4]))
    return found, entry


def _callers_first(computations: dict[str, _Lines], entry: str) -> list[str]:
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        for *_, rest in computations[name]:
            for called in _called(rest):
                visit(called)
        order.append(name)

    visit(entry)
    return order[::-1]


def _turns(rest: str, caller: _Lines, computations: dict[str, _Lines]) -> int:
    """Return how often an instruction calls what it calls: a loop more than once.

    TPU's compiler does not write the number down. Its loops, and JAX's, count up to the only
    constant of their condition, from 0 and by 1 where nothing else can be read: a loop of products
    beside exchanges may be unrolled, and then counts by 2.
    """
    if trips := _TRIPS.search(rest):
        return int(trips[1])
    condition, body = (re.search(rf"{x}=%?([\w.\-]+)", rest) for x in ("condition", "body"))
    if not condition or not body:
        return 1
    test = computations[condition[1]]
    constants = [int(n) for line in test if (n := _constant(line)) is not None]
    if len(constants) != 1:
        return 1
    compared = next((_NAME.findall(line[3])[0] for line in test if line[2] == "compare"), None)
    place = next((_index(line) for line in test if line[0] == compared), None)
    if place is None:
        return constants[0]
    start = _sum(_element(caller, _NAME.findall(rest)[0], place), caller, place)
    last = computations[body[1]][-1]  # the root, which makes the tuple of the next turn
    step = _sum(_element([last], last[0], place), computations[body[1]], place)
    return max(-(-(constants[0] - (start or 0)) // (step or 1)), 0)


def _constant(line: _Line) -> int | None:
    number = re.match(r"(-?\d+)\)", line[3])
    return int(number[1]) if line[2] == "constant" and number else None


def _index(line: _Line) -> int | None:
    number = re.search(r"index=(\d+)", line[3])
    return int(number[1]) if line[2] == "get-tuple-element" and number else None


def _element(lines: _Lines, name: str, place: int) -> str | None:
    """Return the name of what an instruction puts at a place of the tuple that it makes."""
    found = next((line for line in lines if line[0] == name and line[2] == "tuple"), None)
    return _NAME.findall(found[3].partition(")")[0])[place] if found else None


def _sum(name: str | None, lines: _Lines, place: int) -> int | None:
    """Return what is added to the counter, which counts as 0; None where it cannot be read."""
    line = next((line for line in lines if line[0] == name), None)
    if line is None:
        return None
    if line[2] == "add":
        parts = [_sum(part, lines, place) for part in _NAME.findall(line[3].partition(")")[0])]
        return None if None in parts else sum(part for part in parts if part is not None)
    if line[2] in ("copy", "bitcast"):
        return _sum(_NAME.findall(line[3])[0], lines, place)
    return 0 if _index(line) == place else _constant(line)


def _called(rest: str) -> list[str]:
    names = []
    for one, several in _CALLED.findall(rest):
        names += [one] if one else _NAME.findall(several)
    return names


def _shapes(text: str) -> tuple[Shape, ...]:
    return tuple(
        Shape(dtype, tuple(int(size) for size in sizes.split(",") if size), "S(" in layout)
        for dtype, sizes, layout in _SHAPE.findall(text)
    )


_Partition = frozenset[frozenset[int]]


def _partitions(mesh: jax.sharding.Mesh) -> dict[_Partition, tuple[str, ...]]:
    """Return groups of positions in the mesh -> the axes that they run along."""
    names = [name for name, size in mesh.shape.items() if size > 1]
    ids = np.arange(mesh.size).reshape([mesh.shape[name] for name in names])
    found = {}
    for count in range(1, len(names) + 1):
        for axes in itertools.combinations(range(len(names)), count):
            last = np.moveaxis(ids, axes, range(-count, 0))
            groups = last.reshape(-1, math.prod(last.shape[-count:]))
            found[_partition(groups)] = tuple(names[axis] for axis in axes)
    return found


def _partition(groups: np.ndarray) -> _Partition:
    return frozenset(frozenset(group.tolist()) for group in groups)


def _axes(
    rest: str, mesh: jax.sharding.Mesh, partitions: dict[_Partition, tuple[str, ...]]
) -> tuple[str, ...]:
    """Return the mesh axes that the groups or pairs of an instruction run along."""
    if pairs := re.search(r"source_target_pairs=\{\{(.*?)\}\}", rest):
        ends = np.array([pair.split(",") for pair in pairs[1].split("},{")], int)
        places = np.unravel_index(ends, tuple(mesh.shape.values()))
        moved = [bool(np.any(place[:, 0] != place[:, 1])) for place in places]
        return tuple(itertools.compress(mesh.shape, moved))
    return partitions.get(_partition(_groups(rest, mesh.size)), ())


_IOTA = r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?"
_MESH = r"mesh\[(.*?)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? ?\{(.*?)\}"


def _groups(rest: str, size: int) -> np.ndarray:
    """Return the replica groups of an instruction, in any of the ways they are written.

    No group where they are written in yet another.
    """
    ids = np.arange(size)
    if "replica_groups={}" in rest:
        return ids[None]
    if listed := re.search(r"replica_groups=\{\{(.*?)\}\}", rest):
        return np.array([group.split(",") for group in listed[1].split("},{")], int)
    if iota := re.search("replica_groups=" + _IOTA, rest):
        shape, source, order = map(_integers, iota.groups())
        return ids.reshape(source).transpose(order).reshape(shape)
    if named := re.search("replica_groups=" + _MESH, rest):
        source, order = map(_integers, named.group(2, 3))
        ids = ids.reshape(source or [size]).transpose(order).reshape(-1)
        return _groups_of_axes(ids, named[1], named[4])
    return np.empty((0, 0), int)


def _groups_of_axes(ids: np.ndarray, mesh: str, axes: str) -> np.ndarray:
    """Return groups along axes ('a', or 'a':(2)4 for its middle part) of a mesh 'a'=16,'b'=2."""
    chosen = {
        name: (int(before), int(size)) if size else None
        for name, before, size in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", axes)
    }
    shape: list[int] = []
    along: list[int] = []
    for name, number in re.findall(r"'(\w+)'=(\d+)", mesh):
        before, size = chosen.get(name) or (1, int(number))
        if name in chosen:
            along.append(len(shape) + 1)
        shape += [before, size, int(number) // (before * size)]
    last = np.moveaxis(ids.reshape(shape), along, range(-len(along), 0))
    return last.reshape(-1, math.prod(last.shape[last.ndim - len(along) :]))


def _integers(text: str | None) -> list[int] | None:
    return [int(number) for number in text.split(",")] if text else None
