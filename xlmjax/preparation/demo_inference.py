"""Inference examples: one hypothesis, and for each label a premise that gives it that label.

The hypothesis is drawn first and meets all three labels, so the hypothesis alone says nothing about
the label. The premises of one hypothesis are made of the same words, down to the negated form of
the verb, so word overlap says little: "Omar sang, but Ali thinks that Omar did not sing" entails
what "Omar did not sing, but Ali thinks that Omar sang" contradicts. A premise and its hypothesis
speak of one situation, as in SNLI: who is in the kitchen is not in the garden.
"""

from collections.abc import Callable, Sequence

from xlmjax.preparation import demo_lexicon as lexicon
from xlmjax.preparation import demo_sampling as sampling
from xlmjax.preparation import demo_selection as selection
from xlmjax.preparation.demo_meaning import DEFINITE, Clause, Joined, Meaning, NounPhrase
from xlmjax.preparation.demo_sampling import Draw

LABELS = ("entailment", "neutral", "contradiction")
# A hypothesis and its premises, in the order of LABELS.
Family = tuple[Clause, tuple[Meaning, Meaning, Meaning]]

_EVENTS = tuple(f for f in selection.FRAMES if f.verb not in ("have", "love", "live"))
_HUMAN = tuple(f for f in _EVENTS if "friend" in f.subjects)
_ANIMAL = tuple(f for f in _EVENTS if not selection.PEOPLE & set(f.subjects))
_LOCAL = tuple(f for f in _HUMAN if len(f.places) > 3 and f.verb not in sampling.NEEDS_PLACE)
_MUTUAL = tuple(
    f
    for f in _HUMAN
    if f.verb in ("see", "help", "follow", "hear", "look for", "wait for", "greet", "invite")
)
_PERSONS = selection.select("person")
# Places such that nobody is in two of them.
_APART = selection.select(
    "kitchen garden school hospital library hotel office restaurant station forest field"
)
# The verbs that take fruits or animals, with the other countable things they take.
_GENERAL = frozenset(("fruits", "animal"))
_UNLIKE = {
    frame: unlike
    for frame in _HUMAN
    if frame.verb != "count"
    and any(selection.KINDS[o] & _GENERAL for o in frame.objects if o)
    and (
        unlike := [
            o
            for o in frame.objects
            if not selection.KINDS[o] & (_GENERAL | {"mass", "kin", "crop"})
        ]
    )
}
# asked | follows from | is compatible with, but no more, | is denied by
_QUANTITIES = (
    ("some", ("all", "every", "many", *"23456789"), (), ("no",)),
    ("all", ("all", "every"), ("some", "many", *"23456789"), ("no",)),
    ("no", ("no",), (), ("all", "every", "some", *"23456789")),
)


def _negated(clause: Clause) -> Clause:
    return clause._replace(negative=not clause.negative)


def _the(phrase: NounPhrase | None) -> NounPhrase | None:
    """Make a phrase definite and free of its subject, so that subjects can be exchanged."""
    if phrase is None or phrase.determiner in ("", "the", "this"):
        return phrase
    if phrase.determiner in DEFINITE:
        kin = "kin" in selection.KINDS[phrase.noun]
        return phrase._replace(determiner="my" if kin else "the")
    return phrase._replace(determiner="the")


def _event(draw: Draw, frames: Sequence[selection.Frame] = _EVENTS, who: str = "") -> Clause:
    """Draw a plain event among definite things, which its negation contradicts."""
    clause = sampling.action(draw, True, frames, who)
    return clause._replace(
        object=_the(clause.object),
        recipient=_the(clause.recipient),
        place=_the(clause.place),
        modal="",
        manner="",
        fronted=False,
    )


def _aside(draw: Draw, clause: Clause, frames: Sequence[selection.Frame]) -> Clause:
    """Draw an unrelated event in the tense of a clause."""
    event = _event(draw, frames)
    while event.subject.noun == clause.subject.noun or event.tense != clause.tense:
        event = _event(draw, frames)
    return event._replace(time="")


