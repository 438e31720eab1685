"""Which models of others there are: for each, its names, and its options against ours.

A `Format` is read in both directions: a field of ModelConfig that a format does not vary is in
`fixed`, any other in `fields`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from xlmjax.interop import names
from xlmjax.models.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Field:
    """An option: its name in their configuration, and what their values mean here."""

    theirs: str
    values: tuple[tuple[Any, Any], ...] = ()  # (theirs, ours); empty: the same
    default: Any = None  # of theirs, where a configuration leaves it out
    older: tuple[str, ...] = ()  # names that older files have

    def read(self, config: Mapping[str, Any], where: str) -> Any:
        """Return our value of the option in a configuration of theirs."""
        for name in (self.theirs, *self.older):
            if name in config:
                value = config[name]
                break
        else:
            if self.default is None:
                raise ValueError(f"{where} has no {self.theirs!r}: the model's size is not known")
            value = self.default
        if not self.values:
            return value
        for theirs, ours in self.values:
            if theirs == value:
                return ours
        known = " or ".join(repr(theirs) for theirs, _ in self.values)
        raise ValueError(f"{where}: {self.theirs}={value!r} is not supported, only {known}")

    def write(self, value: Any) -> Any:
        """Return their value of an option of ours; `KeyError` where they have none."""
        if not self.values:
            return value
        return {ours: theirs for theirs, ours in self.values}[value]


@dataclasses.dataclass(frozen=True)
class Format:
    """A kind of model of others.

    `body` and `heads` name its parameters; the names of the body begin with `prefix`, unless a
    file holds the body alone. `unused` are tensors without a parameter of ours: (name, reason).
    """

    model_type: str
    architecture: str  # of transformers, with a head for the vocabulary
    prefix: str
    body: names.Table
    heads: names.Table
    fixed: Mapping[str, Any]
    fields: Mapping[str, Field]
    unused: tuple[tuple[str, str], ...]
    refused: tuple[tuple[str, Any, str], ...] = ()  # (option of theirs, what it must be, reason)
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of their config.json
    untied_heads: names.Table = ()  # with an output table of its own, where they differ

    def with_ties(self, tied: bool) -> "Format":
        """Return the format of models whose embeddings are the output table, or are not."""
        if tied or not self.untied_heads:
            return self
        return dataclasses.replace(self, heads=self.untied_heads)

    @property
    def table(self) -> names.Table:
        """Rows of the body with the prefix, and those of the heads."""
        body = tuple((ours, self.prefix + theirs) for ours, theirs in self.body)
        return (*body, *self.heads)

    def model_fields(self, config: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return fields of ModelConfig (all but languages and pad id) of a configuration."""
        for option, wanted, reason in self.refused:
            if config.get(option, wanted) != wanted:
                raise ValueError(f"{where}: {option}={config[option]!r} is not supported: {reason}")
        found = {name: field.read(config, where) for name, field in self.fields.items()}
        found = dict(self.fixed) | found
        if self.positions_begin_after_pad:
            offset = pad_id(config) + 1
            found |= {"position_offset": offset, "max_positions": found["max_positions"] - offset}
        return found

    def configuration(self, cfg: ModelConfig) -> dict[str, Any]:
        """Return their configuration of a model of ours; see `misfits` for whether it has one."""
        found = {field.theirs: field.write(getattr(cfg, n)) for n, field in self.fields.items()}
        if self.positions_begin_after_pad:
            found[self.fields["max_positions"].theirs] += cfg.pad_id + 1
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            **self.constants,
            **found,
            "pad_token_id": cfg.pad_id,
            "dtype": "float32",
        }

    def misfits(self, cfg: ModelConfig) -> list[str]:
        """Return the fields of a model for which this format has no place, as phrases."""
        wrong = [
            f"model.{name}={getattr(cfg, name)!r} (it has {value!r})"
            for name, value in self.fixed.items()
            if getattr(cfg, name) != value
        ]
        for name, field in self.fields.items():
            if field.values and getattr(cfg, name) not in [ours for _, ours in field.values]:
                wrong.append(f"model.{name}={getattr(cfg, name)!r}")
        if self.model_type == "xlm" and cfg.mlp_dim != 4 * cfg.embed_dim:
            wrong.append(f"model.mlp_dim={cfg.mlp_dim} (it has 4 * embed_dim)")
        if cfg.num_labels and cfg.pooling != "first":
            wrong.append(f"model.pooling={cfg.pooling!r} (its classifier sees the first state)")
        if cfg.lora_rank:
            wrong.append(f"model.lora_rank={cfg.lora_rank}")
        return wrong

    @property
    def positions_begin_after_pad(self) -> bool:
        """Whether the row of position 0 is that after the pad id's, as in fairseq."""
        return "position_offset" not in self.fixed


def pad_id(config: Mapping[str, Any]) -> int:
    """Return the id of padding in a configuration of theirs."""
    default = 2 if config["model_type"] == "xlm" else 1
    return int(config.get("pad_token_id", config.get("pad_index", default)))


