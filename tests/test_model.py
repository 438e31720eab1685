"""The laws of the encoder: sizes, isolation, padding, causality, dropout, and one code for all.

Laws 4 to 8 and 14 to 18 of XLM that concern the model are here and in `test_parity_hf`.
"""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.model_helpers import (
    CLASSIC,
    MODERN,
    PAD,
    RECIPES,
    VOCAB,
    assert_trees_close,
    randomised,
    rows,
    sentences,
    text,
)
from xlmjax import languages
from xlmjax.configs import base
from xlmjax.models.config import ModelConfig
from xlmjax.models.layers import Rows, zero_padding
from xlmjax.models.transformer import REMAT
from xlmjax.models.xlm import XLM
from xlmjax.ops import dropout

recipes = pytest.mark.parametrize("cfg", RECIPES.values(), ids=RECIPES)


def abstract(cfg):
    return jax.eval_shape(lambda key: XLM(cfg, key), jax.random.key(0))


def size(model):
    return sum(leaf.size for leaf in jax.tree.leaves(model))


def parameters(model):
    """Return path -> parameter."""
    return {"/".join(map(str, path)): p for path, p in nnx.to_flat_state(nnx.state(model))}


@pytest.mark.parametrize(
    ("vocab_size", "embed_dim", "num_layers", "num_heads", "num_languages", "expected"),
    [
        pytest.param(95_000, 1024, 12, 8, 15, 249_071_384, id="XLM-15"),
        pytest.param(64_139, 1024, 6, 8, 2, 141_848_203, id="en-fr"),
        pytest.param(30_145, 2048, 12, 16, 1, 667_119_041, id="XLM_en"),
        pytest.param(200_000, 1280, 16, 16, 0, 571_696_960, id="XLM-17"),
    ],
)
def test_parameter_counts_of_the_paper(
    vocab_size, embed_dim, num_layers, num_heads, num_languages, expected
):
    config = base.get_config().model
    config.update(embed_dim=embed_dim, num_layers=num_layers, num_heads=num_heads)
    config.language_embeddings = num_languages > 0  # XLM-17 has 17 languages and no table
    cfg = ModelConfig.from_config(
        config, vocab_size=vocab_size, language_ids=range(num_languages or 17), pad_id=2
    )
    assert size(abstract(cfg)) == expected == cfg.num_parameters()


VARIANTS = {
    "untied": dataclasses.replace(CLASSIC, tie_embeddings=False),
    "sinusoidal relu": dataclasses.replace(CLASSIC, positions="sinusoidal", mlp="relu"),
    "one language": dataclasses.replace(CLASSIC, language_ids=(4,)),
    "no bias": dataclasses.replace(CLASSIC, bias=False),
    "rms with bias": dataclasses.replace(CLASSIC, norm_kind="rms", mlp="geglu"),
    "pre-norm": dataclasses.replace(CLASSIC, norm="pre"),
    "xlm-r": dataclasses.replace(CLASSIC, position_offset=2, token_types=3, head_transform=True),
    "without norm of embeddings": dataclasses.replace(CLASSIC, embedding_norm=False),
    **RECIPES,
}


@pytest.mark.parametrize("cfg", VARIANTS.values(), ids=VARIANTS)
def test_num_parameters_and_axes_of_every_variant(cfg):
    model = abstract(cfg)
    assert cfg.num_parameters() == size(model)
    named = parameters(model)
    assert len(named) == len(jax.tree.leaves(model))  # parameters and nothing else
    for path, parameter in named.items():
        assert len(parameter.axes) == parameter.ndim, path
        assert (parameter.axes[0] == "layers") == path.startswith("transformer/layers"), path


def test_a_transform_of_the_head_counts_where_words_are_predicted():
    plain = dataclasses.replace(CLASSIC, head_transform=False)
    more = dataclasses.replace(CLASSIC, head_transform=True)
    assert more.flops_per_token(8, 0.5) - plain.flops_per_token(8, 0.5) == 6 * 0.5 * 16**2