def _contrast(draw: Draw, clause: Clause) -> Clause:
    """Deny of somebody else what a clause asserts, or assert what it denies."""
    return _negated(clause)._replace(subject=sampling.stranger(draw, clause), time="")


def _join(connective: str, one: Clause, other: Clause, swapped: bool = False) -> Joined:
    return Joined(connective, *((other, one) if swapped else (one, other)))


def _reports(draw: Draw) -> Family:
    """What is known is so; what is thought or said may or may not be."""
    yes = _event(draw)
    no, swapped = _negated(yes), draw.percent(50)
    knows = sampling.reported(draw, "know", yes)
    thinks = sampling.reported(draw, draw.pick(("think", "say")), yes)
    said, doubted = draw.pick(((yes, no), (no, yes)))

    def told(one: Clause, content: Clause, doubt: Clause) -> Joined:
        sure, unsure = one._replace(content=content), thinks._replace(content=doubt)
        return _join("but", sure, unsure, swapped)

    says = knows._replace(verb="say")
    return yes, (told(knows, yes, no), told(says, said, doubted), told(knows, no, yes))


def _opinions(draw: Draw) -> Family:
    """What is so, whatever somebody thinks."""
    yes = _event(draw)._replace(time="")
    no = _negated(yes)
    thinks_yes = sampling.reported(draw, draw.pick(("think", "say")), yes)
    thinks_no = thinks_yes._replace(content=no)
    return yes, (
        _join("but", yes, thinks_no),
        _join("but", _contrast(draw, yes), thinks_yes),
        _join("but", no, thinks_yes),
    )


def _alternatives(draw: Draw) -> Family:
    """Both, at least one, or only the other."""
    yes = _event(draw)._replace(time="")
    no, other_no = _negated(yes), _contrast(draw, yes)
    other_yes = _negated(other_no)
    swapped, connective = draw.percent(50), draw.pick(("and", "but"))
    either = draw.pick(((yes, other_no), (no, other_yes)))
    return yes, (
        _join(connective, yes, other_no, swapped),
        _join("or", *either, swapped),
        _join(connective, no, other_yes, swapped),
    )


def _details(draw: Draw) -> Family:
    """Saying where narrows what is asserted and widens what is denied."""
    here = _event(draw, _LOCAL)
    while here.place is None:
        here = _event(draw, _LOCAL)
    here = here._replace(negative=False, time="")
    not_here, anywhere = _negated(here), here._replace(place=None)
    nowhere, other_no = _negated(anywhere), _contrast(draw, here)
    other_yes = _negated(other_no)
    hypothesis, premises = draw.pick(
        (
            (anywhere, ((here, other_no), (not_here, other_yes), (nowhere, other_yes))),
            (here, ((here, other_no), (anywhere, other_no), (not_here, other_yes))),
            (not_here, ((nowhere, other_yes), (anywhere, other_no), (here, other_no))),
        )
    )
    entailing, neutral, contradicting = (_join("but", *pair) for pair in premises)
    return hypothesis, (entailing, neutral, contradicting)


def _comparisons(draw: Draw) -> Family:
    """Richer is the converse of poorer, and has nothing to do with older."""
    others: list[str] = []
    while not others:
        hypothesis = sampling.comparison(draw)
        more, less = hypothesis.subject, hypothesis.object or hypothesis.subject
        opposite = selection.OPPOSITES.get(hypothesis.quality)
        if opposite in sampling.COMPARED:
            others = [
                other
                for other in sampling.COMPARED
                if other not in (hypothesis.quality, opposite)
                and all(other in selection.adjectives_of(phrase.noun) for phrase in (more, less))
            ]
    converse = hypothesis._replace(subject=less, object=more)
    return hypothesis, (
        converse._replace(quality=selection.OPPOSITES[hypothesis.quality]),
        draw.pick((hypothesis, converse))._replace(quality=draw.pick(others)),
        hypothesis._replace(quality=selection.OPPOSITES[hypothesis.quality]),
    )


