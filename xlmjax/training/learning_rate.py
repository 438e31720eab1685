"""Learning-rate schedules: functions of the step, traced, so that they never recompile.

All warm up alike, as XLM does: linearly from 1e-7 at step 0 to the peak at `warmup_steps`.
Step u means u completed updates, so the first update runs at the rate of step 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from xlmjax.registry import Registry

WARMUP_START = 1e-7

Step = int | jax.Array
Schedule = Callable[[Step], jax.Array]
# (peak, warmup, total, decay, final_scale) -> value of a step that is past the warm-up
Body = Callable[[float, int, int, int, float], Schedule]

SCHEDULES: Registry[Body] = Registry("optimizer.schedule")


def make_schedule(
    name: str,
    peak: float,
    *,
    warmup_steps: int,
    num_steps: int,
    decay_steps: int = 0,
    final_scale: float = 0.0,
) -> Schedule:
    """Return step -> learning rate (float32 scalar); it stays at its last value after the end."""
    decay_steps = decay_steps or max(1, num_steps // 10)
    body = SCHEDULES[name](peak, warmup_steps, num_steps, decay_steps, final_scale)
    start = min(WARMUP_START, peak)

    def schedule(step: Step) -> jax.Array:
        u = jnp.asarray(step, jnp.float32)
        rising = start + u * (peak - start) / max(1, warmup_steps)
        return jnp.where(u < warmup_steps, rising, body(jnp.maximum(u, warmup_steps)))

    return schedule


@SCHEDULES.register("inverse_sqrt")
def inverse_sqrt(peak: float, warmup: int, total: int, decay: int, final_scale: float) -> Schedule:
    """Return peak * sqrt(warmup / u): XLM's adam_inverse_sqrt (spec 4.3)."""
    return lambda u: peak * jnp.sqrt(max(1, warmup) / jnp.maximum(u, 1.0))


@SCHEDULES.register("constant")
def constant(peak: float, warmup: int, total: int, decay: int, final_scale: float) -> Schedule:
    """Return the peak."""
    return lambda u: jnp.full_like(u, peak)


@SCHEDULES.register("linear")
def linear(peak: float, warmup: int, total: int, decay: int, final_scale: float) -> Schedule:
    """Return a straight line from the peak to final_scale * peak at the last step."""
    return lambda u: peak * (1.0 - (1.0 - final_scale) * _progress(u, warmup, total))


@SCHEDULES.register("cosine")
def cosine(peak: float, warmup: int, total: int, decay: int, final_scale: float) -> Schedule:
    """Return half a cosine from the peak to final_scale * peak (Loshchilov & Hutter 2017)."""

    def body(u: Step) -> jax.Array:
        falling = 0.5 * (1.0 + jnp.cos(jnp.pi * _progress(u, warmup, total)))
        return peak * (final_scale + (1.0 - final_scale) * falling)

    return body


@SCHEDULES.register("wsd")
def wsd(peak: float, warmup: int, total: int, decay: int, final_scale: float) -> Schedule:
    """Return the peak, then a straight line over the last steps (Hu et al. 2024, MiniCPM)."""
    start = max(warmup, total - decay)
    return lambda u: peak * (1.0 - (1.0 - final_scale) * _progress(u, start, total))


def _progress(u: Step, start: int, end: int) -> jax.Array:
    return jnp.clip((u - start) / max(1, end - start), 0.0, 1.0)
