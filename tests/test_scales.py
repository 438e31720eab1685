"""Learning rates by regex: which layers move, when, and what counts in the norm."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.loop_helpers import MODEL, OPTIMIZER, batch, leaves, make_run, make_spec
from xlmjax.parallel.mesh import MeshConfig
from xlmjax.training.optimizer import OptimizerConfig, make_optimizer
from xlmjax.training.scales import make_scales
from xlmjax.training.state import named_leaves

STACK = "model/transformer/layers/mlp/wi/kernel"
TOKENS = "model/embeddings/tokens"


def scales_of(rules):
    return make_scales(rules, make_spec()[1].abstract.model)


def moved(rules, steps=1):
    """Return name -> how far each parameter went, layer by layer for those of the stack."""
    run = make_run(scales=scales_of(rules))
    before = leaves(run.state)
    metrics = [run.update(step) for step in range(steps)]
    after = leaves(run.state)
    return {n: np.abs(after[n] - before[n]) for n in after if n.startswith("model/")}, metrics


def test_rules_that_say_one_change_nothing():
    assert scales_of(((".*", 1.0),)) is None
    assert scales_of(((".*norm.*", 1), (".*", ((0, 1.0),)))) is None


def test_layers_are_frozen_by_number():
    far, _ = moved(((r"transformer/layers/0/.*", 0.0), (r"embeddings/.*", 0.0), (r".*", 1.0)))
    assert np.all(far[STACK][0] == 0)
    assert far[STACK][1].min() >= 0
    assert far[STACK][1].max() > 1e-3
    assert np.all(far[TOKENS] == 0)


def test_a_scale_multiplies_the_update_decay_included():
    whole, _ = moved(((".*", 1.0),))
    half, _ = moved(((r"transformer/layers/1/.*", 0.5), (r".*", 1.0)))
    np.testing.assert_allclose(half[STACK][1], 0.5 * whole[STACK][1], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(half[STACK][0], whole[STACK][0], rtol=1e-4, atol=1e-7)


def test_a_schedule_thaws_a_layer():
    rules = ((r"transformer/.*", ((1, 0.0), (2, 1.0))), (r".*", 1.0))
    assert np.all(moved(rules, steps=2)[0][STACK] == 0)
    assert moved(rules, steps=3)[0][STACK].max() > 1e-3


def test_what_is_frozen_does_not_count_in_the_norm():
    _, [whole] = moved(((".*", 1.0),))
    _, [part] = moved(((r"embeddings/.*", 0.0), (r".*", 1.0)))
    _, [none] = moved(((r"(?!head).*", 0.0), (r".*", 1.0)))
    assert 0 < none.grad_norm < part.grad_norm < whole.grad_norm


@pytest.mark.slow
def test_scaled_runs_do_not_depend_on_the_mesh():
    rules = ((r"transformer/layers/0/.*", 0.0), (r".*", 2.0))
    one = make_run(scales=scales_of(rules))
    many = make_run(MeshConfig(data=2, fsdp=2, tensor=2), scales=scales_of(rules))
    start = leaves(one.state)[STACK]
    for step in range(3):
        ours, theirs = (run.update(step, {"mlm": batch(step)}) for run in (one, many))
        np.testing.assert_allclose(theirs.loss, ours.loss, rtol=1e-5)
        np.testing.assert_allclose(theirs.grad_norm, ours.grad_norm, rtol=1e-4)
    for run in (one, many):
        np.testing.assert_array_equal(leaves(run.state)[STACK][0], start[0])


def test_a_parameter_frozen_for_good_has_no_optimizer_state():
    rules = ((r"embeddings/.*", 0.0), (r".*", 1.0))
    for name in ("adamw", "muon"):
        config = dataclasses.replace(OPTIMIZER, name=name, scales=rules, weight_decay=0.1)
        model = make_spec()[1].abstract.model
        state = jax.eval_shape(make_optimizer(config, model).init, model)
        names = {key for key, leaf in named_leaves(state).items() if leaf.size > 1}
        assert not [key for key in names if "embeddings" in key]
        assert [key for key in names if "transformer/layers/mlp/wi/kernel" in key]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (((r"embeddings/.*", 1.0),), r"optimizer.scales matches none of .*transformer/layers/0"),
        (((r"(", 1.0),), r"optimizer.scales: .*\(regex, scale\)"),
        (((r".*", -1.0),), r"optimizer.scales: scale of '\.\*' is -1.0"),
        (((r".*", 0.0),), r"optimizer.scales freezes every parameter"),
        (((r".*", ((5, 1.0), (2, 0.0))),), r"optimizer.scales: scale of '\.\*'.*increasing"),
    ],
)
def test_wrong_rules_are_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        scales_of(rules)


def test_the_config_section_checks_them():
    fields = {f.name: getattr(OPTIMIZER, f.name) for f in dataclasses.fields(OPTIMIZER)}
    with pytest.raises(ValueError, match=r"optimizer.scales"):
        OptimizerConfig(**{**fields, "scales": (("[", 1.0),)})
    assert MODEL.num_layers == 2
    assert jax.tree.leaves(scales_of(((r".*", 3.0),))(0))[0] == 3.0
