"""Parts of a transformer layer: parameters, dense maps, norms, attention, feed-forward block.

Every parameter names its axes; `parallel.rules` says which mesh axes they are split over.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt32

from xlmjax.models.config import ModelConfig
from xlmjax.ops import dropout
from xlmjax.ops.attention import attention
from xlmjax.ops.products import contract
from xlmjax.parallel.mesh import platform
from xlmjax.parallel.partition import constrain, over_shards


class Rows(NamedTuple):
    """What a layer knows of its rows besides their hidden states."""

    positions: Int[Array, "b l"]
    segment_ids: Int[Array, "b l"]  # 0 marks padding
    seeds: UInt32[Array, "b 2"] | None  # of dropout; None means no dropout

    def at(self, picks: Int[Array, "b k"] | None) -> "Rows":
        """Return what is known of some positions of each row (of all without `picks`)."""
        return Rows(take(self.positions, picks), take(self.segment_ids, picks), self.seeds)


def table(key: Key[Array, ""], **axes: int) -> nnx.Param:
    """Return an embedding table over the named axes, drawn from N(0, 1/sqrt(width))."""
    shape = tuple(axes.values())
    return nnx.Param(jax.random.normal(key, shape) * shape[-1] ** -0.5, axes=tuple(axes))


def uniform(key: Key[Array, ""], bound: float, **axes: int) -> nnx.Param:
    """Return a parameter over the named axes, drawn from U(-bound, bound)."""
    value = jax.random.uniform(key, tuple(axes.values()), minval=-bound, maxval=bound)
    return nnx.Param(value, axes=tuple(axes))


def drop(
    x: Float[Array, "b l e"], seeds: UInt32[Array, "b 2"] | None, place: int, rate: float
) -> Float[Array, "b l e"]:
    """Drop a share `rate` of `x` at a numbered place of what `seeds` belong to."""
    if seeds is None or rate == 0:
        return x
    return dropout.Dropout(dropout.fold(seeds, place), rate)(x)


def take(x: Shaped[Array, "b l ..."], picks: Int[Array, "b k"] | None) -> Shaped[Array, "b k ..."]:
    """Return `x` at some positions of each row, or all of it without `picks`."""
    if picks is None:
        return x
    return jnp.take_along_axis(x, picks.reshape(picks.shape + (1,) * (x.ndim - 2)), axis=1)


def length_axis(picks: Int[Array, "b k"] | None) -> str:
    """Return the logical name of axis 1 of what `take` returns."""
    return "act_length" if picks is None else "act_picks"


def zero_padding(x: Float[Array, "b l e"], segment_ids: Int[Array, "b l"]) -> Float[Array, "b l e"]:
    """Return `x` with zeros at padding, as XLM does after the embedding and after each layer."""
    return jnp.where((segment_ids != 0)[:, :, None], x, 0)


class Dense(nnx.Module):
    """Affine map of the last axes, initialised like torch.nn.Linear: U(-1, 1) / sqrt(fan in).

    `inputs` and `outputs` give the names and sizes of the axes.
    """

    def __init__(
        self, inputs: dict[str, int], outputs: dict[str, int], bias: bool, key: Key[Array, ""]
    ):
        key_kernel, key_bias = jax.random.split(key)
        bound = math.prod(inputs.values()) ** -0.5
        self.num_inputs = len(inputs)
        self.kernel = uniform(key_kernel, bound, **inputs, **outputs)
        self.bias = uniform(key_bias, bound, **outputs) if bias else None

    def __call__(self, x: Float[Array, "b l ..."]) -> Float[Array, "b l ..."]:
        y = _product(x, self.kernel[...].astype(x.dtype), self.num_inputs)
        if self.bias is None:
            return y
        # Added in float32, so that the gradient of the bias is summed over all places in it too.
        return (y + self.bias[...]).astype(x.dtype)


class LoraDense(Dense):
    """An affine map beside which a product of two narrow ones is added (Hu et al. 2022, eq. 3).

    y = x W + b + (alpha / rank) x A B, with A drawn like a kernel and B zero, so that a fresh one
    changes nothing.
    """

    def __init__(
        self,
        inputs: dict[str, int],
        outputs: dict[str, int],
        bias: bool,
        key: Key[Array, ""],
        *,
        rank: int,
        alpha: float,
    ):
        super().__init__(inputs, outputs, bias, key)
        bound = math.prod(inputs.values()) ** -0.5
        self.scaling = alpha / rank
        self.lora_a = uniform(jax.random.fold_in(key, 1), bound, **inputs, rank=rank)
        self.lora_b = nnx.Param(jnp.zeros((rank, *outputs.values())), axes=("rank", *outputs))

    def __call__(self, x: Float[Array, "b l ..."]) -> Float[Array, "b l ..."]:
        narrow = _product(x, self.lora_a[...].astype(x.dtype), self.num_inputs)
        wide = _product(narrow, self.lora_b[...].astype(x.dtype), 1)
        return super().__call__(x) + self.scaling * wide


def _product(
    x: Float[Array, "..."], kernel: Float[Array, "..."], inputs: int
) -> Float[Array, "..."]:
    """Return the product over so many `inputs` axes, with the gradient that suits the backend."""
    if platform() == "cpu" and x.dtype == jnp.bfloat16:
        return contract(x, kernel, inputs)
    return jnp.tensordot(x, kernel, axes=inputs)


def dense(
    cfg: ModelConfig, inputs: dict[str, int], outputs: dict[str, int], key: Key[Array, ""]
) -> Dense:
    """Return an affine map of a layer, with LoRA beside it where `model.lora_rank` asks for it."""
    if not cfg.lora_rank:
        return Dense(inputs, outputs, cfg.bias, key)
    return LoraDense(inputs, outputs, cfg.bias, key, rank=cfg.lora_rank, alpha=cfg.lora_alpha)


class Norm(nnx.Module):
    """Layer norm (Ba et al. 2016) or RMS norm (Zhang & Sennrich 2019), computed in float32."""

    def __init__(self, cfg: ModelConfig):
        self.cfg = cfg
        shape, axes = (cfg.embed_dim,), ("norm",)
        self.scale = nnx.Param(jnp.ones(shape), axes=axes)
        self.bias = nnx.Param(jnp.zeros(shape), axes=axes) if cfg.has_norm_bias else None

    def __call__(self, x: Float[Array, "b l e"]) -> Float[Array, "b l e"]:
        y = x.astype(jnp.float32)
        if self.cfg.norm_kind == "layer":
            y -= y.mean(axis=-1, keepdims=True)
        y *= jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + self.cfg.norm_epsilon)
        y *= self.scale[...]
        return (y if self.bias is None else y + self.bias[...]).astype(x.dtype)


class Memory(NamedTuple):
    """What a decoder reads of the source: hidden states, and the segment that each belongs to."""

    states: Float[Array, "b s e"]
    segment_ids: Int[Array, "b s"]


class Attention(nnx.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2), in steps that decoding takes apart.

    Called on rows it is attention among the tokens of a segment.
    """

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        embed = {"embed": cfg.embed_dim}
        heads = {"heads": cfg.num_heads, "head_dim": cfg.head_dim}
        key_query, key_key, key_value, key_out = jax.random.split(key, 4)
        self.cfg = cfg
        self.query = dense(cfg, embed, heads, key_query)
        self.key = dense(cfg, embed, heads, key_key)
        self.value = dense(cfg, embed, heads, key_value)
        self.out = dense(cfg, heads, embed, key_out)

    def __call__(
        self,
        x: Float[Array, "b l e"],
        rows: Rows,
        causal: bool,
        picks: Int[Array, "b k"] | None = None,
    ) -> Float[Array, "b q e"]:
        at = rows.at(picks)
        q = self.queries(take(x, picks), at.positions, length_axis(picks))
        k, v = self.keys_and_values(x, rows.positions)
        return self.mix(q, k, v, at.segment_ids, rows.segment_ids, causal, rows.seeds)

    def queries(
        self,
        x: Float[Array, "b q e"],
        positions: Int[Array, "b q"] | None,
        axis: str = "act_length",
    ) -> Float[Array, "b q h d"]:
        """Return queries; rotary positions, if the model has them, need `positions`."""
        return constrain(
            self._turned(self.query(x), positions), "act_batch", axis, "act_heads", "act_head_dim"
        )

    def keys_and_values(
        self, x: Float[Array, "b k e"], positions: Int[Array, "b k"] | None
    ) -> tuple[Float[Array, "b k h d"], Float[Array, "b k h d"]]:
        """Return keys and values; without `positions` the keys are those of another sequence."""
        k, v = self._turned(self.key(x), positions), self.value(x)
        axes = ("act_batch", "act_length", "act_heads", "act_head_dim")
        return constrain(k, *axes), constrain(v, *axes)

    def mix(
        self,
        q: Float[Array, "b q h d"],
        k: Float[Array, "b k h d"],
        v: Float[Array, "b k h d"],
        segment_ids: Int[Array, "b q"],
        kv_segment_ids: Int[Array, "b k"],
        causal: bool = False,
        seeds: UInt32[Array, "b 2"] | None = None,
    ) -> Float[Array, "b q e"]:
        """Return the values that each query sees, mixed and projected."""
        weights_dropout = None
        if seeds is not None and self.cfg.attention_dropout:
            weights_dropout = dropout.Dropout(seeds, self.cfg.attention_dropout)
        mixed = attention(
            q,
            k,
            v,
            segment_ids=segment_ids,
            kv_segment_ids=kv_segment_ids,
            causal=causal,
            dropout=weights_dropout,
            implementation=self.cfg.attention,
            platform=platform(),
            over_shards=over_shards,
        )
        return self.out(mixed)

    def mix_one(
        self,
        q: Float[Array, "b n h d"],
        k: Float[Array, "b m t h d"],
        v: Float[Array, "b m t h d"],
        visible: Bool[Array, "b m t"],
    ) -> Float[Array, "b n e"]:
        """Return what one query for each of n prefixes sees of its keys, mixed and projected.

        `m` is n, or 1 where all prefixes see the same. Not by matrix products, for which a cache
        would have to be turned round at every word.
        """
        q = q.astype(jnp.float32) * q.shape[-1] ** -0.5
        scores = (q[:, :, None] * k).sum(axis=-1)
        scores = jnp.where(visible[..., None], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=2)[..., None]
        return self.out((weights * v).sum(axis=2).astype(v.dtype))

    def _turned(
        self, heads: Float[Array, "b l h d"], positions: Int[Array, "b l"] | None
    ) -> Float[Array, "b l h d"]:
        if self.cfg.positions != "rope" or positions is None:
            return heads
        return rotate(heads, positions, self.cfg.rope_base)


