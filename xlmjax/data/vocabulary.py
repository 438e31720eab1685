"""Vocabularies: text <-> ids, special ids by the name of the piece, fingerprint.

A vocabulary is one file: a SentencePiece model, or the words and merges of a BPE of XLM.
"""

import abc
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import sentencepiece

BOS, EOS, PAD, UNK, MASK = "<s>", "</s>", "<pad>", "<unk>", "<mask>"
SPACE = "\u2581"  # what SentencePiece writes for the space before a word
SPECIAL_PIECES = (BOS, EOS, PAD, UNK, MASK)
KEPT_FILES = ("vocabulary.model", "vocabulary.json")  # in workdirs: of SentencePiece, of a BPE


class Vocabulary(abc.ABC):
    """Pieces and their ids; the special ids are looked up by name, never assumed.

    model: the content of its file, of which `fingerprint` is a digest.
    """

    size: int
    bos: int
    eos: int
    pad: int
    unk: int
    mask: int

    def __init__(self, model: bytes, path: str = "the given bytes"):
        """Remember a file's content; `path` only serves the messages."""
        self.model = model
        self.path = path
        self.fingerprint = hashlib.sha256(model).hexdigest()[:16]

    @staticmethod
    def load(path: str | os.PathLike[str], field: str = "data.vocabulary") -> "Vocabulary":
        """Read a file of either kind; raises `ValueError` with the path and what to run.

        `field` is what errors about a missing file call it.
        """
        file = pathlib.Path(path)
        if not file.is_file():
            raise ValueError(
                f"{field}={path}: no such file; train one with `xlmjax vocab`, or name an existing "
                f"one (paths begin in {pathlib.Path.cwd()})"
            )
        return Vocabulary.from_bytes(file.read_bytes(), str(path))

    @staticmethod
    def from_bytes(content: bytes, path: str) -> "Vocabulary":
        """Return the vocabulary of a file's content; `path` only serves the messages."""
        from xlmjax.data.bpe_vocabulary import BpeVocabulary

        # SentencePiece models are protocol buffers, which do not begin with a brace.
        kind = BpeVocabulary if content.startswith(b"{") else SentencePieceVocabulary
        return kind(content, path)

    @property
    def kept_file(self) -> str:
        """The name of its copy in a workdir."""
        return KEPT_FILES[self.model.startswith(b"{")]

    @property
    @abc.abstractmethod
    def special_ids(self) -> tuple[int, ...]:
        """Ids that no text encodes to by its spelling, that of `<unk>` included."""

    @property
    @abc.abstractmethod
    def pieces(self) -> tuple[str, ...]:
        """The spelling of every id."""

    @property
    @abc.abstractmethod
    def word_starts(self) -> np.ndarray | None:
        """Which entries begin a word, bool [v]; None where spelling does not tell."""

    @property
    def dtype(self) -> np.dtype:
        """The smallest dtype that a token store uses for these ids."""
        return np.dtype(np.uint16 if self.size <= 1 << 16 else np.uint32)

    def encode(self, text: str, language: str = "en") -> list[int]:
        """Return the ids of a text, without any delimiter.

        `language` is its code, which decides how a BPE's words are told apart.
        """
        return self.encode_batch([text], language)[0]

    @abc.abstractmethod
    def encode_batch(
        self, texts: Sequence[str], languages: str | Sequence[str] = "en", num_threads: int = 1
    ) -> list[list[int]]:
        """Return the ids of many texts, all in one language or one each.

        One thread, since `prepare` runs a process a core.
        """

    @abc.abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of some ids; special ones vanish, except `<unk>` (U+2047)."""

    @abc.abstractmethod
    def split(self, piece: str) -> tuple[int, ...]:
        """Return the ids of a piece of a SentencePiece model, in which U+2581 is a space."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({self.path!r}, size={self.size}, fingerprint={self.fingerprint})"

    def __reduce__(self):
        return type(self), (self.model, self.path)


