"""What reads the hidden states: the vocabulary projection."""

import jax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from xlmjax.models.config import ModelConfig
from xlmjax.models.layers import uniform
from xlmjax.ops import cross_entropy
from xlmjax.ops.products import einsum_float32


class Head(nnx.Module):
    """Bias of every word and, unless the embeddings serve as one, an output table."""

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        key_table, key_bias = jax.random.split(key)
        bound = cfg.embed_dim**-0.5
        vocab, embed = cfg.vocab_size, cfg.embed_dim
        tied = cfg.tie_embeddings
        self.cfg = cfg
        self.table = None if tied else uniform(key_table, bound, vocab=vocab, embed=embed)
        self.bias = uniform(key_bias, bound, vocab=vocab) if cfg.bias else None

    def token_losses(
        self, hidden: Float[Array, "*n e"], embeddings: nnx.Param, targets: Int[Array, "*n"]
    ) -> cross_entropy.TokenLosses:
        """Return loss, correctness and log normalizer of predicting each target, in float32."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        losses = cross_entropy.token_losses(
            flat, *self._projection(embeddings), targets.reshape(-1), self.cfg.head_tile
        )
        return jax.tree.map(lambda x: x.reshape(targets.shape), losses)

    def logits(self, hidden: Float[Array, "*n e"], embeddings: nnx.Param) -> Float[Array, "*n v"]:
        """Return the logits of the whole vocabulary in float32."""
        table, bias = self._projection(embeddings)
        logits = einsum_float32("...e,ve->...v", hidden, table)
        return logits if bias is None else logits + bias

    def mean_logits(
        self, hidden: Float[Array, "*n e"], embeddings: nnx.Param
    ) -> Float[Array, "*n"]:
        """Return the mean of the logits over the vocabulary, by one product with the mean word."""
        table, bias = self._projection(embeddings)
        mean = einsum_float32("...e,e->...", hidden, table.mean(axis=0))
        return mean if bias is None else mean + bias.mean()

    def _projection(
        self, embeddings: nnx.Param
    ) -> tuple[Float[Array, "v e"], Float[Array, "v"] | None]:
        table = embeddings if self.table is None else self.table
        bias = None if self.bias is None else self.bias[...]
        return table[...].astype(self.cfg.compute_dtype), bias
