"""One update: gradients of every group of objectives, clipped, applied, and measured.

Losses stay (sum, weight) pairs until one division at the end, so the result does not depend on
how the batch is split into microbatches or over devices.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from xlmjax.data.features import SEGMENTS
from xlmjax.objectives.base import LossOutput, Objective
from xlmjax.ops.cross_entropy import SumWeight
from xlmjax.ops.schedules import Schedule
from xlmjax.parallel.partition import constrain, replicated, use_rules
from xlmjax.training.learning_rate import Schedule as LearningRate
from xlmjax.training.scales import Scales
from xlmjax.training.state import StateSpec, TrainState

Batch = Mapping[str, Array]  # features of data/features.py: [rows, length] or [rows]

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Group:
    """One objective of the run, on its share of the rows, with its weight in the total loss."""

    name: str
    objective: Objective
    weight: Schedule


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class StepMetrics:
    """What one update tells; on device until the loop fetches it, one step late."""

    loss: Float[Array, ""]  # weighted total
    groups: dict[str, dict[str, SumWeight]]  # group -> metric of the objective
    learning_rate: Float[Array, ""]
    grad_norm: Float[Array, ""]  # before clipping
    nonfinite: Int[Array, ""]  # 1 if loss or gradient was NaN or Inf, and nothing was applied
    real_tokens: Float[Array, ""]
    predicted_tokens: Float[Array, ""]


def split_rows(batch: Batch, parts: int) -> Batch:
    """Return the batch as [parts, rows / parts, ...]: part i takes every parts-th row.

    Interleaved, not cut, because the rows of a device are contiguous: so no row changes device.
    """
    return {
        name: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
        for name, x in batch.items()
    }


def summed_gradient(
    objective: Objective,
    model: Any,
    batch: Batch,
    key: Key[Array, ""],
    step: Int[Array, ""],
    microbatches: int = 1,
    shardings: Any = None,
) -> tuple[LossOutput, Any]:
    """Return the loss of a batch and the gradient of its *sum*, accumulated over microbatches.

    `shardings` (of the parameters) keep the accumulated gradient in parts under fsdp.
    """

    def loss(model: Any, rows: Batch) -> tuple[Array, LossOutput]:
        output = objective.loss(model, rows, key, step)
        return output.sum, output

    def differentiate(rows: Batch) -> tuple[LossOutput, Any]:
        rows = {
            name: constrain(x, "act_batch", *(None,) * (x.ndim - 1)) for name, x in rows.items()
        }
        (_, output), gradient = jax.value_and_grad(loss, has_aux=True)(model, rows)
        if shardings is not None:
            gradient = jax.lax.with_sharding_constraint(gradient, shardings)
        return output, gradient

    if microbatches == 1:
        return differentiate(batch)
    parts = split_rows(batch, microbatches)
    zeros = _zeros(lambda: differentiate(jax.tree.map(lambda x: x[0], parts)))

    def add(total: Any, rows: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, differentiate(rows)), None

    return jax.lax.scan(add, zeros, parts)[0]


def total_gradient(
    groups: Sequence[Group],
    model: Any,
    batches: Mapping[str, Batch],
    key: Key[Array, ""],
    step: Int[Array, ""],
    microbatches: int = 1,
    shardings: Any = None,
) -> tuple[Float[Array, ""], dict[str, LossOutput], Any]:
    """Return sum over groups of weight * mean loss, each group's output, and the gradient.

    A group without targets adds nothing; one of weight 0 is not computed, and its output is zeros.
    Group i draws from fold_in(key, i).
    """
    total, gradient, outputs = jnp.float32(0.0), None, {}
    for index, group in enumerate(groups):
        weight = group.weight(step)
        compute = functools.partial(
            summed_gradient,
            group.objective,
            model,
            batches[group.name],
            jax.random.fold_in(key, index),
            step,
            microbatches,
            shardings,
        )
        if group.weight.minimum > 0:
            output, summed = compute()
        else:
            output, summed = jax.lax.cond(weight > 0, compute, functools.partial(_zeros, compute))
        share = weight / jnp.where(output.weight > 0, output.weight, 1.0)
        part = jax.tree.map(lambda g, share=share: g * share, summed)
        gradient = part if gradient is None else jax.tree.map(jnp.add, gradient, part)
        total += output.sum * share
        outputs[group.name] = output
    return total, outputs, gradient


def _zeros(compute: Callable[[], Any]) -> Any:
    """Return zeros like what would be computed."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(compute))


