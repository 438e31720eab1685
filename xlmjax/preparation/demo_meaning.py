"""Meanings: what a demo sentence says before any language says it. Named tuples of English keys."""

from typing import NamedTuple

POSSESSIVES = ("my", "our", "his", "her", "their")
DEFINITE = frozenset(("", "the", "this", *POSSESSIVES))


class NounPhrase(NamedTuple):
    """A name or pronoun (no determiner), a described noun, or "it": what was just mentioned.

    Determiners are the English ones and the digits 2 to 9; "a" with a plural or a mass noun is the
    bare indefinite: cats, bread.
    """

    noun: str
    determiner: str = ""
    plural: bool = False
    adjective: str = ""
    relative: "Clause | None" = None


class Clause(NamedTuple):
    """One predication.

    Beside the verbs of the lexicon there are "be" (`quality`; with an object it compares), "be a"
    (object: a profession), "be at" (place) and "there is" (object and place; subject NOBODY).
    Inside `NounPhrase.relative` the subject or the object is the GAP that the head noun fills.
    """

    subject: NounPhrase
    verb: str
    tense: str = "present"
    negative: bool = False
    modal: str = ""
    object: NounPhrase | None = None
    recipient: NounPhrase | None = None
    place: NounPhrase | None = None
    manner: str = ""
    time: str = ""
    fronted: bool = False
    quality: str = ""
    very: bool = False
    content: "Clause | None" = None


class Joined(NamedTuple):
    """Two clauses and what joins them: and, but, or, because."""

    connective: str
    first: Clause
    second: Clause


Meaning = Clause | Joined
GAP = NounPhrase("")
NOBODY = NounPhrase("", "no")

_PERSONS = {"I": 0, "he": 1, "she": 1, "we": 2, "they": 3}


def person(phrase: NounPhrase) -> int:
    """Return 0 for I, 1 for third singular, 2 for we, 3 for third plural."""
    return _PERSONS.get(phrase.noun, 3 if phrase.plural else 1)