class SentencePieceVocabulary(Vocabulary):
    """A SentencePiece model (Kudo & Richardson 2018); the language of a text does not matter."""

    def __init__(self, model: bytes, path: str = "the given bytes"):
        """Parse a serialised model; `path` only serves the messages."""
        super().__init__(model, path)
        try:
            if not model:  # which SentencePiece takes for "load it later"
                raise RuntimeError("empty file")
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(
                f"data.vocabulary={path}: not a SentencePiece model ({error}); "
                "train one with `xlmjax vocab`"
            ) from error
        self.size = self._processor.get_piece_size()
        self.bos, self.eos, self.pad, self.unk, self.mask = map(self._find, SPECIAL_PIECES)

    def _find(self, piece: str) -> int:
        index: int = self._processor.piece_to_id(piece)
        # The id of an absent piece is that of the unknown piece, whatever its name.
        if self._processor.id_to_piece(index) != piece:
            raise ValueError(
                f"data.vocabulary={self.path}: the model has no piece {piece!r}; every vocabulary "
                f"needs {', '.join(SPECIAL_PIECES)}: train one with `xlmjax vocab`"
            )
        return index

    @functools.cached_property
    def special_ids(self) -> tuple[int, ...]:
        """Ids that no text encodes to by its spelling: control pieces and `<unk>`; not bytes."""
        processor = self._processor
        return tuple(
            index
            for index in range(self.size)
            if processor.is_control(index) or processor.is_unknown(index)
        )

    @functools.cached_property
    def pieces(self) -> tuple[str, ...]:
        """The spelling of every id."""
        return tuple(self._processor.id_to_piece(index) for index in range(self.size))

    @functools.cached_property
    def word_starts(self) -> np.ndarray:
        """Which entries begin a word, bool [v]; in text without spaces a sentence is one word."""
        return np.array([piece.startswith(SPACE) for piece in self.pieces])

    def encode_batch(
        self, texts: Sequence[str], languages: str | Sequence[str] = "en", num_threads: int = 1
    ) -> list[list[int]]:
        """Return the ids of many texts, whatever their languages."""
        return self._processor.encode(list(texts), num_threads=num_threads)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of some ids; special ones vanish, except `<unk>` (U+2047)."""
        return self._processor.decode([int(index) for index in ids])

    def split(self, piece: str) -> tuple[int, ...]:
        """Return the ids of a piece of another model, in which U+2581 is a space."""
        return tuple(self._without_prefix.encode(piece.replace(SPACE, " ")))

    @functools.cached_property
    def _without_prefix(self) -> sentencepiece.SentencePieceProcessor:
        """The model, but it puts no space before a text and keeps all that are there."""
        processor = sentencepiece.SentencePieceProcessor(model_proto=self.model)
        processor.override_normalizer_spec(add_dummy_prefix=False, remove_extra_whitespaces=False)
        return processor


class UntrainedVocabulary(Vocabulary):
    """A vocabulary of which no more than the size is known: it compiles a step, it encodes nothing.

    The special ids are those that `xlmjax vocab` gives.
    """

    def __init__(self, size: int):
        super().__init__(b"", f"untrained, {size} pieces")
        self.size = size
        self.fingerprint = "untrained"
        self.bos, self.eos, self.pad, self.unk, self.mask = range(len(SPECIAL_PIECES))

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of the special pieces."""
        return tuple(range(len(SPECIAL_PIECES)))

    @property
    def word_starts(self) -> np.ndarray:
        """No entry is known to begin a word, bool [v]."""
        return np.zeros(self.size, bool)

    @property
    def pieces(self) -> tuple[str, ...]:
        """None is known: raises `ValueError`."""
        raise self._untrained()

    def encode_batch(
        self, texts: Sequence[str], languages: str | Sequence[str] = "en", num_threads: int = 1
    ) -> list[list[int]]:
        """Raise `ValueError`: there is nothing to encode with."""
        raise self._untrained()

    def decode(self, ids: Iterable[int]) -> str:
        """Raise `ValueError`: there is nothing to decode with."""
        raise self._untrained()

    def split(self, piece: str) -> tuple[int, ...]:
        """Raise `ValueError`: there is nothing to split with."""
        raise self._untrained()

    def _untrained(self) -> ValueError:
        return ValueError(f"a vocabulary that is {self.path} has no spelling: run `xlmjax vocab`")