_XLM_FIXED = {
    "position_offset": 0,
    "token_types": 0,
    "norm": "post",
    "norm_kind": "layer",
    "embedding_norm": True,
    "bias": True,
    "head_transform": False,
}
_ROBERTA_FIXED = {
    "positions": "learned",
    "norm_kind": "layer",
    "bias": True,
    "language_embeddings": False,
    "head_transform": True,
}
_BOOLEANS = ((True, True), (False, False))
_ROBERTA_FIELDS = {
    "vocab_size": Field("vocab_size"),
    "embed_dim": Field("hidden_size"),
    "num_layers": Field("num_hidden_layers"),
    "num_heads": Field("num_attention_heads"),
    "mlp_dim": Field("intermediate_size"),
    "max_positions": Field("max_position_embeddings"),
    "token_types": Field("type_vocab_size"),
    "mlp": Field("hidden_act", (("gelu", "gelu"), ("relu", "relu")), "gelu"),
    "dropout": Field("hidden_dropout_prob", default=0.1),
    "attention_dropout": Field("attention_probs_dropout_prob", default=0.1),
    "norm_epsilon": Field("layer_norm_eps", default=1e-5),
    "tie_embeddings": Field("tie_word_embeddings", _BOOLEANS, True),
}
_ROBERTA_UNUSED = (
    (r"roberta\.embeddings\.position_ids", "a constant: 0, 1, 2, ..."),
    (r"roberta\.embeddings\.token_type_ids", "a constant: 0, 0, 0, ..."),
    (r"lm_head\.decoder\.bias", "the same as lm_head.bias"),
    (r"lm_head\.bias", "transformers adds lm_head.decoder.bias in its place"),
    (r"(roberta\.)?pooler\..*", "the pooler, which masked language modelling does not train"),
)
_ROBERTA_REFUSED = (
    ("is_decoder", False, "ours is an encoder"),
    ("add_cross_attention", False, "ours is an encoder"),
    ("position_embedding_type", "absolute", "positions are learned"),
)

XLM = Format(
    model_type="xlm",
    architecture="XLMWithLMHeadModel",
    prefix="transformer.",
    body=names.XLM,
    heads=names.XLM_HEADS,
    fixed=_XLM_FIXED,
    fields={
        "vocab_size": Field("vocab_size", older=("n_words",)),
        "embed_dim": Field("emb_dim", older=("hidden_size",)),
        "num_layers": Field("n_layers", older=("num_hidden_layers",)),
        "num_heads": Field("n_heads", older=("num_attention_heads",)),
        "max_positions": Field("max_position_embeddings", default=512),
        "mlp": Field("gelu_activation", ((True, "gelu"), (False, "relu")), True),
        "positions": Field(
            "sinusoidal_embeddings", ((True, "sinusoidal"), (False, "learned")), False
        ),
        "language_embeddings": Field("use_lang_emb", _BOOLEANS, True),
        "dropout": Field("dropout", default=0.1),
        "attention_dropout": Field("attention_dropout", default=0.1),
        "norm_epsilon": Field("layer_norm_eps", default=1e-12),
        "tie_embeddings": Field("tie_word_embeddings", _BOOLEANS, True, older=("share_inout_emb",)),
    },
    unused=((r"transformer\.position_ids", "a constant: 0, 1, 2, ..."),),
    refused=(
        ("asm", False, "an adaptive softmax head (asm) has no place in the model"),
        ("use_memory", False, "product-key memories (use_memory) have no place in the model"),
        ("is_encoder", True, "Hugging Face's XLM is an encoder"),
    ),
    constants={
        "asm": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "unk_index": 3,
        "mask_index": 5,
        "is_encoder": True,
    },
)
ROBERTA = Format(
    model_type="xlm-roberta",
    architecture="XLMRobertaForMaskedLM",
    prefix="roberta.",
    body=names.ROBERTA,
    heads=names.ROBERTA_HEADS,
    fixed={**_ROBERTA_FIXED, "norm": "post", "embedding_norm": True},
    fields=_ROBERTA_FIELDS,
    unused=_ROBERTA_UNUSED,
    refused=_ROBERTA_REFUSED,
    constants={"bos_token_id": 0, "eos_token_id": 2},
    untied_heads=names.ROBERTA_UNTIED_HEADS,
)
ROBERTA_XL = dataclasses.replace(
    ROBERTA,
    model_type="xlm-roberta-xl",
    architecture="XLMRobertaXLForMaskedLM",
    body=names.ROBERTA_XL,
    fixed={**_ROBERTA_FIXED, "norm": "pre", "embedding_norm": False},
)
FORMATS = {kind.model_type: kind for kind in (XLM, ROBERTA, ROBERTA_XL)}


def format_of(cfg: ModelConfig) -> Format:
    """Return the format in which a model can be written.

    Raises `ValueError` naming what of it no model of transformers has.
    """
    misfits = {name: kind.misfits(cfg) for name, kind in FORMATS.items()}
    fitting = [name for name, wrong in misfits.items() if not wrong]
    if fitting:
        return FORMATS[fitting[0]].with_ties(cfg.tie_embeddings)
    nearest = min(misfits, key=lambda name: len(misfits[name]))
    raise ValueError(
        f"no model of transformers has this shape; nearest is {nearest}, which has no place for "
        f"{', '.join(misfits[nearest])}"
    )
