"""Draws meanings: which words, in which roles, with which circumstances.

`Draw` is a stream of random digits that is a function of its label alone, so the meaning of index i
costs O(1) and needs no state. Every function below takes one and returns a meaning.
"""

import functools
import hashlib
import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from xlmjax.preparation import demo_lexicon as lexicon
from xlmjax.preparation import demo_selection as selection
from xlmjax.preparation.demo_meaning import (
    DEFINITE,
    GAP,
    NOBODY,
    POSSESSIVES,
    Clause,
    Joined,
    Meaning,
    NounPhrase,
    person,
)

T = TypeVar("T")


class Draw:
    """Random choices that are a function of (label, split) alone, on every machine and Python."""

    __slots__ = ("_bits", "_block", "_label", "split")

    def __init__(self, label: str, split: str):
        self._label, self._block, self._bits = f"{label}/{split}", 0, 0
        self.split = split

    def below(self, bound: int) -> int:
        """Return an integer in [0, bound), uniform to 2^-30 for the small bounds in use."""
        if self._bits < 1 << 40:
            block = f"{self._label}/{self._block}".encode()
            self._bits = int.from_bytes(hashlib.blake2b(block, digest_size=64).digest(), "little")
            self._block += 1
        self._bits, digit = divmod(self._bits, bound)
        return digit

    def percent(self, chance: int) -> bool:
        """Return true with a chance in percent."""
        return self.below(100) < chance

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of the choices, all equally likely."""
        return choices[self.below(len(choices))]

    def favour(self, choices: Sequence[T]) -> T:
        """Return one of the choices, the first ones more often: words are unequally frequent."""
        unit = self.below(1 << 10)
        return choices[len(choices) * unit * unit >> 20]

    def two(self, choices: Sequence[T]) -> tuple[T, T]:
        """Return two choices from different places of the sequence."""
        first = self.below(len(choices))
        second = (first + 1 + self.below(len(choices) - 1)) % len(choices)
        return choices[first], choices[second]

    def owns(self, *core: str) -> bool:
        """Whether the words at the core of a clause belong to the split being drawn."""
        return split_of(core) == self.split


SPLITS = ("train", "validation", "test")


@functools.cache
def split_of(core: tuple[str, ...]) -> str:
    """Return the split of a clause from the words at its core: 14/16, 1/16, 1/16.

    The core ignores number, tense, polarity and determiners, so a test sentence is not a training
    sentence reworded, and it is disjoint in the languages too that leave such things unsaid.
    """
    words = ("pronoun" if word in lexicon.PRONOUNS else word for word in core)
    bucket = zlib.crc32(" ".join(words).encode()) % 16
    return {0: "test", 1: "validation"}.get(bucket, "train")


_NAMES = tuple(lexicon.NAMES)
_COUNTED = frozenset(("every", "all", "some", "many", "number", "no"))
Choices = tuple[tuple[str, bool], ...]  # (determiner, plural); "own" is the subject's possessive


def choices_of(**weights: int) -> Choices:
    """Return determiners as often as their weight; `plurals` names those of a plural noun."""
    plurals = {"thes": "the", "these": "this", "bare": "a", "owns": "own"}
    always_plural = ("all", "some", "many", "number")
    pairs = ((plurals.get(d, d), d in plurals or d in always_plural) for d in weights)
    return tuple(
        pair for pair, weight in zip(pairs, weights.values(), strict=True) for _ in range(weight)
    )


_WHOSE = tuple((possessive, plural) for possessive in POSSESSIVES for plural in (False, True))
DEFINITE_SUBJECT = (*choices_of(the=9, thes=5, this=2, these=1), *_WHOSE)
_SUBJECT = DEFINITE_SUBJECT + choices_of(a=4, every=2, all=2, some=2, many=2, number=3, no=1)
_DEFINITE_OBJECT = choices_of(the=7, thes=4, this=1, these=1, own=5, owns=2)
_OBJECT = _DEFINITE_OBJECT + choices_of(a=5, bare=4, number=4, many=1)
_NEGATED_OBJECT = _DEFINITE_OBJECT + choices_of(a=5, bare=4)
_INDEFINITE = choices_of(a=3, number=3, many=1, bare=1)
_HAD_NOT = choices_of(a=1, bare=1)
_STOLEN = choices_of(the=6, thes=4, this=1, these=1, a=5, bare=4, number=4)
_SEVERAL = choices_of(thes=3, these=1, owns=3, number=4, many=1)
_SINGLE_DEFINITE = choices_of(the=8, own=3)


@functools.cache
def _determiners(noun: str, choices: Choices) -> Choices:
    """Keep what a noun allows: kin are somebody's, mass nouns are not counted."""
    kinds = selection.KINDS[noun]
    if "kin" in kinds:
        owned = tuple(c for c in choices if c[0] in ("own", *POSSESSIVES)) or choices
        return owned if noun in ("brother", "sister") else tuple(c for c in owned if not c[1])
    if "free" in kinds:
        choices = tuple(c for c in choices if c[0] not in ("own", *POSSESSIVES))
    if "person" in kinds:
        choices = tuple(c for c in choices if c != ("a", True)) or choices
    if "mass" in kinds:
        choices = tuple(c for c in choices if not c[1] and c[0] not in _COUNTED)
    return choices


