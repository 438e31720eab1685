"""The stack of layers: built by vmap, run by scan."""

import operator
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from xlmjax.models.config import ModelConfig
from xlmjax.models.layers import Attention, Mlp, Norm, Rows, drop, length_axis, take, zero_padding
from xlmjax.ops import dropout
from xlmjax.parallel.mesh import platform
from xlmjax.parallel.partition import constrain

M = TypeVar("M", bound=nnx.Module)

# Layers a turn of the scan, by platform. The CPU gains 3 to 14 % of a step over one layer a turn:
# nothing is copied into and out of stacks of activations.
UNROLL = {"cpu": 8}

# What the backward pass finds in memory; the rest it computes again. "dots" keeps the products
# with parameters, not those of attention.
REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Layer(nnx.Module):
    """Attention and feed-forward block, each with dropout, a residual, and a norm after or before.

    Places of dropout: 0 attention weights, 1 output of attention, 2 output of the block.

    With `picks` only the states at those positions of each row are computed: every position serves
    as key and value, and nothing else is done for the rest.
    """

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        key_attention, key_mlp = jax.random.split(key)
        self.cfg = cfg
        self.attention = Attention(cfg, key_attention)
        self.attention_norm = Norm(cfg)
        self.mlp = Mlp(cfg, key_mlp)
        self.mlp_norm = Norm(cfg)

    def __call__(
        self,
        x: Float[Array, "b l e"],
        rows: Rows,
        causal: bool,
        picks: Int[Array, "b k"] | None = None,
    ) -> Float[Array, "b q e"]:
        seeds, rate = rows.seeds, self.cfg.dropout
        weights = rows._replace(seeds=None if seeds is None else dropout.fold(seeds, 0))
        post = self.cfg.norm == "post"
        y = self.attention(x if post else self.attention_norm(x), weights, causal, picks)
        x = take(x, picks) + drop(y, seeds, 1, rate)
        if post:
            x = self.attention_norm(x)
            x = self.mlp_norm(x + drop(self.mlp(x), seeds, 2, rate))
        else:
            x += drop(self.mlp(self.mlp_norm(x)), seeds, 2, rate)
        x = zero_padding(x, rows.at(picks).segment_ids)
        return constrain(x, "act_batch", length_axis(picks), "act_embed")


class Transformer(nnx.Module):
    """Layers whose parameters are stacked along a leading axis "layers"."""

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        self.cfg = cfg
        self.layers = stack(lambda key: Layer(cfg, key), jax.random.split(key, cfg.num_layers))
        self.final_norm = Norm(cfg) if cfg.norm == "pre" else None

    def __call__(
        self,
        x: Float[Array, "b l e"],
        rows: Rows,
        *,
        causal: bool = False,
        picks: Int[Array, "b k"] | None = None,
        depth: int | None = None,
    ) -> Float[Array, "b q e"]:
        """Return the states after the last layer, with `picks` only those at these positions.

        Then the last layer costs little more than its keys and values. With a `depth` of 1 or more
        it is the last layer that runs; the final norm of a pre-norm model follows the whole stack
        only.
        """
        cfg = self.cfg
        depth = cfg.num_layers if depth is None else depth

        def run(
            x: Float[Array, "b l e"],
            numbered: tuple[Layer, Array | int],
            picks: Int[Array, "b k"] | None = None,
        ):
            layer, number = numbered
            seeds = None if rows.seeds is None else dropout.fold(rows.seeds, number)
            return layer(x, rows._replace(seeds=seeds), causal, picks), None

        whole = depth - (picks is not None)  # layers that every position goes through
        layers = jax.tree.map(operator.itemgetter(slice(whole)), self.layers)
        unroll = max(1, whole)
        if cfg.scan_layers:
            # Remat saves memory in a loop only, where XLA can not move the layers together.
            unroll = UNROLL.get(platform(), 1) if cfg.remat == "none" else 1
        body = checkpointed(run, cfg, in_loop=unroll < whole)
        x, _ = jax.lax.scan(body, x, (layers, jnp.arange(whole)), unroll=unroll)
        if picks is not None:
            last = jax.tree.map(operator.itemgetter(whole), self.layers)
            x, _ = checkpointed(run, cfg, in_loop=False)(x, (last, whole), picks)
        if self.final_norm is None or depth < cfg.num_layers:
            return x
        return zero_padding(self.final_norm(x), rows.at(picks).segment_ids)


def checkpointed(run: Callable, cfg: ModelConfig, in_loop: bool) -> Callable:
    """Return `run`, keeping of it for the backward pass what `model.remat` says."""
    if cfg.remat == "none":
        return run
    # A loop keeps the repeated computation apart; outside of one XLA would merge it away.
    return jax.checkpoint(run, policy=REMAT[cfg.remat], prevent_cse=not in_loop)


def stack(make: Callable[[Key[Array, ""]], M], keys: Key[Array, "layers"]) -> M:
    """Return one module whose parameters carry all of `make(key)` along a first axis "layers"."""
    stacked = jax.vmap(make)(keys)
    for _, parameter in nnx.iter_graph(stacked):
        if isinstance(parameter, nnx.Param):
            parameter.set_metadata(axes=("layers", *parameter.get_metadata("axes")))
    return stacked
