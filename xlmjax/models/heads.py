"""What reads the hidden states: the vocabulary projection."""

import jax
from flax import nnx
from jaxtyping import Array, Key

from xlmjax.models.config import ModelConfig
from xlmjax.models.layers import uniform


class Head(nnx.Module):
    """Bias of every word and, unless the embeddings serve as one, an output table."""

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        key_table, key_bias = jax.random.split(key)
        bound = cfg.embed_dim**-0.5
        vocab, embed = cfg.vocab_size, cfg.embed_dim
        tied = cfg.tie_embeddings
        self.table = None if tied else uniform(key_table, bound, vocab=vocab, embed=embed)
        self.bias = uniform(key_bias, bound, vocab=vocab) if cfg.bias else None
