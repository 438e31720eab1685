"""The text that a vocabulary is made for: lines of all languages, sampled with alpha."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
from ml_collections import ConfigDict

from xlmjax.preparation import corpora
from xlmjax.preparation.cleaning import Cleaning
from xlmjax.preparation.corpora import Corpus

# SentencePiece leaves out longer lines than it is told to expect: cut them instead.
_MAX_CHARACTERS = 2_000
MAX_BYTES = 4 * _MAX_CHARACTERS  # of a line


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


def drawn_lines(config: ConfigDict) -> tuple[Iterator[str], list[Sampled]]:
    """Return the lines that `config.vocab` draws, cleaned and shuffled, and how many of each.

    They depend on nothing else. Raises `ValueError` naming the field that is wrong.
    """
    data, vocab = config.data, config.vocab
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
    return shuffled(lines, config.seed), sample


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
