"""A decoder that can be checked by hand, in the place of the real one, and stores to translate.

It writes the source backwards, each piece moved by an amount that depends on both languages, so
that the way back undoes the way there.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tests.small_run import small_config
from tests.stores import write_store
from xlmjax import languages
from xlmjax.data.store import FeatureSpec, TokenStore
from xlmjax.data.store_writer import StoreWriter
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.evaluation import translator
from xlmjax.models.generation import Generated

FIRST, SIZE = 5, 60  # pieces of small_run's vocabulary that are not special


def expected(tokens, source, target, extra=0, longest=None):
    """Return what the fake makes of a sentence from a language code to another."""
    move = 7 * (languages.get(target).id - languages.get(source).id) + extra
    pieces = [FIRST + (int(x) - FIRST + move) % (SIZE - FIRST) for x in tokens][::-1]
    return pieces if longest is None else pieces[: longest - 2]


def _generated(source, targets, limits, max_length, eos, pad, moves):
    """`moves` [b, n] are added to every piece of hypothesis n."""
    width = source.tokens.shape[1]
    real = jnp.maximum((source.segment_ids != 0).sum(axis=1), 2)
    lengths = jnp.minimum(real, limits)[:, None, None]
    place = jnp.arange(max_length)[None, None]
    backwards = jnp.clip(real[:, None, None] - 1 - place, 0, width - 1)[:, 0]
    pieces = jnp.take_along_axis(source.tokens, backwards, axis=1)
    move = 7 * (targets - source.language_ids[:, 0])[:, None] + moves
    pieces = FIRST + (pieces[:, None] - FIRST + move[:, :, None]) % (SIZE - FIRST)
    tokens = jnp.where((place == 0) | (place == lengths - 1), eos, pieces)
    tokens = jnp.where(place < lengths, tokens, pad)
    lengths = jnp.broadcast_to(lengths[..., 0], moves.shape)
    return Generated(tokens, lengths, -lengths.astype(jnp.float32) - moves)


def generate(
    model,
    source,
    targets,
    limits,
    *,
    max_length,
    eos,
    pad,
    temperature=0.0,
    key=None,
    row_ids=None,
):
    moves = jnp.zeros((len(source.tokens), 1), jnp.int32)
    if temperature:
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(row_ids)
        moves = jax.vmap(lambda key: jax.random.randint(key, (1,), 0, 50))(keys)
    return _generated(source, targets, limits, max_length, eos, pad, moves)


def beam_search(
    model,
    source,
    targets,
    limits,
    *,
    max_length,
    eos,
    pad,
    beams,
    length_penalty=1.0,
    early_stopping=False,
    n_best=1,
):
    assert n_best <= beams
    moves = jnp.broadcast_to(jnp.arange(n_best), (len(source.tokens), n_best))
    return _generated(source, targets, limits, max_length, eos, pad, moves)


def translator_config(folder, **flat):
    """Return the config of `small_run` with a decoder."""
    return small_config(folder, **{"model__decoder_layers": 1} | flat)


def use_fake(monkeypatch):
    monkeypatch.setattr(translator, "generate", generate)
    monkeypatch.setattr(translator, "beam_search", beam_search)


def write_translations(folder, source, target, sentences, references, split="validation"):
    """Write the store mt.SOURCE_TARGET; `references` are lines, tokens those of the fake."""
    vocabulary = Vocabulary.load(folder / "vocabulary.model")
    texts = [vocabulary.decode(tokens) for tokens in sentences]
    examples = {
        "tokens": [np.array(tokens, np.uint16) for tokens in sentences],
        "target_tokens": [np.array(vocabulary.encode(r), np.uint16) for r in references],
        "source_text": [np.frombuffer(text.encode(), np.uint8) for text in texts],
        "reference": [np.frombuffer(text.encode(), np.uint8) for text in references],
    }
    codes = {"tokens": source, "target_tokens": target, "source_text": source, "reference": target}
    task = f"mt.{source}_{target}"
    directory = folder / "stores" / task / split
    features = {name: FeatureSpec(str(x[0].dtype), codes[name]) for name, x in examples.items()}
    writer = StoreWriter(
        directory, task, split, "translation", features, vocabulary.fingerprint, "made up", 1
    )
    writer.start()
    with writer.shard(0) as shard:
        sizes = dict.fromkeys(examples, 1)
        shard.append(
            lengths={k: np.array([len(x) for x in column]) for k, column in examples.items()},
            tokens={k: np.concatenate(column) for k, column in examples.items()},
            characters=sizes,
            num_bytes=sizes,
        )
        writer.record(0, shard.finish({}))
    writer.finish()
    return TokenStore.open(directory)


def write_text(folder, code, sentences, split="validation"):
    """Write the store ae.CODE."""
    vocabulary = Vocabulary.load(folder / "vocabulary.model")
    return write_store(
        folder / "stores" / f"ae.{code}" / split,
        {"tokens": sentences},
        {"tokens": code},
        task=f"ae.{code}",
        split=split,
        vocabulary=vocabulary.fingerprint,
    )
