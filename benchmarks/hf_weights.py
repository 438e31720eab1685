"""Our parameters under the names of Hugging Face's XLM, for whatever compares the two."""

from typing import Any

import jax
import numpy as np

from xlmjax.models.xlm import XLM


def state_dict(model: XLM) -> dict[str, np.ndarray]:
    """Return the parameters of an encoder of the XLM recipe; torch keeps matrices as (out, in).

    Those of the labels are there where the model has a classifier, else those of the vocabulary.
    """
    cfg, embeddings = model.cfg, model.embeddings
    named: dict[str, Any] = {"embeddings.weight": embeddings.tokens}
    if embeddings.positions is not None:
        named["position_embeddings.weight"] = embeddings.positions
    if embeddings.languages is not None:
        named["lang_embeddings.weight"] = embeddings.languages
    named |= _norm("layer_norm_emb", embeddings.norm)
    for i in range(cfg.num_layers):
        layer = jax.tree.map(lambda stacked, i=i: stacked[i], model.transformer.layers)
        parts = {"q": "query", "k": "key", "v": "value", "out": "out"}
        for short, name in parts.items():
            dense = getattr(layer.attention, name)
            named |= _linear(f"attentions.{i}.{short}_lin", dense, cfg.embed_dim, cfg.embed_dim)
        named |= _linear(f"ffns.{i}.lin1", layer.mlp.wi, cfg.embed_dim, cfg.mlp_dim)
        named |= _linear(f"ffns.{i}.lin2", layer.mlp.wo, cfg.mlp_dim, cfg.embed_dim)
        named |= _norm(f"layer_norm1.{i}", layer.attention_norm)
        named |= _norm(f"layer_norm2.{i}", layer.mlp_norm)
    named = {f"transformer.{name}": value for name, value in named.items()}
    if model.classifier is not None:
        summary = "sequence_summary.summary"
        named |= _linear(summary, model.classifier, cfg.embed_dim, cfg.num_labels)
    else:
        named["pred_layer.proj.bias"] = model.head.bias
        if model.head.table is not None:
            named["pred_layer.proj.weight"] = model.head.table
    return {name: np.array(value) for name, value in named.items()}


def _linear(name: str, dense: Any, inputs: int, outputs: int) -> dict[str, np.ndarray]:
    kernel = np.asarray(dense.kernel).reshape(inputs, outputs)
    return {f"{name}.weight": kernel.T, f"{name}.bias": np.asarray(dense.bias).reshape(outputs)}


def _norm(name: str, norm: Any) -> dict[str, Any]:
    return {f"{name}.weight": norm.scale, f"{name}.bias": norm.bias}
