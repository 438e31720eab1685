"""What masking costs a step by the generator behind its keys: threefry, as in training, or rbg.

    python benchmarks/masking_keys.py --rows 64 --length 256

Processor seconds of one process, in turns. Each line also says whether rows drawn in a batch are
those drawn alone: if they are not, masks depend on how rows are split over devices.
"""

import argparse
import functools
import statistics
import time

import jax
import jax.numpy as jnp

from xlmjax.ops.masking import Corruption, mask_tokens, num_slots

GENERATORS = ("threefry2x32", "rbg")


def main() -> None:
    """Time both, and compare a batch of rows with the rows alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    tokens = jnp.ones((args.rows, args.length), jnp.int32)
    mask = jax.jit(
        functools.partial(
            mask_tokens,
            rate=0.15,
            corruption=Corruption(5, 32_000),
            slots=num_slots(0.15, args.length),
        )
    )

    def draw(generator: str, rows: slice) -> jax.Array:
        ids = jnp.arange(args.rows)[rows]
        key = jax.random.key(0, impl=generator)
        return jax.block_until_ready(mask(tokens[rows], tokens[rows] > 0, key, ids)).picks

    seconds: dict[str, list[float]] = {name: [] for name in GENERATORS}
    for turn in range(args.rounds + 1):
        for name in GENERATORS:
            start = time.process_time()
            draw(name, slice(None))
            if turn:  # the first compiles
                seconds[name].append(time.process_time() - start)
    for name in GENERATORS:
        together = draw(name, slice(None))
        alone = jnp.concatenate([draw(name, slice(i, i + 1)) for i in range(args.rows)])
        same = "the same" if jnp.array_equal(together, alone) else "others"
        median = statistics.median(seconds[name]) * 1e3
        print(f"{name}: {median:.2f} ms a step; rows drawn alone are {same}")


if __name__ == "__main__":
    main()
