"""Noise of denoising auto-encoding, on device, row by row (specification 2.5).

Words of a sentence are shuffled by less than k places, some are left out, some are replaced by the
mask symbol, in this order; the end symbols stay. A word that is left out leaves a hole, a place of
segment 0 that nothing attends to, so shapes are static and packed sentences stay where they are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from xlmjax.ops.masking import eligible
from xlmjax.ops.rows import row_keys


class Noise(NamedTuple):
    """How much of it: XLM takes a shuffle of 3 and 0.1 of each share."""

    shuffle: float = 3.0  # words move by less than so many places; 0 leaves the order
    drop: float = 0.1  # share of the words that are left out; one a sentence always stays
    blank: float = 0.1  # share of the others that become the mask symbol


class Noised(NamedTuple):
    """Noised rows; holes and padding have segment 0."""

    tokens: Int[Array, "b l"]
    positions: Int[Array, "b l"]  # from 0 in every segment, holes not counted
    segment_ids: Int[Array, "b l"]


def add_noise(
    tokens: Int[Array, "b l"],
    segment_ids: Int[Array, "b l"],
    key: Key[Array, ""],
    row_ids: Int[Array, "b"],
    noise: Noise,
    *,
    mask_id: int,
    pad_id: int,
    word_starts: Bool[Array, "v"] | None = None,
) -> Noised:
    """Return noised rows of packed sentences `</s> x </s>`.

    Every token is a word of its own, as in XLM; with `word_starts`, which says of each entry of the
    vocabulary whether it begins a word, pieces of a word share its fate and stay together. The
    result for a row depends on its tokens, its id and the key only.
    """
    length = tokens.shape[1]

    def noise_row(
        tokens: Int[Array, "l"], segments: Int[Array, "l"], key: Key[Array, ""]
    ) -> Noised:
        key_shuffle, key_drop, key_blank = jax.random.split(key, 3)
        inside = eligible(segments[None], spare_last=True)[0]
        first = jnp.concatenate([jnp.ones(1, bool), segments[1:] != segments[:-1]])
        begins = jnp.ones(length, bool) if word_starts is None else word_starts[tokens]
        # A word begins at each end symbol, and at the first token behind one.
        begins |= ~inside | jnp.concatenate([jnp.zeros(1, bool), ~inside[:-1]])
        words = jnp.cumsum(begins) - 1

        def draw(key: Key[Array, ""]) -> Float[Array, "l"]:
            return jax.random.uniform(key, (length,))[words]

        shift = jnp.where(inside, draw(key_shuffle) * noise.shuffle, 0)
        # The last end symbol goes behind the farthest place that a word can reach.
        place = words + jnp.where(inside | first, shift, noise.shuffle)
        sentences = jnp.cumsum(first)
        order = jnp.arange(length)
        order = jax.lax.sort((sentences, place, order), num_keys=2, is_stable=True)[2]

        luck = draw(key_drop)
        luckiest = jax.ops.segment_max(jnp.where(inside, luck, -1), sentences, length + 1)
        kept = ~inside | (luck >= noise.drop) | (luck == luckiest[sentences])
        blanked = inside & (draw(key_blank) < noise.blank)
        result = jnp.where(blanked, mask_id, tokens)
        result, kept, segments = (x[order] for x in (result, kept & (segments != 0), segments))
        count = jnp.cumsum(kept)
        before = jax.ops.segment_max(jnp.where(first, count - kept, 0), sentences, length + 1)
        return Noised(
            jnp.where(kept, result, pad_id),
            jnp.where(kept, count - 1 - before[sentences], 0),
            jnp.where(kept, segments, 0),
        )

    return Noised(*jax.vmap(noise_row)(tokens, segment_ids, row_keys(key, row_ids)))
