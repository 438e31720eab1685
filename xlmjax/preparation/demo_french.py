"""French: elision and contraction, agreement, adjective order, ne ... pas, avoir or être."""

import functools

from xlmjax.preparation import demo_lexicon as lexicon
from xlmjax.preparation import demo_selection as selection
from xlmjax.preparation.demo_meaning import GAP, Clause, Joined, Meaning, NounPhrase, person

_ADVERBS = lexicon.ADVERBS["fr"]
_VOWELS = tuple("aeiouhâàéèêëîïôœ")  # every h of the lexicon is mute
_NUMBERS = lexicon.NUMBERS["fr"]
# masculine, feminine, plural of both
_DETERMINERS = {
    "the": ("le", "la", "les"), "a": ("un", "une", "des"), "this": ("ce", "cette", "ces"),
    "my": ("mon", "ma", "mes"), "his": ("son", "sa", "ses"), "her": ("son", "sa", "ses"),
    "our": ("notre", "notre", "nos"), "their": ("leur", "leur", "leurs"),
    "every": ("chaque", "chaque", ""), "no": ("aucun", "aucune", ""),
    "some": ("", "", "quelques"), "many": ("", "", "beaucoup de"),
}  # fmt: skip
_BEFORE_VOWEL = {
    "le": "l'", "la": "l'", "ce": "cet ", "ma": "mon ", "sa": "son ", "de": "d'", "ne": "n'",
    "que": "qu'", "je": "j'", "du": "de l'", "de la": "de l'", "beaucoup de": "beaucoup d'",
    "parce que": "parce qu'",
}  # fmt: skip
_PRONOUNS = {"I": "je", "we": "nous", "he": "il", "she": "elle", "they": "ils"}

# infinitive: je, il, nous, ils, participle, stem of the future; other verbs are regular
_IRREGULAR = """
boire: bois boit buvons boivent bu boir | lire: lis lit lisons lisent lu lir
écrire: écris écrit écrivons écrivent écrit écrir
ouvrir: ouvre ouvre ouvrons ouvrent ouvert ouvrir | voir: vois voit voyons voient vu verr
suivre: suis suit suivons suivent suivi suivr
construire: construis construit construisons construisent construit construir
dormir: dors dort dormons dorment dormi dormir | courir: cours court courons courent couru courr
rire: ris rit rions rient ri rir | vivre: vis vit vivons vivent vécu vivr
aller: vais va allons vont allé ir | savoir: sais sait savons savent su saur
dire: dis dit disons disent dit dir | vouloir: veux veut voulons veulent voulu voudr
pouvoir: peux peut pouvons peuvent pu pourr | être: suis est sommes sont été ser
avoir: ai a avons ont eu aur | envoyer: envoie envoie envoyons envoient envoyé enverr
acheter: achète achète achetons achètent acheté achèter
nettoyer: nettoie nettoie nettoyons nettoient nettoyé nettoier
"""
_TABLE = {
    infinitive.strip(): tuple(forms.split())
    for row in _IRREGULAR.strip().splitlines()
    for infinitive, forms in (cell.split(":") for cell in row.split("|"))
}
_WITH_ETRE = frozenset(("fall", "go", "return", "arrive"))
_IN_IMPERFECT = frozenset(("have", "love", "live", "know", "think", "want", "can"))
_FUTURE = ("ai", "a", "ons", "ont")
_IMPERFECT = ("ais", "ait", "ions", "aient")


def _join(first: str, second: str) -> str:
    """Put two words together, eliding the first before a vowel."""
    if second.lower().startswith(_VOWELS) and first in _BEFORE_VOWEL:
        return _BEFORE_VOWEL[first] + second
    return f"{first} {second}"


def _with_s(word: str) -> str:
    if word.endswith(("s", "x", "z")):
        return word
    if word.endswith("al"):
        return word[:-2] + "aux"
    return word + ("x" if word.endswith("eau") else "s")


