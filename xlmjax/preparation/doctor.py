"""The data doctor: faults that clean text shows by itself, and overlap with evaluation sets.

Pure functions of columns of text, without seqio: `examination` runs them over whole stores and
counts, `preprocessors.Filter` drops by them. They work on the code points of a whole batch at once.

Exact are control characters, scripts and length ratios. Texts are compared by 64-bit hashes
(duplicates, identical sides, overlap): equal texts are always found, and two different ones are
taken for equal with a chance of about 2^-64 a comparison, with n lines against m hashes n*m / 2^64.
"""

import dataclasses
import functools
import pathlib
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt64
from ml_collections import ConfigDict

from xlmjax import languages

CONTROL, WRONG_SCRIPT = "control_characters", "wrong_script"
IDENTICAL, LENGTH_RATIO, DUPLICATE = "identical_sides", "length_ratio", "duplicate"
EVALUATION_LINE, EVALUATION_NGRAM = "evaluation_line", "evaluation_ngram"
# An example with several findings is dropped, and counted as dropped, for the first of them.
FINDINGS = (
    CONTROL,
    WRONG_SCRIPT,
    IDENTICAL,
    LENGTH_RATIO,
    DUPLICATE,
    EVALUATION_LINE,
    EVALUATION_NGRAM,
)
OVERLAP = (EVALUATION_LINE, EVALUATION_NGRAM)

# Words of an n-gram. Of scripts without spaces: as many characters as 13 English words take in
# translation, 23.5 of Chinese and 70.5 of Thai over NTREX-128; the others are set by likeness.
NGRAM_WORDS = 13
_NGRAM_CHARACTERS = {"Hans": 24, "Jpan": 32, "Thai": 70, "Laoo": 70, "Khmr": 70, "Mymr": 70}
# A shorter side counts as long as this, in letters of an alphabet: "No." may be a whole sentence.
_SHORTEST_SIDE = 15

# How the Unicode names of a script's letters begin.
_NAMES_OF_SCRIPT = {
    "Arab": ("ARABIC",),
    "Armn": ("ARMENIAN",),
    "Beng": ("BENGALI",),
    "Cyrl": ("CYRILLIC",),
    "Deva": ("DEVANAGARI",),
    "Ethi": ("ETHIOPIC",),
    "Geor": ("GEORGIAN",),
    "Grek": ("GREEK",),
    "Gujr": ("GUJARATI",),
    "Guru": ("GURMUKHI",),
    "Hang": ("HANGUL", "CJK"),
    "Hans": ("CJK", "IDEOGRAPHIC"),
    "Hebr": ("HEBREW",),
    "Jpan": ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA"),
    "Khmr": ("KHMER",),
    "Knda": ("KANNADA",),
    "Laoo": ("LAO",),
    "Latn": ("LATIN",),
    "Mlym": ("MALAYALAM",),
    "Mymr": ("MYANMAR",),
    "Orya": ("ORIYA",),
    "Sinh": ("SINHALA",),
    "Taml": ("TAMIL",),
    "Telu": ("TELUGU",),
    "Thai": ("THAI",),
}
_NAMES = sorted({name for names in _NAMES_OF_SCRIPT.values() for name in names})
_UNSPACED = {"CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"}
# Letters of an alphabet that one character stands for: Chinese needs a third of the characters of
# English (0.34 over NTREX-128).
_WIDTHS = {"CJK": 3, "HIRAGANA": 2, "KATAKANA": 2, "HANGUL": 2}

# Facts of a code point, packed into 16 bits: the number of its script's name, then these.
_NO_SCRIPT, _OTHER_SCRIPT, _SCRIPT_MASK = 0, 0xFF, 0xFF
_KNOWN, _IN_WORD, _ALONE, _IS_CONTROL, _HAS_PLAIN = (1 << bit for bit in range(8, 13))
_WIDTH_SHIFT = 13

_BASE = 0x9E3779B97F4A7C15  # odd, of the hashes of n-grams

Flags = dict[str, Bool[np.ndarray, "sides examples"]]


