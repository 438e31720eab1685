"""The train state (step, model, optimizer state), its names, and its shardings."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from xlmjax.parallel.partition import param_shardings, replicated


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class TrainState:
    """All that a run carries from step to step; the position in the data is the step."""

    step: Any  # int32 [], number of updates so far
    model: Any  # float32 parameters
    opt_state: Any


def parameter_name(path: Any) -> str:
    """Return the stable name of a leaf: `layers/attention/query`, as in checkpoints and masks."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return name.removesuffix("/value")  # of the nnx.Variable around the array


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return name -> leaf of a model, an optimizer state or a train state."""
    return {
        parameter_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def parameter_axes(model: Any) -> dict[str, tuple[str, ...]]:
    """Return name -> logical axes of every parameter of a model."""
    variables = jax.tree_util.tree_flatten_with_path(
        model, is_leaf=lambda node: isinstance(node, nnx.Variable)
    )[0]
    return {parameter_name(path): tuple(leaf.get_metadata()["axes"]) for path, leaf in variables}


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested dicts of string keys from names with slashes."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *parents, last = name.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return nested


def to_pure_dict(tree: Any) -> dict[str, Any]:
    """Return the leaves as nested dicts of string keys: what a checkpoint holds."""
    return nest(named_leaves(tree))


def from_pure_dict(like: Any, nested: dict[str, Any]) -> Any:
    """Return the tree `like` with the leaves of `to_pure_dict`; KeyError on a missing name."""

    def look_up(path: Any, _: Any) -> Any:
        node: Any = nested
        for part in parameter_name(path).split("/"):
            node = node[part]
        return node

    return jax.tree_util.tree_map_with_path(look_up, like)


@dataclasses.dataclass(frozen=True)
class StateSpec:
    """How to make a train state: its constructor, its abstract value and its shardings."""

    init: Callable[[jax.Array], TrainState]  # of a key
    abstract: TrainState  # of ShapeDtypeStructs with shardings
    shardings: TrainState

    def create(self, key: jax.Array) -> TrainState:
        """Return a fresh state, made in place on the devices that hold its parts."""
        return jax.jit(self.init, out_shardings=self.shardings)(key)


def state_spec(
    make_model: Callable[[jax.Array], Any],
    make_optimizer: Callable[[Any], optax.GradientTransformation],
    mesh: jax.sharding.Mesh,
    strategy: str,
) -> StateSpec:
    """Return the spec of the state of a model (key -> model) under an optimizer (of a model)."""

    def init(key: jax.Array) -> TrainState:
        model = make_model(key)
        return TrainState(jnp.zeros((), jnp.int32), model, make_optimizer(model).init(model))

    abstract = jax.eval_shape(init, jax.random.key(0))
    shardings = TrainState(
        step=replicated(mesh),
        model=param_shardings(abstract.model, mesh, strategy),
        opt_state=param_shardings(abstract.opt_state, mesh, strategy, statistics=True),
    )
    placed = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )
    return StateSpec(init, placed, shardings)
