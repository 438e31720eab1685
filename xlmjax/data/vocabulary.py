"""The SentencePiece vocabulary: text <-> ids, special ids by the name of the piece, fingerprint."""

import functools
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import sentencepiece

BOS, EOS, PAD, UNK, MASK = "<s>", "</s>", "<pad>", "<unk>", "<mask>"
_SPACE = "\u2581"  # what SentencePiece writes for the space before a word
SPECIAL_PIECES = (BOS, EOS, PAD, UNK, MASK)


class Vocabulary:
    """A SentencePiece model whose special ids are looked up by name, never assumed."""

    def __init__(self, model: bytes, path: str = "the given bytes"):
        """Parse a serialised model; `path` only serves the messages."""
        try:
            if not model:  # which SentencePiece takes for "load it later"
                raise RuntimeError("empty file")
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(
                f"data.vocabulary={path}: not a SentencePiece model ({error}); "
                "train one with `xlmjax vocab`"
            ) from error
        self.model = model
        self.path = path
        self.fingerprint = hashlib.sha256(model).hexdigest()[:16]
        self.size: int = self._processor.get_piece_size()
        self.bos, self.eos, self.pad, self.unk, self.mask = map(self._find, SPECIAL_PIECES)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Vocabulary":
        """Read a model file; raises `ValueError` with the path and what to run."""
        file = pathlib.Path(path)
        if not file.is_file():
            raise ValueError(
                f"data.vocabulary={path}: no such file; train one with `xlmjax vocab` or name an "
                "existing SentencePiece model"
            )
        return cls(file.read_bytes(), str(path))

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
        return np.array([piece.startswith(_SPACE) for piece in self.pieces])

    @property
    def dtype(self) -> np.dtype:
        """The smallest dtype that a token store uses for these ids."""
        return np.dtype(np.uint16 if self.size <= 1 << 16 else np.uint32)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without any delimiter."""
        return self._processor.encode(text)

    def encode_batch(self, texts: Sequence[str], num_threads: int = 1) -> list[list[int]]:
        """Return the ids of many texts; one thread, since `prepare` runs a process a core."""
        return self._processor.encode(list(texts), num_threads=num_threads)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of some ids; special ones vanish, except `<unk>` (U+2047)."""
        return self._processor.decode([int(index) for index in ids])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"Vocabulary({self.path!r}, size={self.size}, fingerprint={self.fingerprint})"

    def __reduce__(self):
        return Vocabulary, (self.model, self.path)
