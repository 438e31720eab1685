"""How far a converted model is from the one that transformers makes of the same folder.

torch and transformers are asked for here and nowhere else, and only where they are installed.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xlmjax.data.bpe_vocabulary import BpeVocabulary
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.interop.formats import Format
from xlmjax.interop.tokenizers import TOKENIZER
from xlmjax.models.xlm import XLM

TOLERANCE = 1e-2  # of hidden states, which are normed: rounding in float32 stays far below
MISSING = "torch and transformers are not installed (uv sync --group parity)"
_LENGTHS = (32, 21, 9)  # of the rows that are compared
_EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class Parity:
    """Largest absolute differences at real tokens, in float32; None where not computed."""

    hidden_states: float | None = None
    logits: float | None = None
    not_computed: str = ""  # why

    @property
    def is_met(self) -> bool:
        """Whether both are the same model but for rounding, as far as that was computed."""
        return self.hidden_states is None or self.hidden_states <= TOLERANCE

    def __str__(self) -> str:
        """Return it as one line."""
        if self.hidden_states is None:
            return f"parity with transformers not computed: {self.not_computed}"
        logits = "not compared, since the source has no head"
        if self.logits is not None:
            logits = f"within {self.logits:.1e}"
        return (
            f"parity with transformers: hidden states within {self.hidden_states:.1e}, logits "
            f"{logits}, on {sum(_LENGTHS)} random tokens"
        )


@dataclasses.dataclass(frozen=True)
class Tokenisation:
    """Lines of a text that two tokenizers split differently; None where not computed."""

    lines: int
    different: int | None = None
    examples: tuple[str, ...] = ()
    not_computed: str = ""

    def __str__(self) -> str:
        """Return it as a few lines."""
        if self.different is None:
            return f"tokenizers not compared: {self.not_computed}"
        count = f"tokenizers differ on {self.different:,} of {self.lines:,} lines"
        return "\n".join((count, *(f"  {example}" for example in self.examples)))


def compare_models(folder: pathlib.Path, kind: Format, model: XLM, causal: bool) -> Parity:
    """Return the differences to the model of transformers in a folder, on random tokens."""
    try:
        import torch
        import transformers
    except ImportError:
        return Parity(not_computed=MISSING)
    cfg = model.cfg
    real = np.arange(max(_LENGTHS)) < np.array(_LENGTHS)[:, None]
    real = real[:, : min(real.shape[1], cfg.max_positions)]
    generator = np.random.default_rng(0)
    tokens = np.where(
        real, generator.integers(cfg.pad_id + 1, cfg.vocab_size, real.shape), cfg.pad_id
    )
    places = np.broadcast_to(np.arange(real.shape[1]), real.shape)
    number = np.arange(len(real)) % len(cfg.language_ids)
    ids = np.broadcast_to(np.array(cfg.language_ids)[number][:, None], real.shape)

    theirs = getattr(transformers, kind.architecture).from_pretrained(folder, dtype=torch.float32)
    given = {"attention_mask": torch.tensor(real.astype(np.int64))}
    if cfg.adds_languages:
        rows = _their_languages(theirs.config, cfg.language_ids)
        given["langs"] = torch.tensor(np.broadcast_to(rows[number][:, None], real.shape).copy())
    with torch.no_grad():
        out = theirs.eval()(torch.tensor(tokens), output_hidden_states=True, **given)

    @jax.jit
    def run(model: XLM) -> tuple[jax.Array, jax.Array]:
        rows = (jnp.asarray(x, jnp.int32) for x in (tokens, places, real, ids))
        hidden = model.encode(*rows, causal=causal)
        return hidden, model.logits(hidden)

    hidden_states, logits = (
        float(np.abs(np.asarray(ours)[real] - other.numpy()[real]).max())
        for ours, other in zip(run(model), (out.hidden_states[-1], out.logits), strict=True)
    )
    return Parity(hidden_states, logits)


def _their_languages(config: Any, language_ids: Sequence[int]) -> np.ndarray:
    """Return the row of each of our languages in their table; in order where theirs are unnamed."""
    from xlmjax.languages import LANGUAGES

    named = getattr(config, "lang2id", None) or {}
    codes = [LANGUAGES[index].code for index in language_ids]
    return np.array([named.get(code, row) for row, code in enumerate(codes)])


def compare_tokenizers(
    folder: pathlib.Path, vocabulary: Vocabulary, lines: Sequence[tuple[str, str]]
) -> Tokenisation:
    """Return how often a tokenizer of transformers disagrees, on (language, text) lines."""
    try:
        import transformers
    except ImportError:
        return Tokenisation(len(lines), not_computed=MISSING)
    codes, texts = zip(*lines, strict=True) if lines else ((), ())
    if isinstance(vocabulary, BpeVocabulary):
        tokenizer = transformers.XLMTokenizer.from_pretrained(folder)
        # transformers 5 takes every text for English in `tokenize`; this is what it calls.
        theirs = [
            tokenizer.convert_tokens_to_ids(tokenizer._tokenize(text, lang=code))
            for code, text in lines
        ]
    else:
        # Published folders of XLM-R-XL have no tokenizer.json, which AutoTokenizer wants of them.
        fast = (folder / TOKENIZER).is_file()
        kind = transformers.AutoTokenizer if fast else transformers.XLMRobertaTokenizer
        try:
            tokenizer = kind.from_pretrained(folder)
        except (ImportError, OSError, ValueError) as error:
            why = f"transformers does not load its tokenizer: {error}".splitlines()[0]
            return Tokenisation(len(lines), not_computed=why)
        theirs = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    ours = vocabulary.encode_batch(texts, codes)
    wrong = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    examples = tuple(f"line {i + 1}: {ours[i]} here, {theirs[i]} there" for i in wrong[:_EXAMPLES])
    return Tokenisation(len(lines), len(wrong), examples)
