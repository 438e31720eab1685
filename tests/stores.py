"""Tiny token stores for tests, written by the real writer."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from xlmjax.data.features import RAW_OF
from xlmjax.data.store import FeatureSpec, TokenStore
from xlmjax.data.store_writer import StoreWriter


def write_store(
    directory: pathlib.Path,
    examples: Mapping[str, Sequence[Sequence[int]]],
    languages: Mapping[str, str],
    *,
    num_shards: int = 3,
    task: str = "mlm.en",
    split: str = "train",
    vocabulary: str = "0123456789abcdef",
    labels: tuple[Sequence[str], Sequence[int]] = ((), ()),
    kind: str = "",
) -> TokenStore:
    """Write lists of token ids for every feature and open the result; `labels` are names, ids.

    Raw text (`source_text`, `reference`) is UTF-8 bytes. `kind` follows from the features, but for
    "translation".
    """
    dtypes = {name: "uint8" if name in RAW_OF else "uint16" for name in examples}
    features = {name: FeatureSpec(dtypes[name], languages[name]) for name in examples}
    kind = kind or ("pair" if len(features) == 2 else "text")
    names, ids = tuple(labels[0]), np.array(labels[1], np.int32)
    writer = StoreWriter(
        directory, task, split, kind, features, vocabulary, "made up", num_shards, names
    )
    writer.start()
    total = len(next(iter(examples.values())))
    bounds = np.linspace(0, total, num_shards + 1).astype(int)
    for index, (start, stop) in enumerate(itertools.pairwise(bounds)):
        with writer.shard(index) as shard:
            parts = {name: texts[start:stop] for name, texts in examples.items()}
            shard.append(
                lengths={
                    name: np.array([len(text) for text in part], dtype=np.int64)
                    for name, part in parts.items()
                },
                tokens={
                    name: np.array([token for text in part for token in text], dtypes[name])
                    for name, part in parts.items()
                },
                characters={name: 5 * len(part) for name, part in parts.items()},
                num_bytes={name: 7 * len(part) for name, part in parts.items()},
                labels=ids[start:stop] if names else None,
            )
            writer.record(index, shard.finish({}))
    writer.finish()
    return TokenStore.open(directory)
