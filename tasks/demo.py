"""The built-in text as tasks, whatever the config names: `demo.mlm.LANG`, `demo.mt.A_B`, ..."""

import functools
import itertools

from ml_collections import ConfigDict

from xlmjax.preparation import corpora, demo_parts, demo_text
from xlmjax.preparation.sources import CorpusSource
from xlmjax.tasks import monolingual
from xlmjax.tasks.registration import add_classification, add_pair, add_text, add_translation


def register(data: ConfigDict) -> None:
    """Register every language and pair of the generator."""
    codes = sorted(demo_text.LANGUAGES)
    for code in codes:
        for objective in monolingual.OBJECTIVES:
            add_text(f"demo.{objective}.{code}", _source(code), code, data)
        inference = CorpusSource(
            {
                split: functools.partial(corpora.demo_inference, code, split)
                for split in demo_parts.INFERENCE
            }
        )
        labels = corpora.INFERENCE_LABELS
        add_classification(f"demo.xnli.{code}", inference, (code, code), labels, data)
    for pair in itertools.combinations(codes, 2):
        add_pair(f"demo.tlm.{'_'.join(pair)}", _source(*pair), pair, data)
        for way in (pair, pair[::-1]):
            add_translation(f"demo.mt.{'_'.join(way)}", _source(*way), way, data)


def _source(*codes: str) -> CorpusSource:
    return CorpusSource(
        {split: functools.partial(corpora.demo_corpus, codes, split) for split in corpora.SPLITS}
    )
