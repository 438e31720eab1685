"""Tokenizer files of others in miniature, and configs that convert on one device."""

import functools
import io
import json

import numpy as np
import sentencepiece

from xlmjax.configs import base
from xlmjax.data.bpe_vocabulary import END, SPECIALS

LETTERS = "abdegiklmnorstu"
MERGES = ("a n 9", f"t o{END} 8", "an d 7", "l e 6", f"and e{END} 5", f"l e{END} 4")
PIECES = (
    *SPECIALS,
    *(letter for letter in LETTERS),
    *(letter + END for letter in LETTERS),
    *("an", f"to{END}", "and", "le", f"ande{END}", f"le{END}"),
)  # 50


def write_bpe(folder, pieces=PIECES, fold=True):
    """Write the tokenizer files of an XLM of transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {piece: index for index, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(ids, indent=2, sort_keys=True) + "\n", "utf-8")
    (folder / "merges.txt").write_text("".join(f"{line}\n" for line in MERGES), "utf-8")
    settings = {"tokenizer_class": "XLMTokenizer", "do_lowercase_and_remove_accent": fold}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@functools.cache
def sentencepiece_model(size=61) -> bytes:
    """A SentencePiece model in the order of XLM-R's: <unk>, <s>, </s>, then the pieces."""
    words = [a + b + c for a in "bdgkln" for b in "aeiou" for c in ("", "n", "ra")]
    generator = np.random.default_rng(0)
    lines = (" ".join(generator.choice(words, size=6)) for _ in range(300))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=model,
        vocab_size=size,
        minloglevel=2,
        num_threads=1,
    )
    return model.getvalue()


def write_sentencepiece(folder):
    """Write the tokenizer files of an XLM-R of transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sentencepiece.bpe.model").write_bytes(sentencepiece_model())
    settings = {"tokenizer_class": "XLMRobertaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def config(**flat):
    """The defaults, with dots of fields as double underscores."""
    found = base.get_config()
    found.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in flat.items()}
    )
    return found
