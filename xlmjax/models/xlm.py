"""The cross-lingual language model (Lample and Conneau 2019)."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from xlmjax.models.config import ModelConfig
from xlmjax.models.heads import Head
from xlmjax.models.layers import Norm, table
from xlmjax.models.transformer import Transformer, drop
from xlmjax.ops import cross_entropy, dropout
from xlmjax.ops.cross_entropy import TokenLosses
from xlmjax.parallel.partition import constrain


class Embeddings(nnx.Module):
    """Token, position and language embeddings, summed and normalised."""

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        key_tokens, key_positions, key_languages = jax.random.split(key, 3)
        self.cfg = cfg
        self.tokens = table(key_tokens, vocab=cfg.vocab_size, embed=cfg.embed_dim)
        self.tokens[...] = self.tokens[...].at[cfg.pad_id].set(0)
        self.positions = (
            table(key_positions, positions=cfg.max_positions, embed=cfg.embed_dim)
            if cfg.positions == "learned"
            else None
        )
        self.languages = (
            table(key_languages, languages=len(cfg.language_ids), embed=cfg.embed_dim)
            if cfg.has_language_table
            else None
        )
        self.norm = Norm(cfg)

    def __call__(
        self,
        tokens: Int[Array, "b l"],
        positions: Int[Array, "b l"],
        language_ids: Int[Array, "b l"],
    ) -> Float[Array, "b l e"]:
        x = constrain(self.tokens[...], "act_vocab", "act_embed")[tokens]
        if self.positions is not None:
            x += constrain(self.positions[...], None, "act_embed")[positions]
        elif self.cfg.positions == "sinusoidal":
            x += jnp.asarray(sinusoids(self.cfg.max_positions, self.cfg.embed_dim))[positions]
        if self.languages is not None:
            rows = np.zeros(max(self.cfg.language_ids) + 1, np.int32)
            rows[list(self.cfg.language_ids)] = np.arange(len(self.cfg.language_ids))
            x += constrain(self.languages[...], None, "act_embed")[jnp.asarray(rows)[language_ids]]
        return self.norm(x.astype(self.cfg.compute_dtype))


def sinusoids(length: int, width: int) -> Float[np.ndarray, "l e"]:
    """Return fixed position embeddings (Vaswani et al. 2017, section 3.5): sine even, cosine odd."""
    angles = np.arange(length)[:, None] / 10_000 ** (2 * (np.arange(width) // 2) / width)
    return np.where(np.arange(width) % 2, np.cos(angles), np.sin(angles)).astype(np.float32)


class XLM(nnx.Module):
    """Embeddings, a transformer run as encoder or causally, and the vocabulary head."""

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        key_embeddings, key_transformer, key_head = jax.random.split(key, 3)
        self.cfg = cfg
        self.embeddings = Embeddings(cfg, key_embeddings)
        self.transformer = Transformer(cfg, key_transformer)
        self.head = Head(cfg, key_head)

    def encode(
        self,
        tokens: Int[Array, "b l"],
        positions: Int[Array, "b l"],
        segment_ids: Int[Array, "b l"],
        language_ids: Int[Array, "b l"],
        *,
        causal: bool = False,
        key: Key[Array, ""] | None = None,
        row_ids: Int[Array, "b"] | None = None,
    ) -> Float[Array, "b l e"]:
        """Return hidden states, zero at padding; dropout only with a `key`."""
        seeds = None
        if key is not None:
            row_ids = jnp.arange(tokens.shape[0]) if row_ids is None else row_ids
            seeds = dropout.row_seeds(key, row_ids)
        x = self.embeddings(tokens, positions, language_ids)
        x = drop(x, seeds, self.cfg.num_layers, self.cfg.dropout)
        x = jnp.where((segment_ids != 0)[:, :, None], x, 0)
        x = constrain(x, "act_batch", "act_length", "act_embed")
        return self.transformer(x, positions, segment_ids, causal, seeds)

    def token_losses(self, hidden: Float[Array, "*n e"], targets: Int[Array, "*n"]) -> TokenLosses:
        """Return nll, correct and log normalizer of the targets."""
        flat = cross_entropy.token_losses(
            hidden.reshape(-1, hidden.shape[-1]),
            *self._projection(),
            targets.reshape(-1),
            self.cfg.head_tile,
        )
        return jax.tree.map(lambda x: x.reshape(targets.shape), flat)

    def logits(self, hidden: Float[Array, "*n e"]) -> Float[Array, "*n v"]:
        """Return float32 logits over the vocabulary."""
        weights, bias = self._projection()
        logits = jnp.einsum("...e,ve->...v", hidden, weights, preferred_element_type=jnp.float32)
        return logits if bias is None else logits + bias

    def _projection(self) -> tuple[Float[Array, "v e"], Float[Array, "v"] | None]:
        weights = self.embeddings.tokens if self.head.table is None else self.head.table
        bias = None if self.head.bias is None else self.head.bias[...]
        return weights[...].astype(self.cfg.compute_dtype), bias
