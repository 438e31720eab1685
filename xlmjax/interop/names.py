"""Names of parameters, ours and theirs: one table a format, read in both directions.

A row pairs a name of ours with one of theirs. `{layer}` in theirs is the number of a layer, whose
parameters are stacked on our side along a first axis "layers". Words in braces stand for several
rows at once: `{norm}` for scale and bias, `{affine}` for kernel and bias, the others are below.
torch keeps the kernel of an affine map as (outputs, inputs), with all heads in one axis.
"""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence

import numpy as np

# Word in braces -> (ours, theirs) of each row that it stands for.
_WORDS = {
    "norm": (("scale", "weight"), ("bias", "bias")),
    "affine": (("kernel", "weight"), ("bias", "bias")),
    "qkv": (("query", "q"), ("key", "k"), ("value", "v")),
    "part": (("query", "query"), ("key", "key"), ("value", "value")),
    "mlp": (("wi", "lin1"), ("wo", "lin2")),
}
LAYER = "{layer}"

Table = tuple[tuple[str, str], ...]

# The original XLM names half a model so; Hugging Face puts `transformer.` before all but the head.
XLM: Table = (
    ("embeddings/tokens", "embeddings.weight"),
    ("embeddings/positions", "position_embeddings.weight"),
    ("embeddings/languages", "lang_embeddings.weight"),
    ("embeddings/norm/{norm}", "layer_norm_emb.{norm}"),
    ("transformer/layers/attention/{qkv}/{affine}", "attentions.{layer}.{qkv}_lin.{affine}"),
    ("transformer/layers/attention/out/{affine}", "attentions.{layer}.out_lin.{affine}"),
    ("transformer/layers/attention_norm/{norm}", "layer_norm1.{layer}.{norm}"),
    (
        "transformer/layers/cross_attention/{qkv}/{affine}",
        "encoder_attn.{layer}.{qkv}_lin.{affine}",
    ),
    ("transformer/layers/cross_attention/out/{affine}", "encoder_attn.{layer}.out_lin.{affine}"),
    ("transformer/layers/cross_norm/{norm}", "layer_norm15.{layer}.{norm}"),
    ("transformer/layers/mlp/{mlp}/{affine}", "ffns.{layer}.{mlp}.{affine}"),
    ("transformer/layers/mlp_norm/{norm}", "layer_norm2.{layer}.{norm}"),
)
XLM_HEADS: Table = (
    ("head/table", "pred_layer.proj.weight"),
    ("head/bias", "pred_layer.proj.bias"),
    ("classifier/{affine}", "sequence_summary.summary.{affine}"),
)