@pytest.mark.parametrize(("positions", "offset"), [("rope", 2), ("learned", -1)])
def test_an_offset_of_positions_needs_a_table(positions, offset):
    with pytest.raises(ValueError, match=r"model.position_offset=-?\d: only learned positions"):
        dataclasses.replace(CLASSIC, positions=positions, position_offset=offset)


def test_flops_follow_the_formula_of_the_baselines():
    """6 (12 d^2 L + d V) + 12 L T d where every position is predicted."""
    cfg = ModelConfig(vocab_size=8192, language_ids=(0,), pad_id=2)
    assert cfg.flops_per_token(128, 1.0) == 6 * (12 * 256**2 * 6 + 256 * 8192) + (
        12 * 6 * 128 * 256
    )


@pytest.mark.parametrize("share", [0.125, 1.0])
@pytest.mark.parametrize("mlp", ["gelu", "geglu"])
def test_flops_are_those_of_the_compiled_program(share, mlp):
    """Norms and softmax come on top: a few per cent at this width."""
    cfg = dataclasses.replace(
        CLASSIC,
        embed_dim=256,
        mlp_dim=512,
        vocab_size=1024,
        num_layers=2,
        mlp=mlp,
        scan_layers=False,
        max_positions=64,
    )
    batch, length = 4, 64
    ids = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    picks = jax.ShapeDtypeStruct((batch, int(share * length)), jnp.int32)

    def loss(model, ids, picks):
        hidden = model.encode(ids, ids, ids, ids, picks=picks)
        return model.token_losses(hidden, picks).nll.sum()

    compiled = jax.jit(jax.grad(loss)).lower(abstract(cfg), ids, picks).compile()
    counted = compiled.cost_analysis()["flops"] / (batch * length)
    assert counted == pytest.approx(cfg.flops_per_token(length, share), rel=0.08)


def test_initial_values_are_those_of_xlm():
    cfg = dataclasses.replace(CLASSIC, embed_dim=64, vocab_size=600, tie_embeddings=False)
    named = parameters(XLM(cfg, jax.random.key(0)))
    tokens = np.asarray(named.pop("embeddings/tokens"))
    assert np.all(tokens[PAD] == 0)
    assert np.delete(tokens, PAD, axis=0).std() == pytest.approx(64**-0.5, rel=0.02)
    for name in ("positions", "languages"):
        table = np.asarray(named.pop(f"embeddings/{name}"))
        assert table.std() == pytest.approx(64**-0.5, rel=0.2)
    fan_in = {"query": 64, "key": 64, "value": 64, "out": 64, "wi": 64, "wo": 24, "head": 64}
    for path, parameter in named.items():
        value = np.asarray(parameter)
        if "norm" in path:
            assert np.all(value == (1 if path.endswith("scale") else 0)), path
            continue
        bound = fan_in[path.split("/")[-2]] ** -0.5
        assert np.abs(value).max() <= bound, path
        assert np.abs(value).max() > 0.8 * bound, path
        if value.size > 1000:
            assert value.std() == pytest.approx(bound / 3**0.5, rel=0.05), path
    layers = named["transformer/layers/mlp/wi/kernel"]
    assert np.abs(layers[0] - layers[1]).max() > 0.1  # each layer draws its own


@recipes
@pytest.mark.parametrize("remat", ["none", "full"])
@pytest.mark.parametrize("scan", [True, False])
def test_states_at_some_positions_are_those_of_all_positions(cfg, remat, scan):
    """In value and gradient; the other positions matter as keys and values."""
    whole = randomised(cfg)
    model = XLM(dataclasses.replace(cfg, remat=remat, scan_layers=scan), jax.random.key(0))
    model = jax.tree.unflatten(jax.tree.structure(model), jax.tree.leaves(whole))
    batch = rows([sentences()[:2], sentences()[2:]], 17)
    picks = np.array([[3, 0, 11, 6], [8, 1, 2, 16]])  # the last one is padding

    def score(states):
        return jnp.square(states - 0.1).sum(), states

    def at_picks(model):
        return score(model.encode(*text(batch), picks=picks))

    def everywhere(model):
        return score(jnp.take_along_axis(model.encode(*text(batch)), picks[..., None], axis=1))

    gradient, states = jax.jit(jax.grad(at_picks, has_aux=True))(model)
    expected_gradient, expected = jax.jit(jax.grad(everywhere, has_aux=True))(whole)
    np.testing.assert_allclose(states, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(states[0]).min(axis=-1).max() > 0
    assert np.all(states[1, 3] == 0)
    assert_trees_close(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), atol=1e-5)


