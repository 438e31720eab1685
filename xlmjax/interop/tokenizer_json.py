"""A SentencePiece unigram model as the `tokenizer.json` of Hugging Face's tokenizers, ids kept."""

import base64
from typing import Any

from sentencepiece import sentencepiece_model_pb2 as sentencepiece_model

from xlmjax.data.vocabulary import EOS, SentencePieceVocabulary

_SPACE = "\u2581"
_UNIGRAM = sentencepiece_model.TrainerSpec.UNIGRAM


def tokenizer_json(vocabulary: SentencePieceVocabulary, start: str) -> dict[str, Any] | None:
    """Return the content of the file; None for a model that is no unigram model.

    Texts come out as `start x </s>`, pairs as `start x </s> </s> y </s>`.
    """
    model = sentencepiece_model.ModelProto.FromString(vocabulary.model)
    if model.trainer_spec.model_type != _UNIGRAM:
        return None
    ids = {piece: index for index, piece in enumerate(vocabulary.pieces)}
    normalizers: list[dict[str, Any]] = []
    if charsmap := model.normalizer_spec.precompiled_charsmap:
        encoded = base64.b64encode(charsmap).decode()
        normalizers.append({"type": "Precompiled", "precompiled_charsmap": encoded})
    if model.normalizer_spec.remove_extra_whitespaces:
        normalizers.append({"type": "Strip", "strip_left": True, "strip_right": True})
        spaces = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
        normalizers.append(spaces)
    metaspace = {"replacement": _SPACE, "prepend_scheme": "always", "split": True}

    def special(piece: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": piece, "type_id": 0}}

    text, other = ({"Sequence": {"id": which, "type_id": 0}} for which in "AB")
    first = [special(start), text, special(EOS)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": vocabulary.pieces[index],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index in vocabulary.special_ids
        ],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": {"type": "Metaspace", **metaspace},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": first,
            "pair": [*first, special(EOS), other, special(EOS)],
            "special_tokens": {
                piece: {"id": piece, "ids": [ids[piece]], "tokens": [piece]}
                for piece in (start, EOS)
            },
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "Unigram",
            "unk_id": vocabulary.unk,
            "vocab": [[piece.piece, piece.score] for piece in model.pieces],
            "byte_fallback": bool(model.trainer_spec.byte_fallback),
        },
    }
