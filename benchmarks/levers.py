"""What each lever of the CPU train step gives: the step with one of them off, in turns with all on.

    uv run xlmjax prepare --config=wiki15:root=DATA
    uv run python benchmarks/levers.py --config=wiki15:root=DATA --rounds 5

Model and rows are those of mixture_vs_hf.py (packed MLM+TLM, float32, dropout 0.1).
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from unittest import mock

import mixture_vs_hf
import turns

from xlmjax.cli import with_huge_pages

TITLES = {
    "all": "all on",
    "scan": "one layer a turn of the scan",
    "last": "last layer at every position",
    "head": "last layer and vocabulary projection at every position",
    "threefry": "dropout by jax.random (threefry)",
    "pages": "pages of 4 kB",
    "nodrop": "no dropout (the bound of any mask generator)",
}
SMALL_PAGES = ("pages",)


@contextlib.contextmanager
def without(lever: str) -> Iterator[None]:
    """Switch a lever off for what is traced inside."""
    import jax

    from xlmjax.models import layers, transformer
    from xlmjax.models.xlm import XLM
    from xlmjax.ops import dropout

    encode = XLM.encode

    def encode_whole(self, *arrays, picks=None, **options):
        return layers.take(encode(self, *arrays, **options), picks)

    def bits(seeds, shape):
        return jax.random.bits(jax.random.wrap_key_data(seeds[0]), shape, "uint32")

    patches = {
        "scan": mock.patch.dict(transformer.UNROLL, clear=True),
        "last": mock.patch.object(XLM, "encode", encode_whole),
        "threefry": mock.patch.object(dropout, "_bits", bits),
    }
    with patches.get(lever, contextlib.nullcontext()):
        yield


def steps(name: str, levers: list[str]) -> Mapping[str, turns.Step]:
    """Return a compiled step for each lever that is off."""
    made = {}
    for lever in levers:
        config = mixture_vs_hf.configure(name)
        if lever == "head":
            config.objectives.mlm.max_rate = 0.999  # a target slot a position
        if lever == "nodrop":
            config.model.dropout = config.model.attention_dropout = 0.0
        with without(lever):
            [step] = mixture_vs_hf.our_steps(config).values()
            step()
        made[lever] = step
    return made


def main() -> None:
    """Measure, or serve the levers of one environment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="wiki15")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps a contender and round")
    parser.add_argument("--serve", nargs="+", choices=sorted(TITLES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        turns.serve(steps(arguments.config, arguments.serve))
        return
    command = [sys.executable, os.path.abspath(__file__), f"--config={arguments.config}", "--serve"]
    others = [lever for lever in TITLES if lever not in SMALL_PAGES]
    workers = dict.fromkeys(others, turns.Worker([*command, *others], with_huge_pages(os.environ)))
    workers |= dict.fromkeys(SMALL_PAGES, turns.Worker([*command, *SMALL_PAGES]))
    speeds = turns.measure(workers, arguments.rounds, arguments.steps)
    print(turns.table(speeds, TITLES, "all", "real tokens/s"))


if __name__ == "__main__":
    main()