def _chains(draw: Draw) -> Family:
    """What is more so than the more so is more so still."""
    between: list[str] = []
    while not between:
        hypothesis = sampling.comparison(draw)
        more, less = hypothesis.subject, hypothesis.object or hypothesis.subject
        compared = {more.noun, less.noun} - set(lexicon.NAMES) or {"friend"}
        groups = sampling.comparable(hypothesis.quality)
        group = next(group for group in groups if compared <= set(group))
        between = [noun for noun in group if noun not in compared]
    middle = sampling.phrase(draw, draw.pick(between), sampling.DEFINITE_SUBJECT, described=0)
    swapped = draw.percent(50)

    def told(one: NounPhrase, than: NounPhrase, two: NounPhrase, than_: NounPhrase) -> Joined:
        first = hypothesis._replace(subject=one, object=than)
        second = hypothesis._replace(subject=two, object=than_)
        return _join("and", first, second, swapped)

    unordered = draw.pick(((more, middle, less, middle), (middle, more, middle, less)))
    return hypothesis, (
        told(more, middle, middle, less),
        told(*unordered),
        told(less, middle, middle, more),
    )


def _describable(noun: str) -> list[str]:
    """Return the lasting qualities of a noun that have an opposite."""
    attributes = selection.attributes_of(noun)
    lasting = [q for q in attributes if not selection.QUALITIES[q] & {"passing", "colour"}]
    return [quality for quality in lasting if selection.OPPOSITES.get(quality) in attributes]


_DESCRIBABLE = tuple(noun for noun in selection.select("people pet farm") if _describable(noun))


def _qualities(draw: Draw) -> Family:
    """Which of two is meant: the rich man sings and the poor one laughs, so the man is rich."""
    noun, quality = "", ""
    while not (noun and draw.owns(noun, "be", quality)):
        noun = draw.pick(_DESCRIBABLE)
        quality = draw.pick(_describable(noun))
    frames = _HUMAN if noun in selection.PEOPLE else _ANIMAL
    event = _event(draw, frames, noun)
    while event.tense == "future":
        event = _event(draw, frames, noun)
    aside = _aside(draw, event, frames)
    while not aside.subject.determiner:
        aside = _aside(draw, event, frames)
    opposite, negative = selection.OPPOSITES[quality], draw.percent(50)
    truth, falsity = (opposite, quality) if negative else (quality, opposite)
    attributes = selection.attributes_of(noun)
    neither = draw.pick([q for q in attributes if q not in (quality, opposite)])
    connective = draw.pick(("and", "but"))

    def told(of_one: str, of_other: str) -> Joined:
        one = event._replace(subject=event.subject._replace(adjective=of_one))
        other = aside._replace(subject=aside.subject._replace(adjective=of_other))
        return Joined(connective, one, other)

    subject = event.subject._replace(adjective="")
    return Clause(subject, "be", event.tense, negative, quality=quality), (
        told(truth, falsity),
        told(neither, quality),
        told(falsity, truth),
    )


def _places(draw: Draw) -> Family:
    """Who does something somewhere is there, and not elsewhere."""
    who, here = "", ""
    while not (who and draw.owns(who, "be", here)):
        who = sampling.someone(draw, selection.select("people"))
        here, there = draw.two(_APART)
    frames = [f for f in _LOCAL if {here, there} <= set(f.places)]
    event = _event(draw, frames, who)._replace(negative=False, time="")
    aside = _aside(draw, event, frames)._replace(negative=False)
    negative, connective = draw.percent(50), draw.pick(("and", "but"))
    at_here, at_there = NounPhrase(here, "the"), NounPhrase(there, "the")

    def told(one: NounPhrase | None, other: NounPhrase) -> Joined:
        return Joined(connective, event._replace(place=one), aside._replace(place=other))

    inside, outside = told(at_here, at_there), told(at_there, at_here)
    return Clause(event.subject, "be at", event.tense, negative, place=at_here), (
        outside if negative else inside,
        told(None, at_here),
        inside if negative else outside,
    )


