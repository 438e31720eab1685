"""Text of one language: `mlm.LANG`, `clm.LANG`, `ae.LANG`, and `wiki40b.mlm.LANG` from TFDS."""

import dataclasses
import functools

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from xlmjax import languages
from xlmjax.preparation import corpora
from xlmjax.preparation.sources import CorpusSource
from xlmjax.tasks.registration import add_mixture, add_text

OBJECTIVES = ("mlm", "clm", "ae")  # masked and causal modelling, auto-encoding


def register(data: ConfigDict) -> None:
    """Register the languages of a config, and those of Wiki-40B."""
    codes = corpora.languages_of(data)
    splits = [split for split in corpora.SPLITS if corpora.specs(data, split, "text")]
    for code in codes if splits else ():
        source = CorpusSource(
            {split: functools.partial(corpora.text_corpus, data, split, code) for split in splits}
        )
        # One source: what differs between the objectives is made on the device.
        for objective in OBJECTIVES:
            add_text(f"{objective}.{code}", source, code, data)
    for objective in OBJECTIVES if splits else ():
        add_mixture(objective, [f"{objective}.{code}" for code in codes], data)
    for name in tfds.text.wiki40b.WIKIPEDIA_LANGUAGES:
        if name == "zh-tw":
            continue  # our `zh` is written in simplified characters
        code = languages.get(name.partition("-")[0]).code
        source = seqio.TfdsDataSource(
            f"wiki40b/{name}:1.3.0", splits={split: split for split in ("train", "validation")}
        )
        add_text(f"wiki40b.mlm.{code}", source, code, data, before=[ParagraphsOfWiki40B()])


@dataclasses.dataclass(frozen=True)
class ParagraphsOfWiki40B:
    """Turn articles into paragraphs: titles, headings and the markers between them go."""

    def __call__(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Map examples of one article to examples of one `text`."""

        def split(article: dict[str, tf.Tensor]) -> tf.data.Dataset:
            text = tf.strings.regex_replace(
                article["text"], r"_START_(ARTICLE|SECTION)_\n[^\n]*|_START_PARAGRAPH_", ""
            )
            text = tf.strings.regex_replace(text, "_NEWLINE_", "\n")
            lines = tf.strings.strip(tf.strings.split(text, "\n"))
            return tf.data.Dataset.from_tensor_slices(
                {"text": tf.boolean_mask(lines, tf.strings.length(lines) > 0)}
            )

        return dataset.flat_map(split)
