"""A vocabulary made of another one: those of its pieces that the text of a run needs most.

A model that begins from a checkpoint of many languages and reads few of them needs few of its
pieces; without the others table and head are smaller, and every piece that is left keeps its vector
(`checkpoint.init_vocabulary`). Abdaoui et al. 2020, "Load What You Need".
"""

import collections
import dataclasses
import itertools

from ml_collections import ConfigDict
from sentencepiece import sentencepiece_model_pb2 as sentencepiece_model

from xlmjax.data.vocabulary import SPACE, SentencePieceVocabulary, Vocabulary
from xlmjax.preparation.vocabulary_text import Sampled, drawn_lines

_FIELD = "vocab.subset_of"
_TRAINER = sentencepiece_model.TrainerSpec
_PIECE = sentencepiece_model.ModelProto.SentencePiece
_LINES = 10_000  # tokenised at a time


@dataclasses.dataclass(frozen=True)
class Kept:
    """What became of the old vocabulary: `covered` is the share of the text's pieces that stay."""

    before: Vocabulary
    covered: float

    def __str__(self) -> str:
        return (
            f"of the {self.before.size:,} pieces of {self.before.path}; they are "
            f"{self.covered:.2%} of the pieces of the text"
        )


def take_subset(config: ConfigDict) -> tuple[Vocabulary, list[Sampled], Kept]:
    """Return the `vocab.size` pieces of `vocab.subset_of` that the drawn text needs most.

    Kept are what is no text (control and byte pieces, `<unk>`), the characters that occur, since
    without them a text would lose what it says, then by how often they occur; all in the order they
    had. A text whose pieces are all kept is cut as before. Raises `ValueError` where the old
    vocabulary is no unigram model, whose pieces alone do not need each other, or where `vocab.size`
    is larger than it, or too small for what has to stay.
    """
    vocab = config.vocab
    before = Vocabulary.load(vocab.subset_of, _FIELD)
    model = sentencepiece_model.ModelProto()
    if isinstance(before, SentencePieceVocabulary):
        model.ParseFromString(before.model)
    if model.trainer_spec.model_type != _TRAINER.UNIGRAM or not model.pieces:
        raise ValueError(
            f"{_FIELD}={vocab.subset_of} is a BPE, whose pieces are made of each other: only of a "
            "unigram model can some be left out; train a vocabulary (vocab.subset_of='')"
        )
    if vocab.size > before.size:
        raise ValueError(
            f"vocab.size={vocab.size} is more than the {before.size} pieces of {_FIELD}="
            f"{vocab.subset_of}: lower it"
        )
    lines, sample = drawn_lines(config)
    counts: collections.Counter[int] = collections.Counter()
    characters = {SPACE}
    while batch := list(itertools.islice(lines, _LINES)):
        characters.update(*batch)
        for ids in before.encode_batch(batch):
            counts.update(ids)
    needed = [
        index
        for index, piece in enumerate(model.pieces)
        if piece.type != _PIECE.NORMAL or piece.piece in characters
    ]
    if len(needed) > vocab.size:
        raise ValueError(
            f"vocab.size={vocab.size} is too small for the {len(needed)} pieces of {_FIELD}="
            f"{vocab.subset_of} that are characters of the text or none at all: raise it"
        )
    others = sorted({*range(before.size)} - {*needed}, key=lambda index: (-counts[index], index))
    kept = sorted([*needed, *others[: vocab.size - len(needed)]])
    after = sentencepiece_model.ModelProto()
    after.CopyFrom(model)
    del after.pieces[:]
    after.pieces.extend(model.pieces[index] for index in kept)
    after.trainer_spec.vocab_size = len(kept)
    covered = sum(counts[index] for index in kept) / max(counts.total(), 1)
    vocabulary = SentencePieceVocabulary(after.SerializeToString(), config.data.vocabulary)
    return vocabulary, sample, Kept(before, covered)
