"""`xlmjax fit`: does a config fit on a TPU slice, and how fast could it be; without a TPU."""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import multiprocessing
import re
import resource
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from xlmjax.children import end_with_parent
from xlmjax.configuration import apply_flat

if TYPE_CHECKING:
    import jax

    from xlmjax.planning.fit import FitReport, Programs
    from xlmjax.planning.hardware import Accelerator
    from xlmjax.planning.program import Program

HELP = """Compile the train step of a config for a slice of TPUs that need not be there, and print
memory, work, collectives and the least time of a step. Needs no data, and no TPU: the compiler of
the libtpu package runs on any Linux machine (uv sync --group tpu). docs/fit.md reads the table.
--search tries meshes, remat policies and microbatches in order of promise. What the compiler said
is kept on disk, so a repeated call is quick."""

_SECTIONS = ("model", "objectives", "optimizer", "mesh", "train")  # what the program depends on
# Exit code -> signal by which others end a process; a compiler that fails raises SIGSEGV and such.
_KILLED = {-x: x.name for x in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the slice, the search, and how to print."""
    parser.add_argument(
        "--topology",
        required=True,
        help="v4, v5e, v5p, v6e or v7x and the chips along each axis: v5e:16x16, v5p:4x4x4; "
        "several slices 2*v5e:16x16; cpu:8 for simulated devices",
    )
    parser.add_argument("--search", action="store_true", help="look for the fastest plan that fits")
    parser.add_argument(
        "--best", type=int, default=2, help="end after so many that fit (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a plan")
    parser.add_argument("--cache", help="folder of earlier answers (default: ~/.cache/xlmjax/fit)")


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Judge the plan of the config, or search, and print."""
    from xlmjax.planning.fit import Programs
    from xlmjax.planning.hardware import find_accelerator

    if args.best < 1:
        raise ValueError(f"--best={args.best}: ask for at least one plan")
    devices = devices_of(config, args.topology)
    accelerator = find_accelerator(devices[0])
    programs = Programs(args.cache)
    start = time.perf_counter()
    if args.search:
        reports = search(config, args.topology, devices, accelerator, programs, args.best)
    else:
        reports = [judge(config, args.topology, devices, accelerator, programs)]
    effort = {
        "tried": programs.asked + programs.kept,  # crashes of the compiler counted
        "kept": programs.kept,
        "seconds": time.perf_counter() - start,
    }
    for number, found in enumerate(reports):
        if args.json:
            print(json.dumps(to_dict(found) | ({"search": effort} if args.search else {})))
        else:
            print("\n".join([*([""] if number else []), *lines(found)]))


def devices_of(config: ConfigDict, topology: str) -> "Sequence[jax.Device]":
    """Return the devices of a topology; those of `cpu:N` are started, so they can run as well."""
    import jax

    from xlmjax.experiment import start_jax
    from xlmjax.planning.topology import tpu_devices

    if match := re.fullmatch(r"cpu:([1-9]\d*)", topology):
        config.train.num_cpu_devices = int(match[1])
        start_jax(config)
        return jax.devices("cpu")
    return tpu_devices(topology)


def judge(
    config: ConfigDict,
    topology: str,
    devices: "Sequence[jax.Device]",
    accelerator: "Accelerator | None",
    programs: "Programs",
) -> "FitReport":
    """Return the report of one config, from the compiler or from what it said before."""
    from xlmjax.dry_run import dry_run
    from xlmjax.planning import fit

    run = dry_run(config, devices)
    mesh = run.experiment.mesh
    facts = {
        "topology": topology,
        "vocabulary": run.experiment.vocabulary.size,
        "languages": run.experiment.model.language_ids,
        "tasks": [getattr(group.objective, "num_tasks", 0) for group in run.train_step.groups],
        **{section: config[section].to_dict() for section in _SECTIONS},
    }
    shown = ["model.remat", "train.microbatches", "train.rows", "train.length", "optimizer.name"]
    plan = {f"mesh.{name}": size for name, size in mesh.shape.items()}
    flat = {name: _field(config, name) for name in shown}
    return fit.report(
        programs.get(facts, lambda: compile_apart(config, topology)),
        plan=plan | flat,
        mesh=mesh,
        state=run.experiment.spec.abstract,
        tokens=run.tokens,
        num_steps=run.experiment.train.num_steps,
        model_flops=run.model_flops,
        accelerator=accelerator,
        assumptions=run.assumptions,
    )


def compile_apart(config: ConfigDict, topology: str) -> "Program":
    """Return what the compiler makes of the step, asked in a process of its own.

    TPU's compiler ends its process where it fails on its own account: that raises
    `CompilerCrashError`, and `CompilerEndedError` where others ended it.
    """
    from xlmjax.planning.fit import CompilerCrashError, CompilerEndedError

    spawn = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = concurrent.futures.ProcessPoolExecutor(1, spawn, initializer=end_with_parent)
    with _deep_stack(), pool:
        answer = pool.submit(compile_here, config, topology)
        (child,) = set(multiprocessing.active_children()) - others
        with contextlib.suppress(concurrent.futures.process.BrokenProcessPool):
            return answer.result()
    where = f"on this plan for --topology={topology}, which says nothing of whether it fits"
    if name := _KILLED.get(child.exitcode or 0):
        raise CompilerEndedError(
            f"the compiler was killed ({name}) {where}: by the system perhaps, for want of memory "
            "on this machine; the same command tries it again"
        )
    raise CompilerCrashError(
        f"the compiler crashed {where}: change model.remat, train.microbatches or the mesh"
    )


@contextlib.contextmanager
def _deep_stack() -> Iterator[None]:
    """Let the processes that are started inside have a stack without limit, as far as allowed.

    With one of 8 MiB, and of 1 GiB too, libtpu 0.0.42 crashes on XLM-R base with remat `dots` on
    v5e 4x4; without limit it compiles.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))


def compile_here(config: ConfigDict, topology: str) -> "Program":
    """Return what the compiler makes of the step, or its refusal."""
    from xlmjax.dry_run import dry_run
    from xlmjax.planning.program import compile_program

    run = dry_run(config, devices_of(config, topology))
    return compile_program(run.lower(), run.experiment.mesh)


def search(
    config: ConfigDict,
    topology: str,
    devices: "Sequence[jax.Device]",
    accelerator: "Accelerator | None",
    programs: "Programs",
    wanted: int,
) -> "list[FitReport]":
    """Return the reports of the plans that were tried, the fastest that fits first.

    Raises `CompilerEndedError` where the compiler answered on none of them.
    """
    from xlmjax.dry_run import dry_run
    from xlmjax.parallel.mesh import AXES
    from xlmjax.planning import interconnect, search
    from xlmjax.planning.fit import CompilerEndedError

    if accelerator is None:
        raise ValueError(
            f"--search needs the figures of the device, and planning/hardware.py has none of "
            f"{devices[0].device_kind!r}: name a TPU slice, like --topology=v5e:4x4"
        )
    slices = len({interconnect.slice_of(device) for device in devices})
    alone = {f"mesh.{axis}": 1 for axis in AXES} | {"train.microbatches": 1}
    run = dry_run(apply_flat(config, alone), devices[:1])
    rows, length = config.train.rows, config.train.length
    work = search.Work(run.experiment.model, rows, length, run.model_flops, config.optimizer.name)
    choices = list(search.plans(work, len(devices), slices))
    if not choices:
        raise ValueError(
            f"train.rows={rows} does not divide over {len(devices)} devices in any mesh with "
            f"mesh.replica={slices}: use a multiple of {len(devices)}"
        )

    def of(plan: search.Plan) -> "FitReport | None":
        changed = apply_flat(config, plan.fields)
        try:
            found = judge(changed, topology, devices, accelerator, programs)
        except CompilerEndedError as error:
            print(f"tried {_words(plan.fields)}: {error}", file=sys.stderr, flush=True)
            return None
        print(f"tried {_words(plan.fields)}: {verdict(found)}", file=sys.stderr, flush=True)
        return found

    estimates = [search.estimate(plan, work, accelerator) for plan in choices]
    limit = accelerator.usable_bytes or accelerator.memory_bytes
    reports = search.search(choices, estimates, limit, of, wanted)
    if not reports:
        raise CompilerEndedError(
            f"the compiler ended without an answer on every plan tried for --topology={topology}, "
            "which says nothing of whether one fits: change train.rows, train.length or the sizes "
            "in model.*, or name another --topology"
        )
    return reports


def to_dict(found: "FitReport") -> dict[str, Any]:
    """Return a report as JSON has it, with what its properties say."""
    fields = dataclasses.asdict(found)
    fields |= {"fits": found.program.fits, "headroom": found.headroom, "shared": found.shared}
    if found.program.memory:
        fields["program"]["memory"]["total"] = found.program.memory.total
    if found.roofline:
        fields["roofline"] = {
            **found.roofline.seconds,
            "step": found.roofline.step,
            "serial": found.roofline.serial,
            "binding": found.roofline.binding,
        }
    return fields


def verdict(found: "FitReport") -> str:
    """Return whether a plan fits, and by how much, in a line."""
    if found.shared:
        return (
            f"fits, the compiler says, though arguments and temporaries add up to "
            f"{_size(found.shared)} of a device more than there is: they share space; "
            "what is left is not known"
        )
    room = "" if found.headroom is None else f", {_size(abs(found.headroom))} of a device "
    if not found.program.fits:
        return f"does not fit{room and room + 'lacking'} ({found.program.refusal})"
    return f"fits{room and room + 'left'}"


def lines(found: "FitReport") -> Iterator[str]:
    """Yield the table for a reader; each figure says where it is from."""
    program, state = found.program, found.state
    yield f"{found.num_devices} devices {found.device} on {found.num_chips} chips"
    yield f"plan      {_words(found.plan)}"
    yield f"verdict   {verdict(found)}"
    for sentence in found.assumptions:
        yield f"assumed   {sentence}"
    yield "memory of a device"
    yield from _rows(
        ("parameters", _size(state.parameters), "shardings, exact"),
        ("optimizer", _size(state.optimizer), "shardings, exact"),
        ("gradients", _size(state.gradient), "shardings, exact; among the temporaries"),
    )
    if program.memory is None:
        return
    memory = program.memory
    rest = max(memory.temporary - state.gradient, 0)
    yield from _rows(
        ("arguments", _size(memory.arguments), "compiler: state and batch, padded to tiles"),
        ("outputs", _size(memory.outputs), "compiler"),
        ("aliased", _size(memory.aliased), "compiler: outputs in the place of arguments"),
        ("temporaries", _size(memory.temporary), "compiler"),
        ("activations", _size(rest), "temporaries without gradients; work space included"),
        ("code", _size(memory.code), "compiler"),
        ("total", _size(memory.total), "arguments + outputs - aliased + temporaries + code"),
    )
    yield "work of a step"
    if found.model_flops is not None:
        mean = found.model_flops / found.num_devices
        yield from _rows(("model FLOPs", f"{mean:.3e}", "a device; full rows of one segment"))
    yield from _rows(
        ("program FLOPs", f"{program.flops:.3e}", "a device; matrix products, what remat repeats"),
        ("memory traffic", _size(program.traffic), "a device; operands and results of fusions"),
        *(
            (f"sent, {exchange.kind}", _size(sent), f"over {over}; {exchange.count} times")
            for (name, sent), exchange in zip(found.sent.items(), program.exchanges, strict=True)
            for over in [name.split()[1]]
        ),
    )
    if found.roofline is None or found.forecast is None:
        yield "time      the peak of these devices is not in planning/hardware.py"
        return
    times, future = found.roofline, found.forecast
    yield "time of a step, at least"
    yield from _rows(
        *((name, _milliseconds(seconds), "") for name, seconds in times.seconds.items()),
        ("step", _milliseconds(times.step), f"bound by {times.binding}, all else beside it"),
        ("in a row", _milliseconds(times.serial), "if nothing ran beside anything else"),
        ("tokens/s", f"{future.tokens_per_second:,.0f}", "at most, all devices, padding counted"),
        *([("MFU", f"{future.mfu:.1%}", "at most")] if future.mfu is not None else []),
        ("days", f"{future.days:,.2f}", f"at least, {found.num_steps:,} steps"),
        ("chip-hours", f"{future.chip_hours:,.0f}", "at least"),
    )


def _rows(*rows: tuple[str, str, str]) -> Iterator[str]:
    for name, value, source in rows:
        yield f"  {name:<24}{value:>14}  {source}".rstrip()


def _words(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in fields.items())


def _field(config: ConfigDict, name: str) -> Any:
    section, field = name.split(".")
    return config[section][field]


def _size(number: float) -> str:
    """Return bytes in the binary unit that leaves the fewest digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024 or unit == "GiB":
            break
        number /= 1024
    return f"{number:,.2f} {unit}" if unit != "B" else f"{number:.0f} B"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.3f} ms"
