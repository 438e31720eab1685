"""Laws of the optimizers, the decay mask and the learning-rate schedules."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.loop_helpers import MODEL, make_spec
from xlmjax.models.xlm import XLM
from xlmjax.parallel.mesh import MeshConfig
from xlmjax.training.learning_rate import SCHEDULES, make_schedule
from xlmjax.training.optimizer import OPTIMIZERS, OptimizerConfig, decay_mask, make_optimizer
from xlmjax.training.state import from_pure_dict, named_leaves, parameter_axes, to_pure_dict

CONFIG = OptimizerConfig(clip_norm=0.0, b1=0.9, b2=0.98, eps=1e-3)


class Toy(nnx.Module):
    """One matrix of layers, one table, one bias."""

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.kernel = nnx.Param(
            jax.random.normal(keys[0], (2, 6, 9)), axes=("layers", "embed", "mlp")
        )
        self.table = nnx.Param(jax.random.normal(keys[1], (8, 6)), axes=("vocab", "embed"))
        self.bias = nnx.Param(jax.random.normal(keys[2], (2, 9)), axes=("layers", "mlp"))


def toy(seed):
    return Toy(jax.random.key(seed))


def directions(config, gradients, model=None):
    """Return the named directions of each gradient in turn."""
    model = toy(0) if model is None else model
    optimizer = make_optimizer(config, model)
    state = optimizer.init(model)
    found = []
    for gradient in gradients:
        tree, state = optimizer.update(gradient, state, model)
        found.append({name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()})
    return found


def test_xlm_inverse_square_root():
    rate = make_schedule("inverse_sqrt", 1e-4, warmup_steps=4000, num_steps=10**6)
    expected = {0: 1e-7, 1: 1.24975e-7, 2000: 5.005e-5, 4000: 1e-4, 16000: 5e-5}
    for step, value in expected.items():
        np.testing.assert_allclose(rate(step), value, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("constant", {10: 2.0, 50: 2.0, 110: 2.0}),
        ("linear", {10: 2.0, 60: 1.1, 110: 0.2, 200: 0.2}),
        ("cosine", {10: 2.0, 60: 1.1, 110: 0.2, 35: 0.2 + 1.8 * (0.5 + 0.5**1.5)}),
        ("wsd", {10: 2.0, 90: 2.0, 100: 1.1, 110: 0.2, 150: 0.2}),
    ],
)
def test_schedules_go_where_they_say(name, values):
    rate = make_schedule(name, 2.0, warmup_steps=10, num_steps=110, decay_steps=20, final_scale=0.1)
    np.testing.assert_allclose(rate(5), 1.0, rtol=1e-6)
    for step, value in values.items():
        np.testing.assert_allclose(rate(step), value, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_schedules_are_traced_and_need_no_warmup(name):
    rate = make_schedule(name, 0.5, warmup_steps=0, num_steps=20)
    np.testing.assert_allclose(jax.jit(rate)(jnp.int32(0)), 0.5, rtol=1e-6)


def test_the_final_decay_of_wsd_defaults_to_a_tenth():
    rate = make_schedule("wsd", 1.0, warmup_steps=0, num_steps=100)
    assert float(rate(90)) == 1.0
    np.testing.assert_allclose(rate(95), 0.5, rtol=1e-6)


def test_adamw_is_the_textbook_form():
    gradients = [toy(1), toy(2)]
    m = v = 0.0
    for t, found in enumerate(directions(CONFIG, gradients), start=1):
        g = np.asarray(gradients[t - 1].kernel.get_value())
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g**2
        expected = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.98**t)) + 1e-3)
        np.testing.assert_allclose(found["kernel"], expected, rtol=1e-5)


def test_xlm_adam_is_the_textbook_form_with_a_larger_eps():
    """Law 22: eps on the uncorrected second moment equals eps / sqrt(1 - b2^t)."""
    g = np.asarray(toy(1).kernel.get_value())
    corrected = np.sqrt(1 - 0.98)
    xlm = corrected / (1 - 0.9) * (0.1 * g) / (np.sqrt(0.02 * g**2) + 1e-3)
    config = dataclasses.replace(CONFIG, eps=1e-3 / corrected)
    np.testing.assert_allclose(directions(config, [toy(1)])[0]["kernel"], xlm, rtol=1e-5)


def test_decay_is_decoupled_and_follows_the_mask():
    plain = directions(CONFIG, [toy(1)])[0]
    decayed = directions(dataclasses.replace(CONFIG, weight_decay=0.3), [toy(1)])[0]
    for name in ("kernel", "table"):
        expected = 0.3 * named_leaves(toy(0))[name]
        np.testing.assert_allclose(decayed[name] - plain[name], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(decayed["bias"], plain["bias"])


def test_clipping_is_by_the_norm_of_all_parameters_together():
    gradient = toy(1)
    norm = np.sqrt(sum((np.asarray(x) ** 2).sum() for x in jax.tree.leaves(gradient)))
    config = dataclasses.replace(CONFIG, clip_norm=float(norm) / 4, eps=1.0, b1=0.0, b2=0.0)
    clipped = np.asarray(gradient.bias.get_value()) / 4
    found = directions(config, [gradient])[0]["bias"]
    np.testing.assert_allclose(found, clipped / (np.abs(clipped) + 1.0), rtol=1e-5)
    loose = dataclasses.replace(config, clip_norm=float(norm) * 2)
    np.testing.assert_allclose(
        directions(loose, [gradient])[0]["bias"],
        4 * clipped / (np.abs(4 * clipped) + 1.0),
        rtol=1e-5,
    )


def test_every_parameter_must_be_matched_and_the_first_rule_wins():
    mask = named_leaves(decay_mask((("tab.*", False), (".*", True)), toy(0)))
    assert mask == {"bias": True, "kernel": True, "table": False}
    with pytest.raises(ValueError, match=r"decay_mask matches none of bias, kernel: end it with"):
        decay_mask((("table", False), ("kerne", True)), toy(0))


def test_the_default_mask_spares_norms_and_biases_of_the_model():
    abstract = jax.eval_shape(lambda key: XLM(MODEL, key), jax.random.key(0))
    mask = named_leaves(decay_mask(OptimizerConfig().decay_mask, abstract))
    decayed = {name for name, decays in mask.items() if decays}
    assert "embeddings/tokens" in decayed
    assert "transformer/layers/attention/query/kernel" in decayed
    assert not [name for name in decayed if name.endswith(("bias", "scale"))]
    assert len(decayed) < len(mask)


def test_lion_moves_by_the_sign():
    found = directions(dataclasses.replace(CONFIG, name="lion"), [toy(1)])[0]
    np.testing.assert_array_equal(found["kernel"], np.sign(toy(1).kernel.get_value()))


def test_adafactor_updates_have_a_root_mean_square_of_one_at_most():
    for found in directions(dataclasses.replace(CONFIG, name="adafactor"), [toy(1), toy(2)]):
        for value in found.values():
            assert np.sqrt((value**2).mean()) <= 1.0 + 1e-5


def test_muon_orthogonalises_the_matrices_of_layers_and_leaves_the_rest_to_adam():
    found = directions(dataclasses.replace(CONFIG, name="muon"), [toy(1)])[0]
    adam = directions(CONFIG, [toy(1)])[0]
    for name in ("table", "bias"):
        np.testing.assert_allclose(found[name], adam[name], rtol=1e-6)
    for layer in found["kernel"]:
        # Newton-Schulz leaves singular values in about [0.7, 1.2].
        singular = np.linalg.svd(layer, compute_uv=False) / (0.2 * np.sqrt(9))
        assert singular.min() > 0.6
        assert singular.max() < 1.3


def test_muon_sees_heads_as_one_side_of_a_matrix():
    from xlmjax.training.optimizer import _matrix

    abstract = jax.eval_shape(lambda key: XLM(MODEL, key), jax.random.key(0))
    sides = {name: _matrix(axes) for name, axes in parameter_axes(abstract).items()}
    assert sides["transformer/layers/attention/query/kernel"] == ((1,), (2, 3))
    assert sides["transformer/layers/attention/out/kernel"] == ((1, 2), (3,))
    assert sides["transformer/layers/mlp/wo/kernel"] == ((1,), (2,))
    for name in ("embeddings/tokens", "embeddings/positions", "head/bias"):
        assert sides[name] is None
    assert sides["transformer/layers/attention/query/bias"] is None


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_has_a_sharded_state_with_stable_names(name):
    optimizer = OptimizerConfig(name=name, weight_decay=0.1)
    _, spec = make_spec(MeshConfig(data=1, fsdp=4, tensor=2), optimizer=optimizer)
    names = set(named_leaves(spec.abstract.opt_state))
    assert names
    assert {part.split("/")[0] for part in names} <= {"clip", name, "decay"}
    for leaf in jax.tree.leaves(spec.abstract):
        leaf.sharding.shard_shape(leaf.shape)  # raises where the sharding does not fit


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_pure_dicts_hold_every_leaf_under_its_name(name):
    model = toy(0)
    state = make_optimizer(dataclasses.replace(CONFIG, name=name), model).init(model)
    nested = to_pure_dict(state)
    restored = from_pure_dict(state, nested)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert a is b


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "adam"}, "optimizer.name='adam' is unknown; known: adafactor, adamw, lion, muon"),
        ({"schedule": "step"}, "optimizer.schedule='step' is unknown; known: constant, cosine"),
        ({"b2": 1.5}, r"optimizer.b2=1.5 is outside \[0.0, 1.0\]"),
        ({"warmup_steps": -1}, r"optimizer.warmup_steps=-1 is outside"),
        ({"decay_mask": (("(", True),)}, r"decay_mask: '\(' is not a regular expression"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**fields)
