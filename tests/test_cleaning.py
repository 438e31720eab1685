"""Cleaning: NFC and white space, XLM's lower-casing and accent removal, what is dropped and why."""

import unicodedata

import pytest

from xlmjax.preparation.cleaning import Cleaning

XLM = Cleaning(lowercase=True, strip_accents=True)


def lowercase_and_remove_accent(text: str) -> str:
    """The rule of XLM's tools/lowercase_and_remove_accent.py, spelled out one character a time."""
    decomposed = unicodedata.normalize("NFD", text.rstrip().lower())
    kept = [character for character in decomposed if unicodedata.category(character) != "Mn"]
    return "".join(kept).lower()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Cafe\u0301", "Caf\u00e9"),  # composed
        ("\u00a0a \t\u3000b\u2028c\r\n", "a b c"),  # every Unicode white space is one space
        ("\u1e9b\u0323", "\u1e9b\u0323"),  # NFC, not NFKC: compatibility characters stay
        ("\uac00", "\uac00"),
        ("  ", ""),
    ],
)
def test_text_is_composed_and_its_spaces_are_single(text, expected):
    assert Cleaning()(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Élève ÀÇ", "eleve ac"),
        ("İstanbul", "istanbul"),  # the dot above that lower-casing leaves is a mark
        ("Việt Nam", "viet nam"),
        ("हिन्दी", "हिनदी"),  # the virama is Mn; the vowel signs here are Mc and stay
        ("Größe", "große"),
        ("ЁЛКА", "елка"),
        ("مُحَمَّد", "محمد"),
        ("한", "\u1112\u1161\u11ab"),  # decomposed, and XLM does not compose it again
    ],
)
def test_lowercase_and_accents_are_those_of_xlm(text, expected):
    assert XLM(text) == expected == lowercase_and_remove_accent(text)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"lowercase": True}, "élan é"), ({"strip_accents": True}, "Elan E")],
)
def test_either_alone(options, expected):
    assert Cleaning(**options)("Élan  É") == expected


def test_a_lone_mark_leaves_no_second_space():
    assert XLM("a \u0301 b") == "a b"


@pytest.mark.parametrize(
    ("words", "held_out", "fault"),
    [(3, False, None), (4, False, "max_words"), (4, True, None), (0, False, "empty")],
)
def test_faults(words, held_out, fault):
    assert Cleaning(max_words=3).fault(" ".join(["x"] * words), held_out) == fault


def test_one_long_word_is_not_too_many():
    assert Cleaning(max_words=3).fault("x" * 100) is None


def test_no_limit_keeps_all():
    assert Cleaning(max_words=0).fault("x " * 500 + "x") is None
