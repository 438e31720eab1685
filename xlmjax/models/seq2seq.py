"""Encoder and decoder for translation, both on the stack of `xlm` (specification 2.6 and 3.2)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from xlmjax.models.config import ModelConfig
from xlmjax.models.heads import Head
from xlmjax.models.layers import Memory, Rows, drop, zero_padding
from xlmjax.models.transformer import Cache, Layer, Transformer
from xlmjax.models.xlm import XLM, Embeddings
from xlmjax.ops import cross_entropy, dropout
from xlmjax.parallel.partition import constrain


class Text(NamedTuple):
    """Rows of sentences, each a segment `</s> x </s>`; segment 0 is padding."""

    tokens: Int[Array, "b l"]
    positions: Int[Array, "b l"]  # from 0 in every segment
    segment_ids: Int[Array, "b l"]
    language_ids: Int[Array, "b l"]


class Decoder(nnx.Module):
    """Embeddings (none where the encoder's serve), layers that read a source, and a head."""

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""], own_embeddings: bool):
        key_embeddings, key_transformer, key_head = jax.random.split(key, 3)
        self.cfg = cfg
        self.embeddings = Embeddings(cfg, key_embeddings) if own_embeddings else None
        self.transformer = Transformer(cfg, key_transformer)
        self.head = Head(cfg, key_head)


class EncoderDecoder(nnx.Module):
    """An `XLM` that encodes sources, and a decoder that writes targets causally.

    They are separate models that tie their own embeddings, as in XLM, unless
    `model.share_embeddings`. Segment k of a target row translates segment k of the source row.
    """

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        key_encoder, key_decoder = jax.random.split(key)
        self.cfg = cfg
        self.encoder = XLM(cfg, key_encoder)
        self.decoder = Decoder(cfg.decoder, key_decoder, not cfg.share_embeddings)

    @property
    def encode(self) -> Callable[..., Float[Array, "b l e"]]:
        """`XLM.encode` of the encoder, which masked language modelling trains too."""
        return self.encoder.encode

    @property
    def token_losses(self) -> Callable[..., cross_entropy.TokenLosses]:
        """`XLM.token_losses` of the encoder's head."""
        return self.encoder.token_losses

    def read(
        self,
        source: Text,
        *,
        key: Key[Array, ""] | None = None,
        row_ids: Int[Array, "b"] | None = None,
    ) -> Memory:
        """Return the states of a source, [b s e]; dropout needs a `key`."""
        return Memory(self.encode(*source, key=key, row_ids=row_ids), source.segment_ids)

    def decode(
        self,
        target: Text,
        memory: Memory,
        *,
        key: Key[Array, ""] | None = None,
        row_ids: Int[Array, "b"] | None = None,
    ) -> Float[Array, "b l e"]:
        """Return the states from which position t predicts token t + 1, zero at padding.

        A position sees the earlier ones of its segment, and the source segment of the same number.
        Dropout needs a `key`, as in `XLM.encode`.
        """
        cfg = self.decoder.cfg
        cfg.check_length(target.tokens.shape[1])
        seeds = None
        if key is not None:
            row_ids = jnp.arange(target.tokens.shape[0]) if row_ids is None else row_ids
            seeds = dropout.row_seeds(key, row_ids)
        x = self._embed(target.tokens, target.positions, target.language_ids)
        x = drop(x, seeds, cfg.num_layers, cfg.dropout)
        x = constrain(zero_padding(x, target.segment_ids), "act_batch", "act_length", "act_embed")
        rows = Rows(target.positions, target.segment_ids, seeds)
        return self.decoder.transformer(x, rows, causal=True, memory=memory)

    def empty_caches(self, memory: Memory, beams: int, length: int) -> list[Cache]:
        """Return a cache a layer, for `beams` prefixes of up to `length` tokens of each source."""
        layers = self.decoder.transformer.each_layer()
        return [layer.empty_cache(memory, beams, length) for layer in layers]

    def step(
        self,
        layers: list[Layer],
        caches: list[Cache],
        tokens: Int[Array, "b n"],
        now: Int[Array, ""],
        language_ids: Int[Array, "b"],
        segment_ids: Int[Array, "b s"],
    ) -> tuple[Float[Array, "b n v"], list[Cache]]:
        """Return the logits that follow the tokens at position `now` of each prefix, in float32.

        `layers` are those of `decoder.transformer.each_layer()`, `caches` hold what is before.
        """
        shape = tokens.shape
        languages = jnp.broadcast_to(language_ids[:, None], shape)
        x = self._embed(tokens, jnp.broadcast_to(now, shape), languages)
        filled = []
        for layer, cache in zip(layers, caches, strict=True):
            x, cache = layer.step(x, now, cache, segment_ids)
            filled.append(cache)
        norm = self.decoder.transformer.final_norm
        return self.target_logits(x if norm is None else norm(x)), filled

    def target_losses(
        self, hidden: Float[Array, "*n e"], targets: Int[Array, "*n"]
    ) -> cross_entropy.TokenLosses:
        """Return loss, correctness and log normalizer of the decoder's predictions, in float32."""
        return self.decoder.head.token_losses(hidden, self._embeddings.tokens, targets)

    def target_logits(self, hidden: Float[Array, "*n e"]) -> Float[Array, "*n v"]:
        """Return the decoder's logits of the whole vocabulary in float32."""
        return self.decoder.head.logits(hidden, self._embeddings.tokens)

    def mean_logits(self, hidden: Float[Array, "*n e"]) -> Float[Array, "*n"]:
        """Return the mean of the decoder's logits over the vocabulary, which smoothing needs."""
        return self.decoder.head.mean_logits(hidden, self._embeddings.tokens)

    def _embed(
        self, tokens: Int[Array, "b l"], positions: Int[Array, "b l"], languages: Int[Array, "b l"]
    ) -> Float[Array, "b l e"]:
        return self._embeddings(tokens, positions, languages)

    @property
    def _embeddings(self) -> Embeddings:
        own = self.decoder.embeddings
        return self.encoder.embeddings if own is None else own
