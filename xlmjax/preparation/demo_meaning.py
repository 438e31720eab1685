"""Meanings: what a demo sentence says, before any language says it, and how one is drawn.

A meaning is a tree of named tuples over English keys. `Draw` is a stream of random digits that is a
function of its label alone, so the meaning of index i costs O(1) and needs no state.
"""

import functools
import hashlib
import zlib
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from xlmjax.preparation import demo_lexicon as lexicon
from xlmjax.preparation import demo_selection as selection

T = TypeVar("T")

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

    Beside the verbs of the lexicon there are "be" (with `quality`; with an object it compares),
    "be a" (object: a profession), "be at" (place) and "there is" (object and place, subject NOBODY).
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


class Draw:
    """Random choices that are a function of (label, split) alone, on every machine and Python."""

    __slots__ = ("_bits", "_block", "_label", "split")

    def __init__(self, label: str, split: str):
        self._label, self._block, self._bits = f"{label}/{split}", 0, 0
        self.split = split

    def below(self, bound: int) -> int:
        """Return a uniform integer in [0, bound)."""
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
    return SPLITS[bucket] if bucket < 3 and bucket else "train"


_NAMES = tuple(lexicon.NAMES)
_SUBJECT = (
    *(("the", False),) * 10, *(("the", True),) * 6, *(("a", False),) * 4, *(("this", False),) * 2,
    ("this", True), *((p, False) for p in POSSESSIVES), *((p, True) for p in POSSESSIVES),
    *(("every", False),) * 2, *(("all", True),) * 2, *(("some", True),) * 2, ("many", True),
    ("many", True), *(("number", True),) * 3, ("no", False),
)  # fmt: skip
_OBJECT = (
    *(("the", False),) * 6, *(("the", True),) * 4, *(("a", False),) * 5, *(("a", True),) * 4,
    ("this", False), ("this", True), *((p, False) for p in POSSESSIVES), ("my", True),
    ("her", True), *(("number", True),) * 4, ("many", True),
)  # fmt: skip
_INDEFINITE = (("a", False), ("a", False), ("number", True), ("number", True), ("many", True))
_DEFINITE = (
    *(("the", False),) * 8, *(("the", True),) * 4, ("this", False), ("this", True),
    *((p, False) for p in POSSESSIVES), ("my", True),
)  # fmt: skip
_NEGATED = (*_DEFINITE, *(("a", False),) * 6, *(("a", True),) * 4)
_PLACE = (*(("the", False),) * 8, *((p, False) for p in POSSESSIVES))
_OWN_PLACES = frozenset(("house", "garden", "room", "office", "kitchen", "village", "city", "field"))


@functools.cache
def _determiners(
    noun: str, choices: tuple[tuple[str, bool], ...]
) -> tuple[tuple[str, bool], ...]:
    """Keep the determiners that a noun allows: kin are somebody's, mass nouns are not counted."""
    kinds = selection.KINDS[noun]
    if "kin" in kinds:
        choices = tuple(c for c in choices if c[0] in POSSESSIVES) or choices
    if "mass" in kinds:
        counted = ("every", "all", "some", "many", "number", "no")
        choices = tuple(c for c in choices if not c[1] and c[0] not in counted)
        if ("a", False) not in choices:
            choices = tuple(c for c in choices if c[0] != "a")
    return choices


def phrase(
    draw: Draw, noun: str, choices: tuple[tuple[str, bool], ...], described: int = 25
) -> NounPhrase:
    """Draw a noun phrase around a noun; `described` is the chance of an adjective in percent."""
    if noun in lexicon.NAMES or noun in lexicon.PRONOUNS:
        return NounPhrase(noun)
    determiner, plural = draw.pick(_determiners(noun, choices))
    if determiner == "number":
        determiner = "23456789"[draw.below(8)]
    adjective = ""
    if draw.percent(described):
        adjectives = selection.attributes_of(noun)
        adjective = draw.pick(adjectives) if adjectives else ""
    return NounPhrase(noun, determiner, plural, adjective)


