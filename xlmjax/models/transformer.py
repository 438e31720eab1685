"""The stack of layers: built by vmap, run by scan."""

import operator
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key, UInt32

from xlmjax.models.config import ModelConfig
from xlmjax.models.layers import (
    Attention,
    Memory,
    Mlp,
    Norm,
    Rows,
    drop,
    length_axis,
    take,
    zero_padding,
)
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


class Cache(NamedTuple):
    """Keys and values of one layer of a decoder, as decoding goes on."""

    keys: Float[Array, "b n t h d"]  # of the n prefixes of each source
    values: Float[Array, "b n t h d"]
    source_keys: Float[Array, "b s h d"]
    source_values: Float[Array, "b s h d"]


class Layer(nnx.Module):
    """Attention and feed-forward block, each with dropout, a residual, and a norm after or before.

    A decoder's attends to the source too, between the two. Places of dropout: 0 attention weights,
    1 output of attention, 2 output of the block, 3 and 4 as 0 and 1 of attention to the source.

    With `picks` only the states at those positions of each row are computed: every position serves
    as key and value, and nothing else is done for the rest.
    """

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        key_attention, key_mlp = jax.random.split(key)
        self.cfg = cfg
        self.attention = Attention(cfg, key_attention)
        self.attention_norm = Norm(cfg)
        if cfg.reads_source:
            self.cross_attention = Attention(cfg, jax.random.fold_in(key, 2))
            self.cross_norm = Norm(cfg)
        self.mlp = Mlp(cfg, key_mlp)
        self.mlp_norm = Norm(cfg)

    def __call__(
        self,
        x: Float[Array, "b l e"],
        rows: Rows,
        causal: bool,
        picks: Int[Array, "b k"] | None = None,
        memory: Memory | None = None,
    ) -> Float[Array, "b q e"]:
        at, seeds = rows.at(picks), rows.seeds
        weights = rows._replace(seeds=_place(seeds, 0))
        y = self.attention(self._before(x, self.attention_norm), weights, causal, picks)
        x = self._after(take(x, picks), y, self.attention_norm, seeds, 1)
        if memory is not None:
            q = self._source_queries(x, length_axis(picks))
            k, v = self.cross_attention.keys_and_values(memory.states, None)
            y = self.cross_attention.mix(
                q, k, v, at.segment_ids, memory.segment_ids, seeds=_place(seeds, 3)
            )
            x = self._after(x, y, self.cross_norm, seeds, 4)
        x = self._after(x, self.mlp(self._before(x, self.mlp_norm)), self.mlp_norm, seeds, 2)
        x = zero_padding(x, at.segment_ids)
        return constrain(x, "act_batch", length_axis(picks), "act_embed")

    def step(
        self,
        x: Float[Array, "b n e"],
        now: Int[Array, ""],
        cache: Cache,
        segment_ids: Int[Array, "b s"],
    ) -> tuple[Float[Array, "b n e"], Cache]:
        """Return the states of the tokens at position `now`, and the cache with them in it.

        Of each source there are n prefixes, of which `cache` holds the keys and values before
        `now`; `segment_ids` are those of the source.
        """
        here = jnp.broadcast_to(now, x.shape[:2])
        inputs = self._before(x, self.attention_norm)
        new = self.attention.keys_and_values(inputs, here)
        cache = cache._replace(
            keys=jax.lax.dynamic_update_slice_in_dim(cache.keys, new[0][:, :, None], now, 2),
            values=jax.lax.dynamic_update_slice_in_dim(cache.values, new[1][:, :, None], now, 2),
        )
        q, past = self.attention.queries(inputs, here), jnp.arange(cache.keys.shape[2]) <= now
        y = self.attention.mix_one(q, cache.keys, cache.values, past[None, None])
        x = self._after(x, y, self.attention_norm)
        q, source = self._source_queries(x), (segment_ids != 0)[:, None]
        k, v = cache.source_keys[:, None], cache.source_values[:, None]
        y = self.cross_attention.mix_one(q, k, v, source)
        x = self._after(x, y, self.cross_norm)
        return self._after(x, self.mlp(self._before(x, self.mlp_norm)), self.mlp_norm), cache

    def empty_cache(self, memory: Memory, beams: int, length: int) -> Cache:
        """Return room for `beams` prefixes of `length` tokens of each source, and its keys."""
        cfg = self.cfg
        shape = (memory.states.shape[0], beams, length, cfg.num_heads, cfg.head_dim)
        keys, values = self.cross_attention.keys_and_values(memory.states, None)
        return Cache(jnp.zeros(shape, keys.dtype), jnp.zeros(shape, keys.dtype), keys, values)

    def _source_queries(
        self, x: Float[Array, "b q e"], axis: str = "act_length"
    ) -> Float[Array, "b q h d"]:
        return self.cross_attention.queries(self._before(x, self.cross_norm), None, axis)

    def _before(self, x: Float[Array, "b l e"], norm: Norm) -> Float[Array, "b l e"]:
        """Return what a block of the layer reads."""
        return x if self.cfg.norm == "post" else norm(x)

    def _after(
        self,
        x: Float[Array, "b q e"],
        y: Float[Array, "b q e"],
        norm: Norm,
        seeds: UInt32[Array, "b 2"] | None = None,
        place: int = 0,
    ) -> Float[Array, "b q e"]:
        """Return the sum of `x` and what a block made of it, dropped out at a numbered place."""
        x += drop(y, seeds, place, self.cfg.dropout)
        return norm(x) if self.cfg.norm == "post" else x


def _place(seeds: UInt32[Array, "b 2"] | None, number: int) -> UInt32[Array, "b 2"] | None:
    return None if seeds is None else dropout.fold(seeds, number)


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
        memory: Memory | None = None,
    ) -> Float[Array, "b q e"]:
        """Return the states after the last layer, with `picks` only those at these positions.

        Then the last layer costs little more than its keys and values. With a `depth` of 1 or more
        it is the last layer that runs; the final norm of a pre-norm model follows the whole stack
        only. A decoder reads `memory`.
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
            return layer(x, rows._replace(seeds=seeds), causal, picks, memory), None

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

    def each_layer(self) -> list[Layer]:
        """Return the layers one by one: decoding does not scan, so that caches stay in place."""
        return [
            jax.tree.map(operator.itemgetter(number), self.layers)
            for number in range(self.cfg.num_layers)
        ]


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
