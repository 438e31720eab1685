"""`xlmjax COMMAND ...`: a dispatch table; heavy imports happen inside the chosen command."""

import argparse
import collections
import contextlib
import importlib
import importlib.metadata
import logging
import os
import sys
import types
from collections.abc import Iterator, Mapping, Sequence

from xlmjax.configuration import ConfigError, config_names, load_config

# Command -> (module of xlmjax.commands, one line of help).
COMMANDS = {
    "demo": ("demo", "the whole method in miniature on generated text, on this machine"),
    "vocab": ("vocab", "train the SentencePiece vocabulary on alpha-sampled text"),
    "prepare": ("prepare", "write token stores for every task that a config names"),
    "vectors": ("vectors", "vectors of two languages in one space, from text alone, to start from"),
    "plan": ("plan", "tokens, rates and epochs of every task at the end of the run"),
    "fit": ("fit", "does it fit on a TPU slice, and how fast could it be; needs no TPU"),
    "train": ("train", "pretrain, or go on where the workdir's last checkpoint stands"),
    "eval": ("eval", "score a checkpoint with the evaluations of the config"),
    "embed": ("embed", "sentences from stdin to vectors in a .npy file, with a checkpoint"),
    "translate": ("translate", "sentences from stdin to their translations, with a checkpoint"),
    "convert": ("convert", "Hugging Face and original XLM checkpoints in, Hugging Face's out"),
    "report": ("report", "one page about runs: losses, mixture, evaluations, speed, configs"),
    "bench": ("bench", "throughput of the step, its kernels and the data path on this machine"),
}

# Settings of glibc.malloc: one heap that only grows, in huge pages, by 256 MiB at a time.
_KEPT_MEMORY = {
    "hugetlb": 1,
    "arena_max": 1,
    "mmap_max": 0,
    "top_pad": 2**28,
    "trim_threshold": 2**40,
}
_ACCELERATORS = ("/dev/accel0", "/dev/vfio/0", "/dev/nvidia0")  # there the steps run elsewhere


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code, 2 for what the user can mend."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] in ("--version", "version"):
        print(_version())
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        print(f"xlmjax: unknown command {name!r}; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return _run(name, rest)


def entry() -> int:
    """Run the command line in a process that keeps its memory (`with_kept_memory`).

    The C library reads that setting when a process starts, so this one starts again, with the same
    arguments and process id; at this point Python alone is loaded, which takes some 20 ms.
    """
    if "_ARGCOMPLETE" in os.environ:
        from xlmjax import completion

        completion.complete({name: line for name, (_, line) in COMMANDS.items()}, parser_of)
    environment = with_kept_memory(os.environ)
    on_cpu = sys.platform == "linux" and not any(map(os.path.exists, _ACCELERATORS))
    if on_cpu and environment != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    return main()


def with_kept_memory(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which glibc keeps freed memory, in huge pages, for the next use.

    XLA on the CPU allocates what a step needs anew in every step; with the defaults glibc maps it
    from the kernel each time, which clears every page of it. docs/performance.md has the figures.
    A choice of `glibc.malloc` settings that the environment holds already stays.
    """
    tunables = environment.get("GLIBC_TUNABLES", "")
    if "glibc.malloc." in tunables:
        return dict(environment)
    ours = [f"glibc.malloc.{name}={value}" for name, value in _KEPT_MEMORY.items()]
    return {**environment, "GLIBC_TUNABLES": ":".join(filter(None, (tunables, *ours)))}


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command; overrides of the config are none of its arguments."""
    command = _command(name)
    parser = argparse.ArgumentParser(
        prog=f"xlmjax {name}",
        description=command.HELP,
        epilog="Any field of configs/base.py: --config.SECTION.FIELD=VALUE, or as gin spells it:\n"
        "--gin.SECTION.FIELD=VALUE, --gin_file=FILE.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    default = getattr(command, "DEFAULT_CONFIG", "base")
    config = parser.add_argument(
        "--config",
        default=default,
        metavar="NAME[:KEY=VALUE,...]",
        help=f"a file of configs/ by name, or a path (default: {default or 'that of the run'})",
    )
    config.completer = lambda **_: config_names()  # type: ignore[attr-defined] # for argcomplete
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    command.add_arguments(parser)
    return parser


def _command(name: str) -> types.ModuleType:
    module, _ = COMMANDS[name]
    return importlib.import_module(f"xlmjax.commands.{module}")


@contextlib.contextmanager
def _log_shown() -> Iterator[None]:
    """Show what the package logs on stderr: warnings, and of process 0 its choices too."""
    logger, handler = logging.getLogger("xlmjax"), logging.StreamHandler()
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or _process_index() == 0)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # libraries may give the root logger a handler, which would repeat it
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _process_index() -> int:
    import jax

    return jax.process_index()


def _run(name: str, argv: list[str]) -> int:
    args, others = parser_of(name).parse_known_args(argv)
    with _log_shown():
        return _run_command(name, args, others)


def _run_command(name: str, args: argparse.Namespace, others: list[str]) -> int:
    try:
        config = load_config(args.config or f"{args.workdir}/config.json", others)
        _command(name).run(config, args)
    except (ConfigError, ValueError, KeyError, OSError) as error:
        if args.traceback:
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"xlmjax {name}: {message}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if args.traceback or "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(
            f"xlmjax {name}: out of memory ({str(error).splitlines()[0]}): lower train.rows, raise "
            "train.microbatches or mesh.fsdp, or set model.remat=full",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"xlmjax {name}: interrupted", file=sys.stderr)
        return 130
    return 0


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {line}" for name, (_, line) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: xlmjax COMMAND [--config=NAME[:KEY=VALUE,...]] [--config.SECTION.FIELD=VALUE]",
            "",
            *lines,
            "",
            "`xlmjax COMMAND --help` tells more.",
        ]
    )


def _version() -> str:
    names = ("xlmjax", "jax", "flax", "optax", "orbax-checkpoint")
    versions = "  ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"{versions}\ndevices: {_devices()}"


def _devices() -> str:
    """Say what JAX computes on here, by kind; of a pod it would wait for the other hosts."""
    if "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        return "those of a TPU pod; `xlmjax train` on all of its hosts names them"
    import jax

    try:
        kinds = collections.Counter(device.device_kind for device in jax.devices())
    except RuntimeError as error:
        return f"none; {error}"
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


if __name__ == "__main__":
    sys.exit(entry())
