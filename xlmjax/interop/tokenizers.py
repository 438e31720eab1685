"""Vocabularies of others as ours, and back: files of tokenisers against `data.vocabulary`.

XLM-R numbers `<s>`, `<pad>`, `</s>`, `<unk>` from 0 (fairseq's order), then the pieces of its
SentencePiece model, then `<mask>`; the model itself begins with `<unk>`, `<s>`, `</s>`. Ours is
the same model with its pieces in the order of those ids, so that nothing has to be shifted, and
theirs comes back from it byte for byte.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence

from sentencepiece import sentencepiece_model_pb2 as sentencepiece_model

from xlmjax.data import bpe_vocabulary
from xlmjax.data.bpe_vocabulary import BpeVocabulary
from xlmjax.data.vocabulary import BOS, EOS, MASK, PAD, UNK, SentencePieceVocabulary, Vocabulary
from xlmjax.interop.json_files import read_json
from xlmjax.interop.tokenizer_json import tokenizer_json

SENTENCEPIECE, WORDS, MERGES = "sentencepiece.bpe.model", "vocab.json", "merges.txt"
SETTINGS = "tokenizer_config.json"
OURS, TOKENIZER = "vocabulary.model", "tokenizer.json"
_FOLD = "do_lowercase_and_remove_accent"
_THEIR_ORDER = (UNK, BOS, EOS)  # of a SentencePiece model
_FAIRSEQ_ORDER = (BOS, PAD, EOS, UNK)  # of the ids
_UNUSED = "<unused{}>"
_KINDS = sentencepiece_model.ModelProto.SentencePiece


def read_vocabulary(folder: pathlib.Path, size: int) -> tuple[Vocabulary, list[str]]:
    """Return the vocabulary of a folder of transformers, of a model of `size` words, and notes.

    Raises `ValueError` where the folder has none that is known.
    """
    if (folder / SENTENCEPIECE).is_file():
        return from_fairseq((folder / SENTENCEPIECE).read_bytes(), size, folder / SENTENCEPIECE)
    if (folder / WORDS).is_file() and (folder / MERGES).is_file():
        ids: Mapping[str, int] = read_json(folder / WORDS)
        pieces = sorted(ids, key=ids.__getitem__)
        if [ids[piece] for piece in pieces] != list(range(len(ids))):
            raise ValueError(f"{folder / WORDS}: its ids are not 0, 1, 2, ...")
        settings = folder / SETTINGS
        found = read_json(settings) if settings.is_file() else {}
        merges = _lines((folder / MERGES).read_text("utf-8"))
        return _bpe(pieces, merges, found.get(_FOLD, True), size, folder / WORDS)
    raise ValueError(
        f"{folder} has neither {SENTENCEPIECE} nor {WORDS} and {MERGES}: put the tokenizer's files "
        "beside the model's, or name a vocabulary with --vocabulary"
    )


def from_fairseq(
    content: bytes, size: int, where: pathlib.Path
) -> tuple[SentencePieceVocabulary, list[str]]:
    """Return the vocabulary of an XLM-R, given its SentencePiece model and its number of words."""
    model = sentencepiece_model.ModelProto.FromString(content)
    pieces = list(model.pieces)
    if tuple(piece.piece for piece in pieces[:3]) != _THEIR_ORDER:
        raise ValueError(
            f"{where}: begins with {[piece.piece for piece in pieces[:3]]}, where XLM-R's model "
            f"has {list(_THEIR_ORDER)}"
        )
    unknown, start, end = pieces[:3]
    ordered = [start, _control(PAD), end, unknown, *pieces[3:], _control(MASK)]
    if len(ordered) > size:
        raise ValueError(f"{where}: {len(ordered):,} words with <pad> and <mask>, of the model's "
                         f"{size:,}: it is another model's")  # fmt: skip
    notes = []
    if len(ordered) < size:
        notes.append(f"{size - len(ordered):,} rows without a piece of their own: {_UNUSED}")
    filler = range(size - len(ordered))
    ordered += [_KINDS(piece=_UNUSED.format(i), type=_KINDS.UNUSED) for i in filler]
    del model.pieces[:]
    model.pieces.extend(ordered)
    return SentencePieceVocabulary(model.SerializeToString(), str(where)), notes


def to_fairseq(vocabulary: SentencePieceVocabulary) -> bytes | None:
    """Return the SentencePiece model of XLM-R that `from_fairseq` made ours of, if it did."""
    model = sentencepiece_model.ModelProto.FromString(vocabulary.model)
    pieces = list(model.pieces)
    while pieces and pieces[-1].type == _KINDS.UNUSED:
        pieces.pop()
    order = tuple(piece.piece for piece in pieces[:4])
    if order != _FAIRSEQ_ORDER or pieces[-1].piece != MASK:
        return None
    start, _, end, unknown = pieces[:4]
    del model.pieces[:]
    model.pieces.extend([unknown, start, end, *pieces[4:-1]])
    content: bytes = model.SerializeToString()
    return content


def from_dictionary(
    words: Mapping[int, str], codes: pathlib.Path, fold: bool, size: int, where: pathlib.Path
) -> tuple[BpeVocabulary, list[str]]:
    """Return the vocabulary of a file of XLM: its dictionary (id -> word), and fastBPE's codes."""
    if sorted(words) != list(range(len(words))):
        raise ValueError(f"{where}: the ids of its dictionary are not 0, 1, 2, ...")
    if not codes.is_file():
        raise ValueError(f"--codes={codes}: no such file; name the file of BPE codes")
    try:
        merges = _lines(codes.read_text("utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"--codes={codes}: no text; name the file of BPE codes") from None
    return _bpe(
        [spelling(words[index]) for index in range(len(words))],
        merges,
        fold,
        size,
        where,
    )


def spelling(word: str) -> str:
    """Return a word of XLM's dictionary, `@@` behind unless it ends one, with `</w>` where it does.

    Special words stay as they are.
    """
    if word in bpe_vocabulary.SPECIALS:
        return word
    return word.removesuffix("@@") if word.endswith("@@") else word + bpe_vocabulary.END


def _bpe(
    pieces: Sequence[str], merges: Sequence[str], fold: bool, size: int, where: pathlib.Path
) -> tuple[BpeVocabulary, list[str]]:
    notes = []
    if len(pieces) > size:
        notes.append(f"{len(pieces) - size:,} words beyond the model's {size:,} are left out")
    if len(pieces) < size:
        notes.append(f"{size - len(pieces):,} rows without a word of their own: {_UNUSED}")
    filler = [_UNUSED.format(i) for i in range(size - len(pieces))]
    content = bpe_vocabulary.serialise([*pieces[:size], *filler], merges, fold)
    return BpeVocabulary(content, str(where)), notes


def write_vocabulary(
    vocabulary: Vocabulary, folder: pathlib.Path, max_length: int, start: str
) -> list[str]:
    """Write the files of a tokenizer of transformers; returns notes.

    A text begins with the piece `start`, where the tokenizer's class does not decide it.
    """
    if isinstance(vocabulary, BpeVocabulary):
        ids = {piece: index for index, piece in enumerate(vocabulary.pieces)}
        text = json.dumps(ids, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / WORDS).write_text(text + "\n", "utf-8")
        (folder / MERGES).write_text("".join(f"{line}\n" for line in vocabulary.merges), "utf-8")
        _settings(folder, "XLMTokenizer", max_length, {_FOLD: vocabulary.fold})
        return []
    assert isinstance(vocabulary, SentencePieceVocabulary)
    theirs = to_fairseq(vocabulary)
    if theirs is not None:
        (folder / SENTENCEPIECE).write_bytes(theirs)
        kind, start = "XLMRobertaTokenizer", BOS
    else:
        (folder / OURS).write_bytes(vocabulary.model)
        kind = "PreTrainedTokenizerFast"
    # Of an XLM-R too: transformers 5 asks for it where the model is an XLM-R-XL.
    content = tokenizer_json(vocabulary, start)
    if content is None:
        return [f"no tokenizer of transformers for a SentencePiece BPE: use {OURS} itself"]
    (folder / TOKENIZER).write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    roles = {"bos": BOS, "eos": EOS, "pad": PAD, "unk": UNK, "mask": MASK}
    named = {f"{role}_token": piece for role, piece in roles.items()}
    named |= {"cls_token": start, "sep_token": EOS}
    _settings(folder, kind, max_length, named)
    return []


def _settings(folder: pathlib.Path, kind: str, max_length: int, more: Mapping[str, object]) -> None:
    content = {"tokenizer_class": kind, "model_max_length": max_length, **more}
    (folder / SETTINGS).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _control(piece: str) -> sentencepiece_model.ModelProto.SentencePiece:
    return _KINDS(piece=piece, score=0.0, type=_KINDS.CONTROL)


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n")
