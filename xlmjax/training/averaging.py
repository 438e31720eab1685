"""The model of one checkpoint, or the mean of the last few, for use after training."""

from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from xlmjax.training.checkpoint import Identity, restore_model
from xlmjax.training.state import StateSpec


def checkpoints_to_average(place: epath.Path, count: int) -> list[epath.Path]:
    """Return a checkpoint and the `count` - 1 before it in its folder, oldest first.

    Raises `ValueError` where there are fewer.
    """
    if count == 1:
        return [place]
    steps = [s for s in sorted(ocp.utils.checkpoint_steps(place.parent)) if s <= int(place.name)]
    if len(steps) < count:
        raise ValueError(
            f"checkpoint.average={count}, but {place.parent} holds {len(steps)} checkpoints up to "
            f"step {place.name} ({', '.join(map(str, steps))}): lower it, or train with a greater "
            "checkpoint.keep"
        )
    return [place.parent / str(step) for step in steps[-count:]]


def restore_average(place: epath.Path, spec: StateSpec, identity: Identity, count: int = 1) -> Any:
    """Return the model of a checkpoint, or the mean of it and the `count` - 1 before it.

    Parameters are summed in float32, one checkpoint in memory beside the sum. Raises as
    `checkpoints_to_average` and `restore_model` do.
    """
    places = checkpoints_to_average(place, count)
    if count == 1:
        return restore_model(place, spec, identity)
    add = jax.jit(_add, donate_argnums=0)
    total = None
    for one in places:
        model = restore_model(one, spec, identity)
        total = jax.tree.map(_float32, model) if total is None else add(total, model)
    return jax.tree.map(
        lambda leaf, like: (leaf / count).astype(like.dtype), total, spec.abstract.model
    )


def _add(total: Any, model: Any) -> Any:
    return jax.tree.map(lambda a, b: a + _float32(b), total, model)


def _float32(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.float32)
