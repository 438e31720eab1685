"""Attention among the positions of a segment: one entry, implementations registered by name."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from xlmjax.ops import attention_cudnn, attention_pallas, attention_splash, attention_triton
from xlmjax.ops.attention_mask import visible
from xlmjax.ops.dropout import Dropout
from xlmjax.ops.products import einsum_float32
from xlmjax.registry import Registry

log = logging.getLogger(__name__)


class Request(NamedTuple):
    """What is asked of an implementation."""

    platform: str  # "cpu", "gpu" or "tpu"
    dtype: jnp.dtype
    num_queries: int  # a row
    num_keys: int
    head_dim: int
    drops: bool  # attention weights


class Mix(Protocol):
    """Scaled queries, keys and values to mixed values; softmax in float32."""

    def __call__(
        self,
        q: Float[Array, "b q h d"],
        k: Float[Array, "b k h d"],
        v: Float[Array, "b k h d"],
        segment_ids: Int[Array, "b q"],
        kv_segment_ids: Int[Array, "b k"],
        dropout: Dropout | None,
        *,
        causal: bool,
        interpret: bool,
    ) -> Float[Array, "b q h d"]:
        """Return softmax(q k) v over the visible keys; `interpret` has a CPU run a TPU's kernel."""


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One way to compute attention."""

    mix: Mix
    refusal: Callable[[Request], str | None]  # what it cannot do of this, and the remedy
    is_kernel: bool  # opaque to the compiler, which cannot split it over devices


Names = tuple[str | None, ...]  # logical names of the axes of an array


class OverShards(Protocol):
    """Maps a function over the shards of its arguments, as `parallel.partition.over_shards`."""

    def __call__(
        self, function: Callable[..., Any], inputs: Sequence[Names], output: Names
    ) -> Callable[..., Any]:
        """Return the function of whole arrays whose axes have these names."""


IMPLEMENTATIONS: Registry[Implementation] = Registry("attention implementation")


def attention(
    q: Float[Array, "b q h d"],
    k: Float[Array, "b k h d"],
    v: Float[Array, "b k h d"],
    *,
    segment_ids: Int[Array, "b q"],
    kv_segment_ids: Int[Array, "b k"] | None = None,
    causal: bool = False,
    dropout: Dropout | None = None,
    implementation: str = "auto",
    platform: str | None = None,
    over_shards: OverShards | None = None,
) -> Float[Array, "b q h d"]:
    """Return softmax(q k / sqrt(d)) v (Vaswani et al. 2017, equation 1), in the dtype of `v`.

    A query sees the keys of its own segment and, if `causal`, none of a later index. Segment 0 is
    padding, which sees and is seen by nothing. A query that sees no key gets zeros, and no
    gradient. `dropout` drops attention weights, the same ones whatever the implementation.

    `platform` is what the program will run on ("cpu", "gpu" or "tpu"; by default what JAX runs on
    here). A kernel is mapped over devices by `over_shards`; without it, it runs on one. Raises
    ValueError where `implementation` cannot do what is asked.
    """
    keys = segment_ids if kv_segment_ids is None else kv_segment_ids
    request = Request(
        platform=platform or jax.default_backend(),
        dtype=q.dtype,
        num_queries=q.shape[1],
        num_keys=k.shape[1],
        head_dim=q.shape[3],
        drops=dropout is not None,
    )
    name = choose(request) if implementation == "auto" else implementation
    chosen = IMPLEMENTATIONS[name]
    refusal = chosen.refusal(request)
    if refusal is not None:
        raise ValueError(f"model.attention={name!r} {refusal}")
    q = q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    mix: Callable[..., Any] = functools.partial(
        chosen.mix, causal=causal, interpret=request.platform == "cpu"
    )
    if chosen.is_kernel:
        if dropout is not None:  # a device that holds some heads only drops what it would in all
            dropout = dropout.per_slice(q.shape[2], request.num_queries * request.num_keys)
        if over_shards is not None:
            heads, row = ("act_batch", None, "act_heads", None), ("act_batch", None)
            seeds = ("act_batch", "act_heads", None)
            mix = over_shards(mix, (heads, heads, heads, row, row, seeds), heads)
    return mix(q, k, v, segment_ids, keys, dropout)


def choose(request: Request) -> str:
    """Return the implementation that "auto" means for what is asked, and log why."""
    name, reason = _choice(request)
    _report(name, reason)
    return name


# Scores of a head from which the memory of all heads' is worth a kernel: rows of 512.
_FUSED_FROM = 512**2
# From here on most tiles of packed rows are skipped: of pairs 67 % at 1,024 and 83 % at 2,048.
_SKIPPED_FROM = 1024**2


def _choice(request: Request) -> tuple[str, str]:
    scores = request.num_queries * request.num_keys
    if request.platform not in ("gpu", "tpu"):
        return "xla", f"no fused kernel is made for {request.platform}"
    if scores < _FUSED_FROM:
        return "xla", "on short rows a kernel saves little memory"
    if request.platform == "gpu":
        refusal = IMPLEMENTATIONS["cudnn"].refusal(request)
        if refusal is None:
            return "cudnn", "scores are never in memory"
        takes_it = IMPLEMENTATIONS["triton"].refusal(request) is None
        if request.drops and takes_it and request.dtype != jnp.float32:  # there it is not timed
            return "triton", "the kernel that drops attention weights, twice as fast as 'xla'"
        return "xla", f"'cudnn' {refusal}"
    if request.drops:
        return "pallas", "the one kernel that drops attention weights"
    if scores >= _SKIPPED_FROM:
        return "pallas", "on long rows, tiles of keys without a common segment are skipped"
    return "splash", "JAX's own kernel, where little could be skipped and nothing is dropped"


@functools.cache
def _report(name: str, reason: str) -> None:
    """Log a choice, once."""
    log.info("attention: %s (%s)", name, reason)


def _xla(
    q: Float[Array, "b q h d"],
    k: Float[Array, "b k h d"],
    v: Float[Array, "b k h d"],
    segment_ids: Int[Array, "b q"],
    kv_segment_ids: Int[Array, "b k"],
    dropout: Dropout | None,
    *,
    causal: bool,
    interpret: bool,
) -> Float[Array, "b q h d"]:
    """Plain products with the weights in memory: the reference of every other implementation."""
    mask = visible(segment_ids, kv_segment_ids, causal)[:, None]
    scores = jnp.where(mask, einsum_float32("bqhd,bkhd->bhqk", q, k), -1e30)
    weights = jnp.where(mask, jax.nn.softmax(scores, axis=-1), 0).astype(v.dtype)
    if dropout is not None:
        weights = dropout(weights)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def _refused_by_tpu_kernels(request: Request) -> str | None:
    if request.platform == "gpu":
        return "is a kernel for TPUs: choose 'auto', 'cudnn', 'triton' or 'xla'"
    return None


def _refused_by_splash(request: Request) -> str | None:
    if request.drops:
        return (
            "drops no attention weights: set model.attention_dropout=0.0, or model.attention to "
            "'pallas' or 'xla'"
        )
    return _refused_by_tpu_kernels(request)


def _refused_by_triton(request: Request) -> str | None:
    if request.platform == "tpu":
        return "is a kernel for GPUs: choose 'auto', 'pallas', 'splash' or 'xla'"
    if request.head_dim > 128:
        return (
            f"takes heads up to 128, not of {request.head_dim}: change model.num_heads, or set "
            "model.attention to 'xla'"
        )
    return None


def _refused_by_cudnn(request: Request) -> str | None:
    if request.platform != "gpu":
        return f"needs a GPU, not platform {request.platform!r}: choose 'auto' or 'xla'"
    if request.drops:
        return (
            "drops no attention weights: set model.attention_dropout=0.0, or model.attention to "
            "'xla'"
        )
    if request.dtype not in (jnp.bfloat16, jnp.float16):
        return f"takes no {request.dtype}: set model.dtype='bfloat16', or model.attention to 'xla'"
    if request.head_dim > 128 or request.head_dim % 8:
        return (
            f"takes heads of a multiple of 8 up to 128, not of {request.head_dim}: change "
            "model.num_heads, or set model.attention to 'xla'"
        )
    return None


for _name, _implementation in (
    ("xla", Implementation(_xla, lambda request: None, is_kernel=False)),
    ("splash", Implementation(attention_splash.mix, _refused_by_splash, is_kernel=True)),
    ("cudnn", Implementation(attention_cudnn.mix, _refused_by_cudnn, is_kernel=True)),
    ("pallas", Implementation(attention_pallas.mix, _refused_by_tpu_kernels, is_kernel=True)),
    ("triton", Implementation(attention_triton.mix, _refused_by_triton, is_kernel=True)),
):
    IMPLEMENTATIONS.register(_name)(_implementation)
