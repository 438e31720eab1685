"""The table of languages. Ids are stored in checkpoints and token stores: append, never reorder."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Language:
    """One row of the table: ISO 639-1 code (else 639-3), id, English name, script."""

    code: str
    id: int
    name: str
    script: str


# The 15 languages of XNLI come first, in alphabetical order of their codes, as XLM orders them.
_ROWS = """
ar Arabic Arab | bg Bulgarian Cyrl | de German Latn | el Greek Grek | en English Latn
es Spanish Latn | fr French Latn | hi Hindi Deva | ru Russian Cyrl | sw Swahili Latn
th Thai Thai | tr Turkish Latn | ur Urdu Arab | vi Vietnamese Latn | zh Chinese Hans
cs Czech Latn | ro Romanian Latn | wo Wolof Latn | zu Zulu Latn | af Afrikaans Latn
am Amharic Ethi | az Azerbaijani Latn | be Belarusian Cyrl | bn Bengali Beng | bs Bosnian Latn
ca Catalan Latn | cy Welsh Latn | da Danish Latn | eo Esperanto Latn | et Estonian Latn
eu Basque Latn | fa Persian Arab | fi Finnish Latn | ga Irish Latn | gl Galician Latn
gu Gujarati Gujr | ha Hausa Latn | he Hebrew Hebr | hr Croatian Latn | hu Hungarian Latn
hy Armenian Armn | id Indonesian Latn | ig Igbo Latn | is Icelandic Latn | it Italian Latn
ja Japanese Jpan | jv Javanese Latn | ka Georgian Geor | kk Kazakh Cyrl | km Khmer Khmr
kn Kannada Knda | ko Korean Hang | ku Kurdish Latn | ky Kyrgyz Cyrl | la Latin Latn
lo Lao Laoo | lt Lithuanian Latn | lv Latvian Latn | mg Malagasy Latn | mk Macedonian Cyrl
ml Malayalam Mlym | mn Mongolian Cyrl | mr Marathi Deva | ms Malay Latn | my Burmese Mymr
ne Nepali Deva | nl Dutch Latn | no Norwegian Latn | om Oromo Latn | or Odia Orya
pa Punjabi Guru | pl Polish Latn | ps Pashto Arab | pt Portuguese Latn | sa Sanskrit Deva
sd Sindhi Arab | si Sinhala Sinh | sk Slovak Latn | sl Slovenian Latn | so Somali Latn
sq Albanian Latn | sr Serbian Cyrl | su Sundanese Latn | sv Swedish Latn | ta Tamil Taml
te Telugu Telu | tl Tagalog Latn | ug Uyghur Arab | uk Ukrainian Cyrl | uz Uzbek Latn
xh Xhosa Latn | yi Yiddish Hebr | yo Yoruba Latn
"""

LANGUAGES: tuple[Language, ...] = tuple(
    Language(code, number, name, script)
    for number, (code, name, script) in enumerate(
        row.split() for line in _ROWS.strip().splitlines() for row in line.split("|")
    )
)
_BY_CODE = {language.code: language for language in LANGUAGES}

XNLI: tuple[str, ...] = tuple(language.code for language in LANGUAGES[:15])


def get(code: str) -> Language:
    """Return the row of a language code; raises `KeyError` with the known codes."""
    try:
        return _BY_CODE[code]
    except KeyError:
        known = ", ".join(sorted(_BY_CODE))
        raise KeyError(
            f"unknown language {code!r}; known: {known}. Add a row at the end of "
            "xlmjax/languages.py for a new one"
        ) from None


def ids(codes: tuple[str, ...] | list[str]) -> tuple[int, ...]:
    """Return the ids of some language codes, in their order."""
    return tuple(get(code).id for code in codes)