@functools.cache
def _forms(infinitive: str) -> tuple[str, ...]:
    """Return je, il, nous, ils, participle and the stem of the future."""
    if infinitive in _TABLE:
        return _TABLE[infinitive]
    stem = infinitive[:-2]
    if infinitive.endswith("er"):
        soft = stem + "e" if stem.endswith("g") else stem
        return stem + "e", stem + "e", soft + "ons", stem + "ent", stem + "é", infinitive
    if infinitive.endswith("ir"):
        return (
            stem + "is", stem + "it", stem + "issons", stem + "issent", stem + "i", infinitive
        )  # fmt: skip
    return stem + "s", stem, stem + "ons", stem + "ent", stem + "u", infinitive[:-1]


def _infinitive(verb: str) -> str:
    return lexicon.VERBS[verb]["fr"] if verb in lexicon.VERBS else "être"


@functools.cache
def _finite(infinitive: str, tense: str, who: int) -> str:
    """Return a simple form: present, imperfect ("past") or future."""
    forms = _forms(infinitive)
    if tense == "future":
        return forms[5] + _FUTURE[who]
    if tense == "past":
        return ("ét" if infinitive == "être" else forms[2][:-3]) + _IMPERFECT[who]
    return forms[who]


@functools.cache
def _verb(
    verb: str, tense: str, who: int, negative: bool, modal: str, feminine: bool, plural: bool
) -> tuple[str, str]:
    """Return the finite verb with its negation, and what follows; the participle agrees."""
    rest = ""
    if modal:
        finite, rest = _finite(_infinitive(modal), tense, who), _infinitive(verb)
    elif tense == "past" and verb in lexicon.VERBS and verb not in _IN_IMPERFECT:
        finite = _finite("être" if verb in _WITH_ETRE else "avoir", "present", who)
        rest = _agree(_forms(_infinitive(verb))[4], feminine, plural)
    else:
        finite = _finite(_infinitive(verb), tense, who)
    if negative:
        finite = _join("ne", finite) + " pas"
    return finite, rest


def _agree(word: str, feminine: bool, plural: bool) -> str:
    """Add -e and -s to a participle."""
    word += "e" * feminine
    return word + "s" if plural and not word.endswith("s") else word


@functools.cache
def _adjective(quality: str, feminine: bool, plural: bool) -> str:
    masculine, *others = lexicon.ADJECTIVES[quality]["fr"]
    word = masculine.removeprefix("*")
    if feminine:
        word = others[0] if others else word if word.endswith("e") else word + "e"
    return _with_s(word) if plural and word != "bon marché" else word


def _feminine(noun: str) -> bool:
    return lexicon.gender(noun, "fr") == "f"


@functools.cache
def _plain(noun: str, determiner: str, plural: bool, adjective: str) -> str:
    feminine = _feminine(noun)
    if determiner == "it":
        return ("elles" if plural else "elle") if feminine else ("ils" if plural else "il")
    if not determiner:
        return _PRONOUNS.get(noun, noun)
    _, singular, *irregular = lexicon.NOUNS[noun].cells["fr"]
    word = (irregular[0] if irregular else _with_s(singular)) if plural else singular
    before = False
    if adjective:
        masculine, *others = lexicon.ADJECTIVES[adjective]["fr"]
        before = masculine.startswith("*")
        form = _adjective(adjective, feminine, plural)
        if len(others) > 1 and not (feminine or plural) and word.startswith(_VOWELS):
            form = others[1]
        word = f"{form} {word}" if before else f"{word} {form}"
    if determiner in _NUMBERS:
        return f"{_NUMBERS[determiner]} {word}"
    if determiner == "all":
        return f"{'toutes' if feminine else 'tous'} les {word}"
    if determiner == "none":
        return _join("de", word)
    article = _DETERMINERS[determiner][2 if plural else feminine]
    if determiner == "a" and noun in selection.MASS:
        article = "de la" if feminine else "du"
    elif article == "des" and before:
        article = "de"
    return _join(article, word)