def states_by_hand(model, batch):
    """Return the embeddings and the states after each layer, one call a layer."""
    segments = batch["segment_ids"]
    tokens = (batch[name] for name in ("tokens", "positions", "language_ids"))
    states = [zero_padding(model.embeddings(*tokens), segments)]
    for number in range(model.cfg.num_layers):
        layer = jax.tree.map(operator.itemgetter(number), model.transformer.layers)
        states.append(layer(states[-1], Rows(batch["positions"], segments, None), causal=False))
    if model.transformer.final_norm is not None:
        states[-1] = zero_padding(model.transformer.final_norm(states[-1]), segments)
    return states


@recipes
@pytest.mark.parametrize("scan", [True, False])
def test_states_of_every_layer_are_those_of_a_loop_over_layers(cfg, scan):
    whole = randomised(cfg)
    model = XLM(dataclasses.replace(cfg, scan_layers=scan), jax.random.key(0))
    model = jax.tree.unflatten(jax.tree.structure(model), jax.tree.leaves(whole))
    batch = rows([sentences()[:2], sentences()[2:]], 17)
    picks = np.array([[3, 0, 11, 6], [8, 1, 2, 16]])
    expected = jax.jit(states_by_hand)(whole, batch)
    assert len(expected) == cfg.num_layers + 1
    for layer, states in enumerate(expected):
        for name in (layer, layer - len(expected)):
            found = jax.jit(lambda m, name=name: m.encode(*text(batch), layer=name))(model)
            np.testing.assert_allclose(found, states, rtol=1e-5, atol=1e-6)
        at_picks = jax.jit(lambda m, n=layer: m.encode(*text(batch), layer=n, picks=picks))(model)
        some = jnp.take_along_axis(states, picks[..., None], axis=1)
        np.testing.assert_allclose(at_picks, some, rtol=1e-5, atol=1e-6)


def test_layers_above_the_chosen_one_do_not_run():
    batch = rows([sentences()], 24)

    def flops(layer):
        def states(model):
            return model.encode(*text(batch), layer=layer)

        return jax.jit(states).lower(abstract(CLASSIC)).compile().cost_analysis()["flops"]

    none, one, two, three = map(flops, range(4))
    assert two - none == pytest.approx(2 * (one - none), rel=0.3)  # XLA merges some work
    assert three - none == pytest.approx(3 * (one - none), rel=0.3)


@pytest.mark.parametrize("layer", [4, -5])
def test_a_layer_that_the_model_does_not_have_is_refused(layer):
    batch = rows([sentences()], 24)
    message = rf"layer={layer}: the model has model.num_layers=3; give 0 .* to 3, or -1 .* to -4"
    with pytest.raises(ValueError, match=message):
        randomised(CLASSIC).encode(*text(batch), layer=layer)


def test_picks_of_a_causal_model_are_refused():
    batch = rows([sentences()], 24)
    with pytest.raises(ValueError, match="picks of a causal model"):
        randomised(CLASSIC).encode(*text(batch), causal=True, picks=np.zeros((1, 2), np.int32))


@jax.jit
def encode(model, batch, key=None):
    return model.encode(*text(batch), key=key, row_ids=batch["row_ids"])


def token_nll(model, batch):
    """Score every real token from the state above it; any targets do for these laws."""
    hidden = encode(model, batch)
    losses = model.token_losses(hidden, (batch["tokens"] + 3) % VOCAB)
    return (losses.nll * (batch["segment_ids"] != 0)).sum()


