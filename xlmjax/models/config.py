"""The sizes and choices of a model: the `model` section of a config, validated."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
from ml_collections import ConfigDict

_CHOICES = {
    "positions": ("learned", "sinusoidal", "rope"),
    "norm": ("post", "pre"),
    "norm_kind": ("layer", "rms"),
    "mlp": ("gelu", "relu", "geglu"),
    "dtype": ("float32", "bfloat16"),
    "remat": ("none", "full", "dots"),
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What `configs/base.py` says under `model`, and the facts of the vocabulary and languages."""

    vocab_size: int
    language_ids: tuple[int, ...]  # ids of xlmjax.languages; row i of the table is language_ids[i]
    pad_id: int
    embed_dim: int = 256
    num_layers: int = 6
    num_heads: int = 8
    mlp_dim: int = 0  # 0 means 4 * embed_dim
    max_positions: int = 512
    positions: str = "learned"
    rope_base: float = 10_000.0
    norm: str = "post"
    norm_kind: str = "layer"
    norm_epsilon: float = 1e-12
    mlp: str = "gelu"
    bias: bool = True
    language_embeddings: bool = True
    tie_embeddings: bool = True
    dropout: float = 0.1
    attention_dropout: float = 0.1
    dtype: str = "bfloat16"
    attention: str = "auto"
    remat: str = "none"
    scan_layers: bool = True
    head_tile: int = 0

    @classmethod
    def from_config(
        cls, config: ConfigDict, *, vocab_size: int, language_ids: Sequence[int], pad_id: int
    ) -> "ModelConfig":
        """Return the validated `model` section; a wrong field raises `ValueError`."""
        return cls(vocab_size=vocab_size, language_ids=tuple(language_ids), pad_id=pad_id, **config)

    def __post_init__(self):
        if self.mlp_dim == 0:
            object.__setattr__(self, "mlp_dim", 4 * self.embed_dim)
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(
                    f"model.{field} = {getattr(self, field)!r}; choose one of {', '.join(choices)}"
                )
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"model.embed_dim = {self.embed_dim} is not divisible by model.num_heads = "
                f"{self.num_heads}; change one of them"
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.embed_dim // self.num_heads

    @property
    def compute_dtype(self) -> jnp.dtype:
        """Dtype of activations and of parameters where they are used."""
        return jnp.dtype(self.dtype)

    @property
    def has_language_table(self) -> bool:
        """Whether tokens carry an embedding of their language: needs two of them, as in XLM."""
        return self.language_embeddings and len(self.language_ids) > 1
