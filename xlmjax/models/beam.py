"""Beam search (specification 3.6): the same as XLM's, batched, cached, with static shapes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xlmjax.models.generation import Generated, Source
from xlmjax.models.layers import take
from xlmjax.models.seq2seq import EncoderDecoder
from xlmjax.models.transformer import Cache

_NEVER = -1e9  # score of the beams that do not exist at the first step
_NONE = -jnp.inf  # score of a hypothesis that is not there


class _State(NamedTuple):
    now: Int[Array, ""]  # position of the newest token of the prefixes
    prefixes: Int[Array, "b n t"]
    log_p: Float[Array, "b n"]  # of the prefixes
    found: Int[Array, "b n t"]  # hypotheses that have ended, best first
    lengths: Int[Array, "b n"]
    scores: Float[Array, "b n"]
    done: Bool[Array, "b"]
    caches: list[Cache]


def beam_search(
    model: EncoderDecoder,
    source: Source,
    target_language_ids: Int[Array, "b"],
    limits: Int[Array, "b"],
    *,
    max_length: int,
    eos: int,
    pad: int,
    beams: int,
    length_penalty: float = 1.0,
    early_stopping: bool = False,
    n_best: int = 1,
) -> Generated:
    """Return the `n_best` best hypotheses of each row that `beams` prefixes lead to.

    The score of a hypothesis is sum log p / n^length_penalty, n its length without the last end
    symbol; a penalty above 1 favours long ones. A row is done when `beams` hypotheses are found
    that no continuation can beat, or with `early_stopping` at once. At the limit of its length
    (`limits`, both end symbols included) a prefix ends where it is, with the score of the word that
    would have followed. Raises `ValueError` on beams that the vocabulary has not words enough for.
    """
    if not 1 <= n_best <= beams:
        raise ValueError(f"n_best={n_best} must be from 1 to beams={beams}")
    if beams >= model.cfg.vocab_size:
        raise ValueError(
            f"beams={beams}: the vocabulary has only {model.cfg.vocab_size} words; take fewer"
        )
    memory = model.read(source.text())
    layers = model.decoder.transformer.each_layer()
    rows = source.tokens.shape[0]

    def open_rows(state: _State) -> Bool[Array, ""]:
        return (state.now + 1 < max_length) & ~state.done.all()

    def extend(state: _State) -> _State:
        now = state.now
        newest = jax.lax.dynamic_slice_in_dim(state.prefixes, now, 1, axis=2)[:, :, 0]
        logits, caches = model.step(
            layers, state.caches, newest, now, target_language_ids, memory.segment_ids
        )
        totals = state.log_p[:, :, None] + jax.nn.log_softmax(logits)
        best, places = jax.lax.top_k(totals.reshape(rows, -1), 2 * beams)
        # Without it XLA joins what is cut out of `best` below to the selection, knows that no more
        # for a top-k, and sorts the whole vocabulary: ten times the time of all the rest on a CPU.
        best, places = jax.lax.optimization_barrier((best, places))
        origins, words = jnp.divmod(places, logits.shape[-1])

        at_limit = now + 2 == limits  # an end symbol is the last that there is room for
        done = state.done | _unbeatable(state, best[:, 0], limits)
        ends = (words == eos) | at_limit[:, None]
        # Candidates are looked at in order until `beams` of them go on.
        going_on = jnp.cumsum(~ends, axis=1)
        looked_at = going_on - ~ends < beams
        ending = jnp.where(
            ends & looked_at & ~done[:, None],
            best / (now + 1).astype(jnp.float32) ** length_penalty,
            _NONE,
        )
        found = _merge(state, ending, origins)

        slots = jnp.argsort(jnp.where(ends, 2 * beams, going_on), axis=1, stable=True)[:, :beams]
        log_p, origins, words = (take(x, slots) for x in (best, origins, words))
        prefixes = take(state.prefixes, origins)
        prefixes = jax.lax.dynamic_update_slice_in_dim(prefixes, words[:, :, None], now + 1, axis=2)
        caches = [
            cache._replace(keys=take(cache.keys, origins), values=take(cache.values, origins))
            for cache in caches
        ]
        return _State(now + 1, prefixes, log_p, *found, done | at_limit, caches)

    def _merge(
        state: _State, ending: Float[Array, "b m"], origins: Int[Array, "b m"]
    ) -> tuple[Array, Array, Array]:
        """Return the best of the hypotheses that were there and of those that end now."""
        ended = jax.lax.dynamic_update_slice_in_dim(
            state.prefixes, jnp.full((rows, beams, 1), eos, jnp.int32), state.now + 1, axis=2
        )
        scores, slots = jax.lax.top_k(jnp.concatenate([state.scores, ending], axis=1), beams)
        is_new = slots >= beams
        origin = take(origins, jnp.where(is_new, slots - beams, 0))
        kept = jnp.where(is_new, 0, slots)
        found = jnp.where(is_new[:, :, None], take(ended, origin), take(state.found, kept))
        lengths = jnp.where(is_new, state.now + 2, take(state.lengths, kept))
        return found, lengths, scores

    def _unbeatable(
        state: _State, best: Float[Array, "b"], limits: Int[Array, "b"]
    ) -> Bool[Array, "b"]:
        worst = state.scores[:, -1]
        full = worst > _NONE
        if early_stopping:
            return full
        return full & (worst >= best / (limits - 1).astype(jnp.float32) ** length_penalty)

    filled = (source.segment_ids != 0).any(axis=1)
    tokens = jnp.full((rows, beams, max_length), pad, jnp.int32).at[:, :, 0].set(eos)
    # A row of padding, which fills up a batch, has ended before it began.
    found = tokens.at[:, :, 1].set(eos)
    start = _State(
        jnp.int32(0),
        tokens,
        jnp.broadcast_to(jnp.where(jnp.arange(beams) == 0, 0.0, _NEVER), (rows, beams)),
        found,
        jnp.full((rows, beams), 2, jnp.int32),
        jnp.broadcast_to(jnp.where(filled, _NONE, 0.0)[:, None], (rows, beams)),
        ~filled,
        model.empty_caches(memory, beams, max_length),
    )
    end = jax.lax.while_loop(open_rows, extend, start)
    return Generated(end.found[:, :n_best], end.lengths[:, :n_best], end.scores[:, :n_best])
