"""The stack of layers: built by vmap, run by scan."""

import operator
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from xlmjax.models.config import ModelConfig
from xlmjax.models.layers import Attention, Mlp, Norm, Rows, drop, zero_padding
from xlmjax.ops import dropout
from xlmjax.parallel.partition import constrain

M = TypeVar("M", bound=nnx.Module)

# What the backward pass finds in memory; the rest it computes again. "dots" keeps the products
# with parameters, not those of attention.
REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Layer(nnx.Module):
    """Attention and feed-forward block, each with dropout, a residual, and a norm after or before.

    Places of dropout: 0 attention weights, 1 output of attention, 2 output of the block.
    """

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        key_attention, key_mlp = jax.random.split(key)
        self.cfg = cfg
        self.attention = Attention(cfg, key_attention)
        self.attention_norm = Norm(cfg)
        self.mlp = Mlp(cfg, key_mlp)
        self.mlp_norm = Norm(cfg)

    def __call__(self, x: Float[Array, "b l e"], rows: Rows, causal: bool) -> Float[Array, "b l e"]:
        seeds, rate = rows.seeds, self.cfg.dropout
        weights = rows._replace(seeds=None if seeds is None else dropout.fold(seeds, 0))
        if self.cfg.norm == "post":
            x = self.attention_norm(x + drop(self.attention(x, weights, causal), seeds, 1, rate))
            x = self.mlp_norm(x + drop(self.mlp(x), seeds, 2, rate))
        else:
            y = self.attention_norm(x)
            x += drop(self.attention(y, weights, causal), seeds, 1, rate)
            x += drop(self.mlp(self.mlp_norm(x)), seeds, 2, rate)
        x = zero_padding(x, rows.segment_ids)
        return constrain(x, "act_batch", "act_length", "act_embed")


class Transformer(nnx.Module):
    """Layers whose parameters are stacked along a leading axis "layers"."""

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        self.cfg = cfg
        self.layers = stack(lambda key: Layer(cfg, key), jax.random.split(key, cfg.num_layers))
        self.final_norm = Norm(cfg) if cfg.norm == "pre" else None

    def __call__(
        self, x: Float[Array, "b l e"], rows: Rows, *, causal: bool = False
    ) -> Float[Array, "b l e"]:
        def run(x: Float[Array, "b l e"], numbered: tuple[Layer, Array | int]):
            layer, number = numbered
            seeds = None if rows.seeds is None else dropout.fold(rows.seeds, number)
            return layer(x, rows._replace(seeds=seeds), causal), None

        if self.cfg.remat != "none":
            # A loop keeps the repeated computation apart; unrolled, XLA would merge it away.
            run = jax.checkpoint(
                run, policy=REMAT[self.cfg.remat], prevent_cse=not self.cfg.scan_layers
            )
        if self.cfg.scan_layers:
            x, _ = jax.lax.scan(run, x, (self.layers, jnp.arange(self.cfg.num_layers)))
        else:
            for number in range(self.cfg.num_layers):
                layer = jax.tree.map(operator.itemgetter(number), self.layers)
                x, _ = run(x, (layer, number))
        return x if self.final_norm is None else zero_padding(self.final_norm(x), rows.segment_ids)


def stack(make: Callable[[Key[Array, ""]], M], keys: Key[Array, "layers"]) -> M:
    """Return one module whose parameters carry all of `make(key)` along a first axis "layers"."""
    stacked = jax.vmap(make)(keys)
    for _, parameter in nnx.iter_graph(stacked):
        if isinstance(parameter, nnx.Param):
            parameter.set_metadata(axes=("layers", *parameter.get_metadata("axes")))
    return stacked
