"""Tiny models of both recipes and batches with distinct sizes, for the tests of the model room."""

import dataclasses
import functools

import jax
import numpy as np

from xlmjax.models.config import ModelConfig
from xlmjax.models.seq2seq import EncoderDecoder
from xlmjax.models.xlm import XLM
from xlmjax.objectives import Specials

PAD, EOS, MASK, VOCAB = 2, 1, 5, 47
SPECIALS = Specials(pad=PAD, eos=EOS, mask=MASK, size=VOCAB)
LANGUAGES = (2, 4, 9)  # ids of languages, so rows 0, 1, 2 of the table

CLASSIC = ModelConfig(
    vocab_size=VOCAB,
    language_ids=LANGUAGES,
    pad_id=PAD,
    eos_id=EOS,
    embed_dim=16,
    num_layers=3,
    num_heads=4,
    mlp_dim=24,
    max_positions=36,
    dtype="float32",
    dropout=0.2,
    attention_dropout=0.3,
)
MODERN = dataclasses.replace(
    CLASSIC,
    positions="rope",
    norm="pre",
    norm_kind="rms",
    norm_epsilon=1e-6,
    mlp="geglu",
    bias=False,
)
RECIPES = {"classic": CLASSIC, "modern": MODERN}


@functools.cache
def randomised(cfg, seed=0):
    """Return a model whose every parameter, norms and biases included, is random."""
    kind = EncoderDecoder if cfg.decoder_layers else XLM
    model = jax.jit(lambda key: kind(cfg, key))(jax.random.key(seed))
    leaves, tree = jax.tree.flatten(model)
    generator = np.random.default_rng(seed)
    noise = [leaf + 0.1 * generator.standard_normal(leaf.shape, np.float32) for leaf in leaves]
    return jax.tree.unflatten(tree, noise)


def sentences(seed=0):
    """Return `</s> words </s>` of several lengths, each with the id of its language."""
    generator = np.random.default_rng(seed)
    return [
        (np.array([EOS, *generator.integers(6, VOCAB, size), EOS]), language)
        for size, language in ((3, 2), (7, 4), (1, 9), (5, 4))
    ]


def rows(groups, length):
    """Return the batch whose row i packs the sentences of groups[i] as segments 1, 2, ..."""
    shape = (len(groups), length)
    batch = {
        "tokens": np.full(shape, PAD),
        "positions": np.zeros(shape),
        "segment_ids": np.zeros(shape),
        "language_ids": np.full(shape, LANGUAGES[0]),
        "row_ids": np.arange(len(groups)),
        "task_ids": np.arange(len(groups)) % 2,
    }
    for row, group in enumerate(groups):
        start = 0
        for segment, (tokens, language) in enumerate(group, start=1):
            span = (row, slice(start, start + len(tokens)))
            batch["tokens"][span] = tokens
            batch["positions"][span] = np.arange(len(tokens))
            batch["segment_ids"][span] = segment
            batch["language_ids"][span] = language
            start += len(tokens)
    return {name: value.astype(np.int32) for name, value in batch.items()}


def text(batch):
    """Return the arguments of `XLM.encode` in a batch."""
    return tuple(batch[name] for name in ("tokens", "positions", "segment_ids", "language_ids"))


def assert_trees_close(actual, expected, rtol=1e-5, atol=1e-6):
    """Compare two pytrees leaf by leaf, naming the leaf that differs."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True)
    for (path, leaf), other in pairs:
        np.testing.assert_allclose(
            leaf, other, rtol=rtol, atol=atol, err_msg=jax.tree_util.keystr(path)
        )