@dataclasses.dataclass(frozen=True)
class Doctor:
    """What is looked for and what is dropped; its `repr` tells how text becomes findings."""

    drop: tuple[str, ...] = ()
    max_length_ratio: float = 3.0
    min_script_share: float = 0.5
    examine: bool = dataclasses.field(default=True, repr=False)
    max_shown: int = dataclasses.field(default=5, repr=False)

    def __post_init__(self) -> None:
        """Raise `ValueError` with field, value and remedy."""
        for name in self.drop:
            if name not in FINDINGS:
                raise ValueError(
                    f"data.doctor.drop={self.drop}: {name!r} is no finding; name some of "
                    f"{', '.join(FINDINGS)}, or nothing to keep all examples"
                )
        if not self.max_length_ratio > 1:
            raise ValueError(
                f"data.doctor.max_length_ratio={self.max_length_ratio} must be above 1, the ratio "
                "of sides of equal length; to keep every pair, leave 'length_ratio' out of "
                "data.doctor.drop"
            )
        if not 0 <= self.min_script_share <= 1:
            raise ValueError(
                f"data.doctor.min_script_share={self.min_script_share} must be a share from 0 (any "
                "script will do) to 1 (every letter must be of the language's own)"
            )
        if self.max_shown < 0:
            raise ValueError(
                f"data.doctor.max_shown={self.max_shown} must be 0 (counts alone) or more"
            )

    @classmethod
    def from_config(cls, data: ConfigDict) -> "Doctor":
        """Take the fields of `data.doctor`."""
        fields = data.doctor
        return cls(
            tuple(fields.drop),
            fields.max_length_ratio,
            fields.min_script_share,
            fields.examine,
            fields.max_shown,
        )

    @property
    def drops_overlap(self) -> bool:
        """Whether what is dropped depends on the evaluation sets."""
        return not set(OVERLAP).isdisjoint(self.drop)


