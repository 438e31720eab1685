"""Schedules of the step: `((step, value), ...)`, piecewise linear, traced."""

import dataclasses
import itertools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Linear between the points, constant before the first and after the last."""

    points: tuple[tuple[int, float], ...]

    def __call__(self, step: int | Int[Array, ""]) -> Float[Array, ""]:
        """Return the value at a step."""
        steps, values = zip(*self.points, strict=True)
        return jnp.interp(
            jnp.asarray(step, jnp.float32),
            jnp.asarray(steps, jnp.float32),
            jnp.asarray(values, jnp.float32),
        )

    def zeros(self, num_steps: int) -> int:
        """Return in how many of the first steps the value is 0, without a device."""
        steps, values = zip(*self.points, strict=True)
        return int(np.sum(np.interp(np.arange(num_steps), steps, values) == 0))

    @property
    def minimum(self) -> float:
        """Smallest value over all steps."""
        return min(value for _, value in self.points)

    @property
    def maximum(self) -> float:
        """Largest value over all steps."""
        return max(value for _, value in self.points)


def piecewise(points: Sequence[Sequence[float]], field: str = "schedule") -> Schedule:
    """Return the schedule through `((step, value), ...)`; steps must increase."""
    try:
        knots = tuple((int(step), float(value)) for step, value in points)
    except (TypeError, ValueError):
        raise ValueError(
            f"{field} = {points!r} is no schedule; write ((step, value), ...)"
        ) from None
    steps = [step for step, _ in knots]
    if not knots or any(later <= earlier for earlier, later in itertools.pairwise(steps)):
        raise ValueError(f"{field} = {points!r}: give at least one point, with increasing steps")
    return Schedule(knots)


def weight_schedule(points: Sequence[Sequence[float]], field: str) -> Schedule:
    """Return the schedule of what an objective counts in the loss; it is never below 0."""
    schedule = piecewise(points, field)
    if schedule.minimum < 0:
        raise ValueError(f"{field} = {points!r}: give numbers of 0 or more")
    return schedule


def constant(value: float) -> Schedule:
    """Return the schedule that does not change."""
    return Schedule(((0, float(value)),))
