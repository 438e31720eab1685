"""From logical names to shardings: checked constraints inside the model, shardings outside."""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from xlmjax.parallel.mesh import BATCH_AXES
from xlmjax.parallel.rules import NAMES, STRATEGIES

_strategy: contextvars.ContextVar[str] = contextvars.ContextVar("strategy", default="fsdp_tensor")


@contextlib.contextmanager
def use_rules(strategy: str) -> Iterator[None]:
    """Make `constrain` use a table of `rules.STRATEGIES` for what is traced inside.

    A jitted function keeps the rules it was traced with, so enter this inside the function.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"mesh.strategy={strategy!r} is unknown; known: {', '.join(STRATEGIES)}")
    token = _strategy.set(strategy)
    try:
        yield
    finally:
        _strategy.reset(token)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Return `x` with its dimensions laid out by their logical names; `None` leaves one whole.

    Without a mesh (`jax.set_mesh`) it is the identity. Raises ValueError on an unknown name, a
    number of names that is not the rank, and a size that its mesh axes do not divide.
    """
    _check_names(tuple(x.shape), names, "an activation")
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    spec = _spec(tuple(x.shape), names, dict(mesh.shape), _strategy.get(), "an activation")
    return jax.lax.with_sharding_constraint(x, spec)


def over_shards(
    function: Callable[..., Any],
    inputs: Sequence[tuple[str | None, ...]],
    output: tuple[str | None, ...],
) -> Callable[..., Any]:
    """Return `function` of arrays, run by each device on its own shards of them.

    For kernels, which the compiler cannot partition. `inputs` has the logical names of the axes of
    each argument (an array, a pytree of such, or None), `output` those of what is returned. Without
    a mesh it is `function`. Raises ValueError as `constrain` does.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return function
    rules = dict(STRATEGIES[_strategy.get()])

    def spec(names: tuple[str | None, ...], x: jax.Array) -> PartitionSpec:
        _check_names(x.shape, names, "an argument")
        return _spec(x.shape, names, dict(mesh.shape), _strategy.get(), "an argument")

    def run(*arguments: Any) -> Any:
        specs = (
            jax.tree.map(functools.partial(spec, names), argument)
            for names, argument in zip(inputs, arguments, strict=True)
        )
        return jax.shard_map(
            function,
            in_specs=tuple(specs),
            out_specs=PartitionSpec(*(rules.get(name or "") for name in output)),
            check_vma=False,  # kernels do not say along which axes of the mesh their results vary
        )(*arguments)

    return run


def mesh_axes(*names: str) -> tuple[tuple[str, ...], ...]:
    """Return the mesh axes that each logical axis is split over, for code that names collectives.

    Axes of size 1 split nothing and are left out: without a mesh every entry is empty.
    """
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    rules = dict(STRATEGIES[_strategy.get()])
    return tuple(
        tuple(axis for axis in _group(rules.get(name)) if sizes.get(axis, 1) > 1) for name in names
    )


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Return the sharding of every batch feature: rows over `replica`, `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Return the sharding that keeps an array whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def param_shardings(
    abstract: Any, mesh: jax.sharding.Mesh, strategy: str, statistics: bool = False
) -> Any:
    """Return the same tree with a `NamedSharding` for every array.

    `abstract` is a model, or with `statistics` an optimizer state, of ShapeDtypeStructs (from
    `jax.eval_shape`). Arrays in an `nnx.Variable` follow its `axes`; others stay whole, and so do
    statistics that are not of the parameter's shape (the factors of Adafactor). Raises ValueError
    on a parameter whose axes are missing, unknown, or do not fit its shape or the mesh.
    """
    shape = dict(mesh.shape)

    def of(path: Any, leaf: Any) -> Any:
        if not isinstance(leaf, nnx.Variable):
            return replicated(mesh)
        array, axes = leaf.get_value(), leaf.get_metadata().get("axes")
        if not jax.tree.leaves(leaf):  # optax.partition empties what another optimizer keeps
            return leaf
        where = jax.tree_util.keystr(path, simple=True, separator="/")
        if axes is None:
            raise ValueError(f"parameter {where} of shape {array.shape} names no axes")
        try:
            _check_names(array.shape, tuple(axes), f"parameter {where}")
            spec = _spec(array.shape, tuple(axes), shape, strategy, f"parameter {where}")
        except ValueError:
            if not statistics:
                raise
            spec = PartitionSpec()
        return jax.tree.map(lambda _: NamedSharding(mesh, spec), leaf)

    return jax.tree_util.tree_map_with_path(
        of, abstract, is_leaf=lambda node: isinstance(node, nnx.Variable)
    )


def _check_names(shape: tuple[int, ...], names: tuple[str | None, ...], what: str) -> None:
    if len(names) != len(shape):
        raise ValueError(f"{what} of shape {shape} has rank {len(shape)}, not that of {names}")
    for name in names:
        if name is not None and name not in NAMES:
            raise ValueError(
                f"{what} of shape {shape} names the unknown axis {name!r}; known: "
                f"{', '.join(NAMES)}"
            )


def _spec(
    shape: tuple[int, ...],
    names: tuple[str | None, ...],
    mesh: Mapping[str, int],
    strategy: str,
    what: str,
) -> PartitionSpec:
    rules = dict(STRATEGIES[strategy])
    entries: list[str | tuple[str, ...] | None] = []
    for name, size in zip(names, shape, strict=True):
        axes = rules.get(name) if name is not None else None
        group = _group(axes)
        parts = math.prod(mesh[axis] for axis in group)
        if size % parts:
            product = " * ".join(f"mesh.{axis}={mesh[axis]}" for axis in group)
            raise ValueError(
                f"{what} of shape {shape}: {name!r} has size {size}, which {product} = {parts} "
                f"does not divide; change {NAMES[name or '']}, the mesh, or mesh.strategy="
                f"{strategy!r}"
            )
        entries.append(axes)
    return PartitionSpec(*entries)


def _group(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (axes,) if isinstance(axes, str) else axes or ()