@dataclasses.dataclass(frozen=True)
class HashSet:
    """A set of hashes: a sorted array, in which each is once."""

    hashes: UInt64[np.ndarray, "_"]

    def __len__(self) -> int:
        return len(self.hashes)

    def has(self, hashes: UInt64[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        """Return which of some hashes are there."""
        found = self._sieve[hashes >> self._shift]
        places = np.flatnonzero(found)
        wanted = hashes[places]
        found[places] = self.hashes[np.searchsorted(self.hashes[:-1], wanted)] == wanted
        return found

    @functools.cached_property
    def _shift(self) -> np.uint64:
        # Eight times as many marks as hashes, 64 MB at most.
        return np.uint64(64 - min(len(self.hashes).bit_length() + 3, 26))

    @functools.cached_property
    def _sieve(self) -> Bool[np.ndarray, "_"]:
        """What the highest bits of a hash exclude needs no search, which would cost far more."""
        sieve = np.zeros(1 << (64 - int(self._shift)), bool)
        sieve[self.hashes >> self._shift] = True
        return sieve


@dataclasses.dataclass(frozen=True)
class EvaluationIndex:
    """Hashes of the lines and n-grams of all evaluation sets."""

    lines: HashSet
    ngrams: HashSet

    @classmethod
    def open(cls, directory: pathlib.Path) -> "EvaluationIndex":
        """Map the files of a directory, which all processes of a machine then share."""
        files = (directory / f"{name}.npy" for name in ("lines", "ngrams"))
        return cls(*(HashSet(map_array(file)) for file in files))


def map_array(path: pathlib.Path) -> np.ndarray:
    """Return a plain read-only view of a memory map."""
    return np.load(path, mmap_mode="r").view(np.ndarray)


def ngram_size(language: str) -> int:
    """Return the units of an n-gram: words, or characters of a script without spaces."""
    return _NGRAM_CHARACTERS.get(languages.get(language).script, NGRAM_WORDS)


def examine(
    sides: Sequence[Sequence[str]],
    codes: Sequence[str],
    doctor: Doctor,
    evaluation: EvaluationIndex | None = None,
    wanted: Sequence[str] = FINDINGS,
) -> Flags:
    """Return which examples have which of the findings `wanted`, duplicates apart.

    `sides` are one or two columns of clean texts in the languages `codes`. A finding of a side has
    a row for each, one of the pair a single row. Pairs in one language (premise and hypothesis) are
    no translations, and have no length ratio and no identical sides. Without `evaluation` there is
    no overlap.
    """
    flags: Flags = {}
    count = len(sides[0])
    if not count:
        return {name: np.zeros((1, 0), bool) for name in wanted if name != DUPLICATE}
    texts = [_Characters.of(texts) for texts in sides]
    if CONTROL in wanted:
        flags[CONTROL] = np.stack([text.sums(text.facts & _IS_CONTROL) > 0 for text in texts])
    if WRONG_SCRIPT in wanted:
        flags[WRONG_SCRIPT] = np.stack(
            [
                text.sums(text.widths * _own_scripts(code)[text.scripts])
                < doctor.min_script_share * text.sums(text.widths * (text.scripts != _NO_SCRIPT))
                for text, code in zip(texts, codes, strict=True)
            ]
        )
    translates = len(sides) == 2 and codes[0] != codes[1]
    if translates and LENGTH_RATIO in wanted:
        sizes = [np.maximum(text.sums(text.widths), _SHORTEST_SIDE) for text in texts]
        ratio = np.maximum(*sizes) / np.minimum(*sizes)
        flags[LENGTH_RATIO] = (ratio > doctor.max_length_ratio)[None]
    compares = evaluation is not None and not set(OVERLAP).isdisjoint(wanted)
    if compares or (translates and IDENTICAL in wanted):
        units = [Units.of(texts) for texts in sides]
        keys = [unit.line_hashes() for unit in units]
        if translates and IDENTICAL in wanted:
            flags[IDENTICAL] = ((keys[0] == keys[1]) & (keys[0] != 0))[None]
        if evaluation is not None and EVALUATION_LINE in wanted:
            flags[EVALUATION_LINE] = np.stack([evaluation.lines.has(key) for key in keys])
        if evaluation is not None and EVALUATION_NGRAM in wanted:
            found = np.zeros((len(sides), count), bool)
            for side, (unit, code) in enumerate(zip(units, codes, strict=True)):
                hashes, of_line = unit.ngram_hashes(ngram_size(code))
                found[side, of_line[evaluation.ngrams.has(hashes)]] = True
            flags[EVALUATION_NGRAM] = found
    return flags


@dataclasses.dataclass(frozen=True)
class Units:
    """The words of some lines as hashes, and the line of each: text as overlap compares it.

    Words are runs of letters, marks and digits after case folding, full-width and other forms of a
    character made plain; a character of a script without spaces is a word by itself.
    """

    hashes: UInt64[np.ndarray, "units"]
    lines: Int[np.ndarray, "units"]
    count: int

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Units":
        """Take texts without line feeds apart."""
        text = _Characters.of([text.casefold() for text in texts])
        codepoints, facts = text.plain(), text.facts
        inside, alone = facts & _IN_WORD != 0, facts & _ALONE != 0
        starts = inside.copy()
        starts[1:] &= ~inside[:-1] | alone[1:] | alone[:-1]
        first = np.flatnonzero(starts[inside])
        hashes = _fold(_mix(codepoints[inside].astype(np.uint64)), first)
        lines = np.searchsorted(text.starts, np.flatnonzero(starts), side="right") - 1
        return cls(hashes, lines, len(texts))

    def line_hashes(self) -> UInt64[np.ndarray, "lines"]:
        """Return a hash of the words of every line; 0 where it has none."""
        keys = np.zeros(self.count, np.uint64)
        first = np.flatnonzero(np.diff(self.lines, prepend=-1))
        keys[self.lines[first]] = _fold(self.hashes, first)
        return keys

    def ngram_hashes(
        self, size: int
    ) -> tuple[UInt64[np.ndarray, "ngrams"], Int[np.ndarray, "ngrams"]]:
        """Return a hash of every `size` words that follow each other in a line, and the line."""
        if len(self.hashes) < size:
            return np.zeros(0, np.uint64), np.zeros(0, np.int64)
        windows = _windows(self.hashes, size)
        lines = self.lines[: len(windows)]
        inside = lines == self.lines[size - 1 :]
        return _mix(windows[inside]), lines[inside]


def text_hashes(columns: Sequence[Sequence[str]]) -> UInt64[np.ndarray, "examples"]:
    """Return a hash of every example, all its texts character for character."""
    text = _Characters.of(["\t".join(row) for row in zip(*columns, strict=True)])
    return _fold(_mix(text.codepoints.astype(np.uint64)), text.starts)


@dataclasses.dataclass(frozen=True)
class _Characters:
    """The code points of some texts, each of them ended by a line feed, and where each starts."""

    codepoints: Int[np.ndarray, "characters"]
    starts: Int[np.ndarray, "texts"]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "_Characters":
        joined = "".join(f"{text}\n" for text in texts)
        sizes = np.fromiter(map(len, texts), np.int64, len(texts)) + 1
        codepoints = np.frombuffer(joined.encode("utf-32-le"), np.uint32)
        return cls(codepoints, np.cumsum(sizes) - sizes)

    @functools.cached_property
    def facts(self) -> Int[np.ndarray, "characters"]:
        """What is known of each code point, packed; those never met before are looked up."""
        table = _table()
        facts = table[self.codepoints]
        if not facts.all():
            for code in np.unique(self.codepoints[facts == 0]).tolist():
                table[code] = _describe(chr(code))
            facts = table[self.codepoints]
        return facts

    @functools.cached_property
    def widths(self) -> Int[np.ndarray, "characters"]:
        return self.facts >> _WIDTH_SHIFT

    @functools.cached_property
    def scripts(self) -> Int[np.ndarray, "characters"]:
        return self.facts & _SCRIPT_MASK

    def sums(self, values: Int[np.ndarray, "characters"]) -> Int[np.ndarray, "texts"]:
        """Add up a number of each character over every text."""
        return np.add.reduceat(values, self.starts, dtype=np.int64)

    def plain(self) -> Int[np.ndarray, "characters"]:
        """Replace each character of which there is a plain one: full-width, half-width, ..."""
        places = np.flatnonzero(self.facts & _HAS_PLAIN)
        if not len(places):
            return self.codepoints
        codepoints = self.codepoints.copy()
        found, which = np.unique(codepoints[places], return_inverse=True)
        plain = [ord(unicodedata.normalize("NFKC", chr(code))) for code in found.tolist()]
        codepoints[places] = np.array(plain, np.uint32)[which]
        return codepoints


@functools.cache
def _table() -> Int[np.ndarray, "1114112"]:
    """Return what `facts` has learned: 2 MB a process."""
    return np.zeros(0x110000, np.uint16)


def _describe(character: str) -> int:
    category = unicodedata.category(character)
    facts = _KNOWN
    if category[0] in "LMN":
        facts |= _IN_WORD
        # Compatibility forms (half-width, mathematical, ...) are of the plain one's script.
        plain = unicodedata.normalize("NFKC", character)
        name = next((unicodedata.name(part, "") for part in plain if part.isalpha()), "")
        script = name.partition(" ")[0] or unicodedata.name(character, "").partition(" ")[0]
        if len(plain) == 1 and plain != character:
            facts |= _HAS_PLAIN
        if script in _UNSPACED and category[0] != "N":
            facts |= _ALONE
        if category in ("Lu", "Ll", "Lt", "Lo"):
            facts |= _NAMES.index(script) + 1 if script in _NAMES else _OTHER_SCRIPT
        facts |= _WIDTHS.get(script, 1) << _WIDTH_SHIFT
    elif category in ("Cc", "Co") or character in "\ufeff\ufffd":
        facts |= _IS_CONTROL * (character != "\n")  # which parts the texts of a batch
    elif category[0] in "PS":
        facts |= 1 << _WIDTH_SHIFT
    return facts


@functools.cache
def _own_scripts(language: str) -> Bool[np.ndarray, "256"]:
    """Return by the number of a script's name whether a language is written in it."""
    own = np.zeros(_SCRIPT_MASK + 1, bool)
    names = _NAMES_OF_SCRIPT[languages.get(language).script]
    own[[_NAMES.index(name) + 1 for name in names]] = True
    return own


def _fold(
    values: UInt64[np.ndarray, "values"], starts: Int[np.ndarray, "runs"]
) -> UInt64[np.ndarray, "runs"]:
    """Return a hash of every run of values; a run reaches to the start of the next.

    A sum of the values, each times a number of its place in the run.
    """
    if not len(starts):
        return np.zeros(0, np.uint64)
    sizes = np.diff(starts, append=len(values))
    places = np.arange(len(values)) - np.repeat(starts, sizes)
    return _mix(np.add.reduceat(values * _weights(int(sizes.max()))[places], starts))


def _windows(values: UInt64[np.ndarray, "n"], size: int) -> UInt64[np.ndarray, "windows"]:
    """Return a polynomial hash of every `size` neighbours, made of those of half the size."""
    if size == 1:
        return values
    half = size // 2
    part = _windows(values, half)
    windows = part[:-half] + np.uint64(pow(_BASE, half, 1 << 64)) * part[half:]
    if size % 2:
        last = np.uint64(pow(_BASE, 2 * half, 1 << 64)) * values[2 * half :]
        windows = windows[:-1] + last
    return windows


def _weights(count: int) -> UInt64[np.ndarray, "count"]:
    return _mix(np.arange(1 << 32, (1 << 32) + count, dtype=np.uint64)) | np.uint64(1)


def _mix(values: UInt64[np.ndarray, "n"]) -> UInt64[np.ndarray, "n"]:
    """Scatter 64-bit numbers, one to one (SplitMix64, Steele et al. 2014)."""
    values = values + np.uint64(_BASE)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