def _someone(draw: Draw, nouns: Sequence[str], pronouns: bool = True) -> str:
    """Draw a noun, or where people are meant sometimes a name or a pronoun."""
    if "friend" in nouns:
        roll = draw.below(100)
        if roll < 20:
            return draw.pick(_NAMES)
        if pronouns and roll < 32:
            return draw.pick(lexicon.PRONOUNS)
    return draw.pick(nouns)


_TENSES = ("past",) * 9 + ("present",) * 7 + ("future",) * 4
_TIMES = {
    tense: tuple(time for time, of in lexicon.TENSE_OF_TIME.items() if of == tense)
    for tense in ("past", "present", "future")
}
_NEEDS_PLACE = frozenset(("go", "return", "travel", "arrive", "live"))
_STATES = frozenset(("have", "love", "live", "hear", "see", "fall", "lose", "forget"))
_MADE_FOR_SOMEONE = frozenset(("give", "show", "send"))


def _core(draw: Draw, frames: Sequence[selection.Frame]) -> tuple[selection.Frame, str, str]:
    while True:
        frame = draw.pick(frames)
        subject = _someone(draw, frame.subjects)
        noun = _someone(draw, frame.objects, pronouns=False)
        if subject != noun and draw.owns(subject, frame.verb, noun):
            return frame, subject, noun


def action(draw: Draw, definite: bool = False) -> Clause:
    """Draw somebody doing something; `definite` asks for a subject that can be referred to."""
    frame, subject, noun = _core(draw, selection.FRAMES)
    return _clause(draw, frame, subject, noun, definite)


def _clause(
    draw: Draw, frame: selection.Frame, subject: str, noun: str, definite: bool
) -> Clause:
    verb = frame.verb
    tense = draw.pick(_TENSES)
    negative = draw.percent(16)
    modal = ""
    if tense != "future" and verb not in _STATES and draw.percent(12):
        modal = draw.pick(("want", "can"))
    agent = phrase(draw, subject, _DEFINITE if negative or definite else _SUBJECT)
    if agent.determiner == "the" and not agent.adjective and not definite and draw.percent(16):
        agent = agent._replace(relative=_relative(draw, subject))
    thing = None
    if noun:
        choices = _NEGATED if negative else _INDEFINITE if verb == "have" else _OBJECT
        thing = phrase(draw, noun, choices)
    recipient = None
    if verb in _MADE_FOR_SOMEONE:
        person_ = _someone(draw, selection.select("people"), pronouns=False)
        while person_ == subject:
            person_ = draw.pick(_NAMES)
        recipient = phrase(draw, person_, _DEFINITE, described=10)
    place, manner, time = None, "", ""
    if frame.places and (verb in _NEEDS_PLACE or draw.percent(35)):
        place = where(draw, draw.pick(frame.places))
    if frame.manners and draw.percent(20):
        manner = draw.pick(frame.manners)
    if (manner == "" or place is None) and draw.percent(45) and (tense != "present" or not negative):
        time = draw.pick(_TIMES[tense])
    fronted = time != "" and draw.percent(40)
    return Clause(
        agent, verb, tense, negative, modal, thing, recipient, place, manner, time, fronted
    )


def where(draw: Draw, noun: str) -> NounPhrase:
    """Draw a place phrase."""
    choices = _PLACE if noun in _OWN_PLACES else _PLACE[:8]
    return phrase(draw, noun, choices, described=12)


@functools.cache
def _frames_of(noun: str) -> tuple[selection.Frame, ...]:
    return tuple(f for f in selection.FRAMES if noun in f.subjects and f.verb not in ("have",))


def _relative(draw: Draw, noun: str) -> Clause:
    """Draw a relative clause whose subject is the noun."""
    frame = draw.pick(_frames_of(noun))
    thing = phrase(draw, draw.pick(frame.objects), _OBJECT, 0) if frame.objects[0] else None
    place = None
    if frame.places and (thing is None or frame.verb in _NEEDS_PLACE):
        place = where(draw, draw.pick(frame.places))._replace(adjective="")
    return Clause(GAP, frame.verb, draw.pick(("past", "present")), object=thing, place=place)


@functools.cache
def _owned(noun: str) -> tuple[selection.Frame, ...]:
    wanted = frozenset("buy find lose wash carry repair draw bring steal read write".split())
    return tuple(f for f in selection.FRAMES if noun in f.objects and f.verb in wanted)


