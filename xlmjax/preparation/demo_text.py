"""Text for the demo: sentences, translations and inference examples from a hand-written grammar.

One abstract meaning is said in five languages, so translations are exact by construction. Example i
of a stream is a function of (seed, split, i): O(1), no state, the same on every machine. The splits
share no clause core (see `demo_sampling.split_of`), so no test sentence was seen in training in any
language.
"""

from collections.abc import Callable, Iterator

from xlmjax.preparation import (
    demo_english,
    demo_french,
    demo_german,
    demo_inference,
    demo_sampling,
    demo_spanish,
    demo_swahili,
)
from xlmjax.preparation.demo_meaning import Meaning
from xlmjax.preparation.demo_sampling import SPLITS, Draw

_REALISERS: dict[str, Callable[[Meaning], str]] = {
    "de": demo_german.realise,
    "en": demo_english.realise,
    "es": demo_spanish.realise,
    "fr": demo_french.realise,
    "sw": demo_swahili.realise,
}
LANGUAGES = tuple(_REALISERS)
LABELS = demo_inference.LABELS


def say(meaning: Meaning, language: str) -> str:
    """Say a meaning as a sentence, with its capital and full stop."""
    text = _realiser(language)(meaning)
    return f"{text[0].upper()}{text[1:]}."


def _realiser(language: str) -> Callable[[Meaning], str]:
    if language not in _REALISERS:
        raise KeyError(f"unknown demo language {language!r}; known: {', '.join(LANGUAGES)}")
    return _REALISERS[language]


def _draws(stream: str, split: str, count: int, seed: int) -> Iterator[Draw]:
    if split not in SPLITS:
        raise KeyError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    return (Draw(f"{seed}/{stream}/{index}", split) for index in range(count))


def texts(language: str, split: str, count: int, seed: int = 0) -> Iterator[str]:
    """Yield texts of one language: a sentence, or two about one situation, as real text has them.

    The second of two follows from the first or goes with it. Every language draws its own.
    """
    for draw in _draws(language, split, count, seed):
        if draw.percent(60):
            first, second, _ = draw.pick(demo_inference.examples(draw, ("entailment", "neutral")))
            yield f"{say(first, language)} {say(second, language)}"
        else:
            yield say(demo_sampling.meaning(draw), language)


def translations(split: str, count: int, seed: int = 0) -> Iterator[dict[str, str]]:
    """Yield one meaning after another in all languages: {code: sentence}."""
    for draw in _draws("parallel", split, count, seed):
        meaning = demo_sampling.meaning(draw)
        yield {language: say(meaning, language) for language in LANGUAGES}


def pairs(a: str, b: str, split: str, count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the same translations as `translations`, of two languages only."""
    for draw in _draws("parallel", split, count, seed):
        meaning = demo_sampling.meaning(draw)
        yield say(meaning, a), say(meaning, b)


def inference(
    language: str, split: str, count: int, seed: int = 0
) -> Iterator[tuple[str, str, str]]:
    """Yield (premise, hypothesis, label); the languages are translations of each other, as in XNLI.

    Three examples in a row share their hypothesis, one of each label in a random order.
    """
    triples = _draws("inference", split, -(-count // 3), seed)
    for index, draw in enumerate(triples):
        for premise, hypothesis, label in demo_inference.examples(draw)[: count - 3 * index]:
            yield say(premise, language), say(hypothesis, language), label
