"""How fast the two operations are that a choice can be made of: attention, and the head.

Forward and backward pass of one call at the shapes of a config, everything else left out.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from xlmjax.data.batches import Batches
from xlmjax.data.features import ROW_IDS, SEGMENT_IDS
from xlmjax.data.mixture import Group, open_groups, segment_lengths
from xlmjax.experiment import Experiment, make_groups
from xlmjax.ops import attention, cross_entropy, dropout
from xlmjax.ops.masking import num_slots
from xlmjax.ops.mesh_axes import TableAxes
from xlmjax.parallel.mesh import batch_divisor, platform
from xlmjax.parallel.partition import (
    batch_sharding,
    constrain,
    mesh_axes,
    over_shards,
    use_rules,
)
from xlmjax.throughput.timing import Times, describe_devices, utilization


@dataclasses.dataclass(frozen=True)
class KernelSpeed:
    """The median over the timed calls; rates are per second, over all devices."""

    group: str  # of objectives
    kernel: str  # which implementation
    refusal: str = ""  # why it does not run here; then nothing below says anything
    devices: str = ""
    seconds: float | None = None
    fastest_seconds: float | None = None
    slowest_seconds: float | None = None
    compile_seconds: float | None = None
    real_tokens: float | None = None  # of attention
    padded_tokens: float | None = None  # of attention
    predicted_tokens: float | None = None  # of the head: places for targets
    model_tflops: float | None = None  # without what an implementation computes twice or in vain
    mfu: float | None = None


def measure_attention(
    experiment: Experiment, calls: int = 10, warmup: int = 2
) -> Iterator[KernelSpeed]:
    """Yield the speed of every implementation on the rows of the first batch of every group.

    With a decoder that is the attention of its sources.
    """
    data = open_groups(experiment.config, experiment.vocabulary)
    for group, built in zip(data, make_groups(experiment, data), strict=True):
        for name in attention.IMPLEMENTATIONS:
            yield _attention(experiment, group, name, built.objective.causal, calls, warmup)


def _attention(
    experiment: Experiment, group: Group, name: str, causal: bool, calls: int, warmup: int
) -> KernelSpeed:
    cfg = experiment.model
    interpreted = attention.IMPLEMENTATIONS[name].is_kernel and name != "cudnn"
    if interpreted and jax.default_backend() == "cpu":
        return KernelSpeed(group.name, name, refusal="a CPU interprets it, which tells no speed")
    batch = Batches(group.mixture, group.rows, batch_sharding(experiment.mesh)).at(0)
    segment_ids = batch[SEGMENT_IDS]
    shape = (*segment_ids.shape, cfg.num_heads, cfg.head_dim)

    def loss(q: jax.Array, k: jax.Array, v: jax.Array, batch: dict[str, jax.Array]) -> jax.Array:
        weights_dropout = None
        if cfg.attention_dropout:
            seeds = dropout.row_seeds(jax.random.key(0), batch[ROW_IDS])
            weights_dropout = dropout.Dropout(seeds, cfg.attention_dropout)
        mixed = attention.attention(
            q,
            k,
            v,
            segment_ids=batch[SEGMENT_IDS],
            causal=causal,
            dropout=weights_dropout,
            implementation=name,
            platform=platform(),
            over_shards=over_shards,
        )
        return jnp.square(mixed.astype(jnp.float32)).sum()

    @jax.jit
    def gradient(q: jax.Array, k: jax.Array, v: jax.Array, batch: dict[str, jax.Array]) -> Any:
        with use_rules(experiment.strategy):
            return jax.grad(loss, argnums=(0, 1, 2))(q, k, v, batch)

    @jax.jit
    def draw(key: jax.Array) -> jax.Array:
        with use_rules(experiment.strategy):
            x = jax.random.normal(key, shape, cfg.compute_dtype)
            return constrain(x, "act_batch", "act_length", "act_heads", "act_head_dim")

    q, k, v = (draw(key) for key in jax.random.split(jax.random.key(0), 3))
    lengths = segment_lengths(group.mixture.fill(np.arange(group.rows))[SEGMENT_IDS])
    return _measured(
        group,
        name,
        lambda _: gradient(q, k, v, batch),
        (calls, warmup),
        flops=12 * int(np.square(lengths).sum()) * cfg.embed_dim,
        real_tokens=int(lengths.sum()),
        padded_tokens=segment_ids.size,
    )


def measure_head(experiment: Experiment, calls: int = 10, warmup: int = 2) -> Iterator[KernelSpeed]:
    """Yield the speed of the cross entropy of every group's targets, in one product and by tiles.

    The tiles are those of `model.head_tile`, or those that it would take if logits were many, and
    where one would hold all words of a device, two.
    """
    data = open_groups(experiment.config, experiment.vocabulary)
    for group, built in zip(data, make_groups(experiment, data), strict=True):
        rate = getattr(built.objective, "max_rate", None)  # of masked objectives
        slots = group.mixture.length - built.objective.causal
        if rate is not None:
            slots = num_slots(rate, group.mixture.length)
        tile = experiment.model.head_tile
        if tile <= 0:
            tile = cross_entropy.tile_of(group.rows * slots // batch_divisor(experiment.mesh))
        words = experiment.model.vocab_size // experiment.mesh.shape["tensor"]
        if tile >= words:
            tile = -(-words // 2)
        for name, size in (("one product", 0), (f"tiles of {tile}", tile)):
            yield _head(experiment, group, slots, name, size, (calls, warmup))


def _head(
    experiment: Experiment, group: Group, slots: int, name: str, tile: int, counts: tuple[int, int]
) -> KernelSpeed:
    cfg, mesh = experiment.model, experiment.mesh
    targets = group.rows * slots
    with use_rules(experiment.strategy):
        axes = TableAxes(*mesh_axes("act_batch", "vocab", "embed"))

    def draw(number: int, shape: tuple[int, ...], dtype: jnp.dtype, layout: Any) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(0), number)
        place = NamedSharding(mesh, layout)
        normal = jax.jit(jax.random.normal, static_argnums=(1, 2), out_shardings=place)
        return normal(key, shape, dtype)

    hidden = draw(0, (targets, cfg.embed_dim), cfg.compute_dtype, axes.batch)
    table = draw(1, (cfg.vocab_size, cfg.embed_dim), jnp.dtype(jnp.float32), axes.table)
    bias = draw(2, (cfg.vocab_size,), jnp.dtype(jnp.float32), axes.words) if cfg.bias else None

    @jax.jit
    def gradient(hidden: jax.Array, table: jax.Array, bias: jax.Array | None) -> Any:
        words = jnp.arange(targets) % cfg.vocab_size

        def loss(*parameters: Any) -> jax.Array:
            return cross_entropy.token_losses(*parameters, words, tile, axes).nll.sum()

        return jax.grad(loss, argnums=(0, 1, 2))(hidden, table, bias)

    return _measured(
        group,
        name,
        lambda _: gradient(hidden, table, bias),
        counts,
        flops=6 * targets * cfg.embed_dim * cfg.vocab_size,
        predicted_tokens=targets,
    )


def _measured(
    group: Group,
    kernel: str,
    run: Callable[[int], Any],
    counts: tuple[int, int],
    flops: float,
    **tokens: float,
) -> KernelSpeed:
    """Time a kernel; one that refuses the backend or the shapes says why instead."""
    try:
        times = Times.of(run, *counts)
    except (NotImplementedError, ValueError, jax.errors.JaxRuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return KernelSpeed(group.name, kernel, refusal=reason)
    speed = KernelSpeed(
        group=group.name,
        kernel=kernel,
        devices=describe_devices(),
        seconds=times.median,
        fastest_seconds=times.fastest,
        slowest_seconds=times.slowest,
        compile_seconds=times.compile,
        model_tflops=flops / times.median / 1e12,
        mfu=utilization(flops / times.median),
    )
    rates: dict[str, Any] = {name: count / times.median for name, count in tokens.items()}
    return dataclasses.replace(speed, **rates)