LAYOUTS = {
    "one a row": ([[0], [1], [2], [3]], 9),
    "one a row, more padding": ([[0], [1], [2], [3]], 14),
    "packed in one row": ([[0, 1, 2, 3]], 24),
    "packed in another order": ([[2, 3, 1], [0]], 20),
}


@functools.cache
def loss_in_layout(cfg, layout):
    """Return loss and gradient of the same sentences in a layout."""
    groups, length = LAYOUTS[layout]
    examples = sentences()
    batch = rows([[examples[i] for i in group] for group in groups], length)
    return jax.jit(jax.value_and_grad(token_nll))(randomised(cfg), batch)


@recipes
@pytest.mark.parametrize("layout", list(LAYOUTS)[1:])
def test_packing_and_padding_change_neither_loss_nor_gradient(cfg, layout):
    expected, expected_gradient = loss_in_layout(cfg, "one a row")
    actual, gradient = loss_in_layout(cfg, layout)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert_trees_close(gradient, expected_gradient, rtol=1e-5, atol=2e-5)


@recipes
def test_no_gradient_across_segments(cfg):
    """The jacobian of one segment's states with respect to another's embeddings is exactly 0."""
    model = randomised(cfg)
    batch = rows([sentences()[:2], sentences()[2:]], 15)

    def states(model):
        return encode(model, batch)[0]  # [l e], of row 0

    # Where the gradient of a token's embedding comes from: the segments that hold the token.
    tokens, segments = batch["tokens"][0], batch["segment_ids"][0]
    jacobian = jax.jit(jax.jacrev(states))(model).embeddings.tokens[...]  # [l e, v e]
    strength = np.abs(jacobian).max(axis=(1, 3))  # [l, v]
    for token in np.unique(tokens[segments != 0]):
        owners = set(segments[tokens == token])
        foreign = ~np.isin(segments, list(owners)) | (segments == 0)
        assert np.all(strength[foreign, token] == 0)
        assert np.all(strength[~foreign, token] > 0)
    only_in_row_1 = np.setdiff1d(batch["tokens"][1], tokens)
    assert np.all(strength[:, only_in_row_1] == 0)


@recipes
def test_states_are_zero_at_padding_and_padding_is_never_seen(cfg):
    model = randomised(cfg)
    batch = rows([[example] for example in sentences()], 12)
    padding = batch["segment_ids"] == 0
    hidden = encode(model, batch)
    assert np.all(np.asarray(hidden)[padding] == 0)
    batch["tokens"] = np.where(padding, 9, batch["tokens"])
    batch["positions"] = np.where(padding, 3, batch["positions"])
    np.testing.assert_array_equal(encode(model, batch), hidden)


@pytest.mark.parametrize("tied", [True, False])
def test_the_pad_row_learns_from_the_output_projection_only(tied):
    cfg = dataclasses.replace(CLASSIC, tie_embeddings=tied)
    batch = rows([[example] for example in sentences()], 12)
    gradient = jax.jit(jax.grad(token_nll))(randomised(cfg), batch)
    assert (np.abs(gradient.embeddings.tokens[PAD]).max() > 0) == tied


@recipes
def test_a_causal_state_does_not_depend_on_later_tokens(cfg):
    model = randomised(cfg)
    example = (np.arange(6, 15), 4)  # nine different tokens
    batch = rows([[example]], 11)

    def states(model, causal):
        return model.encode(*text(batch), causal=causal)[0]

    for causal in (True, False):
        gradient = jax.jit(jax.jacrev(functools.partial(states, causal=causal)))(model)
        strength = np.abs(gradient.embeddings.tokens[...]).max(axis=(1, 3))[:9, 6:15]
        expected = np.tri(9) if causal else np.ones((9, 9))
        np.testing.assert_array_equal(strength > 0, expected)


