"""Training of the SentencePiece vocabulary on alpha-sampled text of all languages."""

import io
import os
import pathlib
from collections.abc import Iterator

import sentencepiece
from ml_collections import ConfigDict

from xlmjax.data.vocabulary import SPECIAL_PIECES, SentencePieceVocabulary, Vocabulary
from xlmjax.preparation.vocabulary_text import MAX_BYTES, Sampled, drawn_lines

# The result depends on the number of threads, so it must not depend on the machine.
_NUM_THREADS = 16


def train(config: ConfigDict) -> tuple[Vocabulary, list[Sampled]]:
    """Train the vocabulary that `config.vocab` describes; the result depends on nothing else.

    Raises `ValueError` naming the field where the trainer cannot make what is asked for.
    """
    vocab = config.vocab
    if vocab.kind not in ("unigram", "bpe"):
        raise ValueError(f"vocab.kind={vocab.kind!r} is not one of: unigram, bpe")
    lines, sample = drawn_lines(config)
    bos, eos, pad, unk, mask = SPECIAL_PIECES
    model = io.BytesIO()
    errors: list[Exception] = []
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_noting_errors(lines, errors),
            model_writer=model,
            model_type=vocab.kind,
            vocab_size=vocab.size,
            character_coverage=vocab.character_coverage,
            byte_fallback=vocab.byte_fallback,
            # Text is normalised by `Cleaning`, so that what is decoded is what was encoded.
            normalization_rule_name="identity",
            bos_id=0,
            eos_id=1,
            pad_id=2,
            unk_id=3,
            bos_piece=bos,
            eos_piece=eos,
            pad_piece=pad,
            unk_piece=unk,
            # A control piece, unlike a user-defined one, is never found in text.
            control_symbols=[mask],
            max_sentence_length=MAX_BYTES,
            num_threads=_NUM_THREADS,
            minloglevel=1,
        )
    except RuntimeError as error:
        if errors:
            raise errors[0] from None
        raise ValueError(_explain(str(error), vocab)) from error
    return SentencePieceVocabulary(model.getvalue(), config.data.vocabulary), sample


def save(vocabulary: Vocabulary, path: str | os.PathLike[str]) -> None:
    """Write the model under a temporary name and rename it."""
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    try:
        temporary.write_bytes(vocabulary.model)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _noting_errors(lines: Iterator[str], errors: list[Exception]) -> Iterator[str]:
    """Keep an error of the text, which SentencePiece would turn into one of its own."""
    try:
        yield from lines
    except Exception as error:
        errors.append(error)
        raise


def _explain(error: str, vocab: ConfigDict) -> str:
    reason = error.rpartition("] ")[2] or error
    return (
        f"vocab.size={vocab.size}, vocab.kind={vocab.kind!r}, vocab.character_coverage="
        f"{vocab.character_coverage}: SentencePiece says: {reason.strip()}"
    )
