"""Learning rates by parameter: `optimizer.scales`, regexes over the names of parameters.

A layer of the stack has a number in its names (`transformer/layers/3/mlp/wi/kernel`), although all
layers lie in one array, so that fine-tuning can take some layers and leave others, at once or one
after another:

    (("classifier/.*", 10.0), ("transformer/layers/[0-3]/.*", 0.0), (".*", 1.0))

A scale may be a schedule, ((step, value), ...), which thaws a layer gradually. The first rule that
matches a whole name decides. What has scale 0 is frozen: it does not move, decay, or count in the
norm of the gradient; a parameter whose scale is always 0 costs no gradient and no optimizer state.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from xlmjax.ops.schedules import Schedule, constant, piecewise
from xlmjax.training.name_rules import check_rules
from xlmjax.training.state import parameter_axes, parameter_name

Rules = Sequence[tuple[str, Any]]


def parse_scales(rules: Rules) -> tuple[tuple[str, Schedule], ...]:
    """Return (regex, schedule) pairs; raises `ValueError` naming the rule that is none."""
    parsed = []
    for pattern, value in check_rules(rules, "optimizer.scales", "scale"):
        number = isinstance(value, int | float)
        field = f"optimizer.scales: scale of {pattern!r}"
        schedule = constant(value) if number else piecewise(value, field)
        if schedule.minimum < 0:
            raise ValueError(f"{field} is {value!r}: give numbers that are 0 or more")
        parsed.append((pattern, schedule))
    return tuple(parsed)


@dataclasses.dataclass(frozen=True)
class Scales:
    """Step -> a tree like the model of factors that broadcast against its parameters."""

    rules: Any  # a tree like the model: which rule, int32 [] or [layers, 1, ...]
    schedules: tuple[Schedule, ...]  # of the rules
    frozen: Any  # a tree like the model: True for a parameter that never moves

    def __call__(self, step: int | Int[Array, ""]) -> Any:
        """Return the factors of a step."""
        values: Float[Array, r] = jnp.stack([schedule(step) for schedule in self.schedules])
        return jax.tree.map(lambda rules: values[rules], self.rules)


def make_scales(rules: Rules, model: Any) -> Scales | None:
    """Return the factors of a model, or None where all are always 1.

    `model` is the model or its ShapeDtypeStructs. Raises `ValueError` on parameters that no rule
    matches, and where every parameter would be frozen.
    """
    parsed = parse_scales(rules)
    axes = parameter_axes(model)
    unmatched: list[str] = []

    def rule_of(name: str) -> int:
        for index, (pattern, _) in enumerate(parsed):
            if re.fullmatch(pattern, name):
                return index
        unmatched.append(name)
        return 0

    def rules_of(path: Any, leaf: Any) -> np.ndarray:
        name = parameter_name(path)
        if axes[name][:1] != ("layers",):
            return np.array(rule_of(name))
        numbers = range(leaf.shape[0])
        layers = (name.replace("/layers/", f"/layers/{number}/", 1) for number in numbers)
        found = np.array([rule_of(layer) for layer in layers])
        return found.reshape(-1, *(1,) * (leaf.ndim - 1))

    chosen = jax.tree_util.tree_map_with_path(rules_of, model)
    if unmatched:
        raise ValueError(
            f"optimizer.scales matches none of {', '.join(unmatched)}: end it with "
            '(".*", 1.0) or name them'
        )
    schedules = tuple(schedule for _, schedule in parsed)
    used = {int(index) for leaf in jax.tree.leaves(chosen) for index in np.unique(leaf)}
    if all(schedules[index].points == ((0, 1.0),) for index in used):
        return None
    frozen = jax.tree.map(
        lambda indices: all(schedules[index].maximum == 0 for index in np.unique(indices)), chosen
    )
    if all(jax.tree.leaves(frozen)):
        raise ValueError("optimizer.scales freezes every parameter: give one a scale above 0")
    return Scales(chosen, schedules, frozen)
