"""Natural language inference from TFDS: `xnli.LANG` (evaluation) and `multi_nli.en` (training).

`tokens` are the premise, `target_tokens` the hypothesis; `label` is 0 entailment, 1 neutral,
2 contradiction (Conneau et al. 2018).
"""

import dataclasses

import seqio
import tensorflow as tf
from ml_collections import ConfigDict

from xlmjax import languages
from xlmjax.preparation.preprocessors import TARGET_TEXT, TEXT, Rename
from xlmjax.tasks.registration import add_pair


def register(data: ConfigDict) -> None:
    """Register the 15 languages of XNLI and the English training set."""
    xnli = seqio.TfdsDataSource("xnli:1.1.0", splits={"validation": "validation", "test": "test"})
    for code in languages.XNLI:
        add_pair(f"xnli.{code}", xnli, (code, code), data, before=[OneLanguage(code)])
    multi_nli = seqio.TfdsDataSource(
        "multi_nli:1.1.0",
        splits={
            "train": "train",
            "validation": "validation_matched",
            "validation_mismatched": "validation_mismatched",
        },
    )
    rename = Rename(((TEXT, "premise"), (TARGET_TEXT, "hypothesis"), ("label", "label")))
    add_pair("multi_nli.en", multi_nli, ("en", "en"), data, before=[rename])


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
                "label": example["label"],
            }

        return dataset.map(take)
