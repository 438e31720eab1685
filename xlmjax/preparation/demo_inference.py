"""Inference examples: one hypothesis, and for each label a premise that gives it that label.

The hypothesis is drawn first and meets all three labels, so the hypothesis alone says nothing about
the label, and it is denied as often in one label as in another. What decides is what relates the
two sentences: what was left out, a denial, another place, a more general word. A premise and its
hypothesis speak of one situation, as in SNLI: who is in the kitchen is not in the garden.
"""

import functools
from collections.abc import Callable, Sequence

from xlmjax.preparation import demo_lexicon as lexicon
from xlmjax.preparation import demo_sampling as sampling
from xlmjax.preparation import demo_selection as selection
from xlmjax.preparation.demo_meaning import DEFINITE, Clause, Meaning, NounPhrase
from xlmjax.preparation.demo_sampling import Draw

LABELS = ("entailment", "neutral", "contradiction")
# A hypothesis and its premises, in the order of LABELS.
Family = tuple[Clause, tuple[Clause, Clause, Clause]]

_EVENTS = tuple(f for f in selection.FRAMES if f.verb not in ("have", "love", "live"))
_HUMAN = tuple(f for f in _EVENTS if "friend" in f.subjects)
_LOCAL = tuple(f for f in _HUMAN if len(f.places) > 3 and f.verb not in sampling.NEEDS_PLACE)
_PEOPLE = selection.select("people")
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
    """Make a phrase definite and free of its subject, so that an event and its denial exclude."""
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


@functools.cache
def _deeds(noun: str, split: str) -> tuple[selection.Frame, ...]:
    """Return what a subject may do, as far as the split has it."""
    kind = "friend" if noun in lexicon.NAMES or noun in lexicon.PRONOUNS else noun
    return tuple(
        frame
        for frame in _EVENTS
        if kind in frame.subjects
        and any(
            sampling.split_of((noun, frame.verb, thing)) == split
            for thing in frame.objects
            if thing != noun
        )
    )


def _frames_besides(draw: Draw, event: Clause) -> list[selection.Frame]:
    """Return what else the subject of an event may do, as far as the split has it."""
    deeds = _deeds(event.subject.noun, draw.split)
    return [frame for frame in deeds if frame.verb != event.verb]


def _events(draw: Draw) -> Family:
    """What somebody did or did not, when is left out; something else; the reverse."""
    event = _event(draw)
    while not (event.time and _frames_besides(draw, event)):
        event = _event(draw)
    event = event._replace(negative=draw.percent(50))
    happened = event._replace(time="")
    other = _event(draw, _frames_besides(draw, event), event.subject.noun)
    neutral = other._replace(subject=event.subject, negative=draw.percent(50))
    return happened, (event, neutral, _negated(happened))


def _details(draw: Draw) -> Family:
    """Saying where narrows what is asserted and widens what is denied."""
    here = _event(draw, _LOCAL)
    while here.place is None:
        here = _event(draw, _LOCAL)
    here = here._replace(negative=False, time="")
    not_here, anywhere = _negated(here), here._replace(place=None)
    nowhere = _negated(anywhere)
    return draw.pick(
        (
            (anywhere, (here, not_here, nowhere)),
            (not_here, (nowhere, anywhere, here)),
        )
    )


def _places(draw: Draw) -> Family:
    """Who does something somewhere is there, and not elsewhere; others may be anywhere."""
    who, here = "", ""
    while not (who and draw.owns(who, "be", here)):
        who = sampling.someone(draw, _PEOPLE)
        here, there = draw.two(_APART)
    frames = [f for f in _LOCAL if {here, there} <= set(f.places)]
    event = _event(draw, frames, who)._replace(negative=False)
    negative = draw.percent(50)
    inside, outside = (event._replace(place=NounPhrase(place, "the")) for place in (here, there))
    hypothesis = Clause(event.subject, "be at", event.tense, negative, place=inside.place)
    anywhere = event._replace(place=None)
    others = _others(draw, event)
    neutral = anywhere
    if others and draw.percent(50):
        other = sampling.phrase(draw, draw.pick(others), sampling.DEFINITE_SUBJECT)
        neutral = draw.pick((inside, outside))._replace(subject=other)
    truth, falsity = (outside, inside) if negative else (inside, outside)
    return hypothesis, (truth, neutral, falsity)


@functools.cache
def _doers(verb: str, thing: str, split: str) -> tuple[str, ...]:
    """Return who may be told to do something, as far as the split has it."""
    return tuple(one for one in _PEOPLE if sampling.split_of((one, verb, thing)) == split)


def _others(draw: Draw, event: Clause) -> list[str]:
    """Return who else may be told to do the same, as far as the split has it."""
    thing = event.object.noun if event.object else ""
    doers = _doers(event.verb, thing, draw.split)
    return [one for one in doers if one not in (event.subject.noun, thing)]


def _quantities(draw: Draw) -> Family:
    """All are some, and what holds of the teachers need not hold of the cooks."""
    event = _event(draw, _HUMAN)._replace(negative=False)
    while event.subject.noun not in _PERSONS:
        event = _event(draw, _HUMAN)._replace(negative=False)
    one = event.subject.noun
    other = draw.pick([noun for noun in _PERSONS if noun != one])
    asked, truths, undecided, falsities = draw.pick(_QUANTITIES)

    def told(determiner: str, noun: str = one) -> Clause:
        plural = determiner not in ("every", "no")
        return event._replace(subject=NounPhrase(noun, determiner, plural))

    if undecided and draw.percent(50):
        neutral = told(draw.pick(undecided))
    else:
        neutral = told(draw.pick((*truths, *falsities)), other)
    return told(asked), (told(draw.pick(truths)), neutral, told(draw.pick(falsities)))


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

    def told(noun: str, negative: bool) -> Clause:
        return event._replace(object=NounPhrase(noun, "a"), negative=negative)

    unrelated = told(another, draw.percent(50))
    if denied:
        return told(thing, True), (told(general, True), unrelated, told(thing, False))
    return told(general, False), (told(thing, False), unrelated, told(general, True))


_FAMILIES: tuple[Callable[[Draw], Family], ...] = (
    _events, _details, _places, _quantities, _kinds,
)  # fmt: skip


def examples(draw: Draw, labels: Sequence[str] = LABELS) -> list[tuple[Meaning, Meaning, str]]:
    """Return (premise, hypothesis, label) for each of some labels, in a random order."""
    hypothesis, premises = draw.pick(_FAMILIES)(draw)
    labelled = [
        (premise, hypothesis, label)
        for premise, label in zip(premises, LABELS, strict=True)
        if label in labels
    ]
    return [labelled.pop(draw.below(len(labelled))) for _ in labels]
