"""Swahili: the noun classes and everything that agrees with them; verbs built of prefixes.

A verb is negation + subject + tense + relative + object + stem: a-li-ye-m-saidia, who helped him.
"""

import functools
from typing import NamedTuple

from xlmjax.preparation import demo_lexicon as lexicon
from xlmjax.preparation import demo_selection as selection
from xlmjax.preparation.demo_meaning import DEFINITE, GAP, Clause, Joined, Meaning, NounPhrase


class _Concord(NamedTuple):
    """What one class puts on the words that agree with it."""

    subject: str
    adjective: str
    before_vowel: str
    possessive: str
    this: str
    relative: str
    object: str


# class: subject, adjective before a consonant and before a vowel, possessive, this, relative,
# object. "-" is nothing, "N" a nasal that depends on the stem.
_CONCORDS = {
    int(number): _Concord(*("" if mark == "-" else mark for mark in marks))
    for number, *marks in (
        row.split()
        for row in """
1   a   m   mw  w   huyu  ye   m
2   wa  wa  w   w   hawa  o    wa
3   u   m   mw  w   huu   o    u
4   i   mi  my  y   hii   yo   i
5   li  -   j   l   hili  lo   li
6   ya  ma  m   y   haya  yo   ya
7   ki  ki  ch  ch  hiki  cho  ki
8   vi  vi  vy  vy  hivi  vyo  vi
9   i   N   ny  y   hii   yo   i
10  zi  N   ny  z   hizi  zo   zi
11  u   m   mw  w   huu   o    u
""".strip().splitlines()
    )
}
_PLURAL_CLASS = {1: 2, 3: 4, 5: 6, 6: 6, 7: 8, 9: 10, 11: 10}
_PLURAL_PREFIX = {
    1: (("mwa", "wa"), ("m", "wa")), 3: (("m", "mi"),), 5: (("", "ma"),),
    7: (("ch", "vy"), ("ki", "vi")), 9: (("", ""),),
}  # fmt: skip
_POSSESSIVES = {"my": "angu", "our": "etu", "his": "ake", "her": "ake", "their": "ao"}
_NUMBERS = lexicon.NUMBERS["sw"]
_MANY = {2: "wengi", 4: "mingi", 6: "mengi", 8: "vingi", 10: "nyingi"}
_ALL = {2: "wote", 4: "yote", 6: "yote", 8: "vyote", 10: "zote"}
_PRONOUNS = {"I": "mimi", "we": "sisi", "he": "yeye", "she": "yeye", "they": "wao"}
_ADVERBS = lexicon.ADVERBS["sw"]
_TENSES = {"present": "na", "past": "li", "future": "ta"}
_MONOSYLLABIC = frozenset(("la", "nywa", "pa"))
_OF_GOODS = frozenset(("have", "buy", "sell", "steal", "count"))  # to these an animal is a thing
_VOWELS = tuple("aeiou")


def _number_class(noun: str, plural: bool) -> int:
    """Return the class a noun agrees with; names and pronouns are people."""
    cell = lexicon.NOUNS[noun].cells["sw"][0] if noun in lexicon.NOUNS else "1"
    number = 1 if cell == "kin" else int(cell)
    return _PLURAL_CLASS[number] if plural else number


def _class_of(phrase: NounPhrase) -> int:
    return _number_class(phrase.noun, phrase.plural or phrase.noun in ("we", "they"))


@functools.cache
def _noun(noun: str, plural: bool) -> str:
    cell, singular, *irregular = lexicon.NOUNS[noun].cells["sw"]
    if not plural:
        return singular
    if irregular:
        return irregular[0]
    prefixes = _PLURAL_PREFIX[1 if cell == "kin" else int(cell)]
    prefix, replaced = next(pair for pair in prefixes if singular.startswith(pair[0]))
    return replaced + singular[len(prefix) :]


def _agree(stem: str, number: int) -> str:
    """Put the adjective prefix of a class on a stem: kikubwa, nzuri, jekundu."""
    concord = _CONCORDS[number]
    if stem.startswith(_VOWELS):
        return concord.before_vowel + stem
    if concord.adjective == "N":
        if stem in ("refu", "pya", "wili"):
            return {"refu": "ndefu", "pya": "mpya", "wili": "mbili"}[stem]
        if stem in ("tatu", "nne", "tano", "nane"):
            return stem
        nasal = "n" if stem[0] in "dgz" else "m" if stem[0] in "bv" else ""
        return nasal + stem
    if stem == "pya" and number == 5:
        return "jipya"
    return concord.adjective + stem


@functools.cache
def _adjective(quality: str, number: int) -> str:
    """Return an adjective beside a noun of a class."""
    stem, *plural = lexicon.ADJECTIVES[quality]["sw"]
    concord = _CONCORDS[number]
    if stem.startswith("-a "):
        return f"{concord.possessive}a {stem[3:]}"
    if stem.startswith("-enye "):
        return ("mw" if number == 1 else concord.possessive) + stem[1:]
    if stem.startswith("-"):
        return _agree(stem[1:], number)
    if stem.startswith("="):
        return f"{concord.subject}li{concord.relative}{stem[1:]}"
    return plural[0] if plural and number == 2 else stem


