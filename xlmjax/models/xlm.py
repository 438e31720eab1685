"""The cross-lingual language model (Lample & Conneau 2019), and the modern recipe beside it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from xlmjax.models.config import ModelConfig
from xlmjax.models.heads import Head
from xlmjax.models.layers import Dense, Norm, Rows, drop, table, take, zero_padding
from xlmjax.models.pooling import pool_segments
from xlmjax.models.transformer import Transformer
from xlmjax.ops import cross_entropy, dropout
from xlmjax.ops.embedding import lookup
from xlmjax.ops.mesh_axes import TableAxes
from xlmjax.parallel.partition import constrain, mesh_axes


class Embeddings(nnx.Module):
    """Sum of token, position and language embeddings, normalised; not scaled by sqrt(width).

    As in XLM-R, positions may begin at a later row of their table (`model.position_offset`) and
    every token may get the first row of another one (`model.token_types`).
    """

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        key_tokens, key_positions, key_languages = jax.random.split(key, 3)
        learned, languages = cfg.positions == "learned", cfg.has_language_table
        embed = cfg.embed_dim
        self.cfg = cfg
        self.tokens = table(key_tokens, vocab=cfg.vocab_size, embed=embed)
        self.tokens[...] = self.tokens[...].at[cfg.pad_id].set(0)
        rows = cfg.max_positions + cfg.position_offset
        self.positions = table(key_positions, positions=rows, embed=embed) if learned else None
        self.languages = (
            table(key_languages, languages=len(cfg.language_ids), embed=embed)
            if languages
            else None
        )
        key_types = jax.random.fold_in(key, 3)
        self.types = (
            table(key_types, types=cfg.token_types, embed=embed) if cfg.token_types else None
        )
        self.norm = Norm(cfg) if cfg.embedding_norm else None

    def __call__(
        self,
        tokens: Int[Array, "b l"],
        positions: Int[Array, "b l"],
        language_ids: Int[Array, "b l"] | None,
    ) -> Float[Array, "b l e"]:
        axes = TableAxes(*mesh_axes("act_batch", "vocab", "embed"))
        x = lookup(self.tokens[...], tokens, axes)
        if self.positions is not None:
            rows = positions + self.cfg.position_offset
            x += constrain(self.positions[...], None, "act_embed")[rows]
        elif self.cfg.positions == "sinusoidal":
            x += jnp.asarray(sinusoids(self.cfg.max_positions, self.cfg.embed_dim))[positions]
        if self.languages is not None and language_ids is not None:
            rows = jnp.asarray(rows_of(self.cfg.language_ids))[language_ids]
            x += constrain(self.languages[...], None, "act_embed")[rows]
        if self.types is not None:
            x += constrain(self.types[...], None, "act_embed")[0]
        return (x if self.norm is None else self.norm(x)).astype(self.cfg.compute_dtype)


def rows_of(language_ids: tuple[int, ...]) -> Int[np.ndarray, "i"]:
    """Return the map from language id to row of the language table (0 for other languages)."""
    rows = np.zeros(max(language_ids) + 1, np.int32)
    rows[list(language_ids)] = np.arange(len(language_ids))
    return rows


def sinusoids(length: int, width: int) -> Float[np.ndarray, "l e"]:
    """Return fixed position embeddings: sine in even columns, cosine in odd ones, as in XLM."""
    columns = np.arange(width)
    angles = np.arange(length)[:, None] / 10_000 ** (2 * (columns // 2) / width)
    return np.where(columns % 2, np.cos(angles), np.sin(angles)).astype(np.float32)


class XLM(nnx.Module):
    """Embeddings, a transformer run as an encoder or causally, and a vocabulary head.

    The module is a pytree of `nnx.Param`s and a frozen config, nothing else.
    """

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        key_embeddings, key_transformer, key_head = jax.random.split(key, 3)
        self.cfg = cfg
        self.embeddings = Embeddings(cfg, key_embeddings)
        self.transformer = Transformer(cfg, key_transformer)
        self.head = Head(cfg, key_head)
        embed, labels = {"embed": cfg.pooled_dim}, {"labels": cfg.num_labels}
        key_classifier = jax.random.fold_in(key, 3)
        self.classifier = Dense(embed, labels, True, key_classifier) if cfg.num_labels else None

    def encode(
        self,
        tokens: Int[Array, "b l"],
        positions: Int[Array, "b l"],
        segment_ids: Int[Array, "b l"],
        language_ids: Int[Array, "b l"],
        *,
        causal: bool = False,
        picks: Int[Array, "b k"] | None = None,
        layer: int = -1,
        key: Key[Array, ""] | None = None,
        row_ids: Int[Array, "b"] | None = None,
    ) -> Float[Array, "b q e"]:
        """Return hidden states in the compute dtype, zero at padding (segment 0).

        With `picks` only those at these positions of each row, [b k e], which spares most of the
        last layer; for an encoder. `layer` (static) names the states: 0 the embeddings, n those
        after the n-th layer, -1 those after the last; the layers above do not run. Dropout needs
        a `key`; it is then a function of the key, `row_ids` (default 0, 1, ...) and the element.
        Raises `ValueError` on rows longer than the table of positions, and on a layer that the
        model does not have.
        """
        cfg = self.cfg
        depth = cfg.depth_of(layer)
        if causal and picks is not None:
            raise ValueError("picks of a causal model: take them from its states of all positions")
        cfg.check_length(tokens.shape[1])
        seeds = None
        if key is not None:
            row_ids = jnp.arange(tokens.shape[0]) if row_ids is None else row_ids
            seeds = dropout.row_seeds(key, row_ids)
        x = self.embeddings(tokens, positions, language_ids if cfg.adds_languages else None)
        x = drop(x, seeds, cfg.num_layers, cfg.dropout)  # layers take the places before
        x = constrain(zero_padding(x, segment_ids), "act_batch", "act_length", "act_embed")
        if depth == 0:
            return take(x, picks)
        rows = Rows(positions, segment_ids, seeds)
        return self.transformer(x, rows, causal=causal, picks=picks, depth=depth)

    def classify(
        self,
        tokens: Int[Array, "b l"],
        positions: Int[Array, "b l"],
        segment_ids: Int[Array, "b l"],
        language_ids: Int[Array, "b l"],
        picks: Int[Array, "b k"],
        *,
        key: Key[Array, ""] | None = None,
        row_ids: Int[Array, "b"] | None = None,
    ) -> Float[Array, "b k n"]:
        """Return the scores of the labels, in float32, of the segments that begin at `picks`.

        A segment is represented by the state of its first token or, with another `model.pooling`,
        as `pool_segments` does; dropout and an affine map follow (specification 5.5).
        """
        cfg = self.cfg
        if self.classifier is None:
            raise ValueError(
                "this model has no classifier: an objective `classification` asks for one"
            )
        first = cfg.pooling == "first"
        states = self.encode(
            tokens,
            positions,
            segment_ids,
            language_ids,
            picks=picks if first else None,
            key=key,
            row_ids=row_ids,
        ).astype(jnp.float32)
        if not first:
            states = pool_segments(cfg, states, tokens, positions, segment_ids, picks)
        if key is not None:
            row_ids = jnp.arange(tokens.shape[0]) if row_ids is None else row_ids
            seeds = dropout.row_seeds(key, row_ids)
            states = drop(states, seeds, cfg.num_layers + 1, cfg.classifier_dropout)
        return self.classifier(states)

    def token_losses(
        self, hidden: Float[Array, "*n e"], targets: Int[Array, "*n"]
    ) -> cross_entropy.TokenLosses:
        """Return loss, correctness and log normalizer of predicting each target, in float32."""
        return self.head.token_losses(hidden, self.embeddings.tokens, targets)

    def logits(self, hidden: Float[Array, "*n e"]) -> Float[Array, "*n v"]:
        """Return the logits of the whole vocabulary in float32."""
        return self.head.logits(hidden, self.embeddings.tokens)