def _phrase(phrase: NounPhrase, negative: bool = False) -> str:
    """Realise a noun phrase; the indefinite object of a negated verb becomes de."""
    determiner = "none" if negative and phrase.determiner == "a" else phrase.determiner
    text = _plain(phrase.noun, determiner, phrase.plural, phrase.adjective)
    relative = phrase.relative
    if relative is None:
        return text
    clause = _clause(relative, phrase)
    return f"{text} {_join('que', clause) if relative.object is GAP else 'qui ' + clause}"


def _contract(preposition: str, text: str) -> str:
    """Put à or de before a noun phrase: au, aux, du, des."""
    for article, both in (("le ", "au "), ("les ", "aux ")):
        if preposition == "à" and text.startswith(article):
            return both + text[len(article) :]
    return f"{preposition} {text}"


def _profession(clause: Clause) -> str:
    work = clause.object or GAP
    if work.plural:
        return _plain(work.noun, "a", True, "").removeprefix("des ")
    if _feminine(clause.subject.noun):
        return lexicon.FEMININE[work.noun]["fr"]
    return lexicon.NOUNS[work.noun].cells["fr"][1]


def _clause(clause: Clause, head: NounPhrase | None = None) -> str:
    """Realise a clause; `head` is the noun that fills its gap."""
    subject, verb, thing = clause.subject, clause.verb, clause.object
    agent = head if subject is GAP and head else subject
    words = []
    negative = clause.negative or agent.determiner == "no"
    if clause.verb == "there is":
        existing = _finite("avoir", clause.tense, 1)
        name, group = "il", f"n'y {existing} pas" if clause.negative else f"y {existing}"
        rest = ""
    else:
        agreeing = agent if verb in _WITH_ETRE else head if thing is GAP and head else None
        feminine = agreeing is not None and _feminine(agreeing.noun)
        plural = agreeing is not None and person(agreeing) > 1
        who = person(agent)
        group, rest = _verb(verb, clause.tense, who, negative, clause.modal, feminine, plural)
        if agent.determiner == "no":
            group = group.replace(" pas", "", 1)
        name = "" if subject is GAP else _phrase(subject)
    words.append(_join(name, group) if name else group)
    if clause.manner == "well":
        words.append("bien")
    if rest:
        words.append(rest)
    if clause.fronted:
        words.insert(0, _ADVERBS[clause.time] + ",")
    if clause.quality:
        words.append(_quality(clause, agent))
    elif verb == "be a":
        words.append(_profession(clause))
    elif thing and thing is not GAP:
        words.append(_phrase(thing, clause.negative))
    if clause.recipient:
        words.append(_contract("à", _phrase(clause.recipient)))
    if clause.manner and clause.manner != "well":
        words.append(_ADVERBS[clause.manner])
    if clause.place:
        preposition = lexicon.PREPOSITIONS[clause.place.noun]["fr"]
        words.append(_contract(preposition, _phrase(clause.place)))
    if clause.time and not clause.fronted:
        words.append(_ADVERBS[clause.time])
    if clause.content:
        words.append(_join("que", _clause(clause.content)))
    return " ".join(words)


def _quality(clause: Clause, agent: NounPhrase) -> str:
    word = _adjective(clause.quality, _feminine(agent.noun), person(agent) > 1)
    if clause.object:
        return f"plus {word} {_join('que', _phrase(clause.object))}"
    return f"très {word}" if clause.very else word


_CONNECTIVES = {"and": " et", "but": ", mais", "or": " ou"}


def realise(meaning: Meaning) -> str:
    """Say a meaning in French, without the capital and the full stop."""
    if isinstance(meaning, Joined):
        first, second = _clause(meaning.first), _clause(meaning.second)
        if meaning.connective == "because":
            return f"{first} {_join('parce que', second)}"
        return f"{first}{_CONNECTIVES[meaning.connective]} {second}"
    return _clause(meaning)
