"""Files of word pairs: bilingual dictionaries, and pairs that people scored for similarity."""

import dataclasses
import gzip
import pathlib
import zlib

from xlmjax import languages


@dataclasses.dataclass(frozen=True)
class WordList:
    """The rows of one file, as they stand there; `scores` is empty for a dictionary."""

    languages: tuple[str, str]
    path: str
    pairs: tuple[tuple[str, str], ...]
    scores: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The two languages, in the order of the columns, as in the names of pair tasks."""
        return "_".join(self.languages)


def read_word_lists(entries: tuple[str, ...], field: str, scored: bool) -> list[WordList]:
    """Read what a field of `config.evals` lists as "A-B:PATH".

    Raises `ValueError` naming the field or file and line where an entry has another form, a pair
    of languages comes twice, a file is missing or not UTF-8, or a line does not have two columns
    (with `scored` three, the last a number). Blank lines are skipped.
    """
    lists: dict[str, WordList] = {}
    for entry in entries:
        head, colon, path = entry.partition(":")
        codes = tuple(head.split("-"))
        if not colon or not path or len(codes) != 2:
            raise ValueError(f"{field}: {entry!r} is not A-B:PATH, e.g. en-fr:words.en-fr.tsv.gz")
        for code in codes:
            _check_language(code, entry, field)
        found = _read((codes[0], codes[1]), path, field, scored)
        if found.name in lists:
            raise ValueError(
                f"{field}: {head} comes twice ({lists[found.name].path} and {path}); join the "
                "files, or use an evaluator for each"
            )
        lists[found.name] = found
    return list(lists.values())


def _check_language(code: str, entry: str, field: str) -> None:
    try:
        languages.get(code)
    except KeyError as error:
        raise ValueError(f"{field}: {entry!r}: {error.args[0]}") from None


def _read(codes: tuple[str, str], path: str, field: str, scored: bool) -> WordList:
    columns = "WORD<tab>WORD<tab>SCORE" if scored else "WORD<tab>WORD"
    pairs, scores = [], []
    for number, line in enumerate(_content(path, field).split(b"\n"), start=1):
        try:
            parts = line.decode("utf-8").strip("\r").split("\t")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}:{number}: not UTF-8 ({error.reason})") from None
        if parts == [""]:
            continue
        if len(parts) != 2 + scored or not all(part.strip() for part in parts):
            raise ValueError(
                f"{path}:{number}: {len(parts)} columns in {line.decode('utf-8')!r}; a line of "
                f"{field} is {columns}"
            )
        pairs.append((parts[0], parts[1]))
        if scored:
            scores.append(_score(parts[2], f"{path}:{number}"))
    if len(pairs) < 2:
        raise ValueError(f"{path}: {len(pairs)} word pairs; {field} needs 2 or more")
    return WordList(codes, path, tuple(pairs), tuple(scores))


def _content(path: str, field: str) -> bytes:
    file = pathlib.Path(path)
    if not file.is_file():
        raise ValueError(f"{field}: {path}: no such file; give its path from where you run xlmjax")
    content = file.read_bytes()
    if file.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file ({error}); fetch or pack it again") from error


def _score(text: str, place: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{place}: the score {text!r} is not a number") from None
