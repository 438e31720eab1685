"""What `data.train` and `data.validation` name: the text of one language or of one pair.

A corpus is a list of examples addressed by number, whatever files they lie in, so that any range
of it can be read by any process. No TensorFlow here: `sources` wraps a corpus for seqio.
"""

import bisect
import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from xlmjax import languages
from xlmjax.preparation import demo_text, patterns, text_files
from xlmjax.preparation.demo_parts import Demo, DemoInference
from xlmjax.preparation.parts import Column, Example, Keyed, Labelled, Lines, Part, Range, Table
from xlmjax.preparation.text_files import FileScan

SPLITS = ("train", "validation", "test")
INFERENCE_LABELS = ("entailment", "neutral", "contradiction")  # ids as in TFDS


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The parts of one language or pair, one after another; `field` is where the config says so.

    Where it is `labelled`, the last column of its examples is a label. Where it is `turned`, the
    parts hold the languages the other way round.
    """

    languages: tuple[str, ...]
    parts: tuple[Part, ...]
    field: str
    labelled: bool = False
    turned: bool = False

    def __post_init__(self) -> None:
        if not len(self):
            names = ", ".join(scan.path for part in self.parts for scan in part.scans)
            raise ValueError(f"{self.field}: empty corpus for {self.name}: no line in {names}")

    @property
    def name(self) -> str:
        """Language code, or pair of codes, for messages."""
        return "-".join(self.languages)

    @functools.cached_property
    def _starts(self) -> list[int]:
        return [0, *itertools.accumulate(map(len, self.parts))]

    def __len__(self) -> int:
        return self._starts[-1]

    def examples(self, start: int, stop: int) -> Iterator[Example]:
        """Yield examples `start` to `stop`."""
        first = bisect.bisect_right(self._starts, start) - 1
        for part, begin in zip(self.parts[first:], self._starts[first:], strict=False):
            if begin >= stop:
                return
            rows = part.examples(max(start - begin, 0), min(stop - begin, len(part)))
            yield from (row[::-1] for row in rows) if self.turned else rows

    def place(self, number: int) -> str:
        """Return where an example is: a file and the number of its line, or its key."""
        part = bisect.bisect_right(self._starts, number) - 1
        return self.parts[part].place(number - self._starts[part])

    def turn(self) -> "Corpus":
        """Return the same pairs from the second language to the first."""
        return dataclasses.replace(self, languages=self.languages[::-1], turned=not self.turned)

    def shard(self, index: int, count: int) -> range:
        """Return the numbers of the examples of shard `index` of `count`: a contiguous range."""
        return range(len(self) * index // count, len(self) * (index + 1) // count)

    @property
    def scans(self) -> tuple[FileScan, ...]:
        """The scans of all files."""
        return tuple(scan for part in self.parts for scan in part.scans)

    def fingerprint(self) -> str:
        """Return a digest of the text, whatever its files are called."""
        content = json.dumps([self.languages, *(part.fingerprint() for part in self.parts)])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def split_pair(pair: str) -> tuple[str, str]:
    """Return the languages of "en-fr" in alphabetical order, as XLM orders them."""
    codes = pair.split("-")
    if len(codes) != 2 or codes[0] == codes[1]:
        raise ValueError(f"data.pairs: {pair!r} is not a pair of two languages like 'en-fr'")
    first, second = sorted(_known_language(code, "data.pairs") for code in codes)
    return first, second


def pairs_of(data: ConfigDict) -> list[tuple[str, str]]:
    """Return the pairs of a config, each sorted; raises `ValueError` on one named twice."""
    pairs = [split_pair(pair) for pair in data.pairs]
    for pair in pairs:
        if pairs.count(pair) > 1:
            raise ValueError(f"data.pairs: {'-'.join(pair)} is named twice, in one order or both")
        for code in pair:
            if code not in data.languages:
                raise ValueError(
                    f"data.pairs: {'-'.join(pair)} needs {code!r} in data.languages="
                    f"{tuple(data.languages)}"
                )
    return pairs


def languages_of(data: ConfigDict) -> list[str]:
    """Return the languages of a config; raises `ValueError` on an unknown or repeated one."""
    codes = [_known_language(code, "data.languages") for code in data.languages]
    for code in codes:
        if codes.count(code) > 1:
            raise ValueError(f"data.languages: {code!r} is named twice")
    return codes


def text_corpus(data: ConfigDict, split: str, language: str) -> Corpus:
    """Return the monolingual text of a language that `data.SPLIT.text` names."""
    field = f"data.{split}.text"
    _known_language(language, "data.languages")
    parts: list[Part] = []
    named = specs(data, split, "text")
    for spec in patterns.parse(named, field, ("text", "tsv", "keyed", "demo")):
        pattern = patterns.for_language(spec, language, data.languages, field)
        if pattern is None:
            continue
        if spec.kind == "demo":
            if language in demo_text.LANGUAGES:
                parts.append(Demo((language,), split))
            continue
        if spec.kind == "tsv":
            pairs = [(language, other) for other in data.languages if other != language]
            tables = [table for pair in pairs for table in _tables(pattern, pair, field)]
            parts.extend(_lines_of([Column(t.scans, t) for t in tables], spec, field))
            continue
        columns = 2 if spec.kind == "keyed" else 1
        scans = [
            text_files.scan(path, columns)
            for path in text_files.find(patterns.fill(pattern, language))
        ]
        found = [Keyed((scan,)) if spec.kind == "keyed" else Lines((scan,)) for scan in scans]
        parts.extend(_lines_of(found, spec, field))
    if not parts:
        raise _nothing_found(field, f"language {language!r}", named)
    return Corpus((language,), tuple(parts), field)


def pair_corpus(data: ConfigDict, split: str, pair: tuple[str, str]) -> Corpus:
    """Return the parallel text of a sorted pair that `data.SPLIT.parallel` names."""
    field = f"data.{split}.parallel"
    parts: list[Part] = []
    named = specs(data, split, "parallel")
    for spec in patterns.parse(named, field, ("aligned", "tsv", "keyed", "demo")):
        if spec.kind == "demo":
            if set(pair) <= set(demo_text.LANGUAGES):
                parts.append(Demo(pair, split))
        elif spec.kind == "tsv":
            parts.extend(_lines_of(list(_tables(spec.pattern, pair, field)), spec, field))
        else:
            columns = 2 if spec.kind == "keyed" else 1
            part = Keyed if spec.kind == "keyed" else Lines
            found = [
                part(tuple(text_files.scan(path, columns) for path in paths))
                for paths in patterns.matched_files(spec.pattern, pair, field)
            ]
            parts.extend(_lines_of(found, spec, field))
    if not parts:
        raise _nothing_found(field, f"pair '{'-'.join(pair)}'", named)
    return Corpus(pair, tuple(parts), field)


def translation_corpus(data: ConfigDict, split: str, way: tuple[str, str]) -> Corpus:
    """Return the parallel text that `data.SPLIT.parallel` names, from a source to a target."""
    first, second = sorted(way)
    corpus = pair_corpus(data, split, (first, second))
    return corpus if way == corpus.languages else corpus.turn()


def inference_corpus(data: ConfigDict, split: str, language: str) -> Corpus:
    """Return the premises, hypotheses and labels that `data.SPLIT.xnli` names for a language.

    Raises `ValueError` with file and line on a missing column or an unknown label.
    """
    paths = inference_files(data, split, language)
    parts = [Labelled((text_files.scan(path, 3),), INFERENCE_LABELS) for path in paths]
    return Corpus((language, language), tuple(parts), f"data.{split}.xnli", labelled=True)


def inference_files(data: ConfigDict, split: str, language: str) -> list[str]:
    """Return the files that `data.SPLIT.xnli` names for a language; perhaps none.

    Translated training text, for one, exists for some languages only.
    """
    field = f"data.{split}.xnli"
    paths: list[str] = []
    for spec in patterns.parse(specs(data, split, "xnli"), field, ("tsv",)):
        if "{lang}" not in spec.pattern or spec.lines:
            raise ValueError(
                f"{field}: {spec.text!r} must hold {{lang}}, the language of a file, and no range "
                "of lines"
            )
        paths.extend(text_files.find(patterns.fill(spec.pattern, language)))
    return paths


def demo_inference(language: str, split: str) -> Corpus:
    """Return the built-in inference examples of a language."""
    return Corpus((language, language), (DemoInference(language, split),), "demo", labelled=True)


def demo_corpus(codes: tuple[str, ...], split: str) -> Corpus:
    """Return the built-in text of a language or a pair, in either order."""
    ordered = tuple(sorted(codes))
    corpus = Corpus(ordered, (Demo(ordered, split),), "demo")
    return corpus if codes == ordered else corpus.turn()


def specs(data: ConfigDict, split: str, kind: str) -> tuple[str, ...]:
    """Return what `data.SPLIT.KIND` names; nothing where the config has no such field."""
    return tuple(data[split].get(kind, ())) if split in data else ()


def _known_language(code: str, field: str) -> str:
    try:
        return languages.get(code).code
    except KeyError as error:
        raise ValueError(f"{field}: {error.args[0]}") from None


def _lines_of(parts: Sequence[Part], spec: patterns.Spec, field: str) -> Sequence[Part]:
    """Cut the file of a spec, or its two aligned ones, to its range of lines."""
    if not spec.lines or not parts:
        return parts
    if len(parts) > 1:
        names = ", ".join(scan.path for part in parts for scan in part.scans)
        raise ValueError(
            f"{field}: {spec.text!r} takes a range of the lines of one file, but matches {names}: "
            "give each an entry of its own"
        )
    [part] = parts
    chosen = slice(*(int(number) if number else None for number in spec.lines.split(":")))
    count = len(part)
    numbers = range(count)[chosen]
    bounds = (chosen.start or 0, chosen.stop or 0)
    if not numbers or any(not -count <= bound <= count for bound in bounds):
        raise ValueError(
            f"{field}: {spec.text!r} takes lines [{spec.lines}] of {part.scans[0].path}, which has "
            f"{count:,}"
        )
    if len(numbers) == count:
        return parts
    return [Range(part.scans, part, numbers)]


def _nothing_found(field: str, what: str, specs: Sequence[str]) -> ValueError:
    tried = ", ".join(specs) or "nothing"
    hint = ""
    if any(spec.startswith("demo:") for spec in specs):
        hint = f"; demo text exists for {', '.join(demo_text.LANGUAGES)}"
    return ValueError(f"{field}: no file for {what}; looked for {tried}{hint}")


def _tables(pattern: str, pair: tuple[str, str], field: str) -> Iterator[Table]:
    if "{a}" not in pattern or "{b}" not in pattern:
        raise ValueError(
            f"{field}: 'tsv:{pattern}' must hold {{a}} and {{b}}, the languages of the two columns"
        )
    for order in patterns.orders(pattern, pair):
        for path in text_files.find(patterns.fill(pattern, "", order)):
            yield Table((text_files.scan(path, columns=2),), swapped=order != pair)