def test_rotary_positions_are_relative_and_learned_ones_are_not():
    batch = rows([[sentences()[1]]], 9)
    moved = {**batch, "positions": batch["positions"] + 5}
    for cfg, same in ((MODERN, True), (CLASSIC, False)):
        model = randomised(cfg)
        hidden, other = encode(model, batch), encode(model, moved)
        assert np.allclose(hidden, other, rtol=1e-4, atol=1e-5) == same
        stirred = {**batch, "positions": batch["positions"][:, ::-1]}
        assert not np.allclose(hidden, encode(model, stirred), atol=1e-3)


def test_language_ids_find_their_rows_in_the_order_of_the_config():
    """XLM's rows follow the sorted codes, whatever order the languages are given in."""
    codes = sorted(("fr", "en", "de"))
    ids = languages.ids(codes)
    model = randomised(dataclasses.replace(CLASSIC, language_ids=ids))
    batch = rows([[sentences()[0]]], 5)
    for row, code in enumerate(codes):
        batch["language_ids"] = np.full_like(batch["tokens"], languages.get(code).id)
        hidden = encode(model, batch)
        single = jax.tree.map(lambda x: x, model)
        single.embeddings.languages[...] = jnp.roll(model.embeddings.languages[...], -row, axis=0)
        batch["language_ids"] = np.full_like(batch["tokens"], ids[0])
        np.testing.assert_allclose(encode(single, batch), hidden, rtol=1e-6)


@functools.cache
def loss_and_gradient(cfg, **changes):
    """Return loss and gradient leaves, with dropout, of `cfg`'s parameters run as `changes` say."""
    model = randomised(cfg)
    leaves = jax.tree.leaves(model)
    tree = jax.tree.structure(abstract(dataclasses.replace(cfg, **changes)))
    batch = rows([sentences()[:2], sentences()[2:]], 15)

    def loss(model):
        hidden = encode(model, batch, jax.random.key(9))
        return model.token_losses(hidden, batch["tokens"]).nll.sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(jax.tree.unflatten(tree, leaves))
    return value, jax.tree.leaves(gradient)


