"""Seqio data sources: a corpus, and any other source that is to say what it holds out."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from xlmjax.data.features import LABEL
from xlmjax.preparation import cleaning, preprocessors
from xlmjax.preparation.corpora import Corpus

_BATCH = 512
_SHUFFLE_BUFFER = 16_384


class CorpusSource(seqio.DataSource):
    """Text of one language (`text`) or of a pair (`text`, `target_text`), from local files.

    Labelled examples have the name of their `label` besides.

    A shard is a contiguous range of lines, so that the examples of all shards in order are those of
    the whole, whatever their number. Nothing is read before a split is asked for.
    """

    def __init__(self, corpora: Mapping[str, Callable[[], Corpus]]):
        """Take what makes the corpus of every split; each is made once, when first needed."""
        super().__init__(splits=tuple(corpora))
        self._corpora = {split: functools.cache(make) for split, make in corpora.items()}

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """Any number of shards."""
        return True

    def list_shards(self, split: str) -> list[str]:
        """Return one name: shards are cut from the whole."""
        return [split]

    def num_input_examples(self, split: str) -> int:
        """Return the number of examples before anything is dropped."""
        return len(self.corpus(split))

    def corpus(self, split: str) -> Corpus:
        """Return the text of a split; raises `ValueError` where its files are missing or bad."""
        return self._corpora[split]()

    def fingerprint(self, split: str) -> str:
        """Return a digest of the text of a split."""
        return self.corpus(split).fingerprint()

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        *,
        sequence_length: Mapping[str, int] | None = None,
        use_cached: bool = False,
        num_epochs: int | None = 1,
    ) -> tf.data.Dataset:
        """Return examples of UTF-8 `text`, for pairs `target_text`, `held_out` and `number`."""
        dataset = tf.data.Dataset.from_generator(
            lambda: self.batches(split, shard_info),
            output_signature={
                **{name: tf.TensorSpec([None], tf.string) for name in self._names(split)},
                preprocessors.HELD_OUT: tf.TensorSpec([None], tf.bool),
                preprocessors.NUMBER: tf.TensorSpec([None], tf.int64),
            },
        ).unbatch()
        return dataset.shuffle(_SHUFFLE_BUFFER, seed=seed) if shuffle else dataset

    def batches(
        self, split: str, shard_info: seqio.ShardInfo | None = None
    ) -> Iterator[preprocessors.Columns]:
        """Yield the examples of a shard in columns of UTF-8 bytes, without tf.data.

        Examples of which one side has no partner are dropped and counted here.
        """
        corpus = self.corpus(split)
        shard = corpus.shard(*((shard_info.index, shard_info.num_shards) if shard_info else (0, 1)))
        names = self._names(split)
        examples = corpus.examples(shard.start, shard.stop)
        for first in range(shard.start, shard.stop, _BATCH):
            rows = list(itertools.islice(examples, _BATCH))
            numbers = [number for number, row in enumerate(rows, first) if None not in row]
            whole = [row for row in rows if None not in row]
            preprocessors.count_drops(cleaning.UNMATCHED, len(rows) - len(whole))
            columns = zip(*whole, strict=True) if whole else ((),) * len(names)
            yield {
                **{
                    name: np.array(column, object)
                    for name, column in zip(names, columns, strict=True)
                },
                preprocessors.HELD_OUT: np.full(len(whole), split != "train"),
                preprocessors.NUMBER: np.array(numbers, np.int64),
            }

    def _names(self, split: str) -> tuple[str, ...]:
        corpus = self.corpus(split)
        texts = (preprocessors.TEXT, preprocessors.TARGET_TEXT)[: len(corpus.languages)]
        return (*texts, LABEL) if corpus.labelled else texts


class MarkedSource(seqio.DataSource):
    """Examples of another source after some steps, each told whether it is `held_out`.

    Steps of seqio do not know the split, and held-out text is treated otherwise.
    """

    def __init__(self, source: seqio.DataSource, before: Sequence[Callable] = ()):
        """Take the source and steps that map its datasets."""
        super().__init__(
            splits=(),
            caching_permitted=source.caching_permitted,
            performs_internal_shuffling=source.performs_internal_shuffling,
        )
        self.source = source
        self.before = tuple(before)

    @property
    def splits(self) -> Sequence[str]:
        """Those of the source, which may have to look them up."""
        return self.source.splits

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """As the source does."""
        return self.source.supports_arbitrary_sharding

    def list_shards(self, split: str) -> Sequence[str]:
        """Return the shards of the source."""
        return self.source.list_shards(split)

    def num_input_examples(self, split: str) -> int | None:
        """Return the number of examples of the source, None if it does not know."""
        return self.source.num_input_examples(split)

    def get_dataset(self, split: str = "train", *args: Any, **options: Any) -> tf.data.Dataset:
        """Return what the steps make of the source, and whether it is `held_out`."""
        dataset = self.source.get_dataset(split, *args, **options)
        for step in self.before:
            dataset = step(dataset)
        held_out = tf.constant(split != "train")
        return dataset.map(lambda example: {**example, preprocessors.HELD_OUT: held_out})

    def batches(
        self, split: str, shard_info: seqio.ShardInfo | None = None
    ) -> Iterator[preprocessors.Columns]:
        """Yield the examples of a shard in columns, in order."""
        if shard_info and len(self.list_shards(split)) < shard_info.num_shards:
            # As seqio does with a source of too few files.
            dataset = self.get_dataset(split, shuffle=False)
            dataset = dataset.shard(shard_info.num_shards, shard_info.index)
        else:
            dataset = self.get_dataset(split, shuffle=False, shard_info=shard_info)
        yield from dataset.batch(_BATCH).as_numpy_iterator()
