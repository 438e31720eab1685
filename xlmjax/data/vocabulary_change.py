"""From the pieces of one vocabulary to those of another: what the rows of a table become.

A piece of the new vocabulary that the old one has too takes its row. Any other one takes the mean
of the rows of those pieces that the old vocabulary splits its text into, as in FOCUS's baseline and
WECHSEL's (Minixhofer et al. 2022) for pieces that overlap; `<unk>` among them does not count. What
has none of them is new.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Int

from xlmjax.data.vocabulary import SentencePieceVocabulary, Vocabulary

_ROLES = ("bos", "eos", "pad", "unk", "mask")


@dataclasses.dataclass(frozen=True)
class VocabularyChange:
    """Two vocabularies, of a checkpoint and of the run that starts from it.

    Raises `ValueError` where the new one is not a SentencePiece model: of a BPE's pieces alone the
    text is not known.
    """

    before: Vocabulary
    after: Vocabulary

    def __post_init__(self) -> None:
        if not isinstance(self.after, SentencePieceVocabulary):
            raise ValueError(
                f"data.vocabulary={self.after.path}: a checkpoint moves to a new SentencePiece "
                "vocabulary only, and this is a BPE"
            )

    @functools.cached_property
    def sources(self) -> list[tuple[int, ...]]:
        """The old pieces whose rows make that of each new piece; none for a new one."""
        special = {getattr(self.after, role): (getattr(self.before, role),) for role in _ROLES}
        shared = {}
        if isinstance(self.before, SentencePieceVocabulary):
            shared = {piece: (index,) for index, piece in enumerate(self.before.pieces)}
        controls = set(self.after.special_ids)
        found: list[tuple[int, ...]] = []
        for index, piece in enumerate(self.after.pieces):
            if index in special:
                found.append(special[index])
            elif piece in shared:
                found.append(shared[piece])
            else:
                parts = () if index in controls else self.before.split(piece)
                found.append(tuple(part for part in parts if part != self.before.unk))
        return found

    @property
    def gathered(self) -> tuple[Int[np.ndarray, "p"], Int[np.ndarray, "p"]]:
        """Old pieces, and the new one that each is a part of, in order."""
        counts = [len(parts) for parts in self.sources]
        pieces = np.array([part for parts in self.sources for part in parts], np.int32)
        return pieces, np.repeat(np.arange(len(counts), dtype=np.int32), counts)

    def __str__(self) -> str:
        """Return how many pieces were copied, averaged and are new."""
        counts = np.array([len(parts) for parts in self.sources])
        kinds = ("copied", counts == 1), ("means of several", counts > 1), ("new", counts == 0)
        return "pieces of the vocabulary: " + ", ".join(
            f"{np.count_nonzero(which):,} {kind}" for kind, which in kinds
        )
