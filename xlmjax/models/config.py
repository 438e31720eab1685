"""Sizes and choices of a model: the `model` section of a config, validated."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
from ml_collections import ConfigDict

from xlmjax.ops import attention, cross_entropy

_CHOICES = {
    "positions": ("learned", "sinusoidal", "rope"),
    "norm": ("post", "pre"),
    "norm_kind": ("layer", "rms"),
    "mlp": ("gelu", "relu", "geglu"),
    "dtype": ("float32", "bfloat16"),
    "attention": ("auto", *attention.IMPLEMENTATIONS),
    "remat": ("none", "full", "dots"),
    "pooling": ("first", "mean", "difference"),
}
_POSITIVE = ("vocab_size", "embed_dim", "num_layers", "num_heads", "mlp_dim", "max_positions")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The fields of `configs/base.py` under `model`, with the facts of vocabulary and languages."""

    vocab_size: int
    language_ids: tuple[int, ...]  # ids of xlmjax.languages, in the order of the table's rows
    pad_id: int
    eos_id: int = -1  # -1: not known; pooling "difference" needs it
    num_labels: int = 0  # 0: no classifier
    reads_source: bool = False  # of a decoder: layers attend to an encoder's states
    embed_dim: int = 256
    num_layers: int = 6
    decoder_layers: int = 0  # 0: an encoder alone
    share_embeddings: bool = False  # encoder and decoder have one table
    num_heads: int = 8
    mlp_dim: int = 0  # 0 means 4 * embed_dim
    max_positions: int = 512
    positions: str = "learned"
    position_offset: int = 0  # row of position 0 in the table of learned positions
    token_types: int = 0  # rows of a table of which every token gets the first
    rope_base: float = 10_000.0
    norm: str = "post"
    norm_kind: str = "layer"
    norm_epsilon: float = 1e-12
    embedding_norm: bool = True
    mlp: str = "gelu"
    bias: bool = True
    language_embeddings: bool = True  # of an encoder; a decoder always has them
    tie_embeddings: bool = True
    head_transform: bool = False  # dense, GELU and norm before the vocabulary projection
    dropout: float = 0.1
    attention_dropout: float = 0.1
    dtype: str = "bfloat16"
    attention: str = "auto"
    remat: str = "none"
    scan_layers: bool = True
    head_tile: int = cross_entropy.AUTO
    pooling: str = "first"
    classifier_dropout: float = 0.0
    lora_rank: int = 0  # 0: none
    lora_alpha: float = 16.0

    @classmethod
    def from_config(
        cls,
        config: ConfigDict,
        *,
        vocab_size: int,
        language_ids: Sequence[int],
        pad_id: int,
        eos_id: int = -1,
        num_labels: int = 0,
    ) -> "ModelConfig":
        """Return the validated `model` section; a wrong field raises `ValueError`."""
        return cls(
            vocab_size=vocab_size,
            language_ids=tuple(language_ids),
            pad_id=pad_id,
            eos_id=eos_id,
            num_labels=num_labels,
            **config,
        )

    def __post_init__(self):
        if self.mlp_dim == 0:
            object.__setattr__(self, "mlp_dim", 4 * self.embed_dim)
        for field, choices in _CHOICES.items():
            self._require(getattr(self, field) in choices, field, f"choose {' | '.join(choices)}")
        for field in _POSITIVE:
            self._require(getattr(self, field) > 0, field, "give a positive number")
        for field in ("dropout", "attention_dropout", "classifier_dropout"):
            self._require(0 <= getattr(self, field) < 1, field, "give a share in [0, 1)")
        self._require(
            self.head_tile >= cross_entropy.AUTO,
            "head_tile",
            "give a number of words, 0 for all, -1 to tile where there are many logits",
        )
        self._require(self.decoder_layers >= 0, "decoder_layers", "give a number, 0 for none")
        self._require(
            not self.share_embeddings or self.decoder_layers > 0,
            "share_embeddings",
            "an encoder alone shares with no decoder: set model.decoder_layers",
        )
        self._require(
            not (self.decoder_layers and self.num_labels),
            "decoder_layers",
            "classification takes an encoder alone: set 0",
        )
        self._require(
            self.position_offset == 0 or (self.positions == "learned" and self.position_offset > 0),
            "position_offset",
            f"only learned positions have rows to skip, and model.positions={self.positions!r}: "
            "set 0, or a positive number of rows with learned ones",
        )
        self._require(self.token_types >= 0, "token_types", "give a number of rows, 0 for none")
        self._require(self.lora_rank >= 0, "lora_rank", "give a width, 0 for none")
        self._require(self.lora_alpha > 0, "lora_alpha", "give a positive number")
        self._require(
            self.embed_dim % self.num_heads == 0,
            "embed_dim",
            f"give a multiple of model.num_heads={self.num_heads}",
        )
        self._require(
            self.positions != "rope" or self.head_dim % 2 == 0,
            "embed_dim",
            f'"rope" needs an even width per head, not {self.head_dim}; change it or num_heads',
        )
        self._require(
            0 < len(self.language_ids) == len(set(self.language_ids)),
            "language_ids",
            "name every language of data.languages once",
        )
        self._require(
            0 <= self.pad_id < self.vocab_size, "pad_id", f"the vocabulary has {self.vocab_size}"
        )
        self._require(
            self.pooling != "difference" or 0 <= self.eos_id < self.vocab_size,
            "eos_id",
            'pooling="difference" needs the id of the end symbol, which separates the sides',
        )

    @property
    def decoder(self) -> "ModelConfig":
        """The same of a decoder: `decoder_layers` layers that read the states of an encoder."""
        return dataclasses.replace(
            self,
            num_layers=self.decoder_layers,
            decoder_layers=0,
            share_embeddings=False,
            language_embeddings=True,
            reads_source=True,
        )

    @property
    def longest_row(self) -> int | None:
        """Tokens of the longest row that has positions; None where there is no limit."""
        return None if self.positions == "rope" else self.max_positions

    def check_length(self, length: int) -> None:
        """Raise `ValueError` on rows longer than the table of positions."""
        if self.longest_row is not None and length > self.longest_row:
            raise ValueError(
                f"rows of {length} tokens are longer than model.max_positions="
                f"{self.max_positions}; shorten train.length, raise model.max_positions, or take "
                f'model.positions="rope"'
            )

    def check_sides(self, sides: int, task: str) -> None:
        """Raise `ValueError` where a classifier cannot read examples of so many sides."""
        if self.pooling == "difference" and sides < 2:
            raise ValueError(
                f'{task} holds single texts, and model.pooling="difference" is for pairs: take '
                '"first" or "mean"'
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.embed_dim // self.num_heads

    @property
    def pooled_dim(self) -> int:
        """Width of what a classifier sees of a text."""
        return self.embed_dim * (2 if self.pooling == "difference" else 1)

    @property
    def compute_dtype(self) -> jnp.dtype:
        """Dtype of activations, and of parameters where they are used."""
        return jnp.dtype(self.dtype)

    @property
    def adds_languages(self) -> bool:
        """Whether tokens carry an embedding of their language: with one language XLM has none."""
        return self.language_embeddings and len(self.language_ids) > 1

    @property
    def has_language_table(self) -> bool:
        """Whether the embeddings have rows of languages; shared ones do, for the decoder."""
        return self.adds_languages or (self.share_embeddings and len(self.language_ids) > 1)

    @property
    def has_norm_bias(self) -> bool:
        """Whether norms shift as well as scale."""
        return self.bias and self.norm_kind == "layer"

    def depth_of(self, layer: int, field: str = "layer") -> int:
        """Return the number of layers below some states: 0 names the embeddings, -1 the last layer.

        Raises `ValueError` naming `field` where the model has no such layer.
        """
        depth = layer if layer >= 0 else self.num_layers + 1 + layer
        if not 0 <= depth <= self.num_layers:
            raise ValueError(
                f"{field}={layer}: the model has model.num_layers={self.num_layers}; give 0 "
                f"(embeddings) to {self.num_layers}, or -1 (the last) to {-self.num_layers - 1}"
            )
        return depth

    def num_parameters(self) -> int:
        """Return the number of trainable parameters (spec of XLM, section 3.4, generalised)."""
        embed, mlp = self.embed_dim, self.mlp_dim
        norm = embed * (1 + self.has_norm_bias)
        gates = 2 if self.mlp == "geglu" else 1
        biases = 4 * embed + gates * mlp + embed if self.bias else 0
        lora = self.lora_rank * (8 * embed + (gates + 1) * (embed + mlp))
        layer = self._weights_per_layer() + biases + 2 * norm + lora
        if self.reads_source:
            layer += 4 * embed * (embed + self.bias) + norm + self.lora_rank * 8 * embed
        final_norm = norm if self.norm == "pre" else 0
        head = self.vocab_size * (self.bias + (0 if self.tie_embeddings else embed))
        head += embed * (embed + self.bias) + norm if self.head_transform else 0
        head += self.num_labels * (self.pooled_dim + 1)
        own = self._embedding_parameters() + self.num_layers * layer + final_norm + head
        if not self.decoder_layers:
            return own
        shared = self._embedding_parameters() if self.share_embeddings else 0
        return own + self.decoder.num_parameters() - shared

    def flops_per_token(self, segment_length: float, predicted_share: float = 1.0) -> float:
        """Return the floating-point operations of training on one token, by the data it stands in.

        Forward and backward pass, 2 operations a multiplication. A token attends to its segment:
        `segment_length` is the mean over tokens, sum n^2 / sum n over segments of n tokens. Only a
        share of the positions is predicted: the vocabulary projection runs there, and so does the
        last layer but for its keys and values. What remat repeats, norms and the optimizer do not
        count, as is usual for MFU.
        """
        per_layer, keys_and_values = self._weights_per_layer(), 2 * self.embed_dim**2
        last = keys_and_values + predicted_share * (per_layer - keys_and_values)
        body = (self.num_layers - 1) * per_layer + last
        head = predicted_share * self.embed_dim * self.vocab_size
        head += predicted_share * self.embed_dim**2 if self.head_transform else 0
        attention = (self.num_layers - 1 + predicted_share) * segment_length * self.embed_dim
        return 6 * (body + head) + 12 * attention

    def _embedding_parameters(self) -> int:
        """Number of parameters of tables and norm below the first layer."""
        rows = self.vocab_size + self.token_types
        rows += self.max_positions + self.position_offset if self.positions == "learned" else 0
        rows += len(self.language_ids) if self.has_language_table else 0
        rows += 1 + self.has_norm_bias if self.embedding_norm else 0
        return rows * self.embed_dim

    def _weights_per_layer(self) -> int:
        gates = 2 if self.mlp == "geglu" else 1
        return 4 * self.embed_dim**2 + (gates + 1) * self.embed_dim * self.mlp_dim

    def _require(self, holds: bool, field: str, remedy: str) -> None:
        if not holds:
            raise ValueError(f"model.{field}={getattr(self, field)!r}: {remedy}")
