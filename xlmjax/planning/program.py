"""What the compiler makes of a train step, or says when it refuses; kept on disk as JSON."""

import dataclasses
import re
import time
from typing import Any

import jax

from xlmjax.planning import compiled, traffic

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Exchange:
    """All collectives of one kind along the same mesh axes."""

    kind: str
    axes: tuple[str, ...]
    count: int  # a step
    bytes: int  # a step, of the larger side on one device


@dataclasses.dataclass(frozen=True)
class Program:
    """What the compiler made of a step, on one device; what it refused has no memory."""

    memory: compiled.Memory | None
    refusal: str = ""  # its own words
    required: float | None = None  # bytes that the refusal names, and those that there are
    available: float | None = None
    flops: int = 0  # of matrix products, what remat repeats included
    traffic: int = 0  # bytes read and written in main memory
    exchanges: tuple[Exchange, ...] = ()
    compile_seconds: float = 0.0

    @property
    def fits(self) -> bool:
        """Whether there is a program."""
        return self.memory is not None


def compile_program(lowered: jax.stages.Lowered, mesh: jax.sharding.Mesh) -> Program:
    """Compile a step for the devices of its mesh and read what there is to know.

    A program too large for the device is an answer, not an error; other errors are raised.
    """
    start = time.perf_counter()
    try:
        with jax.set_mesh(mesh):
            executable = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return refused(str(error), time.perf_counter() - start)
    return read_program(executable, mesh, time.perf_counter() - start)


def read_program(
    executable: jax.stages.Compiled, mesh: jax.sharding.Mesh, compile_seconds: float = 0.0
) -> Program:
    """Return what there is to know of a compiled step, for the mesh that it is compiled for."""
    text = executable.as_text() or ""
    totals: dict[tuple[str, tuple[str, ...]], tuple[int, int]] = {}
    for found in compiled.collectives(text, mesh):
        count, size = totals.get((found.kind, found.axes), (0, 0))
        totals[found.kind, found.axes] = count + found.times, size + found.times * found.bytes
    return Program(
        memory=compiled.memory(executable),
        flops=sum(x.times * compiled.product_flops(x) for x in compiled.products(text)),
        traffic=traffic.memory_traffic(text),
        exchanges=tuple(Exchange(*key, *totals[key]) for key in sorted(totals)),
        compile_seconds=compile_seconds,
    )


def refused(message: str, seconds: float = 0.0) -> Program:
    """Return the answer of a compiler that ran out of memory, with the bytes that it names."""
    line = next((x for x in message.splitlines() if "emory" in x), message.splitlines()[0])
    amounts = [
        float(number) * _UNITS[unit]
        for number, unit in re.findall(r"(\d+(?:\.\d+)?)([KMGT])\b", line)
    ]
    required, available = amounts[:2] if len(amounts) > 1 else (None, None)
    return Program(None, line, required, available, compile_seconds=seconds)


def from_json(fields: dict[str, Any]) -> Program:
    """Return a program from what `dataclasses.asdict` made of it."""
    memory = fields.pop("memory")
    exchanges = tuple(
        Exchange(**{**exchange, "axes": tuple(exchange["axes"])})
        for exchange in fields.pop("exchanges")
    )
    return Program(memory=memory and compiled.Memory(**memory), exchanges=exchanges, **fields)
