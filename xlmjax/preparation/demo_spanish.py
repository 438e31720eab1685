"""Spanish: agreement, ser and estar, the personal a, al, stem changes, dropped subjects."""

import functools

from xlmjax.preparation import demo_lexicon as lexicon
from xlmjax.preparation import demo_selection as selection
from xlmjax.preparation.demo_meaning import GAP, Clause, Joined, Meaning, NounPhrase, person

_ADVERBS = lexicon.ADVERBS["es"]
_NUMBERS = lexicon.NUMBERS["es"]
# masculine, feminine, masculine plural, feminine plural
_DETERMINERS = {
    "the": "el la los las", "a": "un una - -", "this": "este esta estos estas",
    "my": "mi mi mis mis", "his": "su su sus sus", "her": "su su sus sus",
    "their": "su su sus sus", "our": "nuestro nuestra nuestros nuestras",
    "every": "cada cada - -", "no": "ningún ninguna - -", "some": "- - algunos algunas",
    "many": "- - muchos muchas", "all": "- - todos_los todas_las",
}  # fmt: skip
_ARTICLES = {
    determiner: tuple(form.replace("_", " ").replace("-", "") for form in forms.split())
    for determiner, forms in _DETERMINERS.items()
}
_PRONOUNS = {"I": "", "we": "", "he": "él", "she": "ella", "they": "ellos"}

# infinitive: present yo, él, nosotros, ellos; past of the same unless it is regular; stem of the
# future unless it is the infinitive
_IRREGULAR = """
cerrar: cierro cierra cerramos cierran
encontrar: encuentro encuentra encontramos encuentran
perder: pierdo pierde perdemos pierden
seguir: sigo sigue seguimos siguen, seguí siguió seguimos siguieron
oír: oigo oye oímos oyen, oí oyó oímos oyeron, oir
construir: construyo construye construimos construyen, construí construyó construimos construyeron
traer: traigo trae traemos traen, traje trajo trajimos trajeron
contar: cuento cuenta contamos cuentan
elegir: elijo elige elegimos eligen, elegí eligió elegimos eligieron
dormir: duermo duerme dormimos duermen, dormí durmió dormimos durmieron
jugar: juego juega jugamos juegan
reír: río ríe reímos ríen, reí rio reímos rieron, reir
caer: caigo cae caemos caen, caí cayó caímos cayeron
ir: voy va vamos van, fui fue fuimos fueron
volver: vuelvo vuelve volvemos vuelven
dar: doy da damos dan, di dio dimos dieron
ver: veo ve vemos ven, vi vio vimos vieron
mostrar: muestro muestra mostramos muestran
enviar: envío envía enviamos envían
leer: leo lee leemos leen, leí leyó leímos leyeron
pensar: pienso piensa pensamos piensan
decir: digo dice decimos dicen, dije dijo dijimos dijeron, dir
ser: soy es somos son, era era éramos eran
estar: estoy está estamos están, estaba estaba estábamos estaban
tener: tengo tiene tenemos tienen, tenía tenía teníamos tenían, tendr
saber: sé sabe sabemos saben, sabía sabía sabíamos sabían, sabr
querer: quiero quiere queremos quieren, quería quería queríamos querían, querr
poder: puedo puede podemos pueden, podía podía podíamos podían, podr
amar: amo ama amamos aman, amaba amaba amábamos amaban
vivir: vivo vive vivimos viven, vivía vivía vivíamos vivían
"""
_TABLE = {
    infinitive: [cell.split() for cell in forms.split(",")]
    for infinitive, forms in (row.split(":") for row in _IRREGULAR.strip().splitlines())
}
_PRESENT = {"a": "o a amos an", "e": "o e emos en", "i": "o e imos en"}
_PRETERITE = {"a": "é ó amos aron", "e": "í ió imos ieron", "i": "í ió imos ieron"}
_FUTURE = ("é", "á", "emos", "án")
_BEFORE_E = {"c": "qu", "g": "gu", "z": "c"}


@functools.cache
def _finite(infinitive: str, tense: str, who: int) -> str:
    """Return the present, the past (preterite, or imperfect of a state) or the future."""
    irregular = _TABLE.get(infinitive, [])
    stem, vowel = infinitive[:-2], infinitive[-2]
    if tense == "future":
        return (irregular[2][0] if len(irregular) > 2 else infinitive) + _FUTURE[who]
    if tense == "past":
        if len(irregular) > 1:
            return irregular[1][who]
        if who == 0 and vowel == "a":
            stem = stem[:-1] + _BEFORE_E.get(stem[-1], stem[-1])
        return stem + _PRETERITE[vowel].split()[who]
    return irregular[0][who] if irregular else stem + _PRESENT[vowel].split()[who]


def _be(clause: Clause) -> str:
    passing = clause.verb == "be at" or (
        clause.quality and "passing" in selection.QUALITIES[clause.quality]
    )
    return "estar" if passing else "ser"


def _feminine(noun: str) -> bool:
    return lexicon.gender(noun, "es") == "f"


def _with_s(word: str) -> str:
    if word[-1] in "aeioué":
        return word + "s"
    return word[:-1] + "ces" if word.endswith("z") else word + "es"