def _quantities(draw: Draw) -> Family:
    """All are some, and what holds of the teachers need not hold of the cooks."""
    event = _event(draw, _HUMAN)._replace(negative=False)
    while event.subject.noun not in _PERSONS:
        event = _event(draw, _HUMAN)._replace(negative=False)
    one = event.subject.noun
    other, another = draw.two([noun for noun in _PERSONS if noun != one])
    asked, truths, undecided, falsities = draw.pick(_QUANTITIES)
    truth, falsity = draw.pick(truths), draw.pick(falsities)

    def of(determiner: str, noun: str) -> Clause:
        return event._replace(
            subject=NounPhrase(noun, determiner, determiner not in ("every", "no"))
        )

    def told(determiner: str, noun: str, opposed: str, other: str) -> Joined:
        return Joined("but", of(determiner, noun), of(opposed, other)._replace(time=""))

    if undecided and draw.percent(50):
        neutral = told(draw.pick(undecided), one, falsity, other)
    else:
        neutral = told(truth, other, falsity, another)
    return of(asked, one), (
        told(truth, one, falsity, other),
        neutral,
        told(falsity, one, truth, other),
    )


def _kinds(draw: Draw) -> Family:
    """A mango is a fruit, and who ate no fruit ate no mango."""
    denied = draw.percent(50)
    while True:
        event = _event(draw, tuple(_UNLIKE))._replace(negative=False)
        thing = event.object.noun if event.object else ""
        kinds = selection.KINDS.get(thing, ())
        general = "fruit" if "fruits" in kinds else "animal" if "animal" in kinds else ""
        if general and (denied or draw.owns(event.subject.noun, event.verb, general)):
            break
    another = draw.pick(
        next(o for f, o in _UNLIKE.items() if f.verb == event.verb and thing in f.objects)
    )
    other, connective = sampling.stranger(draw, event), draw.pick(("and", "but"))

    def clause(noun: str, negative: bool, subject: NounPhrase = event.subject) -> Clause:
        return event._replace(subject=subject, object=NounPhrase(noun, "a"), negative=negative)

    def told(noun: str, negative: bool, of_other: str, negative_too: bool) -> Joined:
        return Joined(connective, clause(noun, negative), clause(of_other, negative_too, other))

    if denied:
        return clause(thing, True), (
            told(general, True, thing, False),
            told(another, draw.percent(50), thing, True),
            told(thing, False, general, True),
        )
    return clause(general, False), (
        told(thing, False, general, False),
        told(another, False, general, False),
        told(general, True, thing, False),
    )


def _roles(draw: Draw) -> Family:
    """Who does it to whom."""
    event = _event(draw, _MUTUAL)._replace(time="")
    while event.subject.noun in lexicon.PRONOUNS:
        event = _event(draw, _MUTUAL)._replace(time="")
    swapped = event._replace(subject=event.object or event.subject, object=event.subject)
    third = swapped._replace(object=sampling.stranger(draw, event))
    return event, (
        _join("but", event, _negated(swapped)),
        _join("but", swapped, _negated(third)),
        _join("but", _negated(event), swapped),
    )


_FAMILIES: tuple[Callable[[Draw], Family], ...] = (
    _reports, _opinions, _alternatives, _details, _comparisons, _chains, _qualities, _places,
    _quantities, _kinds, _roles,
)  # fmt: skip


def examples(draw: Draw) -> list[tuple[Meaning, Meaning, str]]:
    """Return (premise, hypothesis, label) for each of the three labels, in a random order."""
    hypothesis, premises = draw.pick(_FAMILIES)(draw)
    labelled = list(zip(premises, LABELS, strict=True))
    shuffled = [labelled.pop(draw.below(len(labelled))) for _ in LABELS]
    return [(premise, hypothesis, label) for premise, label in shuffled]
