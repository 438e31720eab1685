"""`xlmjax translate`: sentences from stdin to their translations on stdout."""

import argparse
import itertools
import os
import sys
import time

from ml_collections import ConfigDict

from xlmjax.commands.lines import lines_of

HELP = """Read one sentence a line from stdin and write its translation to stdout, a line each, in
the order of the lines; an empty line gives an empty line. Progress goes to stderr. Greedy unless
--beams or --temperature is given."""
DEFAULT_CONFIG = ""  # config.json of --workdir

PIPE_CLOSED = 141  # what a process that SIGPIPE ends returns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which checkpoint, which languages, and how to decode."""
    parser.add_argument("--workdir", required=True, help="of the training run")
    parser.add_argument("--step", type=int, default=-1, help="which checkpoint; the latest if < 0")
    parser.add_argument("--src", required=True, metavar="CODE", help="language of stdin")
    parser.add_argument("--tgt", required=True, metavar="CODE", help="language of stdout")
    parser.add_argument(
        "--beams", type=int, default=0, help="beam search with so many hypotheses a sentence"
    )
    parser.add_argument(
        "--length-penalty",
        type=float,
        default=1.0,
        help="a beam compares sum log p / length^PENALTY (default: %(default)s)",
    )
    parser.add_argument(
        "--early-stopping",
        action="store_true",
        help="a beam ends with its last free place, not when no better hypothesis can come",
    )
    parser.add_argument(
        "--n-best",
        type=int,
        default=1,
        metavar="N",
        help="with N > 1, N lines NUMBER<tab>SCORE<tab>TEXT for each line, best first",
    )
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="draw from p^(1/TEMPERATURE) instead"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument(
        "--max-ratio",
        type=float,
        default=1.5,
        help="longest output: MAX_RATIO * tokens of the source + MAX_EXTRA (default: %(default)s)",
    )
    parser.add_argument("--max-extra", type=int, default=10, help="default: %(default)s")
    parser.add_argument(
        "--max-length",
        type=int,
        default=0,
        metavar="N",
        help="tokens of a sentence or translation at most; 0, the default: model.max_positions",
    )
    parser.add_argument(
        "--truncate",
        action="store_true",
        help="cut longer sentences and count them, instead of stopping",
    )
    parser.add_argument("--rows", type=int, default=64, help="a batch (default: %(default)s)")
    parser.add_argument(
        "--chunk",
        type=int,
        default=4_096,
        help="lines read before their translations are written; sorted by length among themselves "
        "(default: %(default)s)",
    )


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Translate stdin; a closed stdout ends it quietly."""
    if args.chunk < 1:
        raise ValueError(f"--chunk={args.chunk} must be 1 or more")
    if args.beams and args.temperature:
        raise ValueError("--beams and --temperature are two ways to decode: give one of them")
    try:
        _translate(config, args)
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(PIPE_CLOSED) from None


def _translate(config: ConfigDict, args: argparse.Namespace) -> None:
    from xlmjax.evaluation.translator import AT_LIMIT, CUT, EMPTY, DecodingConfig
    from xlmjax.translation import Translator

    chosen = {
        "method": "beam" if args.beams else "sample" if args.temperature else "greedy",
        "length_penalty": args.length_penalty,
        "early_stopping": args.early_stopping,
        "n_best": args.n_best,
        "seed": args.seed,
        "max_ratio": args.max_ratio,
        "max_extra": args.max_extra,
        "max_length": args.max_length,
        "over_limit": "cut" if args.truncate else "error",
    }
    chosen |= {
        name: getattr(args, name) for name in ("beams", "temperature") if getattr(args, name)
    }
    decoding = DecodingConfig(**chosen)
    translator = Translator.load(config, args.workdir, args.step, rows=args.rows, decoding=decoding)
    translator.check(args.src, args.tgt)
    lines, out = lines_of(sys.stdin.buffer), sys.stdout.buffer
    started, number = time.monotonic(), 1
    while chunk := list(itertools.islice(lines, args.chunk)):
        for index, best in enumerate(translator.n_best(chunk, args.src, args.tgt, number), number):
            for text, score in best:
                prefix = f"{index}\t{score:.6f}\t" if args.n_best > 1 else ""
                out.write(f"{prefix}{text}\n".encode())
        out.flush()
        number += len(chunk)
        rate = (number - 1) / (time.monotonic() - started)
        print(f"{number - 1:,} sentences, {rate:,.1f} a second", file=sys.stderr, flush=True)
    counts = translator.counts
    print(
        f"{number - 1:,} sentences, cut: {counts[CUT]:,}; translations that are empty: "
        f"{counts[EMPTY]:,}, as long as they might be: {counts[AT_LIMIT]:,}; lengths compiled: "
        f"{translator.num_shapes}",
        file=sys.stderr,
    )
