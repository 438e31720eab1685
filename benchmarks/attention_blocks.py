"""Tiles of attention that the kernel of `model.attention=pallas` skips, on rows of real text.

    uv run xlmjax prepare --config=wiki15:root=DATA
    uv run python benchmarks/attention_blocks.py runs/wiki15/stores

Nothing is timed: tiles are counted from the spans that bound the kernel's loops, in rows spread
evenly over the training rows of each task. Beside it stands what no kernel can go beyond: the share
of pairs of positions that are in no common segment.
"""

import argparse
import pathlib
from collections.abc import Sequence

import numpy as np

from xlmjax.data.features import SEGMENT_IDS, TEXT
from xlmjax.data.layout import Delimiters, make_layout
from xlmjax.data.mixture import empty_batch
from xlmjax.data.store import TokenStore
from xlmjax.ops.attention_pallas import TILE
from xlmjax.ops.attention_tiles import shared_tiles, spans

DELIMITERS = Delimiters(eos=1, pad=2)  # which ids they have does not matter here

# Title -> tasks and layout.
KINDS = {
    "pairs, packed": ("tlm.*", "pack"),
    "pairs, a row each, padded": ("tlm.*", "pad"),
    "text, packed": ("mlm.*", "pack"),
    "text, streams": ("mlm.*", "stream"),
}


def segment_ids(stores: Sequence[TokenStore], kind: str, length: int, rows: int) -> np.ndarray:
    """Return segment ids [n, length] of up to `rows` full rows of each store."""
    parts = []
    for store in stores:
        layout = make_layout(kind, store, length, DELIMITERS)
        last = layout.num_rows - (kind == "stream")  # the last row of a stream is not full
        chosen = np.unique(np.linspace(0, last - 1, min(rows, last)).astype(np.int64))
        batch = empty_batch(len(chosen), length, TEXT)
        layout.fill(chosen, np.zeros_like(chosen), batch)
        parts.append(batch[SEGMENT_IDS])
    return np.concatenate(parts)


def count(ids: np.ndarray) -> tuple[float, float]:
    """Return the share of tiles that are skipped, and of scores that no query needs."""
    start, stop = (np.asarray(x) for x in spans(shared_tiles(ids, ids, False, TILE)))
    computed = np.maximum(stop - start, 0).sum() / (start.size * start.shape[1])
    needed = sum((np.bincount(row)[1:].astype(float) ** 2).sum() for row in ids)
    return 1 - computed, 1 - needed / (len(ids) * ids.shape[1] ** 2)


def main() -> None:
    """Count and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stores", type=pathlib.Path, help="where `xlmjax prepare` put the tasks")
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--rows", type=int, default=64, help="of each task")
    arguments = parser.parse_args()
    print(f"| rows | length | rows counted | filled | tiles of {TILE} skipped | bound |")
    print("| --- | --- | --- | --- | --- | --- |")
    for title, (tasks, kind) in KINDS.items():
        found = sorted(arguments.stores.glob(f"{tasks}/train"))
        if not found:
            parser.error(f"{arguments.stores} holds no {tasks}/train: run `xlmjax prepare`")
        stores = [TokenStore.open(directory) for directory in found]
        for length in arguments.lengths:
            ids = segment_ids(stores, kind, length, arguments.rows)
            skipped, bound = count(ids)
            print(
                f"| {title} | {length:,} | {len(ids):,} | {(ids != 0).mean():.1%} | {skipped:.1%} "
                f"| {bound:.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
