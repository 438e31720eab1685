"""German: case, gender and adjective endings; the finite verb second, or last when subordinate.

A main clause is: fronted or subject, finite verb, middle field, then the other half of the verb
(participle, infinitive or separated prefix). A subordinate clause ends in the finite verb.
"""

import functools
from typing import NamedTuple

from xlmjax.preparation import demo_lexicon as lexicon
from xlmjax.preparation import demo_selection as selection
from xlmjax.preparation.demo_meaning import (
    DEFINITE,
    GAP,
    POSSESSIVES,
    Clause,
    Joined,
    Meaning,
    NounPhrase,
    person,
)

_ADVERBS = lexicon.ADVERBS["de"]
_CASES = {"nominative": 0, "accusative": 1, "dative": 2}

# Nominative, accusative, dative; "p" is the plural of all genders.
_THE = {
    "m": ("der", "den", "dem"),
    "f": ("die", "die", "der"),
    "n": ("das", "das", "dem"),
    "p": ("die", "die", "den"),
}
_ENDINGS_OF_DIESER = {
    "m": ("er", "en", "em"),
    "f": ("e", "e", "er"),
    "n": ("es", "es", "em"),
    "p": ("e", "e", "en"),
}
_ENDINGS_OF_EIN = {**_ENDINGS_OF_DIESER, "m": ("", "en", "em"), "n": ("", "", "em")}
_WEAK = {"m": ("e", "en", "en"), "f": ("e", "e", "en"), "n": ("e", "e", "en"), "p": ("en",) * 3}
_MIXED = {**_WEAK, "m": ("er", "en", "en"), "n": ("es", "es", "en")}
_STRONG = _ENDINGS_OF_DIESER
_RELATIVE = {**_THE, "p": ("die", "die", "denen")}
_NUMBERS = lexicon.NUMBERS["de"]
_STEMS = {
    "this": "dies", "every": "jed", "all": "all", "some": "einig", "many": "viel",
    "a": "ein", "no": "kein", "my": "mein", "our": "unser", "his": "sein", "her": "ihr",
    "their": "ihr",
}  # fmt: skip
_PRONOUNS = {"I": "ich", "we": "wir", "he": "er", "she": "sie", "they": "sie"}
_IT = {"m": "er", "f": "sie", "n": "es"}
_CONTRACTIONS = {
    "in dem": "im", "an dem": "am", "zu dem": "zum", "zu der": "zur", "in das": "ins",
    "an das": "ans",
}  # fmt: skip

# infinitive: ich, er, participle; whatever is not here is regular. wir and sie are the infinitive.
_IRREGULAR = """
essen: esse isst gegessen        | fressen: fresse frisst gefressen
trinken: trinke trinkt getrunken | lesen: lese liest gelesen
schreiben: schreibe schreibt geschrieben | öffnen: öffne öffnet geöffnet | sehen: sehe sieht gesehen
schließen: schließe schließt geschlossen | finden: finde findet gefunden
verlieren: verliere verliert verloren | waschen: wasche wäscht gewaschen
tragen: trage trägt getragen     | zerbrechen: zerbreche zerbricht zerbrochen
helfen: helfe hilft geholfen     | laden: lade lädt geladen | singen: singe singt gesungen
bringen: bringe bringt gebracht  | stehlen: stehle stiehlt gestohlen
vergessen: vergesse vergisst vergessen | fangen: fange fängt gefangen
schneiden: schneide schneidet geschnitten | schieben: schiebe schiebt geschoben
haben: habe hat gehabt           | schlafen: schlafe schläft geschlafen
laufen: laufe läuft gelaufen     | schwimmen: schwimme schwimmt geschwommen
fallen: falle fällt gefallen     | gehen: gehe geht gegangen | kommen: komme kommt gekommen
geben: gebe gibt gegeben         | wissen: weiß weiß gewusst | denken: denke denkt gedacht
zeichnen: zeichne zeichnet gezeichnet | wollen: will will gewollt | können: kann kann gekonnt
"""
_TABLE = dict(
    (infinitive, tuple(forms.split()))
    for infinitive, forms in (
        cell.strip().split(":") for row in _IRREGULAR.strip().splitlines()
        for cell in row.split("|")
    )
)  # fmt: skip
_PRETERITES = {
    "be": ("war", "waren"), "have": ("hatte", "hatten"), "want": ("wollte", "wollten"),
    "can": ("konnte", "konnten"), "love": ("liebte", "liebten"), "live": ("lebte", "lebten"),
    "there is": ("gab", "gab"),
}  # fmt: skip
_ANIMAL = "eat, of animals"
_PRESENT_BE = ("bin", "ist", "sind", "sind")
_WERDEN = ("werde", "wird", "werden", "werden")
_HAVE = ("habe", "hat", "haben", "haben")
_WITH_SEIN = frozenset(lexicon.words("follow run swim fall go return travel arrive"))
_DATIVE_VERBS = frozenset(("help", "follow"))
_UMLAUT = {
    "groß": "größer", "lang": "länger", "kurz": "kürzer", "stark": "stärker",
    "schwach": "schwächer", "arm": "ärmer", "alt": "älter", "klug": "klüger", "teuer": "teurer",
}  # fmt: skip


