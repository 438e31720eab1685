"""How XLM turns text into words: the Moses scripts, then lower-case letters without accents.

The steps and their order are those of XLM's `tools/` and of Hugging Face's XLM tokenizer (XLM,
specification 1.1); the scripts are those of the `sacremoses` package.
"""

import functools
import re
import unicodedata

import sacremoses

# Languages whose words are not set apart by spaces, and what XLM separates them with.
UNSPACED = {"zh": "the Stanford segmenter or jieba", "ja": "KyTea", "th": "PyThaiNLP"}

# Moses' replace-unicode-punctuation.perl.
_PUNCTUATION = str.maketrans(
    {
        **dict(zip("，、∶：？）！（；～━％", ",,::?)!(;~-%", strict=True)),
        **dict(zip("０１２３４５６７８９", "0123456789", strict=True)),
        **dict.fromkeys("”“《》」「", '"'),
        **dict(zip("〈〉【】’", "<>[]'", strict=True)),
        "…": "...",
    }
)
_FULL_STOP = re.compile(r"[。．]\s*")

# WMT16's normalise-romanian.py and remove-diacritics.py.
_ROMANIAN = str.maketrans(
    "\u015e\u015f\u0162\u0163\u0218\u0219\u021a\u021bĂăÂâÎî", "SsTtSsTtAaAaIi"
)


def words(text: str, language: str, fold: bool) -> list[str]:
    """Return the words of a text; with `fold` in lower case and without accents.

    Text of the languages in `UNSPACED` has to come with its words set apart by spaces.
    """
    text = _FULL_STOP.sub(". ", text.translate(_PUNCTUATION))
    text = _normalizer(language).normalize(text)
    if not text.isprintable():
        text = "".join(c for c in text if not unicodedata.category(c).startswith("C"))
    if language in UNSPACED:
        found = text.split()
    else:
        text = text.translate(_ROMANIAN) if language == "ro" else text
        found = _tokenizer(language).tokenize(text, return_str=False, escape=False)
    return [word for word in (folded(found) if fold else found) if word]


def folded(found: list[str]) -> list[str]:
    """Return words in lower case without combining marks (Unicode Mn)."""
    text = unicodedata.normalize("NFD", " ".join(found).lower())
    return "".join(c for c in text if unicodedata.category(c) != "Mn").lower().split(" ")


@functools.cache
def _normalizer(language: str) -> sacremoses.MosesPunctNormalizer:
    return sacremoses.MosesPunctNormalizer(lang=language)


@functools.cache
def _tokenizer(language: str) -> sacremoses.MosesTokenizer:
    return sacremoses.MosesTokenizer(lang=language)