@recipes
@pytest.mark.parametrize(
    "changes",
    [
        {"scan_layers": False},
        {"remat": "full"},
        {"remat": "dots"},
        {"remat": "full", "scan_layers": False},
        {"head_tile": 10},
    ],
    ids=str,
)
def test_scan_remat_and_tiles_change_nothing(cfg, changes):
    expected, expected_gradient = loss_and_gradient(cfg)
    actual, gradient = loss_and_gradient(cfg, **changes)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    assert_trees_close(gradient, expected_gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_remat_saves_memory():
    def temporary(remat):
        cfg = dataclasses.replace(CLASSIC, num_layers=8, remat=remat)
        batch = rows([sentences()] * 4, 36)

        def loss(model):
            return encode(model, batch, jax.random.key(0)).sum()

        compiled = jax.jit(jax.grad(loss)).lower(abstract(cfg)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    sizes = {remat: temporary(remat) for remat in ("none", *REMAT)}
    assert sizes["full"] < sizes["dots"] < sizes["none"]


@recipes
def test_bfloat16_stays_near_float32(cfg):
    batch = rows([sentences()[:2], sentences()[2:]], 15)
    exact = randomised(cfg)
    rough = jax.tree.unflatten(
        jax.tree.structure(abstract(dataclasses.replace(cfg, dtype="bfloat16"))),
        jax.tree.leaves(exact),
    )
    hidden = encode(rough, batch)
    assert hidden.dtype == jnp.bfloat16
    assert rough.logits(hidden).dtype == jnp.float32
    expected = encode(exact, batch)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(hidden.astype(jnp.float32) / scale, expected / scale, atol=2e-2)
    gradient = jax.jit(jax.grad(token_nll))(rough, batch)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(gradient)} == {"float32"}


def test_dropout_depends_on_key_and_row_id_only():
    model = randomised(CLASSIC)
    batch = rows([[example] for example in sentences()], 10)
    key = jax.random.key(2)
    whole = encode(model, batch, key)
    order = np.array([2, 0, 3, 1])
    turned = encode(model, {name: value[order] for name, value in batch.items()}, key)
    np.testing.assert_allclose(turned, whole[order], rtol=1e-5, atol=1e-6)
    part = encode(model, {name: value[1:3] for name, value in batch.items()}, key)
    np.testing.assert_allclose(part, whole[1:3], rtol=1e-5, atol=1e-6)
    assert np.abs(encode(model, batch, jax.random.key(3)) - whole).max() > 0.1
    other_rows = encode(model, {**batch, "row_ids": batch["row_ids"] + 1}, key)
    assert np.abs(other_rows - whole).max() > 0.1
    without = encode(model, batch)
    assert np.abs(without - whole).max() > 0.1


@pytest.mark.parametrize("site", ["dropout", "attention_dropout"])
def test_each_rate_acts_and_no_rate_is_no_dropout(site):
    batch = rows([sentences()[:2]], 15)
    rates = {"dropout": 0.0, "attention_dropout": 0.0}
    still = randomised(dataclasses.replace(CLASSIC, **rates))
    moving = randomised(dataclasses.replace(CLASSIC, **{**rates, site: 0.3}))
    key = jax.random.key(0)
    plain = encode(still, batch)
    np.testing.assert_array_equal(encode(still, batch, key), plain)
    assert np.abs(encode(moving, batch, key) - plain).max() > 0.01


@pytest.mark.parametrize("scan_layers", [True, False])
def test_every_place_of_every_layer_drops_other_elements(monkeypatch, scan_layers):
    """Two words of 32 bits a row tell the places apart: no two places may have the same."""
    seen = []
    draw = dropout.Dropout.keep

    def spy(self, shape):
        jax.debug.callback(lambda seeds: seen.append(tuple(np.ravel(seeds))), self.seeds)
        return draw(self, shape)

    monkeypatch.setattr(dropout.Dropout, "keep", spy)
    model = randomised(dataclasses.replace(CLASSIC, scan_layers=scan_layers))
    batch = rows([sentences()[:2]], 15)
    jax.block_until_ready(model.encode(*text(batch), key=jax.random.key(0)))
    jax.effects_barrier()
    assert len(seen) == len(set(seen)) == 1 + 3 * CLASSIC.num_layers


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"positions": "rotary"},
            r"model.positions='rotary': choose learned \| sinusoidal \| rope",
        ),
        ({"num_heads": 3}, r"model.embed_dim=16: give a multiple of model.num_heads=3"),
        ({"dropout": 1.0}, r"model.dropout=1.0: give a share in \[0, 1\)"),
        ({"num_layers": 0}, r"model.num_layers=0: give a positive number"),
        ({"attention": "flash9"}, r"model.attention='flash9': choose auto \| .*xla"),
        ({"language_ids": (4, 4)}, r"model.language_ids=\(4, 4\): name every language"),
        ({"head_tile": -2}, r"model.head_tile=-2.*-1 to tile"),
        ({"pad_id": VOCAB}, r"model.pad_id=47: the vocabulary has 47"),
        ({"pooling": "max"}, r"model.pooling='max': choose first \| mean \| difference"),
        ({"pooling": "difference", "eos_id": -1}, r"model.eos_id=-1: .*the id of the end symbol"),
        ({"positions": "rope", "num_heads": 16}, r"needs an even width per head, not 1"),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_remedy(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CLASSIC, **changes)


def test_a_row_longer_than_the_positions_is_refused():
    batch = rows([sentences()], 40)
    with pytest.raises(ValueError, match=r"rows of 40 tokens.*model.max_positions=36"):
        abstract(CLASSIC).encode(*text(batch))
    hidden = randomised(MODERN).encode(*text(batch))
    assert hidden.shape == (1, 40, 16)


def test_config_fields_are_those_of_the_base_config():
    facts = {"vocab_size", "language_ids", "pad_id", "eos_id", "num_labels", "reads_source"}
    fields = {field.name: field.default for field in dataclasses.fields(ModelConfig)}
    assert set(base.get_config().model) == set(fields) - facts
    assert dict(base.get_config().model) == {k: v for k, v in fields.items() if k not in facts}
