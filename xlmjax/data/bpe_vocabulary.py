"""The vocabulary of XLM: words of the Moses tokeniser, split by byte-pair encoding (fastBPE)."""

import functools
import itertools
import json
import logging
import math
from collections.abc import Iterable, Sequence

from xlmjax.data import moses
from xlmjax.data.vocabulary import BOS, EOS, PAD, UNK, Vocabulary

KIND = "xlm-bpe"
END = "</w>"  # marks the last piece of a word
SPECIALS = (BOS, EOS, PAD, UNK, *(f"<special{number}>" for number in range(10)))
MASK = "<special1>"

log = logging.getLogger(__name__)


def serialise(pieces: Sequence[str], merges: Sequence[str], fold: bool) -> bytes:
    """Return the content of a vocabulary file, as `BpeVocabulary` reads it.

    `pieces` are the spellings of all ids, those that end a word with `</w>` behind; `merges` the
    lines of fastBPE's codes, best first; `fold` asks for lower case without accents.
    """
    content = {
        "kind": KIND,
        "lowercase_and_remove_accent": fold,
        "pieces": list(pieces),
        "merges": list(merges),
    }
    return (json.dumps(content, ensure_ascii=False, indent=0) + "\n").encode()


class BpeVocabulary(Vocabulary):
    """Words told apart as XLM does (`data.moses`), each split by the merges of fastBPE.

    A piece that is not in the vocabulary is `<unk>`, as for Hugging Face's XLM tokenizer.
    """

    def __init__(self, model: bytes, path: str = "the given bytes"):
        """Parse the content of a file; `path` only serves the messages."""
        super().__init__(model, path)
        try:
            content = json.loads(model)
            if content["kind"] != KIND:
                raise KeyError("kind")
            self.fold: bool = content["lowercase_and_remove_accent"]
            self.merges: tuple[str, ...] = tuple(content["merges"])
            self._pieces: tuple[str, ...] = tuple(content["pieces"])
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"data.vocabulary={path}: begins like a BPE vocabulary but is none ({error!r}); "
                "`xlmjax convert` writes them"
            ) from None
        self.size = len(self.pieces)
        self._ids = {piece: index for index, piece in enumerate(self.pieces)}
        if missing := [name for name in SPECIALS if name not in self._ids]:
            raise ValueError(f"data.vocabulary={path}: has no piece {missing[0]!r}")
        self.bos, self.eos, self.pad, self.unk, self.mask = (
            self._ids[name] for name in (BOS, EOS, PAD, UNK, MASK)
        )
        pairs = (tuple(line.split()[:2]) for line in self.merges)
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._split = functools.lru_cache(1 << 17)(self._split_word)
        self._warned: set[str] = set()

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of `<s>`, `</s>`, `<pad>`, `<unk>` and `<special0>` to `<special9>`."""
        return tuple(sorted(self._ids[name] for name in SPECIALS))

    @property
    def pieces(self) -> tuple[str, ...]:
        """The spelling of every id."""
        return self._pieces

    @property
    def word_starts(self) -> None:
        """None: pieces say where words end, not where they begin."""
        return None

    def encode_batch(
        self, texts: Sequence[str], languages: str | Sequence[str] = "en", num_threads: int = 1
    ) -> list[list[int]]:
        """Return the ids of many texts, all in one language or one each."""
        codes = [languages] * len(texts) if isinstance(languages, str) else languages
        return [self._encode(text, code) for text, code in zip(texts, codes, strict=True)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the words of some ids, a space between two: Moses' tokens, not the text.

        Special ones vanish, except `<unk>` (U+2047).
        """
        special = set(self.special_ids)
        found = []
        for index in map(int, ids):
            if index == self.unk:
                found.append(f"\u2047{END}")
            elif index not in special:
                found.append(self.pieces[index])
        return "".join(found).replace(END, " ").strip()

    def split(self, piece: str) -> tuple[int, ...]:
        """Return the ids of the words of a piece of a SentencePiece model."""
        words = piece.replace("\u2581", " ").split()
        if self.fold:
            words = moses.folded(words)
        return tuple(index for word in words if word for index in self._split(word))

    def _encode(self, text: str, language: str) -> list[int]:
        if language in moses.UNSPACED and language not in self._warned:
            self._warned.add(language)
            log.warning(
                "text in %r must come with its words set apart by spaces, as by %s: this "
                "vocabulary takes each run of characters between spaces for one word",
                language,
                moses.UNSPACED[language],
            )
        found = moses.words(text, language, self.fold)
        return [index for word in found for index in self._split(word)]

    def _split_word(self, word: str) -> tuple[int, ...]:
        """Return the ids of a word: the best merge first, everywhere it applies, and so on."""
        symbols = [*word[:-1], word[-1] + END]
        while len(symbols) > 1:
            pairs = list(itertools.pairwise(symbols))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, math.inf))
            if best not in self._ranks:
                break
            merged: list[str] = []
            place = 0
            while place < len(symbols):
                together = tuple(symbols[place : place + 2]) == best
                merged.append("".join(best) if together else symbols[place])
                place += 2 if together else 1
            symbols = merged
        return tuple(self._ids.get(symbol, self.unk) for symbol in symbols)
