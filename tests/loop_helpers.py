"""A tiny model, batch and train step with distinct sizes, for the tests of the loop."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from xlmjax.models.config import ModelConfig
from xlmjax.models.xlm import XLM
from xlmjax.objectives import MaskedLanguageModel, Specials
from xlmjax.ops import schedules
from xlmjax.parallel import partition
from xlmjax.parallel.mesh import MeshConfig, make_mesh
from xlmjax.training.optimizer import OptimizerConfig, make_optimizer
from xlmjax.training.state import StateSpec, TrainState, named_leaves, state_spec
from xlmjax.training.step import Group, TrainStep

ROWS, LENGTH, VOCABULARY = 24, 14, 40
SPECIALS = Specials(pad=2, eos=1, mask=4, size=VOCABULARY)
MODEL = ModelConfig(
    vocab_size=VOCABULARY,
    language_ids=(4, 6),
    pad_id=2,
    embed_dim=16,
    num_layers=2,
    num_heads=4,
    mlp_dim=24,
    max_positions=20,
    dtype="float32",
)
OPTIMIZER = OptimizerConfig(
    learning_rate=1e-2, schedule="constant", warmup_steps=0, weight_decay=0.1
)
ONE_DEVICE = MeshConfig(data=1)


def batch(step=0, rows=ROWS, seed=0):
    """Packed rows of two segments of two languages, and padding of differing lengths."""
    rng = np.random.default_rng([seed, step])
    place = np.arange(LENGTH)
    cut = rng.integers(3, 6, size=(rows, 1))
    end = rng.integers(9, LENGTH + 1, size=(rows, 1))
    real, second = place < end, place >= cut
    tokens = np.where(real, rng.integers(5, VOCABULARY, size=(rows, LENGTH)), SPECIALS.pad)
    return {
        "tokens": tokens.astype(np.int32),
        "positions": np.where(real, place - second * cut, 0).astype(np.int32),
        "segment_ids": np.where(real, 1 + second, 0).astype(np.int32),
        "language_ids": np.where(second, 6, 4).astype(np.int32),
        "row_ids": (step * rows + np.arange(rows)).astype(np.int32),
        "task_ids": (np.arange(rows) % 3).astype(np.int32),
    }


def objective(rate=0.3):
    return MaskedLanguageModel(
        SPECIALS,
        schedules.constant(rate),
        rate,
        mask_keep_random=(0.8, 0.1, 0.1),
        sample_alpha=0.0,
        num_tasks=3,
    )


def groups(*names):
    return [Group(name, objective(), schedules.constant(1.0)) for name in names or ("mlm",)]


@dataclasses.dataclass
class Run:
    """A mesh, the state on it and the step."""

    mesh: jax.sharding.Mesh
    spec: StateSpec
    step: TrainStep
    state: TrainState
    strategy: str
    initial: TrainState

    def place(self, batches):
        sharding = partition.batch_sharding(self.mesh)
        return jax.tree.map(lambda x: jax.device_put(jnp.asarray(x), sharding), batches)

    def update(self, step, batches=None):
        batches = {"mlm": batch(step)} if batches is None else batches
        with jax.set_mesh(self.mesh):
            self.state, metrics = self.step(self.state, step, self.place(batches))
        return jax.device_get(metrics)

    def reset(self):
        self.state = jax.tree.map(jax.device_put, self.initial, self.spec.shardings)


@functools.lru_cache
def fresh(model, optimizer, seed):
    """Initial state on the host: compiling its constructor is most of the time of a test."""

    def init(key):
        tree = XLM(model, key)
        return TrainState(jnp.int32(0), tree, make_optimizer(optimizer, tree).init(tree))

    return jax.device_get(jax.jit(init)(jax.random.key(seed)))


def make_spec(mesh=ONE_DEVICE, model=MODEL, optimizer=OPTIMIZER):
    """Return a mesh on the first devices that fit, and the spec of the state on it."""
    sizes = [size for size in mesh.sizes if size > 0]
    over = make_mesh(mesh, jax.devices()[: np.prod(sizes)])
    make = functools.partial(make_optimizer, optimizer)
    return over, state_spec(functools.partial(XLM, model), make, over, mesh.strategy)


def make_run(mesh=ONE_DEVICE, model=MODEL, optimizer=OPTIMIZER, parts=None, **options):
    over, spec = make_spec(mesh, model, optimizer)
    step = TrainStep(
        parts or groups(),
        make_optimizer(optimizer, spec.abstract.model),
        optimizer.make_schedule(10),
        spec,
        strategy=mesh.strategy,
        seed=0,
        **options,
    )
    initial = fresh(model, optimizer, 0)
    run = Run(over, spec, step, initial, mesh.strategy, initial)
    run.reset()
    return run


def leaves(tree):
    return {name: np.asarray(jax.device_get(leaf)) for name, leaf in named_leaves(tree).items()}
