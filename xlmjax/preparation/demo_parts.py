"""The pieces of a corpus that the built-in generator makes, and how large they are."""

import dataclasses
import functools
import hashlib
import itertools
import pathlib
from collections.abc import Iterator

from xlmjax.preparation import demo_text
from xlmjax.preparation.parts import Example, Part
from xlmjax.preparation.text_files import FileScan

TEXTS = {"train": 30_000, "validation": 1_000, "test": 1_000}  # a language
PAIRS = {"train": 12_000, "validation": 1_000, "test": 1_000}
INFERENCE = {"train": 20_000, "validation": 1_500}


@dataclasses.dataclass(frozen=True)
class DemoInference(Part):
    """Premises, hypotheses and labels of the built-in generator, in one language."""

    language: str
    split: str
    seed: int = 0
    scans: tuple[FileScan, ...] = ()

    def __len__(self) -> int:
        return INFERENCE[self.split]

    def examples(self, start: int, stop: int) -> Iterator[Example]:
        """Yield examples `start` to `stop`."""
        rows = demo_text.inference(self.language, self.split, len(self), self.seed)
        for row in itertools.islice(rows, start, stop):
            yield tuple(text.encode() for text in row)

    def fingerprint(self) -> list:
        """Return what tells this text from any other."""
        return [
            "inference",
            self.language,
            self.split,
            len(self),
            self.seed,
            _digest_of_generator(),
        ]


@dataclasses.dataclass(frozen=True)
class Demo(Part):
    """Sentences of the built-in generator, in one language or two that translate each other."""

    languages: tuple[str, ...]
    split: str
    seed: int = 0
    scans: tuple[FileScan, ...] = ()

    def __len__(self) -> int:
        return (TEXTS if len(self.languages) == 1 else PAIRS)[self.split]

    def examples(self, start: int, stop: int) -> Iterator[Example]:
        """Yield examples `start` to `stop`."""
        if len(self.languages) == 1:
            texts = demo_text.texts(self.languages[0], self.split, len(self), self.seed)
            rows: Iterator[tuple[str, ...]] = ((text,) for text in texts)
        else:
            first, second = self.languages
            rows = iter(demo_text.pairs(first, second, self.split, len(self), self.seed))
        for row in itertools.islice(rows, start, stop):
            yield tuple(text.encode() for text in row)

    def fingerprint(self) -> list:
        """Return what tells this text from any other."""
        return ["demo", self.languages, self.split, len(self), self.seed, _digest_of_generator()]


@functools.cache
def _digest_of_generator() -> str:
    sources = sorted(pathlib.Path(demo_text.__file__).parent.glob("demo_*.py"))
    return hashlib.blake2b(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
