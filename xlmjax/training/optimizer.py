"""Optimizers: clip, precondition, decay; the step multiplies by the learning rate.

The chain has named parts, so the names of its state in a checkpoint do not depend on which parts
a config switches on.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import optax
from optax import contrib

from xlmjax.registry import Registry
from xlmjax.training.learning_rate import SCHEDULES, Schedule, make_schedule
from xlmjax.training.scales import make_scales, parse_scales
from xlmjax.training.state import parameter_axes, parameter_name

OPTIMIZERS: Registry[Callable[["OptimizerConfig", Any], optax.GradientTransformation]] = Registry(
    "optimizer.name"
)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Section `optimizer` of the config."""

    name: str = "adamw"
    learning_rate: float = 1e-4
    schedule: str = "inverse_sqrt"
    warmup_steps: int = 4_000
    decay_steps: int = 0
    final_scale: float = 0.0
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay_mask: tuple[tuple[str, bool], ...] = ((r".*(bias|norm|scale).*", False), (r".*", True))
    scales: tuple[tuple[str, Any], ...] = ((r".*", 1.0),)
    clip_norm: float = 5.0
    skip_nonfinite: bool = False

    def __post_init__(self) -> None:
        for field, registry in (("name", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, field) not in registry:
                raise ValueError(
                    f"optimizer.{field}={getattr(self, field)!r} is unknown; known: "
                    f"{', '.join(registry)}"
                )
        for field, low, high in (
            ("learning_rate", 0.0, float("inf")),
            ("final_scale", 0.0, 1.0),
            ("b1", 0.0, 1.0),
            ("b2", 0.0, 1.0),
            ("eps", 0.0, 1.0),
            ("weight_decay", 0.0, float("inf")),
            ("clip_norm", 0.0, float("inf")),
            ("warmup_steps", 0, float("inf")),
            ("decay_steps", 0, float("inf")),
        ):
            value = getattr(self, field)
            if not low <= value <= high:
                raise ValueError(f"optimizer.{field}={value} is outside [{low}, {high}]")
        parse_scales(self.scales)
        for rule in self.decay_mask:
            try:
                re.compile(rule[0])
            except re.error as error:
                raise ValueError(
                    f"optimizer.decay_mask: {rule[0]!r} is not a regular expression ({error})"
                ) from None

    @classmethod
    def from_config(cls, config: Any) -> "OptimizerConfig":
        """Return the checked section, from a ConfigDict or another mapping with these fields."""
        fields = {field.name: config[field.name] for field in dataclasses.fields(cls)}
        fields["decay_mask"] = tuple(
            (str(rule), bool(decays)) for rule, decays in config.decay_mask
        )
        return cls(**fields)

    def make_schedule(self, num_steps: int) -> Schedule:
        """Return step -> learning rate for a run of `num_steps` updates."""
        return make_schedule(
            self.schedule,
            self.learning_rate,
            warmup_steps=self.warmup_steps,
            num_steps=num_steps,
            decay_steps=self.decay_steps,
            final_scale=self.final_scale,
        )


def make_optimizer(config: OptimizerConfig, model: Any) -> optax.GradientTransformation:
    """Return gradients -> directions; the update is minus the learning rate times a direction.

    `model` is the model or its ShapeDtypeStructs. Clipping (global L2 norm over all parameters
    together) comes first; the decoupled decay joins the direction, so it too is scaled by the
    learning rate. Raises ValueError on parameters that no rule of `decay_mask` matches.
    """
    scales = make_scales(config.scales, model)
    decays = decay_mask(config.decay_mask, model)
    optimizer = OPTIMIZERS[config.name](config, model)
    if scales is not None and any(jax.tree.leaves(scales.frozen)):
        kept = jax.tree.map(lambda frozen: "frozen" if frozen else "moving", scales.frozen)
        optimizer = optax.partition({"moving": optimizer, "frozen": optax.set_to_zero()}, kept)
        decays = jax.tree.map(lambda decay, frozen: decay and not frozen, decays, scales.frozen)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    decay = optax.add_decayed_weights(config.weight_decay, decays)
    return optax.named_chain(
        ("clip", clip),
        (config.name, optimizer),
        ("decay", decay if config.weight_decay else optax.identity()),
    )


def decay_mask(rules: tuple[tuple[str, bool], ...], model: Any) -> Any:
    """Return a tree like the model that says which parameters decay.

    The first rule (regex, decays) that matches the whole name of a parameter decides.
    """
    unmatched = []

    def decays(path: Any, _: Any) -> bool:
        name = parameter_name(path)
        for rule, answer in rules:
            if re.fullmatch(rule, name):
                return answer
        unmatched.append(name)
        return False

    mask = jax.tree_util.tree_map_with_path(decays, model)
    if unmatched:
        raise ValueError(
            f"optimizer.decay_mask matches none of {', '.join(unmatched)}: end it with "
            '(".*", True) or name them'
        )
    return mask


@OPTIMIZERS.register("adamw")
def adamw(config: OptimizerConfig, model: Any) -> optax.GradientTransformation:
    """Return the textbook form (Kingma & Ba 2015; Loshchilov & Hutter 2019).

    XLM's own Adam adds eps to the square root of the *uncorrected* second moment, that is,
    eps / sqrt(1 - b2^t) in this form, which is larger in the first steps (with b2 0.98: 7 eps at
    t = 1, 1.1 eps at t = 100); and it decays every parameter, which `decay_mask` ((".*", True),)
    asks for here.
    """
    return optax.scale_by_adam(config.b1, config.b2, config.eps)


@OPTIMIZERS.register("adafactor")
def adafactor(config: OptimizerConfig, model: Any) -> optax.GradientTransformation:
    """Return factored second moments, no momentum (Shazeer & Stern 2018).

    Updates are clipped to a root mean square of 1 and scaled by `optimizer.learning_rate` as
    Adam's are, not relative to the parameter; b1, b2 and eps are not used.
    """
    return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))