class _Verb(NamedTuple):
    """The verb of a clause: the finite form, a separated prefix, and the infinite rest."""

    finite: str
    prefix: str
    rest: str


@functools.cache
def _forms(infinitive: str) -> tuple[str, str, str, str]:
    """Return ich, er, wir and the participle of a verb without its separable prefix."""
    if infinitive in _TABLE:
        first, third, participle = _TABLE[infinitive]
        return first, third, infinitive, participle
    stem = infinitive.removesuffix("n").removesuffix("e")
    third = stem + ("et" if stem.endswith(("t", "d")) else "t")
    inseparable = infinitive.startswith(("be", "ver", "er", "zer")) or infinitive.endswith("ieren")
    return stem + "e", third, infinitive, third if inseparable else "ge" + third


@functools.cache
def _verb(verb: str, tense: str, who: int, modal: str) -> _Verb:
    infinitive = {"there is": "geben", _ANIMAL: "fressen"}.get(verb, "sein")
    if verb in lexicon.VERBS:
        infinitive = lexicon.VERBS[verb]["de"]
    prefix, _, bare = infinitive.rpartition("-")
    if modal:
        finite = _verb(modal, tense, who, "").finite
        return _Verb(finite, "", prefix + bare)
    verb = "be" if infinitive == "sein" else verb
    if tense == "future":
        return _Verb(_WERDEN[who], "", prefix + bare)
    if tense == "past":
        if verb in _PRETERITES:
            return _Verb(_PRETERITES[verb][who > 1], "", "")
        auxiliary = _PRESENT_BE if verb in _WITH_SEIN else _HAVE
        return _Verb(auxiliary[who], "", prefix + _forms(bare)[3])
    if verb == "be":
        return _Verb(_PRESENT_BE[who], "", "")
    first, third, plural, _ = _forms(bare)
    return _Verb((first, third, plural, plural)[who], prefix, "")


def _gender(noun: str, plural: bool) -> str:
    return "p" if plural else lexicon.gender(noun, "de")


def _stem(quality: str) -> str:
    stem = lexicon.ADJECTIVES[quality]["de"][0]
    return {"teuer": "teur", "müde": "müd", "leise": "leis"}.get(stem, stem)


@functools.cache
def _plain(noun: str, determiner: str, plural: bool, adjective: str, case: int) -> str:
    if determiner == "it":
        return "sie" if plural else _IT[lexicon.gender(noun, "de")]
    if not determiner:
        return _PRONOUNS.get(noun, noun)
    gender = _gender(noun, plural)
    _, singular, many, *oblique = lexicon.NOUNS[noun].cells["de"]
    form = many if plural else oblique[0] if oblique and case else singular
    if plural and case == 2 and form[-1] not in "ns":
        form += "n"
    words, endings = [], _STRONG
    if determiner == "the":
        words, endings = [_THE[gender][case]], _WEAK
    elif determiner in ("this", "every", "all"):
        words, endings = [_STEMS[determiner] + _ENDINGS_OF_DIESER[gender][case]], _WEAK
    elif determiner in ("no", *POSSESSIVES) or (determiner == "a" and not plural):
        if noun not in selection.MASS or determiner != "a":
            words, endings = [_STEMS[determiner] + _ENDINGS_OF_EIN[gender][case]], _MIXED
    elif determiner in ("some", "many"):
        words = [_STEMS[determiner] + _STRONG[gender][case]]
    elif determiner in _NUMBERS:
        words = [_NUMBERS[determiner]]
    if adjective:
        words.append(_stem(adjective) + endings[gender][case])
    return " ".join((*words, form))


def _phrase(phrase: NounPhrase, case: str, negative: bool = False) -> str:
    """Decline a noun phrase; the indefinite object of a negated verb becomes kein."""
    determiner = "no" if negative and phrase.determiner == "a" else phrase.determiner
    index = _CASES[case]
    text = _plain(phrase.noun, determiner, phrase.plural, phrase.adjective, index)
    if phrase.relative is None:
        return text
    is_object = phrase.relative.object is GAP
    role = _object_case(phrase.relative.verb) if is_object else "nominative"
    pronoun = _RELATIVE[_gender(phrase.noun, phrase.plural)][_CASES[role]]
    return f"{text}, {pronoun} {_clause(phrase.relative, 'last', phrase)},"