def _owner(subject: NounPhrase) -> str:
    """Return the possessive that refers back to a subject; animals own nothing."""
    if subject.noun in ("I", "we"):
        return {"I": "my", "we": "our"}[subject.noun]
    if "animal" in selection.KINDS.get(subject.noun, ()):
        return "the"
    if subject.plural or subject.noun == "they":
        return "their"
    return "her" if lexicon.gender(subject.noun, "fr") == "f" else "his"


def phrase(
    draw: Draw, noun: str, choices: Choices, owner: str = "my", described: int = 25
) -> NounPhrase:
    """Draw a noun phrase around a noun; `described` is the chance of an adjective in percent."""
    if noun in lexicon.NAMES or noun in lexicon.PRONOUNS:
        return NounPhrase(noun)
    determiner, plural = draw.pick(_determiners(noun, choices))
    if determiner == "number":
        determiner = draw.pick("23456789")
    elif determiner == "own":
        determiner = owner
    adjectives = selection.attributes_of(noun) if draw.percent(described) else ()
    return NounPhrase(noun, determiner, plural, draw.favour(adjectives) if adjectives else "")


def someone(draw: Draw, nouns: Sequence[str], pronouns: bool = True) -> str:
    """Draw a noun, or where people are meant sometimes a name or a pronoun."""
    if "friend" in nouns:
        roll = draw.below(100)
        if roll < 20:
            return draw.pick(_NAMES)
        if pronouns and roll < 32:
            return draw.pick(lexicon.PRONOUNS)
    return draw.favour(nouns)


_TENSES = ("past",) * 9 + ("present",) * 7 + ("future",) * 4
TIMES = {
    tense: tuple(time for time, of in lexicon.TENSE_OF_TIME.items() if of == tense)
    for tense in ("past", "present", "future")
}
NEEDS_PLACE = frozenset(("go", "return", "travel", "arrive", "live"))
_STATES = frozenset(("have", "love", "live"))
_LONG_TIMES = {"past": ("last week", "last year"), "future": ("next week", "next year")}
NOT_WANTED = _STATES | {"hear", "see", "fall", "lose", "forget"}
_TO_SOMEONE = frozenset(("give", "show", "send"))
PEOPLE = frozenset(selection.select("people"))
_ANYBODY = selection.select("people")


def action(
    draw: Draw,
    definite: bool = False,
    frames: Sequence[selection.Frame] = selection.FRAMES,
    who: str = "",
) -> Clause:
    """Draw somebody doing something; `definite` asks for a subject that can be referred to.

    `who` fixes the subject's noun; a frame of `frames` must take it.
    """
    named = who in lexicon.NAMES or who in lexicon.PRONOUNS
    while True:
        frame = draw.favour(frames)
        if who and ("friend" if named else who) not in frame.subjects:
            continue
        subject = who or someone(draw, frame.subjects)
        thing = someone(draw, frame.objects, pronouns=False)
        if subject != thing and draw.owns(subject, frame.verb, thing):
            break
    tense, negative = draw.pick(_TENSES), draw.percent(16)
    agent = phrase(draw, subject, DEFINITE_SUBJECT if negative or definite else _SUBJECT)
    if agent.determiner == "the" and not agent.adjective and not definite and draw.percent(20):
        agent = agent._replace(relative=_relative(draw, agent, tense))
    clause = Clause(agent, frame.verb, tense, negative)
    if tense != "future" and frame.verb not in NOT_WANTED and draw.percent(12):
        clause = clause._replace(modal=draw.pick(("want", "can")))
    if thing:
        choices = _choices_for(frame.verb, negative)
        clause = clause._replace(object=phrase(draw, thing, choices, _owner(agent)))
    return _with_circumstances(draw, clause, frame)


