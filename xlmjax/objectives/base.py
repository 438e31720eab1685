"""What every objective returns, and the facts of the vocabulary that it needs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from xlmjax.ops.cross_entropy import SumWeight
from xlmjax.registry import Registry

OBJECTIVES: Registry[type] = Registry("objective")


@dataclasses.dataclass(frozen=True, eq=False)
class Specials:
    """Facts of the vocabulary: ids by name, its size, and how often each token occurs."""

    pad: int
    eos: int
    mask: int
    size: int
    counts: np.ndarray | None = None  # [size], 0 for special ids; needed by sample_alpha


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["sum", "weight", "metrics"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class LossOutput:
    """Sum of the losses to differentiate, their weight, and metrics; all merge by `+`."""

    sum: Float[Array, ""]
    weight: Float[Array, ""]
    metrics: dict[str, SumWeight]

    def __add__(self, other: "LossOutput") -> "LossOutput":
        metrics = {name: value + other.metrics[name] for name, value in self.metrics.items()}
        return LossOutput(self.sum + other.sum, self.weight + other.weight, metrics)


def by_id(
    values: Float[Array, "*n"], weights: Float[Array, "*n"], ids: Int[Array, "*n"], size: int
) -> SumWeight:
    """Return the weighted sums of the values of each id in [0, size)."""
    members = jax.nn.one_hot(ids.reshape(-1), size, dtype=jnp.float32)
    flat = weights.reshape(-1)
    return SumWeight((values.reshape(-1) * flat) @ members, flat @ members)