@functools.cache
def _plain(noun: str, determiner: str, plural: bool, adjective: str) -> str:
    if determiner in ("", "it"):
        return noun if noun in lexicon.NAMES and not determiner else ""
    number = _number_class(noun, plural)
    concord = _CONCORDS[number]
    words = [_noun(noun, plural)]
    if determiner in _POSSESSIVES:
        kin = lexicon.NOUNS[noun].cells["sw"][0] == "kin"
        prefix = ("z" if plural else "y") if kin else concord.possessive
        words.append(prefix + _POSSESSIVES[determiner])
    if determiner == "this":
        words.append(concord.this)
    described = _adjective(adjective, number) if adjective else ""
    phrasal = adjective and lexicon.ADJECTIVES[adjective]["sw"][0].startswith(
        ("-a ", "-enye ", "=")
    )
    if not phrasal:
        words.append(described)
    if determiner in _NUMBERS:
        stem = _NUMBERS[determiner]
        words.append(_agree(stem[1:], number) if stem.startswith("-") else stem)
    elif determiner == "all":
        words.append(_ALL[number])
    elif determiner == "many":
        words.append(_MANY[number])
    elif determiner == "every":
        words.insert(0, "kila")
    elif determiner == "some":
        words.insert(0, "baadhi ya")
    if phrasal:
        words.append(described)
    return " ".join(word for word in words if word)


def _phrase(phrase: NounPhrase) -> str:
    text = _plain(*phrase[:4])
    if phrase.relative is None:
        return text
    return f"{text} {_relative(phrase.relative, phrase)}"


def _place(place: NounPhrase) -> str:
    """Return the locative in -ni, or "kwenye" before a noun that has company."""
    if place.determiner == "the" and not place.adjective:
        return _noun(place.noun, False) + "ni"
    return "kwenye " + _phrase(place)


class _Subject(NamedTuple):
    """The marks of a subject on its verb."""

    positive: str
    negative: str
    here: str


@functools.cache
def _subject_marks(noun: str, number: int) -> _Subject:
    if noun in ("I", "we"):
        return _Subject("ni", "si", "ni") if noun == "I" else _Subject("tu", "hatu", "tu")
    mark = _CONCORDS[number].subject
    return _Subject(mark, "ha" if number == 1 else "ha" + mark, "yu" if number == 1 else mark)


def _object_mark(clause: Clause, stem: str) -> str:
    """Return the mark of a recipient or of a definite living object."""
    thing = clause.recipient or clause.object
    if thing is None or thing is GAP:
        return ""
    if thing.noun not in selection.ANIMATE and thing.noun not in lexicon.NAMES:
        return ""
    if not clause.recipient and (clause.verb in _OF_GOODS or thing.determiner not in DEFINITE):
        return ""
    mark = _CONCORDS[_class_of(thing)].object
    return "mw" if mark == "m" and stem.startswith(_VOWELS) else mark


@functools.cache
def _finite(stem: str, subject: _Subject, tense: str, negative: bool, mark: str) -> str:
    """Return a finite verb: alinunua, hakununua, hanunui."""
    ku = "ku" if stem in _MONOSYLLABIC and not mark else ""
    if not negative:
        return subject.positive + _TENSES[tense] + ku + mark + stem
    if tense == "past":
        return subject.negative + "ku" + mark + stem
    if tense == "future":
        return subject.negative + "ta" + ku + mark + stem
    head, space, rest = stem.partition(" ")
    head = head[:-1] + "i" if head.endswith("a") else head
    return subject.negative + mark + head + space + rest


@functools.cache
def _have(subject: _Subject, tense: str, negative: bool) -> str:
    """Return "has": ana, hana, alikuwa na, hakuwa na."""
    if tense == "present":
        return (subject.negative if negative else subject.positive) + "na"
    return _be(subject, tense, negative) + " na"


@functools.cache
def _be(subject: _Subject, tense: str, negative: bool) -> str:
    if tense == "present":
        return "si" if negative else "ni"
    if tense == "past":
        return f"{subject.negative}kuwa" if negative else f"{subject.positive}likuwa"
    return (subject.negative if negative else subject.positive) + "takuwa"


def _infinitive(stem: str, mark: str) -> str:
    return "kw" + stem if stem == "enda" else f"ku{mark}{stem}"


def _verb(clause: Clause, subject: _Subject) -> str:
    """Return the verb group of a clause that is not a relative one."""
    verb, tense, negative = clause.verb, clause.tense, clause.negative
    if verb == "have":
        return _have(subject, tense, negative)
    stem = lexicon.VERBS[verb]["sw"]
    mark = _object_mark(clause, stem)
    if clause.modal:
        modal = _finite(lexicon.VERBS[clause.modal]["sw"], subject, tense, negative, "")
        return f"{modal} {_infinitive(stem, mark)}"
    return _finite(stem, subject, tense, negative, mark)


