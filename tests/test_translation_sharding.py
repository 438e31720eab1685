"""Objectives of translation: loss and gradient do not depend on how rows are cut up."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.loop_helpers import leaves
from tests.model_helpers import CLASSIC, LANGUAGES, SPECIALS, randomised, rows, sentences
from xlmjax.languages import LANGUAGES as TABLE
from xlmjax.objectives import BackTranslation, Denoising, Translation
from xlmjax.objectives.translation import TeacherForcing
from xlmjax.ops import schedules
from xlmjax.ops.noising import Noise
from xlmjax.parallel.mesh import MeshConfig, make_mesh
from xlmjax.parallel.partition import batch_sharding, use_rules
from xlmjax.training.optimizer import OptimizerConfig, make_optimizer
from xlmjax.training.state import state_spec
from xlmjax.training.step import Group, total_gradient

CFG = dataclasses.replace(CLASSIC, vocab_size=48, num_layers=1, decoder_layers=1)
CODES = [TABLE[i].code for i in LANGUAGES]
STEPS = tuple(f"{a}-{b}-{a}" for a, b in zip(CODES, [*CODES[1:], CODES[0]], strict=True))
OBJECTIVES = {
    "translation": Translation(TeacherForcing(0.1)),
    "denoising": Denoising(SPECIALS, TeacherForcing(), Noise()),
    "back_translation": BackTranslation(SPECIALS, TeacherForcing(), STEPS),
    "back_translation, drawn": BackTranslation(SPECIALS, TeacherForcing(), STEPS, temperature=0.7),
    "back_translation, packed": BackTranslation(
        SPECIALS, TeacherForcing(), STEPS, temperature=0.7, sentences=2, sentence_length=10
    ),
}


def batch(packed):
    """Return 8 rows of one sentence of each of two sides; with `packed` of two where they fit."""
    examples = sentences() + sentences(1)
    texts = [[(i, (i + 3) % 8)] + [((i + 1) % 8, (i + 6) % 8)] * packed for i in range(8)]
    length = 20
    source = rows([[examples[a] for a, _ in row] for row in texts], length)
    target = rows([[examples[b] for _, b in row] for row in texts], length)
    names = ("tokens", "positions", "segment_ids", "language_ids")
    return source | {f"target_{name}": target[name] for name in names}


@functools.cache
def loss_and_gradient(name, mesh=MeshConfig(data=1), microbatches=1):  # noqa: B008 frozen
    sizes = [size for size in mesh.sizes if size > 0]
    over = make_mesh(mesh, jax.devices()[: np.prod(sizes)])
    model = randomised(CFG)
    optimizer = OptimizerConfig(schedule="constant", warmup_steps=0)
    spec = state_spec(
        functools.partial(type(model), CFG),
        functools.partial(make_optimizer, optimizer),
        over,
        mesh.strategy,
    )
    group = Group(name, OBJECTIVES[name], schedules.constant(1.0))

    @jax.jit
    def compute(model, batches):
        with use_rules(mesh.strategy):
            loss, _, tree = total_gradient(
                [group], model, batches, jax.random.key(3), jnp.int32(0), microbatches
            )
        return loss, tree

    sharding = batch_sharding(over)
    placed = {
        key: jax.device_put(jnp.asarray(value, jnp.int32), sharding)
        for key, value in batch("back" not in name or "packed" in name).items()
    }
    with jax.set_mesh(over):
        model = jax.tree.map(jax.device_put, model, spec.shardings.model)
        loss, tree = compute(model, {name: placed})
    return float(loss), leaves(tree)


@pytest.mark.parametrize(
    ("mesh", "microbatches"),
    [(MeshConfig(data=2, fsdp=2, tensor=2), 1), (MeshConfig(data=1), 2)],
    ids=["mesh", "microbatches"],
)
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_loss_and_gradient_are_those_of_one_device(name, mesh, microbatches):
    expected = loss_and_gradient(name)
    found = loss_and_gradient(name, mesh, microbatches)
    assert expected[0] > 1
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    for leaf, value in expected[1].items():
        np.testing.assert_allclose(found[1][leaf], value, rtol=1e-5, atol=1e-5, err_msg=leaf)
