"""Writing translations token by token: greedily or by sampling (specification 3.5).

The start symbol is the end symbol, as in XLM, and unless `words` are given no token is forbidden:
an early end gives an empty translation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from xlmjax.models.seq2seq import EncoderDecoder, Text
from xlmjax.models.transformer import Cache
from xlmjax.ops.rows import row_keys


class Source(NamedTuple):
    """One sentence a row, `</s> x </s>` and then padding."""

    tokens: Int[Array, "b s"]
    segment_ids: Int[Array, "b s"]  # 1, and 0 at padding; a row of zeros has an empty translation
    language_ids: Int[Array, "b s"]

    def text(self) -> Text:
        """Return the rows with positions from 0."""
        positions = jnp.broadcast_to(jnp.arange(self.tokens.shape[1]), self.tokens.shape)
        return Text(self.tokens, positions, self.segment_ids, self.language_ids)


class Generated(NamedTuple):
    """Hypotheses of each row, best first: end symbol, words, end symbol, padding."""

    tokens: Int[Array, "b n t"]
    lengths: Int[Array, "b n"]  # both end symbols included
    scores: Float[Array, "b n"]  # sum of log p, of a beam divided by length^penalty


class _State(NamedTuple):
    now: Int[Array, ""]  # position of the newest token
    tokens: Int[Array, "b t"]
    lengths: Int[Array, "b"]
    scores: Float[Array, "b"]
    ended: Bool[Array, "b"]
    caches: list[Cache]


def generate(
    model: EncoderDecoder,
    source: Source,
    target_language_ids: Int[Array, "b"],
    limits: Int[Array, "b"],
    *,
    max_length: int,
    eos: int,
    pad: int,
    temperature: float = 0.0,
    key: Key[Array, ""] | None = None,
    row_ids: Int[Array, "b"] | None = None,
    words: Bool[Array, "b v"] | None = None,
) -> Generated:
    """Return one translation a row, without dropout; the best word each time at temperature 0.

    `limits` are the longest lengths, both end symbols included, at most `max_length`; where one is
    reached the last token is the end symbol. XLM has one limit a batch; with one a row, nothing
    depends on the other rows. At a temperature T words are drawn from softmax(logits / T), by the
    `key` and `row_ids`. `words` are those that a row may be written with, any by default; scores
    are of the distribution over these. Stops when every row has ended.
    """
    memory = model.read(source.text())
    layers = model.decoder.transformer.each_layer()
    rows = source.tokens.shape[0]
    keys = None
    if temperature:
        if key is None:
            raise ValueError(f"temperature={temperature}: drawing words needs a key")
        keys = row_keys(key, jnp.arange(rows) if row_ids is None else row_ids)

    def open_rows(state: _State) -> Bool[Array, ""]:
        return (state.now + 1 < max_length) & ~state.ended.all()

    def write(state: _State) -> _State:
        now, next_place = state.now, state.now + 1
        newest = jax.lax.dynamic_slice_in_dim(state.tokens, now, 1, axis=1)
        logits, caches = model.step(
            layers, state.caches, newest, now, target_language_ids, memory.segment_ids
        )
        logits = logits[:, 0] if words is None else jnp.where(words, logits[:, 0], -jnp.inf)
        chosen = _choose(logits, keys, temperature, now)
        chosen = jnp.where(next_place == limits - 1, eos, chosen)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), chosen[:, None], axis=1)[:, 0]
        open_now = ~state.ended
        chosen = jnp.where(open_now, chosen, pad).astype(jnp.int32)
        return _State(
            next_place,
            jax.lax.dynamic_update_slice_in_dim(state.tokens, chosen[:, None], next_place, axis=1),
            state.lengths + open_now,
            state.scores + jnp.where(open_now, log_p, 0),
            state.ended | (chosen == eos),
            caches,
        )

    filled = (source.segment_ids != 0).any(axis=1)
    # A row of padding, which fills up a batch, has ended before it began.
    start = _State(
        jnp.int32(0),
        jnp.full((rows, max_length), pad, jnp.int32).at[:, 0].set(eos),
        jnp.where(filled, 1, 2),
        jnp.zeros(rows),
        ~filled,
        model.empty_caches(memory, 1, max_length),
    )
    end = jax.lax.while_loop(open_rows, write, start)
    tokens = end.tokens.at[:, 1].set(jnp.where(filled, end.tokens[:, 1], eos))
    return Generated(tokens[:, None], end.lengths[:, None], end.scores[:, None])


def _choose(
    logits: Float[Array, "b v"],
    keys: Key[Array, "b"] | None,
    temperature: float,
    now: Int[Array, ""],
) -> Int[Array, "b"]:
    if keys is None:
        return _first_best(logits)

    def draw(logits: Float[Array, "v"], key: Key[Array, ""]) -> Int[Array, ""]:
        return jax.random.categorical(jax.random.fold_in(key, now), logits / temperature)

    return jax.vmap(draw)(logits, keys)


def _first_best(logits: Float[Array, "b v"]) -> Int[Array, "b"]:
    """Return the argmax, the first of equals, without its pairs of value and place.

    XLA reduces such pairs one by one on CPUs: 31 ms for [320, 12000], this 3, the product with the
    table that gave the logits 18.
    """
    last = logits.shape[-1] - 1
    places = jnp.arange(last + 1, dtype=jnp.int32)
    best = logits.max(axis=-1, keepdims=True)
    return jnp.where(logits == best, places, last).min(axis=-1)