def _choices_for(verb: str, negative: bool) -> Choices:
    """Return the determiners of an object: one has a book, counts the books, steals no own ones."""
    if verb == "have":
        return _HAD_NOT if negative else _INDEFINITE
    if verb == "count":
        return _SEVERAL[:7] if negative else _SEVERAL
    if verb == "steal":
        return _STOLEN[:-4] if negative else _STOLEN
    return _NEGATED_OBJECT if negative else _OBJECT


def _with_circumstances(draw: Draw, clause: Clause, frame: selection.Frame) -> Clause:
    """Add to whom, where, how and when."""
    owner = _owner(clause.subject)
    if frame.verb in _TO_SOMEONE:
        noun = someone(draw, _ANYBODY, pronouns=False)
        while noun in (clause.subject.noun, clause.object.noun if clause.object else ""):
            noun = draw.pick(_NAMES)
        recipient = phrase(draw, noun, _DEFINITE_OBJECT, owner, described=10)
        clause = clause._replace(recipient=recipient)
    bare = clause.object is None
    if frame.places and (frame.verb in NEEDS_PLACE or draw.percent(70 if bare else 35)):
        clause = clause._replace(place=where(draw, draw.favour(frame.places), owner))
    vague = clause.negative and clause.object and clause.object.determiner == "a"
    if frame.manners and not clause.modal and not vague and draw.percent(20):
        clause = clause._replace(manner=draw.pick(frame.manners))
    timeless = clause.tense == "present" and (clause.negative or frame.verb in _STATES)
    if draw.percent(70 if bare else 40) and not timeless and not (clause.place and clause.manner):
        clause = timed(draw, clause)
    return clause


def timed(draw: Draw, clause: Clause) -> Clause:
    """Add a time that goes with the tense, before or after the rest."""
    times = _LONG_TIMES if clause.verb in _STATES else TIMES
    return clause._replace(time=draw.pick(times[clause.tense]), fronted=draw.percent(40))


def where(draw: Draw, noun: str, owner: str = "the") -> NounPhrase:
    """Draw a place."""
    return phrase(draw, noun, _SINGLE_DEFINITE, owner, described=12)


@functools.cache
def _frames_of(noun: str) -> tuple[selection.Frame, ...]:
    return tuple(f for f in selection.FRAMES if noun in f.subjects and f.verb not in _TO_SOMEONE)


def _relative(draw: Draw, head: NounPhrase, tense: str) -> Clause:
    """Draw a relative clause about the head of a clause in some tense: who bought the bread."""
    frame = draw.pick(_frames_of(head.noun))
    clause = Clause(GAP, frame.verb, "past" if tense == "past" else draw.pick(("past", "present")))
    if frame.objects[0]:
        choices = _choices_for(frame.verb, negative=False)
        things = [thing for thing in frame.objects if thing != head.noun]
        thing = phrase(draw, draw.pick(things), choices, _owner(head), described=0)
        return clause._replace(object=thing)
    place = draw.pick(frame.places)
    return clause._replace(place=phrase(draw, place, choices_of(the=1), described=0))


@functools.cache
def _frames_with(noun: str) -> tuple[selection.Frame, ...]:
    verbs = lexicon.words("buy find lose wash carry repair draw bring steal read write")
    return tuple(f for f in selection.FRAMES if noun in f.objects and f.verb in verbs)


def _relative_to(draw: Draw, head: NounPhrase) -> Clause:
    """Draw a relative clause about the head as an object: that the woman bought."""
    frame = draw.pick(_frames_with(head.noun))
    subject = phrase(draw, someone(draw, frame.subjects), DEFINITE_SUBJECT, described=0)
    return Clause(subject, frame.verb, "past", object=GAP)


_DESCRIBED = tuple(n for n in selection.KINDS if selection.adjectives_of(n))


