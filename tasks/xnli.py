"""Natural language inference: `xnli.LANG`, and `multi_nli.en` to train on in English.

`tokens` are the premise, `target_tokens` the hypothesis; `label` is 0 entailment, 1 neutral,
2 contradiction (Conneau et al. 2018). `xnli.LANG` is read from the files that `data.SPLIT.xnli`
names, a premise, a hypothesis and the name of a label a line; where it names none, from TFDS, which
has the validation and test sets in 15 languages.
"""

import dataclasses
import functools

import seqio
import tensorflow as tf
from ml_collections import ConfigDict

from xlmjax import languages
from xlmjax.data.features import LABEL
from xlmjax.preparation import corpora
from xlmjax.preparation.corpora import INFERENCE_LABELS as LABELS
from xlmjax.preparation.preprocessors import TARGET_TEXT, TEXT, Rename
from xlmjax.preparation.sources import CorpusSource
from xlmjax.tasks.registration import add_classification, add_mixture

SPLITS = ("train", "validation", "test")


def register(data: ConfigDict) -> None:
    """Register XNLI in every language that there is, and the English training set of TFDS."""
    local = any(split in data and data[split].get("xnli", ()) for split in SPLITS)
    codes = _register_files(data) if local else _register_tfds(data)
    if codes:
        add_mixture("xnli", [f"xnli.{code}" for code in codes], data)
    multi_nli = seqio.TfdsDataSource(
        "multi_nli:1.1.0",
        splits={
            "train": "train",
            "validation": "validation_matched",
            "validation_mismatched": "validation_mismatched",
        },
    )
    rename = Rename(((TEXT, "premise"), (TARGET_TEXT, "hypothesis"), (LABEL, LABEL)))
    add_classification("multi_nli.en", multi_nli, ("en", "en"), LABELS, data, before=[rename])


def _register_files(data: ConfigDict) -> list[str]:
    registered = []
    for code in corpora.languages_of(data):
        found = {
            split: functools.partial(corpora.inference_corpus, data, split, code)
            for split in SPLITS
            if corpora.inference_files(data, split, code)
        }
        if found:
            add_classification(f"xnli.{code}", CorpusSource(found), (code, code), LABELS, data)
            registered.append(code)
    return registered


def _register_tfds(data: ConfigDict) -> list[str]:
    xnli = seqio.TfdsDataSource("xnli:1.1.0", splits={"validation": "validation", "test": "test"})
    for code in languages.XNLI:
        one = OneLanguage(code)
        add_classification(f"xnli.{code}", xnli, (code, code), LABELS, data, before=[one])
    return list(languages.XNLI)


@dataclasses.dataclass(frozen=True)
class OneLanguage:
    """Take one language of the 15 that every example of XNLI holds."""

    language: str

    def __call__(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Map every example."""

        def take(example: dict) -> dict[str, tf.Tensor]:
            here = example["hypothesis"]["language"] == self.language
            return {
                TEXT: example["premise"][self.language],
                # Joined, so that a missing translation is "", which is dropped and counted.
                TARGET_TEXT: tf.strings.reduce_join(
                    tf.boolean_mask(example["hypothesis"]["translation"], here)
                ),
                LABEL: example["label"],
            }

        return dataset.map(take)