@OPTIMIZERS.register("lion")
def lion(config: OptimizerConfig, model: Any) -> optax.GradientTransformation:
    """Return the sign of an interpolated momentum (Chen et al. 2023).

    The paper's settings against AdamW: learning rate 3 to 10 times lower, weight decay as much
    higher, b2 0.99.
    """
    return optax.scale_by_lion(config.b1, config.b2)


@OPTIMIZERS.register("muon")
def muon(config: OptimizerConfig, model: Any) -> optax.GradientTransformation:
    """Return orthogonalised momentum for the matrices of the layers, Adam for everything else.

    Updates of matrices have a root mean square of 0.2, Adam's usual one, so both share one
    learning rate and one decay (Liu et al. 2025, Moonlight). Tables (vocabulary, positions,
    languages), norms and biases go to Adam with b1, b2 and eps; Muon's momentum is 0.95.
    """
    numbers = {name: _matrix(axes) for name, axes in parameter_axes(model).items()}

    def dimension_numbers(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda p, _: numbers[parameter_name(p)], tree)

    def labels(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "adam" if numbers[parameter_name(path)] is None else "muon", tree
        )

    def scale(updates: Any, _: Any) -> Any:
        def to_rms(update: jax.Array, number: contrib.MuonDimensionNumbers) -> jax.Array:
            sizes = [math.prod(update.shape[i] for i in side) for side in number]
            return 0.2 * math.sqrt(max(sizes)) * update

        return jax.tree.map(to_rms, updates, dimension_numbers(updates))

    matrices = optax.chain(
        contrib.scale_by_muon(eps=config.eps, weight_dimension_numbers=dimension_numbers),
        optax.stateless(scale),
    )
    adam = optax.scale_by_adam(config.b1, config.b2, config.eps)
    return optax.partition({"muon": matrices, "adam": adam}, labels)


def _matrix(axes: tuple[str, ...]) -> contrib.MuonDimensionNumbers | None:
    """Return which dimensions of a layer's matrix are its input and its output; else None."""
    inner = tuple(i for i, name in enumerate(axes) if name in ("heads", "head_dim", "mlp"))
    outer = tuple(i for i, name in enumerate(axes) if name == "embed")
    if not inner or not outer:
        return None
    return contrib.MuonDimensionNumbers(*((outer, inner) if outer < inner else (inner, outer)))