def _relative_verb(clause: Clause, subject: _Subject, relative: str) -> str:
    """Return the verb of a positive relative clause: anayenunua, alichonunua, aliye na."""
    if clause.verb == "have":
        middle = {"present": "li", "past": "li", "future": "taka"}[clause.tense]
        be = "" if clause.tense == "present" else "kuwa"
        return f"{subject.positive}{middle}{relative}{be} na"
    middle = {"present": "na", "past": "li", "future": "taka"}[clause.tense]
    stem = lexicon.VERBS[clause.verb]["sw"]
    mark = _object_mark(clause, stem)
    if clause.modal:
        modal = lexicon.VERBS[clause.modal]["sw"]
        return f"{subject.positive}{middle}{relative}{modal} {_infinitive(stem, mark)}"
    ku = "ku" if stem in _MONOSYLLABIC and not mark else ""
    return f"{subject.positive}{middle}{relative}{ku}{mark}{stem}"


def _relative(clause: Clause, head: NounPhrase) -> str:
    relative = _CONCORDS[_class_of(head)].relative
    if clause.object is GAP:
        subject = clause.subject
        marks = _subject_marks(subject.noun, _class_of(subject))
        return f"{_relative_verb(clause, marks, relative)} {_phrase(subject)}".strip()
    marks = _subject_marks(head.noun, _class_of(head))
    return " ".join((_relative_verb(clause, marks, relative), *_complements(clause)))


def _complements(clause: Clause) -> list[str]:
    words = []
    if clause.recipient:
        words.append(_phrase(clause.recipient))
    if clause.object and not clause.quality:
        words.append(_phrase(clause.object))
    if clause.manner:
        words.append(_ADVERBS[clause.manner])
    if clause.place:
        words.append(_place(clause.place))
    if clause.time and not clause.fronted:
        words.append(_ADVERBS[clause.time])
    if clause.content:
        words.append("kwamba " + _clause(clause.content))
    return words


def _predicate(clause: Clause, subject: _Subject, number: int) -> str:
    """Return what the verb to be says: ni kubwa, ana furaha, amechoka, yuko."""
    tense, negative = clause.tense, clause.negative
    if clause.verb == "be at":
        here = {"ha": "hayu"}.get(subject.negative, subject.negative) if negative else subject.here
        return here + "ko" if tense == "present" else _be(subject, tense, negative)
    if clause.verb == "be a":
        return _be(subject, tense, negative)
    stem = lexicon.ADJECTIVES[clause.quality]["sw"][0]
    if stem.startswith("="):
        perfect = f"{subject.positive}me{stem[1:]}"
        if tense == "present":
            text = f"{subject.negative}ja{stem[1:]}" if negative else perfect
        else:
            text = f"{_be(subject, tense, negative)} {perfect}"
    elif stem.startswith("-enye "):
        more = " zaidi" if clause.object else ""
        text = f"{_have(subject, tense, negative)} {stem[6:]}{more}"
    else:
        text = f"{_be(subject, tense, negative)} {_adjective(clause.quality, number)}"
    if clause.object:
        return f"{text} kuliko {_phrase(clause.object)}"
    return f"{text} sana" if clause.very else text


def _existence(tense: str, negative: bool) -> str:
    if tense == "present":
        return "hakuna" if negative else "kuna"
    be = "kulikuwa" if tense == "past" else "kutakuwa"
    negated = "hakukuwa" if tense == "past" else "hakutakuwa"
    return f"{negated if negative else be} na"


def _clause(clause: Clause) -> str:
    subject, verb = clause.subject, clause.verb
    words = [_ADVERBS[clause.time]] if clause.fronted else []
    if subject.determiner == "no" and verb != "there is":
        name = _plain(subject.noun, "the", False, subject.adjective)
        return " ".join((*words, "hakuna", name, _relative(clause, subject)))
    number = _class_of(subject)
    marks = _subject_marks(subject.noun, number)
    if verb == "there is":
        predicate, name = _existence(clause.tense, clause.negative), ""
    elif verb in lexicon.VERBS:
        predicate, name = _verb(clause, marks), _phrase(subject)
    else:
        predicate, name = _predicate(clause, marks, number), _phrase(subject)
        if predicate.split()[0] in ("ni", "si"):  # these two show no person
            name = name or _PRONOUNS.get(subject.noun, "")
    return " ".join(word for word in (*words, name, predicate, *_complements(clause)) if word)


_CONNECTIVES = {"and": " na", "but": ", lakini", "or": " au", "because": " kwa sababu"}


def realise(meaning: Meaning) -> str:
    """Say a meaning in Swahili, without the capital and the full stop."""
    if isinstance(meaning, Joined):
        first, second = _clause(meaning.first), _clause(meaning.second)
        return f"{first}{_CONNECTIVES[meaning.connective]} {second}"
    return _clause(meaning)
