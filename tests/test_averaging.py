"""The mean of several checkpoints: its numbers, its mesh, and too few of them."""

import dataclasses

import jax
import numpy as np
import pytest
from etils import epath

from tests.loop_helpers import MODEL, leaves, make_run
from xlmjax.parallel.mesh import MeshConfig
from xlmjax.training.averaging import checkpoints_to_average, restore_average
from xlmjax.training.checkpoint import Checkpoints, Identity
from xlmjax.training.checkpoint_settings import CheckpointConfig

IDENTITY = Identity(dataclasses.asdict(MODEL), "0123456789abcdef", "adamw")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of five steps, and the parameters of each."""
    folder = tmp_path_factory.mktemp("run")
    run = make_run(MeshConfig(data=4, fsdp=2))
    checkpoints = Checkpoints(folder, CheckpointConfig(keep=5), IDENTITY)
    models = {}
    for step in range(5):
        run.update(step)
        checkpoints.save(run.state)
        models[step + 1] = leaves(run.state.model)
    checkpoints.close()
    return epath.Path(folder) / "checkpoints", models


@pytest.mark.parametrize("mesh", [MeshConfig(data=1), MeshConfig(data=2, fsdp=4)])
@pytest.mark.parametrize(("step", "steps"), [(5, [3, 4, 5]), (4, [1, 2, 3, 4]), (2, [2])])
@pytest.mark.slow
def test_parameters_are_the_mean_over_the_last_checkpoints(saved, mesh, step, steps):
    folder, models = saved
    spec = make_run(mesh).spec
    model = restore_average(folder / str(step), spec, IDENTITY, len(steps))
    for name, value in leaves(model).items():
        expected = np.mean([models[one][name].astype(np.float64) for one in steps], axis=0)
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-8, err_msg=name)
        assert value.dtype == np.float32
    assert jax.tree.structure(model) == jax.tree.structure(spec.abstract.model)
    wanted = jax.tree.leaves(spec.shardings.model)
    for leaf, sharding in zip(jax.tree.leaves(model), wanted, strict=True):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)


def test_too_few_checkpoints_are_an_error(saved):
    folder, _ = saved
    assert [one.name for one in checkpoints_to_average(folder / "4", 3)] == ["2", "3", "4"]
    message = (
        r"checkpoint.average=4, but .*checkpoints holds 3 checkpoints up to step 3 \(1, 2, 3\)"
    )
    with pytest.raises(ValueError, match=message):
        checkpoints_to_average(folder / "3", 4)
    with pytest.raises(ValueError, match=r"checkpoint.average=0 must be 1 or more"):
        CheckpointConfig(average=0)