class TrainStep:
    """The jitted update: `(state, position, batches) -> (state, metrics)`; donates the state.

    `position` is the step that the batches are of. A batch is applied only to the state that it
    is meant for: where an update is not finite, nothing is applied and, unless `skip_nonfinite`,
    the state stays at its step, so that later batches leave it untouched too until the host,
    which looks at metrics one step late, stops the run.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        optimizer: optax.GradientTransformation,
        learning_rate: LearningRate,
        spec: StateSpec,
        *,
        strategy: str,
        seed: int,
        microbatches: int = 1,
        skip_nonfinite: bool = False,
        scales: Scales | None = None,
    ):
        self.groups = tuple(groups)
        self._optimizer = optimizer
        self._learning_rate = learning_rate
        self._shardings = spec.shardings
        self._strategy = strategy
        self._seed = seed
        self._microbatches = microbatches
        self._skip_nonfinite = skip_nonfinite
        self._scales = scales
        whole = replicated(spec.shardings.step.mesh)
        self.jitted = jax.jit(self._update, donate_argnums=0, out_shardings=(spec.shardings, whole))
        self._compilations = 0

    def __call__(
        self, state: TrainState, position: int, batches: Mapping[str, Batch]
    ) -> tuple[TrainState, StepMetrics]:
        """Dispatch one update; warns if it had to be compiled again."""
        result = self.jitted(state, np.int32(position), batches)
        self._count_compilations(position)
        return result

    @property
    def compilations(self) -> int:
        """How often the step was compiled: more than once is a fault."""
        return self._compilations

    def key(self, step: int | Int[Array, ""]) -> Key[Array, ""]:
        """Return the key of a step: fold_in(key(seed), step)."""
        return jax.random.fold_in(jax.random.key(self._seed), step)

    def is_finite(self, model: Any, step: Int[Array, ""], batches: Mapping[str, Batch]) -> Array:
        """Return whether loss and gradient of these batches at a step are finite."""
        with use_rules(self._strategy):
            loss, _, gradient = total_gradient(
                self.groups, model, batches, self.key(step), step, self._microbatches
            )
        return jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))

    def _update(
        self, state: TrainState, position: Int[Array, ""], batches: Mapping[str, Batch]
    ) -> tuple[TrainState, StepMetrics]:
        step = state.step
        with use_rules(self._strategy):
            loss, outputs, gradient = total_gradient(
                self.groups,
                state.model,
                batches,
                self.key(step),
                step,
                self._microbatches,
                self._shardings.model,
            )
        rate = self._learning_rate(step)
        rates = jax.tree.map(lambda _: rate, gradient)
        if self._scales is not None:
            scales = self._scales(step)
            gradient = jax.tree.map(_thawed, gradient, scales, self._scales.frozen)
            rates = jax.tree.map(jnp.multiply, rates, scales)
        grad_norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        directions, opt_state = self._optimizer.update(gradient, state.opt_state, state.model)
        model = jax.tree.map(lambda p, d, r: p - r * d, state.model, directions, rates)
        updated = TrainState(step + 1, model, opt_state)
        kept = dataclasses.replace(state, step=step + 1) if self._skip_nonfinite else state
        applied = finite & (position == step)
        state = jax.tree.map(lambda new, old: jnp.where(applied, new, old), updated, kept)
        metrics = StepMetrics(
            loss=loss,
            groups={name: output.metrics for name, output in outputs.items()},
            learning_rate=rate,
            grad_norm=grad_norm,
            nonfinite=(~finite).astype(jnp.int32),
            real_tokens=_total(
                (batches[group.name][name] != 0) & (group.weight(step) > 0)
                for group in self.groups
                for name in SEGMENTS
                if name in batches[group.name]
            ),
            predicted_tokens=_total(output.weight for output in outputs.values()),
        )
        return state, metrics

    def _count_compilations(self, position: int) -> None:
        count = self.jitted._cache_size()  # type: ignore[attr-defined]
        if count > max(1, self._compilations):
            log.warning(
                "the train step was compiled again at step %d (%d times by now): a batch or the "
                "state changed its shape, dtype or sharding",
                position,
                count,
            )
        self._compilations = count


def _thawed(gradient: Array, scale: Array, frozen: bool) -> Array:
    """Return a gradient without what is frozen; one that is so for good need not be computed."""
    return jnp.zeros_like(gradient) if frozen else jnp.where(scale > 0, gradient, 0)


def _total(arrays: Iterable[Array]) -> Float[Array, ""]:
    return jnp.stack([jnp.sum(x, dtype=jnp.float32) for x in arrays]).sum()