def description(draw: Draw, definite: bool = False) -> Clause:
    """Draw something being somehow."""
    while True:
        noun = draw.pick(_NAMES + lexicon.PRONOUNS if draw.percent(12) else _DESCRIBED)
        quality = draw.favour(selection.adjectives_of(noun))
        if draw.owns(noun, "be", quality):
            break
    flags = selection.QUALITIES[quality]
    negative = draw.percent(20)
    choices = DEFINITE_SUBJECT if negative or definite else DEFINITE_SUBJECT + choices_of(all=3)
    subject = phrase(draw, noun, choices, described=0)
    tense = draw.pick(("present", "present", "present", "past", "past", "future"))
    clause = Clause(subject, "be", tense, negative, quality=quality)
    if subject.determiner and draw.percent(40):
        clause = clause._replace(subject=_told_apart(draw, clause, definite))
    if "very" in flags and draw.percent(35):
        clause = clause._replace(very=True)
    if tense != "present" and "passing" in flags and draw.percent(60):
        clause = timed(draw, clause)
    return clause


def _told_apart(draw: Draw, clause: Clause, definite: bool) -> NounPhrase:
    """Say which one is described: the red house, the house that the farmer bought."""
    subject = clause.subject
    if subject.determiner == "the" and not definite and draw.percent(60):
        if _frames_with(subject.noun):
            return subject._replace(relative=_relative_to(draw, subject))
        if subject.noun in PEOPLE:
            return subject._replace(relative=_relative(draw, subject, clause.tense))
    colours = selection.colours_of(subject.noun)
    if colours and clause.quality not in colours:
        return subject._replace(adjective=draw.pick(colours))
    return subject


@functools.cache
def comparable(quality: str) -> tuple[tuple[str, ...], ...]:
    """Return the groups of nouns that may be compared by a quality."""
    groups = (
        "people", "animal", "food fruits", "portable", "furniture", "vehicle", "plant",
        "settlement", "building",
    )  # fmt: skip
    fitting = [
        tuple(n for n in selection.select(group) if quality in selection.adjectives_of(n))
        for group in groups
    ]
    return tuple(group for group in fitting if len(group) > 1)


COMPARED = tuple(q for q, flags in selection.QUALITIES.items() if "compared" in flags)


def comparison(draw: Draw) -> Clause:
    """Draw something being more so than something else."""
    while True:
        quality = draw.pick(COMPARED)
        group = draw.pick(comparable(quality))
        noun, other = someone(draw, group, pronouns=False), someone(draw, group, pronouns=False)
        if noun != other and draw.owns(min(noun, other), "than", max(noun, other)):
            break
    subject = phrase(draw, noun, DEFINITE_SUBJECT, described=12)
    standard = phrase(draw, other, DEFINITE_SUBJECT, described=12)
    tense = draw.pick(("present", "present", "past"))
    return Clause(subject, "be", tense, object=standard, quality=quality)


_PROFESSIONS = tuple(lexicon.FEMININE)
_PROFESSIONALS = (*lexicon.NAMES, *lexicon.PRONOUNS, *selection.select("kin friend neighbour"))
_WORKPLACES = selection.select("settlement island")


def profession(draw: Draw) -> Clause:
    """Draw somebody being a teacher or the like."""
    while True:
        noun, work = draw.pick(_PROFESSIONALS), draw.pick(_PROFESSIONS)
        if draw.owns(noun, "be", work):
            break
    subject = phrase(draw, noun, _WHOSE[::2], described=0)
    predicate = NounPhrase(work, "a", person(subject) > 1)
    tense = draw.pick(("present", "past"))
    clause = Clause(subject, "be a", tense, draw.percent(20), object=predicate)
    if not clause.negative and draw.percent(70):
        clause = clause._replace(place=where(draw, draw.pick(_WORKPLACES)))
    return clause._replace(time="last year") if tense == "past" and draw.percent(50) else clause


_CONTAINERS = selection.select("box basket bag table bed chair")
_CONTAINED = selection.select("small readable device clothes fruits tool photo")
_ROOMS = selection.select("room house office")
_INSIDE, _OUTSIDE = selection.select("indoor"), selection.select("outdoor")
LIVING = selection.select("people pet farm")


def _located(draw: Draw) -> tuple[str, str]:
    """Draw what is where."""
    while True:
        if draw.percent(50):
            noun, place = draw.pick(_CONTAINED), draw.pick(_CONTAINERS + _ROOMS)
        else:
            noun = someone(draw, LIVING)
            animal = "animal" in selection.KINDS.get(noun, ())
            place = draw.pick(_OUTSIDE if animal else _INSIDE + _OUTSIDE)
        if noun not in (place, "story") and draw.owns(noun, "be", place):
            return noun, place


