"""English: a or an, -s in the third person, do-support, irregular pasts."""

import functools

from xlmjax.preparation import demo_lexicon as lexicon
from xlmjax.preparation import demo_selection as selection
from xlmjax.preparation.demo_meaning import GAP, Clause, Joined, Meaning, NounPhrase, person

_ADVERBS = lexicon.ADVERBS["en"]
_DETERMINERS = {"all": "all the", **lexicon.NUMBERS["en"]}
_PASTS = lexicon.mapping(
    "eat/ate drink/drank buy/bought sell/sold read/read write/wrote see/saw find/found "
    "lose/lost break/broke draw/drew hear/heard build/built sing/sang tell/told bring/brought "
    "steal/stole hide/hid forget/forgot feed/fed catch/caught cut/cut choose/chose have/had "
    "sleep/slept run/ran swim/swam fall/fell go/went give/gave send/sent know/knew "
    "think/thought say/said travel/travelled"
)
_THIRD = {"have": "has", "go": "goes"}
_COMPARATIVES = lexicon.mapping(
    "big/bigger beautiful/more_beautiful expensive/more_expensive interesting/more_interesting"
)
_BE = {
    "present": ("am", "is", "are", "are"),
    "past": ("was", "was", "were", "were"),
    "future": ("will be",) * 4,
}


def _ends_in_consonant_y(word: str) -> bool:
    return word.endswith("y") and word[-2] not in "aeiou"


def _with_s(word: str) -> str:
    """Add the -s of plurals and of the third person."""
    if _ends_in_consonant_y(word):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def _with_ed(word: str) -> str:
    if _ends_in_consonant_y(word):
        return word[:-1] + "ied"
    return word + ("d" if word.endswith("e") else "ed")


def _comparative(quality: str) -> str:
    if quality in _COMPARATIVES:
        return _COMPARATIVES[quality]
    if _ends_in_consonant_y(quality):
        return quality[:-1] + "ier"
    return quality + ("r" if quality.endswith("e") else "er")


@functools.cache
def _verb(verb: str, tense: str, who: int, negative: bool, modal: str) -> str:
    """Return the whole verb group: does not want to buy."""
    if modal == "can":
        auxiliary = "can" if tense == "present" else "could"
        negated = {"can": "cannot", "could": "could not"}[auxiliary]
        return f"{negated if negative else auxiliary} {verb}"
    if modal == "want":
        return f"{_verb('want', tense, who, negative, '')} to {verb}"
    if tense == "future":
        return f"will not {verb}" if negative else f"will {verb}"
    if negative:
        do = "did" if tense == "past" else "does" if who == 1 else "do"
        return f"{do} not {verb}"
    head, space, particle = verb.partition(" ")
    if tense == "past":
        head = _PASTS.get(head) or _with_ed(head)
    elif who == 1:
        head = _THIRD.get(head) or _with_s(head)
    return head + space + particle


@functools.cache
def _be(tense: str, who: int, negative: bool) -> str:
    form = _BE[tense][who]
    if not negative:
        return form
    return "will not be" if tense == "future" else f"{form} not"


@functools.cache
def _plain(noun: str, determiner: str, plural: bool, adjective: str) -> str:
    if determiner == "it":
        return _pronoun(noun, plural)
    if not determiner:
        return noun
    if plural:
        noun = lexicon.NOUNS[noun].plural or _with_s(noun)
    words = f"{adjective} {noun}" if adjective else noun
    if determiner == "a":
        if plural or noun in selection.MASS:
            return words
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
    if determiner == "this" and plural:
        determiner = "these"
    return f"{_DETERMINERS.get(determiner, determiner)} {words}"


def _pronoun(noun: str, plural: bool) -> str:
    if plural:
        return "they"
    if noun not in lexicon.NAMES and noun not in selection.PEOPLE:
        return "it"
    return "she" if lexicon.gender(noun, "fr") == "f" else "he"


def _phrase(phrase: NounPhrase) -> str:
    text = _plain(*phrase[:4])
    if phrase.relative is None:
        return text
    who = "who" if phrase.noun in selection.PEOPLE else "that"
    return f"{text} {who} {_clause(phrase.relative, phrase)}"


def _place(place: NounPhrase, verb: str) -> str:
    to = verb in selection.MOVEMENT
    return f"{'to' if to else lexicon.PREPOSITIONS[place.noun]['en']} {_phrase(place)}"


def _clause(clause: Clause, head: NounPhrase | None = None) -> str:
    """Realise a clause; `head` is the noun that fills its gap."""
    subject, verb = clause.subject, clause.verb
    words = []
    if clause.fronted:
        words.append(_ADVERBS[clause.time])
    if verb == "there is":
        be = _be(clause.tense, person(clause.object or GAP), False)
        words.append(f"there {be} no" if clause.negative else f"there {be}")
    else:
        if subject is not GAP:
            words.append(_phrase(subject))
        who = person(head if subject is GAP and head else subject)
        if verb in lexicon.VERBS:
            words.append(_verb(verb, clause.tense, who, clause.negative, clause.modal))
        else:
            words.append(_be(clause.tense, who, clause.negative))
    if clause.quality:
        if clause.object:
            words.append(_comparative(clause.quality) + " than")
        else:
            words.append(f"very {clause.quality}" if clause.very else clause.quality)
    if clause.object and clause.object is not GAP:
        words.append(_phrase(clause.object))
    if clause.recipient:
        words.append("to " + _phrase(clause.recipient))
    if clause.manner:
        words.append(_ADVERBS[clause.manner])
    if clause.place:
        words.append(_place(clause.place, verb))
    if clause.time and not clause.fronted:
        words.append(_ADVERBS[clause.time])
    if clause.content:
        words.append("that " + _clause(clause.content))
    return " ".join(words)


def realise(meaning: Meaning) -> str:
    """Say a meaning in English, without the capital and the full stop."""
    if isinstance(meaning, Joined):
        comma = "" if meaning.connective == "because" else ","
        return f"{_clause(meaning.first)}{comma} {meaning.connective} {_clause(meaning.second)}"
    return _clause(meaning)