_DESCRIBED = tuple(n for n in selection.KINDS if selection.adjectives_of(n))


def description(draw: Draw, definite: bool = False) -> Clause:
    """Draw something being somehow."""
    while True:
        noun = draw.pick(_DESCRIBED)
        if draw.percent(15):
            noun = draw.pick(_NAMES + lexicon.PRONOUNS)
        quality = draw.pick(selection.adjectives_of(noun))
        if draw.owns(noun, "be", quality):
            break
    negative = draw.percent(20)
    choices = _DEFINITE if negative or definite else (*_DEFINITE, ("all", True), ("some", True))
    subject = phrase(draw, noun, choices, described=0)
    flags = selection.QUALITIES[quality]
    if draw.percent(35) and "colour" not in flags:
        colours = tuple(
            a for a in selection.attributes_of(noun) if "colour" in selection.QUALITIES[a]
        )
        if colours:
            subject = subject._replace(adjective=draw.pick(colours))
    if subject.determiner == "the" and not definite and draw.percent(25) and _owned(noun):
        subject = subject._replace(adjective="", relative=_relative_to(draw, noun))
    tense = draw.pick(("present", "present", "present", "past", "past", "future"))
    time = ""
    if tense != "present" and "passing" in flags and draw.percent(50):
        time = draw.pick(_TIMES[tense])
    fronted = time != "" and draw.percent(40)
    very = "very" in flags and draw.percent(30)
    return Clause(
        subject, "be", tense, negative, time=time, fronted=fronted, quality=quality, very=very
    )


def _relative_to(draw: Draw, noun: str) -> Clause:
    """Draw a relative clause whose object is the noun."""
    frame = draw.pick(_owned(noun))
    subject = phrase(draw, _someone(draw, frame.subjects), _DEFINITE, 0)
    return Clause(subject, frame.verb, "past", object=GAP)


@functools.cache
def comparable(quality: str) -> tuple[tuple[str, ...], ...]:
    """Return the groups of nouns that may be compared by a quality."""
    groups = ("person kin", "animal", "food fruits", "portable", "furniture", "vehicle",
              "plant", "settlement", "building")  # fmt: skip
    described = [selection.select(group) for group in groups]
    fitting = [
        tuple(n for n in group if quality in selection.adjectives_of(n)) for group in described
    ]
    return tuple(group for group in fitting if len(group) > 1)


_COMPARED = tuple(q for q, flags in selection.QUALITIES.items() if "compared" in flags)


def comparison(draw: Draw) -> Clause:
    """Draw something being more so than something else."""
    while True:
        quality = draw.pick(_COMPARED)
        group = draw.pick(comparable(quality))
        noun, other = (_someone(draw, group, pronouns=False) for _ in range(2))
        if noun != other and draw.owns(min(noun, other), "than", max(noun, other)):
            break
    subject, standard = (phrase(draw, n, _DEFINITE, described=0) for n in (noun, other))
    tense = draw.pick(("present", "present", "past"))
    return Clause(subject, "be", tense, object=standard, quality=quality)


_PROFESSIONS = tuple(lexicon.FEMININE)
_HAVE_PROFESSIONS = (*lexicon.NAMES, *lexicon.PRONOUNS, "brother", "sister", "mother", "father")


def profession(draw: Draw) -> Clause:
    """Draw somebody being something."""
    while True:
        noun = draw.pick(_HAVE_PROFESSIONS)
        work = draw.pick(_PROFESSIONS)
        if draw.owns(noun, "be", work):
            break
    subject = phrase(draw, noun, tuple((p, False) for p in POSSESSIVES), described=0)
    predicate = NounPhrase(work, "a", person(subject) > 1)
    tense = draw.pick(("present", "past"))
    return Clause(subject, "be a", tense, draw.percent(25), object=predicate)


_SPOTS = ("table", "bed", "chair", "box", "basket", "bag")
_CONTAINED = selection.select("small text device clothes fruits tool")
_CONTAINED = tuple(n for n in _CONTAINED if n not in ("story", "song"))
_INDOORS = selection.select("indoor")
_OUTDOORS = selection.select("outdoor")
_PRESENT_SOMEWHERE = selection.select("people pet farm")