@functools.cache
def _adjective(quality: str, feminine: bool, plural: bool) -> str:
    masculine, *others = lexicon.ADJECTIVES[quality]["es"]
    word = masculine
    if feminine:
        word = others[0] if others else word[:-1] + "a" if word.endswith("o") else word
    return _with_s(word) if plural else word


@functools.cache
def _plain(noun: str, determiner: str, plural: bool, adjective: str) -> str:
    if determiner == "it":
        return ""
    if not determiner:
        return _PRONOUNS.get(noun, noun)
    feminine = _feminine(noun)
    _, singular, *irregular = lexicon.NOUNS[noun].cells["es"]
    word = (irregular[0] if irregular else _with_s(singular)) if plural else singular
    if adjective:
        word += " " + _adjective(adjective, feminine, plural)
    if determiner in _NUMBERS:
        return f"{_NUMBERS[determiner]} {word}"
    article = _ARTICLES[determiner][2 * plural + feminine]
    if determiner == "a" and noun in selection.MASS:
        article = ""
    return f"{article} {word}".strip()


def _phrase(phrase: NounPhrase, negative: bool = False) -> str:
    """Realise a noun phrase; "un" under negation becomes "ningún"."""
    determiner = phrase.determiner
    if negative and determiner == "a" and not phrase.plural and phrase.noun not in selection.MASS:
        determiner = "no"
    text = _plain(phrase.noun, determiner, phrase.plural, phrase.adjective)
    if phrase.relative is None:
        return text
    return f"{text} que {_clause(phrase.relative, phrase)}"


def _to(text: str) -> str:
    """Put the preposition a before a noun phrase."""
    return "al " + text[3:] if text.startswith("el ") else f"a {text}"


def _profession(clause: Clause) -> str:
    work = clause.object or GAP
    if work.plural:
        return _plain(work.noun, "a", True, "")
    if _feminine(clause.subject.noun):
        return lexicon.FEMININE[work.noun]["es"]
    return lexicon.NOUNS[work.noun].cells["es"][1]


_EXISTENCE = {"present": "hay", "past": "había", "future": "habrá"}


def _group(clause: Clause, who: int) -> str:
    """Return the verb group: no, the dative pronoun, the finite verb and an infinitive."""
    if clause.verb == "there is":
        finite = _EXISTENCE[clause.tense]
    elif clause.modal:
        modal = _finite(lexicon.VERBS[clause.modal]["es"], clause.tense, who)
        finite = f"{modal} {lexicon.VERBS[clause.verb]['es']}"
    else:
        verb = lexicon.VERBS[clause.verb]["es"] if clause.verb in lexicon.VERBS else _be(clause)
        finite = _finite(verb, clause.tense, who)
    if clause.recipient:
        finite = f"{'les' if clause.recipient.plural else 'le'} {finite}"
    return f"no {finite}" if clause.negative else finite


def _object(clause: Clause, thing: NounPhrase) -> str:
    text = _phrase(thing, clause.negative)
    personal = thing.noun in selection.PEOPLE or thing.noun in lexicon.NAMES
    if clause.verb in ("follow", "feed", "love"):
        personal = personal or thing.noun in selection.ANIMATE
    return _to(text) if personal and clause.verb not in ("have", "there is") else text


def _clause(clause: Clause, head: NounPhrase | None = None) -> str:
    """Realise a clause; `head` is the noun that fills its gap."""
    subject, verb, thing = clause.subject, clause.verb, clause.object
    agent = head if subject is GAP and head else subject
    words = []
    if clause.fronted:
        words.append(_ADVERBS[clause.time])
    if subject is not GAP and verb != "there is":
        words.append(_phrase(subject))
    words.append(_group(clause, person(agent)))
    if clause.manner == "well":
        words.append("bien")
    if clause.quality:
        words.append(_quality(clause, agent))
    elif verb == "be a":
        words.append(_profession(clause))
    elif thing and thing is not GAP:
        words.append(_object(clause, thing))
    if clause.recipient:
        words.append(_to(_phrase(clause.recipient)))
    if clause.manner and clause.manner != "well":
        words.append(_ADVERBS[clause.manner])
    if clause.place:
        place = _phrase(clause.place)
        words.append(_to(place) if verb in (*selection.MOVEMENT, "arrive") else f"en {place}")
    if clause.time and not clause.fronted:
        words.append(_ADVERBS[clause.time])
    if clause.content:
        words.append("que " + _clause(clause.content))
    return " ".join(word for word in words if word)


def _quality(clause: Clause, agent: NounPhrase) -> str:
    word = _adjective(clause.quality, _feminine(agent.noun), person(agent) > 1)
    if clause.object:
        return f"más {word} que {_phrase(clause.object)}"
    return f"muy {word}" if clause.very else word


def realise(meaning: Meaning) -> str:
    """Say a meaning in Spanish, without the capital and the full stop."""
    if not isinstance(meaning, Joined):
        return _clause(meaning)
    first, second = _clause(meaning.first), _clause(meaning.second)
    match meaning.connective:
        case "and":
            joint = " e" if second.startswith(("i", "hi")) else " y"
        case "or":
            joint = " u" if second.startswith(("o", "ho")) else " o"
        case "but":
            joint = ", pero"
        case _:
            joint = " porque"
    return f"{first}{joint} {second}"
