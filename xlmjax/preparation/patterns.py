"""How a config names files of text: KIND:PATTERN[START:STOP:STEP], and which files match a pattern.

{lang} in a pattern is a language, {a} and {b} are those of a pair, {lang=en} is English alone.
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence

from xlmjax.preparation import text_files


@dataclasses.dataclass(frozen=True)
class Spec:
    """One `KIND:PATTERN[START:STOP:STEP]`; `lines` stands in the brackets, perhaps nothing."""

    text: str
    kind: str
    pattern: str
    lines: str


_RANGE = re.compile(r"\[([^\[\]]*:[^\[\]]*)\]$")  # a glob has no colon in its brackets
_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?(:0*[1-9]\d*)?")
_ONLY = re.compile(r"\{lang=([^{}]*)\}")


def parse(named: Sequence[str], field: str, kinds: tuple[str, ...]) -> Iterator[Spec]:
    """Yield the specs of a field of the config, which may be of some kinds."""
    for text in named:
        kind, colon, pattern = text.partition(":")
        if not colon or kind not in kinds:
            raise ValueError(
                f"{field}: {text!r} does not begin with one of "
                f"{', '.join(f'{kind}:' for kind in kinds)}"
            )
        found = _RANGE.search(pattern)
        lines = found.group(1) if found else ""
        if found:
            pattern = pattern[: found.start()]
            if kind not in ("text", "aligned", "tsv"):
                raise ValueError(
                    f"{field}: {text!r} takes a range of lines, which {kind} does not have: name "
                    "them as text, aligned or tsv"
                )
            if not _SLICE.fullmatch(lines):
                raise ValueError(
                    f"{field}: {text!r} ends in [{lines}], which is not [START:STOP] or "
                    "[START:STOP:STEP] with whole numbers and a step of 1 or more, e.g. [::2]"
                )
        if "{lang=" in pattern and not field.endswith(".text"):
            raise ValueError(
                f"{field}: {text!r} keeps itself to one language, which text does but pairs and "
                "labelled examples do not: write {lang}"
            )
        yield Spec(text, kind, pattern, lines)


def for_language(
    spec: Spec, language: str, languages_of_run: Sequence[str], field: str
) -> str | None:
    """Return the pattern for a language, None where it is for others: {lang=CODE}."""
    only = set(_ONLY.findall(spec.pattern))
    for code in only:
        if code not in languages_of_run:
            raise ValueError(
                f"{field}: {spec.text!r} is for {code!r}, which data.languages="
                f"{tuple(languages_of_run)} does not list: add it there, or take the entry out"
            )
    return _ONLY.sub(language, spec.pattern) if only <= {language} else None


def fill(pattern: str, language: str, pair: tuple[str, str] = ("", "")) -> str:
    """Return a pattern with {lang}, {a} and {b} replaced."""
    for name, value in (("{lang}", language), ("{a}", pair[0]), ("{b}", pair[1])):
        pattern = pattern.replace(name, value)
    return os.path.expanduser(pattern)


def orders(pattern: str, pair: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the orders in which a pattern may name a pair: both where it spells {a} and {b}."""
    both = "{a}" in pattern and "{b}" in pattern
    return [pair, (pair[1], pair[0])] if both else [pair]


def matched_files(pattern: str, pair: tuple[str, str], field: str) -> Iterator[tuple[str, str]]:
    """Yield files of the two languages of a pair, matched by what the wildcards stand for."""
    if "{lang}" not in pattern:
        raise ValueError(f"{field}: pattern {pattern!r} must hold {{lang}}")
    for order in orders(pattern, pair):
        found = [_by_wildcards(fill(pattern, code, order)) for code in pair]
        if not all(found):
            continue  # another spec may hold this pair
        for here, there in (found, found[::-1]):
            if alone := sorted(set(here) - set(there)):
                raise ValueError(
                    f"{field}: {here[alone[0]]} has no partner in the other language of the pair "
                    f"{'-'.join(pair)}: {len(here)} files match there, {len(there)} here"
                )
        yield from ((found[0][key], found[1][key]) for key in sorted(found[0]))


def _by_wildcards(pattern: str) -> dict[tuple[str, ...], str]:
    """Return the files of a pattern by the text that each of its wildcards stands for."""
    tokens = re.split(r"(\*\*/|\*|\?|\[[^\]]+\])", pattern)
    groups = {"**/": "(.*/|)", "*": "([^/]*)", "?": "([^/])"}
    literal = re.compile(
        "".join(
            re.escape(token) if index % 2 == 0 else groups.get(token, f"({token})")
            for index, token in enumerate(tokens)
        )
    )
    matches = ((literal.fullmatch(path), path) for path in text_files.find(pattern))
    return {match.groups(): path for match, path in matches if match}
