"""Training of the SentencePiece vocabulary on alpha-sampled text of all languages."""

import collections
import dataclasses
import io
import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
import sentencepiece
from ml_collections import ConfigDict

from xlmjax.data.vocabulary import SPECIAL_PIECES, SentencePieceVocabulary, Vocabulary
from xlmjax.preparation import corpora
from xlmjax.preparation.cleaning import Cleaning
from xlmjax.preparation.corpora import Corpus

# SentencePiece leaves out longer lines than it is told to expect: cut them instead.
_MAX_CHARACTERS = 2_000
_MAX_BYTES = 4 * _MAX_CHARACTERS
# The result depends on the number of threads, so it must not depend on the machine.
_NUM_THREADS = 16


@dataclasses.dataclass(frozen=True)
class Sampled:
    """How much of a language the trainer sees: `lines` there are, `drawn` of them it is given."""

    language: str
    lines: int
    drawn: int
    share: float


def alpha_sample(lines: dict[str, int], alpha: float, max_lines: int) -> list[Sampled]:
    """Divide the lines that the trainer sees among languages, q ~ p^alpha.

    Their number is that of all lines there are, at most `max_lines`; rounding is by largest
    remainders. A language may be given more lines than it has: they are then repeated.
    """
    counts = np.array(list(lines.values()), np.float64)
    weights = (counts / counts.sum()) ** alpha
    shares = weights / weights.sum()
    total = int(min(counts.sum(), max_lines))
    drawn = np.floor(shares * total).astype(int)
    order = np.argsort(drawn - shares * total, kind="stable")
    drawn[order[: total - drawn.sum()]] += 1
    return [
        Sampled(language, lines[language], int(number), float(share))
        for language, number, share in zip(lines, drawn, shares, strict=True)
    ]


def training_text(data: ConfigDict) -> dict[str, list[tuple[Corpus, int]]]:
    """Return for every language its corpora, and on which side of each it is."""
    text: dict[str, list[tuple[Corpus, int]]] = {
        code: [] for code in sorted(corpora.languages_of(data))
    }
    if data.train.text:
        for code in text:
            text[code].append((corpora.text_corpus(data, "train", code), 0))
    if data.train.parallel:
        for pair in corpora.pairs_of(data):
            corpus = corpora.pair_corpus(data, "train", pair)
            for side, code in enumerate(pair):
                text[code].append((corpus, side))
    if missing := [code for code, found in text.items() if not found]:
        raise ValueError(f"data.train: no text for {', '.join(missing)}: text and pairs are empty")
    return text


def train(config: ConfigDict) -> tuple[Vocabulary, list[Sampled]]:
    """Train the vocabulary that `config.vocab` describes; the result depends on nothing else.

    Raises `ValueError` naming the field where the trainer cannot make what is asked for.
    """
    data, vocab = config.data, config.vocab
    if vocab.kind not in ("unigram", "bpe"):
        raise ValueError(f"vocab.kind={vocab.kind!r} is not one of: unigram, bpe")
    if vocab.alpha < 0 or vocab.max_lines < 1:
        raise ValueError(
            f"vocab.alpha={vocab.alpha} must be 0 or more, vocab.max_lines={vocab.max_lines} 1 or "
            "more"
        )
    text = training_text(data)
    counts = {code: sum(len(corpus) for corpus, _ in found) for code, found in text.items()}
    sample = alpha_sample(counts, vocab.alpha, vocab.max_lines)
    generators = np.random.default_rng(config.seed).spawn(len(sample))
    cleaning = Cleaning.from_config(data)
    lines = (
        line
        for part, generator in zip(sample, generators, strict=True)
        for line in _draw(text[part.language], part, cleaning, generator)
    )
    bos, eos, pad, unk, mask = SPECIAL_PIECES
    model = io.BytesIO()
    errors: list[Exception] = []
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_noting_errors(shuffled(lines, config.seed), errors),
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
            max_sentence_length=_MAX_BYTES,
            num_threads=_NUM_THREADS,
            minloglevel=1,
        )
    except RuntimeError as error:
        if errors:
            raise errors[0] from None
        raise ValueError(_explain(str(error), vocab)) from error
    return SentencePieceVocabulary(model.getvalue(), data.vocabulary), sample


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


def format_sample(sample: list[Sampled]) -> str:
    """Return the table of lines and shares a language."""
    total = sum(part.lines for part in sample)
    rows = [f"{'language':<9}{'lines':>13}{'of corpus':>11}{'drawn':>13}{'of sample':>11}"]
    rows.extend(
        f"{part.language:<9}{part.lines:>13,}{part.lines / total:>11.2%}{part.drawn:>13,}"
        f"{part.share:>11.2%}"
        for part in sample
    )
    return "\n".join(rows)


def _draw(
    found: list[tuple[Corpus, int]],
    part: Sampled,
    cleaning: Cleaning,
    generator: np.random.Generator,
) -> Iterator[str]:
    """Yield the drawn lines of a language, each as often as the next give or take once."""
    repeats, extra = divmod(part.drawn, part.lines)
    again = generator.choice(part.lines, extra, replace=False, shuffle=False)
    chosen = collections.deque(np.sort(again).tolist())
    number = 0
    for corpus, side in found:
        for example in corpus.examples(0, len(corpus)):
            times = repeats
            if chosen and chosen[0] == number:
                chosen.popleft()
                times += 1
            number += 1
            raw = example[side]
            if not times or raw is None:
                continue
            text = cleaning(raw.decode())
            if cleaning.fault(text) is None:
                for _ in range(times):
                    for start in range(0, len(text), _MAX_CHARACTERS):
                        yield text[start : start + _MAX_CHARACTERS]


def shuffled(lines: Iterable[str], seed: int, window: int = 10_000) -> Iterator[str]:
    """Yield lines in another order, `window` of them held at a time.

    Where a corpus comes twice, as text and as a side of pairs, lines that follow each other in both
    places would be one long repeat, of which SentencePiece looks at every part: hours, not seconds.
    """
    generator = np.random.default_rng(seed)
    held: list[str] = []
    for line in lines:
        if len(held) < window:
            held.append(line)
            continue
        place = int(generator.integers(window))
        yield held[place]
        held[place] = line
    generator.shuffle(held)
    yield from held


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