def _object_case(verb: str) -> str:
    return "dative" if verb in _DATIVE_VERBS else "accusative"


def _place(place: NounPhrase, verb: str) -> str:
    still, towards = lexicon.PREPOSITIONS[place.noun]["de"].split()
    moving = verb in selection.MOVEMENT
    preposition = towards if moving else still
    case = "accusative" if moving and towards != "zu" else "dative"
    text = f"{preposition} {_phrase(place, case)}"
    first_two = " ".join(text.split(" ", 2)[:2])
    return text.replace(first_two, _CONTRACTIONS.get(first_two, first_two), 1)


def _middle(clause: Clause) -> list[str]:
    """Return the middle field: time, dative, definite object, place, manner, indefinite object.

    "nicht" stands after the definite object, and directly before a manner; "gut" comes last.
    """
    verb, thing = clause.verb, clause.object
    not_ = "nicht" if clause.negative else ""
    early = late = ""
    if thing and thing is not GAP and verb in lexicon.VERBS:
        if verb == "wait for":
            late = f"{not_} auf {_phrase(thing, 'accusative')}".strip()
            not_ = ""
        elif thing.determiner in DEFINITE:
            early = _phrase(thing, _object_case(verb))
        else:
            late = _phrase(thing, _object_case(verb), clause.negative)
            not_ = "" if thing.determiner == "a" else not_
    time = _ADVERBS[clause.time] if clause.time and not clause.fronted else ""
    recipient = _phrase(clause.recipient, "dative") if clause.recipient else ""
    place = _place(clause.place, verb) if clause.place else ""
    if verb == "there is" and thing:
        return [time, _phrase(thing, "accusative", clause.negative), place]
    if verb == "be a":
        return [time, _profession(clause), place]
    if clause.quality:
        return [time, not_, _quality(clause)]
    manner = _ADVERBS.get(clause.manner, "")
    if clause.manner == "well":
        return [time, recipient, early, place, late, not_, manner]
    if manner:
        return [time, recipient, early, place, not_, manner, late]
    return [time, recipient, early, not_, place, late]


def _quality(clause: Clause) -> str:
    word = lexicon.ADJECTIVES[clause.quality]["de"][0]
    if clause.object:
        comparative = _UMLAUT.get(word, word + "er")
        return f"{comparative} als {_phrase(clause.object, 'nominative')}"
    return f"sehr {word}" if clause.very else word


def _profession(clause: Clause) -> str:
    work = clause.object or GAP
    _, man, men, *_ = lexicon.NOUNS[work.noun].cells["de"]
    woman = lexicon.FEMININE[work.noun]["de"]
    female = not work.plural and lexicon.gender(clause.subject.noun, "fr") == "f"
    not_a = ("keine " if work.plural or female else "kein ") if clause.negative else ""
    return not_a + (men if work.plural else woman if female else man)


def _clause(clause: Clause, order: str = "second", head: NounPhrase | None = None) -> str:
    """Realise a clause with the finite verb "second" or "last"; `head` fills its gap."""
    subject = clause.subject
    verb = clause.verb
    eater = (head or subject).noun
    if verb == "eat" and eater in selection.ANIMATE and eater not in selection.PEOPLE:
        verb = _ANIMAL
    if verb == "there is":
        who, name = 1, "es"
    elif subject is GAP:
        who, name = person(head or GAP), ""
    else:
        who, name = person(subject), _phrase(subject, "nominative")
    finite, prefix, rest = _verb(verb, clause.tense, who, clause.modal)
    middle = _middle(clause)
    content = ""
    if clause.content:
        content = f", dass {_clause(clause.content, 'last')}"
    if order == "last":
        words = [name, *middle, rest, prefix + finite]
        if clause.fronted:
            words.insert(1, _ADVERBS[clause.time])
    elif clause.fronted:
        words = [_ADVERBS[clause.time], finite, name, *middle, prefix, rest]
    else:
        words = [name, finite, *middle, prefix, rest]
    return " ".join(word for word in words if word) + content


_CONNECTIVES = {"and": ", und", "but": ", aber", "or": ", oder", "because": ", weil"}


def realise(meaning: Meaning) -> str:
    """Say a meaning in German, without the capital and the full stop."""
    if isinstance(meaning, Joined):
        order = "last" if meaning.connective == "because" else "second"
        first, second = _clause(meaning.first), _clause(meaning.second, order)
        text = f"{first}{_CONNECTIVES[meaning.connective]} {second}"
    else:
        text = _clause(meaning)
    return text.replace(",,", ",").removesuffix(",")
