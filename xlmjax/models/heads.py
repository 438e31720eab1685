"""What reads the hidden states: the vocabulary projection."""

import jax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from xlmjax.models.config import ModelConfig
from xlmjax.models.layers import Dense, Norm, gelu, uniform
from xlmjax.ops import cross_entropy
from xlmjax.ops.mesh_axes import TableAxes
from xlmjax.ops.products import einsum_float32
from xlmjax.parallel.partition import mesh_axes


class Transform(nnx.Module):
    """What some heads do to the states first: an affine map, GELU and a norm (Devlin et al. 2019).

    It is the head of XLM-R (Conneau et al. 2020) with the vocabulary projection behind it.
    """

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        width = {"transformed": cfg.embed_dim}
        self.dense = Dense({"embed": cfg.embed_dim}, width, cfg.bias, key)
        self.norm = Norm(cfg)

    def __call__(self, hidden: Float[Array, "*n e"]) -> Float[Array, "*n e"]:
        return self.norm(gelu(self.dense(hidden)))


class Head(nnx.Module):
    """Bias of every word and, unless the embeddings serve as one, an output table.

    With `model.head_transform` the states go through a `Transform` before.
    """

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        key_table, key_bias = jax.random.split(key)
        bound = cfg.embed_dim**-0.5
        vocab, embed = cfg.vocab_size, cfg.embed_dim
        tied = cfg.tie_embeddings
        self.cfg = cfg
        key_transform = jax.random.fold_in(key, 2)
        self.transform = Transform(cfg, key_transform) if cfg.head_transform else None
        self.table = None if tied else uniform(key_table, bound, vocab=vocab, embed=embed)
        self.bias = uniform(key_bias, bound, vocab=vocab) if cfg.bias else None

    def token_losses(
        self, hidden: Float[Array, "*n e"], embeddings: nnx.Param, targets: Int[Array, "*n"]
    ) -> cross_entropy.TokenLosses:
        """Return loss, correctness and log normalizer of predicting each target, in float32."""
        flat = self._transformed(hidden).reshape(-1, hidden.shape[-1])
        flat = flat.astype(self.cfg.compute_dtype)
        losses = cross_entropy.token_losses(
            flat,
            *self._parameters(embeddings),
            targets.reshape(-1),
            self.cfg.head_tile,
            TableAxes(*mesh_axes("act_batch", "vocab", "embed")),
        )
        return jax.tree.map(lambda x: x.reshape(targets.shape), losses)

    def logits(self, hidden: Float[Array, "*n e"], embeddings: nnx.Param) -> Float[Array, "*n v"]:
        """Return the logits of the whole vocabulary in float32."""
        table, bias = self._projection(embeddings)
        flat = self._transformed(hidden).reshape(-1, hidden.shape[-1])
        logits = einsum_float32("ne,ve->nv", flat, table).reshape(*hidden.shape[:-1], -1)
        return logits if bias is None else logits + bias

    def mean_logits(
        self, hidden: Float[Array, "*n e"], embeddings: nnx.Param
    ) -> Float[Array, "*n"]:
        """Return the mean of the logits over the vocabulary, by one product with the mean word."""
        table, bias = self._projection(embeddings)
        flat = self._transformed(hidden).reshape(-1, hidden.shape[-1])
        mean = einsum_float32("ne,e->n", flat, table.mean(axis=0)).reshape(hidden.shape[:-1])
        return mean if bias is None else mean + bias.mean()

    def _transformed(self, hidden: Float[Array, "*n e"]) -> Float[Array, "*n e"]:
        return hidden if self.transform is None else self.transform(hidden)

    def _projection(
        self, embeddings: nnx.Param
    ) -> tuple[Float[Array, "v e"], Float[Array, "v"] | None]:
        table, bias = self._parameters(embeddings)
        return table.astype(self.cfg.compute_dtype), bias

    def _parameters(
        self, embeddings: nnx.Param
    ) -> tuple[Float[Array, "v e"], Float[Array, "v"] | None]:
        table = embeddings if self.table is None else self.table
        return table[...], None if self.bias is None else self.bias[...]