_ROBERTA: Table = (
    ("embeddings/tokens", "embeddings.word_embeddings.weight"),
    ("embeddings/positions", "embeddings.position_embeddings.weight"),
    ("embeddings/types", "embeddings.token_type_embeddings.weight"),
    (
        "transformer/layers/attention/{part}/{affine}",
        "encoder.layer.{layer}.attention.self.{part}.{affine}",
    ),
    (
        "transformer/layers/attention/out/{affine}",
        "encoder.layer.{layer}.attention.output.dense.{affine}",
    ),
    ("transformer/layers/mlp/wi/{affine}", "encoder.layer.{layer}.intermediate.dense.{affine}"),
    ("transformer/layers/mlp/wo/{affine}", "encoder.layer.{layer}.output.dense.{affine}"),
)
ROBERTA: Table = (
    *_ROBERTA,
    ("embeddings/norm/{norm}", "embeddings.LayerNorm.{norm}"),
    (
        "transformer/layers/attention_norm/{norm}",
        "encoder.layer.{layer}.attention.output.LayerNorm.{norm}",
    ),
    ("transformer/layers/mlp_norm/{norm}", "encoder.layer.{layer}.output.LayerNorm.{norm}"),
)
# Pre-norm: the norms stand before the blocks, and one after the last layer.
ROBERTA_XL: Table = (
    *_ROBERTA,
    (
        "transformer/layers/attention_norm/{norm}",
        "encoder.layer.{layer}.attention.self_attn_layer_norm.{norm}",
    ),
    ("transformer/layers/mlp_norm/{norm}", "encoder.layer.{layer}.LayerNorm.{norm}"),
    ("transformer/final_norm/{norm}", "encoder.LayerNorm.{norm}"),
)
ROBERTA_HEADS: Table = (
    ("head/transform/dense/{affine}", "lm_head.dense.{affine}"),
    ("head/transform/norm/{norm}", "lm_head.layer_norm.{norm}"),
    ("head/table", "lm_head.decoder.weight"),
    ("head/bias", "lm_head.bias"),
)
# With an output table of its own transformers has two biases and adds the second, the last here.
ROBERTA_UNTIED_HEADS: Table = (*ROBERTA_HEADS, ("head/bias", "lm_head.decoder.bias"))


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of theirs, and the parameter of ours of which it is the whole or a layer."""

    name: str
    parameter: str
    layer: int | None = None

    @property
    def place(self) -> str:
        """The parameter, with the number of the layer in brackets."""
        return self.parameter if self.layer is None else f"{self.parameter}[{self.layer}]"


def rows(table: Table) -> list[tuple[str, str]]:
    """Return the pairs (ours, theirs) of a table with its words written out, `{layer}` aside."""
    found = []
    for ours, theirs in table:
        words = [word for word in _WORDS if f"{{{word}}}" in ours]
        for chosen in itertools.product(*(_WORDS[word] for word in words)):
            pair = [ours, theirs]
            for word, spelt in zip(words, chosen, strict=True):
                pair = [
                    text.replace(f"{{{word}}}", own) for text, own in zip(pair, spelt, strict=True)
                ]
            found.append((pair[0], pair[1]))
    return found


def tensors(table: Table, shapes: Mapping[str, Sequence[int]], where: str = "") -> list[Tensor]:
    """Return the tensors of theirs for a model of ours, given the shape of every parameter.

    `where` comes before the names of the parameters ("encoder/" of a model with two halves).
    Parameters that the table does not name are left out, rows without a parameter too.
    """
    found = []
    for ours, theirs in rows(table):
        parameter = where + ours
        if parameter not in shapes:
            continue
        if LAYER not in theirs:
            found.append(Tensor(theirs, parameter))
            continue
        layers = range(shapes[parameter][0])
        found += [Tensor(theirs.replace(LAYER, str(i)), parameter, i) for i in layers]
    return found


def names_pattern(table: Table) -> re.Pattern[str]:
    """Return a regex of the names of theirs in a table, whatever the number of layers."""
    theirs = (re.escape(name).replace(re.escape(LAYER), r"\d+") for _, name in rows(table))
    return re.compile("|".join(theirs))


def their_shape(tensor: Tensor, shape: Sequence[int], axes: Sequence[str]) -> tuple[int, ...]:
    """Return the shape of a tensor of theirs, given shape and axes of its parameter of ours."""
    if tensor.layer is not None:
        shape, axes = shape[1:], axes[1:]
    merged: list[int] = []
    for size, axis in zip(shape, axes, strict=True):
        if axis == "head_dim":
            merged[-1] *= size
        else:
            merged.append(size)
    return tuple(reversed(merged)) if _is_kernel(tensor) else tuple(merged)


def to_theirs(tensor: Tensor, value: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return a parameter of ours, one layer of it where it is stacked, in the `shape` of theirs."""
    return value.reshape(tuple(reversed(shape))).T if _is_kernel(tensor) else value.reshape(shape)


def to_ours(tensor: Tensor, value: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return a tensor of theirs in the `shape` of ours, that of one layer; a view, no copy."""
    return (value.T if _is_kernel(tensor) else value).reshape(shape)


def _is_kernel(tensor: Tensor) -> bool:
    return tensor.parameter.endswith("/kernel")