def _located(draw: Draw) -> tuple[str, str]:
    while True:
        if draw.percent(50):
            noun = draw.pick(_CONTAINED)
            place = draw.pick(_SPOTS + ("kitchen", "room", "house", "office"))
        else:
            noun = _someone(draw, _PRESENT_SOMEWHERE)
            animal = "animal" in selection.KINDS.get(noun, ())
            place = draw.pick(_OUTDOORS if animal else _INDOORS + _OUTDOORS)
        if draw.owns(noun, "be", place):
            return noun, place


def location(draw: Draw) -> Clause:
    """Draw something being somewhere."""
    noun, place = _located(draw)
    tense = draw.pick(("present", "present", "past", "future"))
    time = draw.pick(_TIMES[tense]) if tense != "present" and draw.percent(50) else ""
    return Clause(
        phrase(draw, noun, _DEFINITE, described=20),
        "be at",
        tense,
        draw.percent(20),
        place=where(draw, place),
        time=time,
        fronted=time != "" and draw.percent(40),
    )


def existence(draw: Draw) -> Clause:
    """Draw something existing somewhere."""
    while True:
        noun, place = _located(draw)
        if "kin" not in selection.KINDS.get(noun, ("kin",)):
            break
    negative = draw.percent(20)
    choices = (("a", True),) if negative else (*_INDEFINITE, ("a", True), ("number", True))
    tense = draw.pick(("present", "present", "past", "future"))
    thing = phrase(draw, noun, choices)
    return Clause(NOBODY, "there is", tense, negative, object=thing, place=where(draw, place))


_REASONS = ("tired", "sick", "hungry", "angry", "sad", "happy")


def reasoned(draw: Draw) -> Joined:
    """Draw an action and the state of mind or body that explains it."""
    first = action(draw, definite=True)
    while first.subject.noun not in lexicon.PRONOUNS and (
        "tired" not in selection.adjectives_of(first.subject.noun)
        or "angry" not in selection.adjectives_of(first.subject.noun)
    ):
        first = action(draw, definite=True)
    subject = first.subject
    if subject.noun not in lexicon.PRONOUNS:
        subject = NounPhrase(subject.noun, "it", subject.plural)
    quality = draw.pick([q for q in _REASONS if q in selection.adjectives_of(subject.noun)])
    tense = "past" if first.tense == "past" else "present"
    second = Clause(subject, "be", tense, quality=quality, very=draw.percent(25))
    return Joined("because", first._replace(fronted=False), second)


def joined(draw: Draw) -> Joined:
    """Draw two clauses side by side."""
    connective = draw.pick(("and", "but"))
    first, second = simple(draw), simple(draw)
    while second[:2] == first[:2] or second.tense != first.tense:
        second = simple(draw)
    return Joined(connective, first, second._replace(time="", fronted=False))


def report(draw: Draw) -> Clause:
    """Draw somebody knowing, thinking or saying something."""
    verb = draw.pick(("know", "think", "say"))
    content = draw.pick((action, action, description))(draw, definite=True)
    return reported(draw, verb, content._replace(fronted=False))


def reported(draw: Draw, verb: str, content: Clause) -> Clause:
    """Draw the person who knows, thinks or says the content."""
    noun = content.subject.noun
    while noun == content.subject.noun:
        noun = _someone(draw, selection.select("people"))
    subject = phrase(draw, noun, _DEFINITE, described=10)
    return Clause(subject, verb, content=content)


_SIMPLE = (*(action,) * 6, description, location)
_ALL = (
    *(action,) * 20, *(description,) * 4, comparison, comparison, profession, location, location,
    existence, existence, reasoned, reasoned, joined, joined, joined, joined, report, report,
)  # fmt: skip


def simple(draw: Draw) -> Clause:
    """Draw a main clause that can stand beside another."""
    return draw.pick(_SIMPLE)(draw)


def meaning(draw: Draw) -> Meaning:
    """Draw a meaning of any construction."""
    return draw.pick(_ALL)(draw)
