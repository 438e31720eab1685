"""Bytes between the main memory of a device and its arithmetic, read off a compiled program."""

from collections.abc import Iterator, Mapping

from xlmjax.planning.compiled import Instruction, instructions

# What moves nothing itself: names for parts, loops whose bodies count, ends of what began before.
_FREE = {
    "after-all",
    "bitcast",
    "call",
    "conditional",
    "constant",
    "get-tuple-element",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
    "while",
}
_SLICES = ("dynamic-slice", "slice", "gather")

_Computations = Mapping[str, Mapping[str, Instruction]]


def memory_traffic(text: str) -> int:
    """Return the bytes that one call of a program reads and writes in main memory, on one device.

    Operands and results of each fusion, loops multiplied by their turns: XLA's own count of "bytes
    accessed", which takes every loop for one turn. Of what is sliced only the slice counts, of what
    is updated in place only the update, and nothing of what stays in a TPU's VMEM. Collectives that
    run beside products count their buffers in each of the fusions they are spread over.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    for instruction in instructions(text):
        computations.setdefault(instruction.computation, {})[instruction.name] = instruction
    return sum(
        instruction.times * _moved(instruction, computations)
        for computation in computations.values()
        for instruction in computation.values()
        if not instruction.fused
    )


def _moved(instruction: Instruction, computations: _Computations) -> int:
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done"):
        return 0
    if opcode in ("copy-start", "slice-start"):  # results: both ends, of which one is the part
        ends = instruction.shapes[:2]
        return min(end.bytes for end in ends) * sum(not end.on_chip for end in ends)
    if opcode == "send" or (opcode.endswith("-start") and opcode != "all-reduce-start"):
        return _bytes(instruction)  # operands are among the results
    if opcode == "fusion" and instruction.called[0] in computations:
        return _moved_by_fusion(instruction, computations)
    if opcode in _SLICES:
        return 2 * _bytes(instruction)
    if opcode == "dynamic-update-slice":
        return 2 * instruction.operands[1].bytes
    return _bytes(instruction) + sum(s.bytes for s in instruction.operands if not s.on_chip)


def _moved_by_fusion(fusion: Instruction, computations: _Computations) -> int:
    inside = computations[fusion.called[0]]
    caller = computations[fusion.computation]
    total, whole = 0, _bytes(fusion)
    for number, parameter in _parameters(inside):
        given = caller.get(fusion.operand_names[number])
        if given is None or not _bytes(given):
            continue
        updates = [
            reader
            for reader in _readers(parameter, inside)
            if reader.opcode == "dynamic-update-slice"
            and _origin(reader.operand_names[0], inside) == parameter
        ]
        if updates:  # in place: neither read nor written but for the parts
            parts = sum(x.operands[1].bytes for x in updates)
            whole += 2 * parts - min(_bytes(given), whole)
        else:
            parts_read = _read(parameter, inside, computations)
            total += _bytes(given) if parts_read is None else min(_bytes(given), parts_read)
    return total + whole


def _read(
    parameter: str, inside: Mapping[str, Instruction], computations: _Computations
) -> int | None:
    """Return the bytes of the parts that are read of a parameter, None where it is read whole."""
    readers, total = _readers(parameter, inside), 0
    for reader in readers:
        places = [
            number
            for number, name in enumerate(reader.operand_names)
            if _origin(name, inside) == parameter
        ]
        if reader.opcode in _SLICES and 0 in places:
            total += _size(reader)
            continue
        if reader.opcode != "fusion" or reader.called[0] not in computations:
            return None
        called = computations[reader.called[0]]  # a fusion inside the fusion
        for number, name in _parameters(called):
            if number in places:
                part = _read(name, called, computations)
                if part is None:
                    return None
                total += part
    return total if readers else None


def _parameters(inside: Mapping[str, Instruction]) -> Iterator[tuple[int, str]]:
    """Yield number and name of the parameters of a computation."""
    for instruction in inside.values():
        if instruction.opcode == "parameter":
            yield int(instruction.rest.partition(")")[0]), instruction.name


def _readers(name: str, inside: Mapping[str, Instruction]) -> list[Instruction]:
    """Return what reads a value, itself or reshaped."""
    return [
        instruction
        for instruction in inside.values()
        if instruction.opcode != "bitcast"
        and name in {_origin(operand, inside) for operand in instruction.operand_names}
    ]


def _origin(name: str, inside: Mapping[str, Instruction]) -> str:
    """Return what a name stands for behind reshapes that move nothing."""
    while name in inside and inside[name].opcode == "bitcast":
        name = inside[name].operand_names[0]
    return name


def _bytes(instruction: Instruction) -> int:
    """Return the bytes of the results that lie in main memory."""
    return sum(shape.bytes for shape in instruction.shapes if not shape.on_chip)


def _size(instruction: Instruction) -> int:
    return sum(shape.bytes for shape in instruction.shapes)
