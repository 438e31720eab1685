"""The parts of a transformer layer: dense products, norms, attention, feed-forward block."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key, UInt32

from xlmjax.models.config import ModelConfig
from xlmjax.ops import attention, dropout
from xlmjax.parallel.partition import constrain


def table(key: Key[Array, ""], **axes: int) -> nnx.Param:
    """Return an embedding table over the named axes, drawn from N(0, 1/sqrt(width))."""
    shape = tuple(axes.values())
    return nnx.Param(jax.random.normal(key, shape) * shape[-1] ** -0.5, axes=tuple(axes))


def uniform(key: Key[Array, ""], bound: float, **axes: int) -> nnx.Param:
    """Return a parameter over the named axes, drawn from U(-bound, bound)."""
    value = jax.random.uniform(key, tuple(axes.values()), minval=-bound, maxval=bound)
    return nnx.Param(value, axes=tuple(axes))


class Dense(nnx.Module):
    """Affine map of the trailing axes, initialised as torch.nn.Linear: U(+-1/sqrt(fan_in)).

    `inputs` and `outputs` map logical axis names to sizes.
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
        y = jnp.tensordot(x, self.kernel[...].astype(x.dtype), axes=self.num_inputs)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class Norm(nnx.Module):
    """Layer norm (Ba et al. 2016) or RMS norm (Zhang and Sennrich 2019) over the last axis, in float32."""

    def __init__(self, cfg: ModelConfig):
        self.cfg = cfg
        self.scale = nnx.Param(jnp.ones((cfg.embed_dim,)), axes=("norm",))
        self.bias = (
            nnx.Param(jnp.zeros((cfg.embed_dim,)), axes=("norm",))
            if cfg.bias and cfg.norm_kind == "layer"
            else None
        )

    def __call__(self, x: Float[Array, "b l e"]) -> Float[Array, "b l e"]:
        y = x.astype(jnp.float32)
        if self.cfg.norm_kind == "layer":
            y -= y.mean(axis=-1, keepdims=True)
        y *= jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + self.cfg.norm_epsilon)
        y *= self.scale[...]
        return (y if self.bias is None else y + self.bias[...]).astype(x.dtype)


def rope(
    x: Float[Array, "b l h d"], positions: Int[Array, "b l"], base: float
) -> Float[Array, "b l h d"]:
    """Rotate pairs (i, i + d/2) of each head by their position (Su et al. 2021)."""
    half = x.shape[-1] // 2
    frequencies = base ** -(np.arange(half, dtype=np.float32) / half)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


class Attention(nnx.Module):
    """Multi-head attention among the tokens of a segment (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        embed, heads = {"embed": cfg.embed_dim}, {"heads": cfg.num_heads, "head_dim": cfg.head_dim}
        key_query, key_key, key_value, key_out = jax.random.split(key, 4)
        self.cfg = cfg
        self.query = Dense(embed, heads, cfg.bias, key_query)
        self.key = Dense(embed, heads, cfg.bias, key_key)
        self.value = Dense(embed, heads, cfg.bias, key_value)
        self.out = Dense(heads, embed, cfg.bias, key_out)

    def __call__(
        self,
        x: Float[Array, "b l e"],
        positions: Int[Array, "b l"],
        segment_ids: Int[Array, "b l"],
        causal: bool,
        seeds: UInt32[Array, "b 2"] | None,
    ) -> Float[Array, "b l e"]:
        q, k, v = self.query(x), self.key(x), self.value(x)
        if self.cfg.positions == "rope":
            q, k = (rope(t, positions, self.cfg.rope_base) for t in (q, k))
        q, k, v = (
            constrain(t, "act_batch", "act_length", "act_heads", "act_head_dim") for t in (q, k, v)
        )
        drop = None
        if seeds is not None and self.cfg.attention_dropout:
            drop = dropout.Dropout(seeds, self.cfg.attention_dropout)
        mixed = attention.attention(
            q,
            k,
            v,
            segment_ids=segment_ids,
            causal=causal,
            dropout=drop,
            implementation=self.cfg.attention,
        )
        return self.out(mixed)


class Mlp(nnx.Module):
    """Feed-forward block (Vaswani et al. 2017, section 3.3), gated if "geglu" (Shazeer 2020)."""

    def __init__(self, cfg: ModelConfig, key: Key[Array, ""]):
        embed, mlp = {"embed": cfg.embed_dim}, {"mlp": cfg.mlp_dim}
        key_in, key_gate, key_out = jax.random.split(key, 3)
        self.cfg = cfg
        self.wi = Dense(embed, mlp, cfg.bias, key_in)
        self.gate = Dense(embed, mlp, cfg.bias, key_gate) if cfg.mlp == "geglu" else None
        self.wo = Dense(mlp, embed, cfg.bias, key_out)

    def __call__(self, x: Float[Array, "b l e"]) -> Float[Array, "b l e"]:
        h = self.wi(x)
        h = jax.nn.relu(h) if self.cfg.mlp == "relu" else jax.nn.gelu(h, approximate=False)
        if self.gate is not None:
            h *= self.gate(x)
        return self.wo(constrain(h, "act_batch", "act_length", "act_mlp"))