def rotate(
    x: Float[Array, "b l h d"], positions: Int[Array, "b l"], base: float
) -> Float[Array, "b l h d"]:
    """Turn pair (i, i + d/2) of each head by position / base^(2i/d) (Su et al. 2021, eq. 34)."""
    half = x.shape[-1] // 2
    frequencies = base ** -(np.arange(half, dtype=np.float32) / half)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


class Mlp(nnx.Module):
    """Feed-forward block (Vaswani et al. 2017, section 3.3), gated if "geglu" (Shazeer 2020)."""

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        embed, mlp = {"embed": cfg.embed_dim}, {"mlp": cfg.mlp_dim}
        key_in, key_gate, key_out = jax.random.split(key, 3)
        self.cfg = cfg
        self.wi = dense(cfg, embed, mlp, key_in)
        self.gate = dense(cfg, embed, mlp, key_gate) if cfg.mlp == "geglu" else None
        self.wo = dense(cfg, mlp, embed, key_out)

    def __call__(self, x: Float[Array, "b l e"]) -> Float[Array, "b l e"]:
        h = self.wi(x)
        h = jax.nn.relu(h) if self.cfg.mlp == "relu" else gelu(h)
        if self.gate is not None:
            h *= self.gate(x)
        return self.wo(constrain(h, "act_batch", "act_length", "act_mlp"))


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x * normal_cdf(x), by erf as in XLM.

    `jax.nn.gelu(approximate=False)` goes by erfc, which is dearer: 7 % of a CPU train step on
    jax 0.10.
    """
    y = x.astype(jnp.float32)
    return (0.5 * y * (1 + jax.lax.erf(y * np.float32(0.5**0.5)))).astype(x.dtype)
