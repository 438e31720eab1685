"""The vocabulary of a run as seqio sees it: same ids, loaded when first used."""

import dataclasses
import functools

import numpy as np
import seqio
import tensorflow as tf

from xlmjax.data.vocabulary import Vocabulary


class SeqioVocabulary(seqio.Vocabulary):
    """`data.vocabulary` for seqio; ids are those of the file itself, padding included.

    `language` is the code of the text's, which a BPE vocabulary tells words apart by.
    """

    def __init__(self, path: str, language: str = "en"):
        """Remember the path; a task can be registered before its vocabulary is trained."""
        super().__init__()
        self.path = path
        self.language = language

    @functools.cached_property
    def model(self) -> Vocabulary:
        """The vocabulary itself; raises `ValueError` where the file is missing or unfit."""
        return Vocabulary.load(self.path)

    @property
    def bos_id(self) -> int:
        """Id of `<s>`."""
        return self.model.bos

    @property
    def eos_id(self) -> int:
        """Id of `</s>`."""
        return self.model.eos

    @property
    def pad_id(self) -> int:
        """Id of `<pad>`; unlike seqio's own vocabularies it need not be 0."""
        return self.model.pad

    @property
    def unk_id(self) -> int:
        """Id of `<unk>`."""
        return self.model.unk

    @property
    def _base_vocab_size(self) -> int:
        return self.model.size

    def _encode(self, s: str) -> list[int]:
        return self.model.encode(s, self.language)

    def _decode(self, ids: list[int]) -> str:
        return self.model.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        def encode(text: bytes | np.ndarray) -> np.ndarray:
            # Eager TensorFlow passes an array of rank 0 where a graph passes the bytes.
            ids = self._encode(np.asarray(text, object).item().decode())
            return np.array(ids, np.int32)

        ids = tf.numpy_function(encode, [s], tf.int32)
        ids.set_shape([None])
        return ids

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        def decode(row: np.ndarray) -> bytes:
            return self.model.decode(row).encode()

        text = tf.numpy_function(decode, [ids], tf.string)
        text.set_shape([])
        return text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SeqioVocabulary):
            return False
        return self.path == other.path or self.model == other.model

    def __hash__(self) -> int:
        return hash(type(self))

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key != "model"}

    def __str__(self) -> str:
        return f"SeqioVocabulary({self.path})"


@dataclasses.dataclass(frozen=True)
class TextFeature(seqio.Feature):
    """A feature of token ids without special ones, and the language of its text."""

    add_eos: bool = False
    language: str = ""


@dataclasses.dataclass(frozen=True)
class RawFeature(seqio.Feature):
    """Text as it was given, before cleaning: a scalar string."""

    vocabulary: seqio.Vocabulary = dataclasses.field(
        default_factory=lambda: seqio.PassThroughVocabulary(size=0)
    )
    add_eos: bool = False
    dtype: tf.DType = tf.string
    rank: int = 0


@dataclasses.dataclass(frozen=True)
class LabelFeature(seqio.Feature):
    """The label of an example: a scalar, the index of one of `names`."""

    vocabulary: seqio.Vocabulary = dataclasses.field(
        default_factory=lambda: seqio.PassThroughVocabulary(size=0)
    )
    add_eos: bool = False
    rank: int = 0
    names: tuple[str, ...] = ()
