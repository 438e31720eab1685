"""Cleaning of a line of text: what is done to every text before it meets the vocabulary."""

import dataclasses
import functools
import sys
import unicodedata

from ml_collections import ConfigDict

EMPTY, MAX_WORDS, MAX_TOKENS, UNMATCHED = "empty", "max_words", "max_tokens", "unmatched"


@dataclasses.dataclass(frozen=True)
class Cleaning:
    """Unicode NFC and single spaces; lower-casing and accent removal as XLM does them.

    With both, the result is that of XLM's `lowercase_and_remove_accent.py`: lower-case, NFD, remove
    every combining mark (category Mn), lower-case again, and no recomposition.
    """

    lowercase: bool = False
    strip_accents: bool = False
    max_words: int = 0

    @classmethod
    def from_config(cls, data: ConfigDict) -> "Cleaning":
        """Take the fields of `config.data`."""
        if data.max_words < 0 or data.max_tokens < 0:
            raise ValueError(
                f"data.max_words={data.max_words} and data.max_tokens={data.max_tokens} must be 0 "
                "(keep all) or more"
            )
        return cls(data.lowercase, data.strip_accents, data.max_words)

    def __call__(self, text: str) -> str:
        """Return the clean text, "" where nothing is left."""
        text = unicodedata.normalize("NFC", " ".join(text.split()))
        if self.lowercase:
            text = text.lower()
        if self.strip_accents and not text.isascii():
            text = unicodedata.normalize("NFD", text).translate(_combining_marks())
            text = " ".join(text.split())  # a mark may have been a word of its own
        return text.lower() if self.lowercase else text

    def fault(self, text: str, held_out: bool = False) -> str | None:
        """Return why a clean text is dropped, if it is; held-out text is never too long."""
        if not text:
            return EMPTY
        # A text of n characters has at most (n + 1) / 2 words: most need no counting.
        if self.max_words and not held_out and len(text) > 2 * self.max_words:
            return MAX_WORDS if text.count(" ") + 1 > self.max_words else None
        return None


@functools.cache
def _combining_marks() -> dict[int, None]:
    characters = range(sys.maxunicode + 1)
    return {code: None for code in characters if unicodedata.category(chr(code)) == "Mn"}