def location(draw: Draw) -> Clause:
    """Draw something being somewhere."""
    noun, place = _located(draw)
    subject = phrase(draw, noun, DEFINITE_SUBJECT, described=20)
    tense = draw.pick(("present", "present", "past", "future"))
    spot = where(draw, place, _owner(subject) if noun not in _CONTAINED else "my")
    clause = Clause(subject, "be at", tense, draw.percent(20), place=spot)
    return timed(draw, clause) if tense != "present" and draw.percent(60) else clause


def existence(draw: Draw) -> Clause:
    """Draw something existing somewhere."""
    noun, place = _located(draw)
    while noun not in selection.KINDS or "kin" in selection.KINDS[noun]:
        noun, place = _located(draw)
    negative = draw.percent(20)
    thing = phrase(draw, noun, choices_of(bare=1) if negative else _INDEFINITE)
    tense = draw.pick(("present", "present", "past", "future"))
    spot = where(draw, place, "my")
    clause = Clause(NOBODY, "there is", tense, negative, object=thing, place=spot)
    return timed(draw, clause) if tense != "present" and draw.percent(60) else clause


_EXPLAINED = {verb for _, verb, _ in selection.REASONS}
_EXPLAINED_FRAMES = tuple(
    f for f in selection.FRAMES if f.verb in _EXPLAINED and PEOPLE & {*f.subjects}
)


def reasoned(draw: Draw) -> Joined:
    """Draw an action, or one that is not done, and the state that explains it."""
    first = action(draw, True, _EXPLAINED_FRAMES)
    reasons = [reason for reason in selection.REASONS if reason[1] == first.verb]
    quality, _, negative = draw.pick(reasons)
    tense = "past" if first.tense == "past" else "present"
    agent = first.subject._replace(adjective="")
    thing = first.object
    if negative and thing and thing.determiner not in DEFINITE:
        thing = thing._replace(determiner="the")
    first = first._replace(
        subject=agent,
        tense=tense,
        negative=negative,
        modal="",
        object=thing,
        manner="",
        time=draw.pick(("yesterday", "this morning", "")) if tense == "past" else "",
        fronted=False,
    )
    subject = agent
    if agent.noun not in lexicon.PRONOUNS:
        subject = NounPhrase(agent.noun, "it", agent.plural)
    second = Clause(subject, "be", tense, quality=quality, very=draw.percent(25))
    return Joined("because", first, second)


def joined(draw: Draw) -> Joined:
    """Draw two clauses side by side, of one tense and about two subjects."""
    first, second = simple(draw), simple(draw)
    while second.subject.noun == first.subject.noun or second.tense != first.tense:
        second = simple(draw)
    return Joined(draw.pick(("and", "but")), first, second._replace(time="", fronted=False))


def report(draw: Draw) -> Clause:
    """Draw somebody knowing, thinking or saying something."""
    content = draw.pick((action, action, description))(draw, definite=True)
    return reported(draw, draw.pick(("know", "think", "say")), content._replace(fronted=False))


def reported(draw: Draw, verb: str, content: Clause) -> Clause:
    """Draw the person who knows, thinks or says the content."""
    return Clause(stranger(draw, content, pronouns=True), verb, content=content)


def stranger(draw: Draw, clause: Clause, pronouns: bool = False) -> NounPhrase:
    """Draw a definite person who is not in a clause."""
    present = [p.noun for p in (clause.subject, clause.object, clause.recipient) if p]
    noun = someone(draw, _ANYBODY, pronouns)
    while noun in present:
        noun = someone(draw, _ANYBODY, pronouns)
    return phrase(draw, noun, DEFINITE_SUBJECT, described=0)


_SIMPLE: tuple[Callable[[Draw], Clause], ...] = (*(action,) * 6, description, location)
_ALL: tuple[Callable[[Draw], Meaning], ...] = (
    *(action,) * 26, *(description,) * 3, comparison, comparison, profession, *(location,) * 2,
    *(existence,) * 2, *(reasoned,) * 2, *(joined,) * 5, *(report,) * 3,
)  # fmt: skip


def simple(draw: Draw) -> Clause:
    """Draw a main clause that can stand beside another."""
    return draw.pick(_SIMPLE)(draw)


def meaning(draw: Draw) -> Meaning:
    """Draw a meaning of any construction."""
    return draw.pick(_ALL)(draw)
