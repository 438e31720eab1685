"""What reads the hidden states: the vocabulary projection."""

import jax
from flax import nnx
from jaxtyping import Array, Key

from xlmjax.models.config import ModelConfig
from xlmjax.models.layers import uniform


class Head(nnx.Module):
    """Bias of the vocabulary and, where it is not the table of the embeddings, the output table."""

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        key_table, key_bias = jax.random.split(key)
        bound = cfg.embed_dim**-0.5
        self.table = (
            uniform(key_table, bound, vocab=cfg.vocab_size, embed=cfg.embed_dim)
            if not cfg.tie_embeddings
            else None
        )
        self.bias = uniform(key_bias, bound, vocab=cfg.vocab_size) if cfg.bias else None
