"""The stack of layers: built by vmap, run by scan."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key, UInt32

from xlmjax.models.config import ModelConfig
from xlmjax.models.layers import Attention, Mlp, Norm
from xlmjax.ops import dropout
from xlmjax.parallel.partition import constrain


def drop(
    x: Float[Array, "b l e"], seeds: UInt32[Array, "b 2"] | None, site: int, rate: float
) -> Float[Array, "b l e"]:
    """Drop a share `rate` of x at a numbered site; no seeds mean no dropout."""
    if seeds is None or not rate:
        return x
    return dropout.Dropout(dropout.fold(seeds, site), rate)(x)


class Layer(nnx.Module):
    """Attention and feed-forward block, each with residual, norm (after or before) and dropout."""

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        key_attention, key_mlp = jax.random.split(key)
        self.cfg = cfg
        self.attention = Attention(cfg, key_attention)
        self.attention_norm = Norm(cfg)
        self.mlp = Mlp(cfg, key_mlp)
        self.mlp_norm = Norm(cfg)

    def __call__(self, x, positions, segment_ids, causal, seeds):
        def attend(x):
            sites = None if seeds is None else dropout.fold(seeds, 0)
            return drop(
                self.attention(x, positions, segment_ids, causal, sites), seeds, 1, self.cfg.dropout
            )

        def feed(x):
            return drop(self.mlp(x), seeds, 2, self.cfg.dropout)

        if self.cfg.norm == "post":
            x = self.attention_norm(x + attend(x))
            x = self.mlp_norm(x + feed(x))
        else:
            x = x + attend(self.attention_norm(x))
            x = x + feed(self.mlp_norm(x))
        x = jnp.where((segment_ids != 0)[:, :, None], x, 0)
        return constrain(x, "act_batch", "act_length", "act_embed")


class Transformer(nnx.Module):
    """`num_layers` layers with stacked parameters."""

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        self.cfg = cfg
        keys = jax.random.split(key, cfg.num_layers)
        layers = jax.vmap(functools.partial(Layer, cfg))(keys)
        self.layers = jax.tree.map(
            lambda p: p.replace(p[...], axes=("layers", *p.axes)),
            layers,
            is_leaf=lambda p: isinstance(p, nnx.Param),
        )
        self.final_norm = Norm(cfg) if cfg.norm == "pre" else None

    def __call__(
        self,
        x: Float[Array, "b l e"],
        positions: Int[Array, "b l"],
        segment_ids: Int[Array, "b l"],
        causal: bool = False,
        seeds: UInt32[Array, "b 2"] | None = None,
    ) -> Float[Array, "b l e"]:
        def run(x, pair):
            layer, number = pair
            layer_seeds = None if seeds is None else dropout.fold(seeds, number)
            return layer(x, positions, segment_ids, causal, layer_seeds), None

        numbers = jnp.arange(self.cfg.num_layers)
        if self.cfg.scan_layers:
            x, _ = jax.lax.scan(run, x, (self.layers, numbers))
        else:
            for number in range(self.cfg.num_layers):
                x, _ = run(x, (jax.tree.map(lambda p: p[number], self.layers), number))
        if self.final_norm is not None:
            x = jnp.where((segment_ids != 0)[:, :, None], self.final_norm(x), 0)
        return x
