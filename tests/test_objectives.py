"""Objectives: what counts, for whom, and that no layout or device changes it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests.model_helpers import (
    CLASSIC,
    EOS,
    MASK,
    MODERN,
    RECIPES,
    SPECIALS,
    VOCAB,
    assert_trees_close,
    randomised,
    rows,
    sentences,
)
from xlmjax.configs import base
from xlmjax.objectives import (
    OBJECTIVES,
    CausalLanguageModel,
    LanguageModel,
    MaskedLanguageModel,
    Specials,
)
from xlmjax.ops.schedules import constant, piecewise

KEY = jax.random.key(11)
NUM_TASKS = 2


def masked(rate=0.4, **fields):
    return MaskedLanguageModel(SPECIALS, constant(rate), num_tasks=NUM_TASKS, **fields)


def causal(**fields):
    return CausalLanguageModel(num_tasks=NUM_TASKS, **fields)


BOTH = pytest.mark.parametrize("make", [masked, causal])


def pair_row(length=17):
    """`</s> a </s> </s> b </s>` in one segment: positions restart, the language changes."""
    (first, language), (second, other) = sentences()[:2]
    batch = rows([[(np.concatenate([first, second]), language)]], length)
    start, stop = len(first), len(first) + len(second)
    batch["positions"][0, start:stop] = np.arange(len(second))
    batch["language_ids"][0, start:stop] = other
    return batch


def packed(copies=1):
    """Four rows of mixed lengths, tasks and languages, `copies` times with other row ids."""
    examples = sentences()
    groups = [examples[:2], examples[2:], [examples[1]], [examples[3], examples[0]]]
    return rows(groups * copies, 16)


@functools.partial(jax.jit, static_argnums=(0, 4))
def loss(objective, model, batch, key=KEY, deterministic=False):
    return objective.loss(model, batch, key, 0, deterministic)


@BOTH
def test_metrics_by_language_and_by_task_add_up(make):
    out = loss(make(z_loss=0.3), randomised(CLASSIC), packed())
    assert out.weight == out.metrics["loss"].weight > 10
    for name in ("loss", "accuracy"):
        total = out.metrics[name]
        for kind in ("language", "task"):
            parts = out.metrics[f"{kind}/{name}"]
            np.testing.assert_allclose(parts.sum.sum(), total.sum, rtol=1e-5)
            assert parts.weight.sum() == total.weight
        languages = out.metrics[f"language/{name}"]
        assert set(np.flatnonzero(languages.weight)) <= {2, 4, 9}
        assert out.metrics[f"task/{name}"].sum.shape == (NUM_TASKS,)
    assert out.sum > out.metrics["loss"].sum + 0.1  # the z-loss is optimised, not reported


def test_causal_metrics_against_a_count_by_hand():
    """Position t predicts t + 1 of its segment: `</s> a b </s>` predicts a, b and </s> (law 18)."""
    out = loss(causal(), randomised(CLASSIC), packed())
    sizes = [len(tokens) for tokens, _ in sentences()]  # 5, 9, 3 and 7 tokens
    by_row = [sizes[0] + sizes[1] - 2, sizes[2] + sizes[3] - 2, sizes[1] - 1, 12 - 2]
    assert by_row == [12, 8, 8, 10]
    np.testing.assert_array_equal(out.metrics["task/loss"].weight, [12 + 8, 8 + 10])
    by_language = out.metrics["language/loss"].weight
    assert by_language[2] == 2 * (5 - 1)
    assert by_language[9] == 3 - 1


def test_causal_loss_of_one_sentence_against_its_logits():
    model = randomised(MODERN)
    batch = rows([[sentences()[0]]], 6)
    tokens = batch["tokens"][0]
    assert tokens[0] == tokens[4] == EOS
    encode = functools.partial(model.encode, causal=True)
    hidden = encode(*(batch[n] for n in ("tokens", "positions", "segment_ids", "language_ids")))
    scores = jax.nn.log_softmax(model.logits(hidden[0]))
    expected = -sum(scores[t, tokens[t + 1]] for t in range(4))
    out = loss(causal(), model, batch, KEY, True)
    assert out.weight == 4
    np.testing.assert_allclose(out.sum, expected, rtol=1e-5)


def test_causal_prediction_runs_over_a_pair_and_counts_for_the_predicted_language():
    out = loss(causal(), randomised(CLASSIC), pair_row())
    weights = out.metrics["language/loss"].weight
    assert out.weight == 14 - 1
    assert weights[2] == 5 - 1
    assert weights[4] == 9  # the first </s> of the second sentence too


def test_masked_targets_of_a_pair_row_are_of_both_languages():
    """TLM: only position 0 is spared; the inner </s> may be targets, each in its language."""
    batch, objective = pair_row(), masked(rate=0.5)
    seen = np.zeros(17)
    for seed in range(60):
        picks = objective.mask(batch, jax.random.key(seed), 0)
        np.add.at(seen, np.asarray(picks.picks[0]), np.asarray(picks.weights[0]))
    assert seen[0] == 0
    assert np.all(seen[1:14] > 0)
    assert np.all(seen[14:] == 0)
    weights = loss(objective, randomised(CLASSIC), batch).metrics["language/loss"].weight
    assert weights[2] > 0
    assert weights[4] > 0


def test_masked_loss_sees_the_corrupted_tokens_and_scores_the_clean_ones():
    model, batch, objective = randomised(CLASSIC), packed(), masked()
    picked = objective.mask(batch, jax.random.split(KEY)[0], 0)
    names = ("positions", "segment_ids", "language_ids")
    hidden = model.encode(picked.inputs, *(batch[name] for name in names))
    scores = jax.nn.log_softmax(model.logits(hidden))
    expected = -sum(
        scores[row, place, batch["tokens"][row, place]] * weight
        for row in range(4)
        for place, weight in zip(picked.picks[row], picked.weights[row], strict=True)
    )
    out = loss(objective, model, batch, KEY, True)
    np.testing.assert_allclose(out.sum, expected, rtol=1e-5)
    assert out.weight == picked.weights.sum()


def test_the_rate_follows_its_schedule_without_a_new_compilation():
    objective = MaskedLanguageModel(SPECIALS, piecewise(((0, 0.0), (10, 0.8))))
    batch = packed(4)
    count = jax.jit(lambda step: objective.mask(batch, KEY, step).weights.sum())
    eligible = 4 * (12 + 8 + 8 + 10)
    for step, rate in ((0, 0.0), (5, 0.4), (10, 0.8), (99, 0.8)):
        assert count(step) == pytest.approx(eligible * rate, abs=len(batch["tokens"]))
    assert count._cache_size() == 1


def test_sample_alpha_spares_special_and_unseen_tokens_and_prefers_rare_ones():
    counts = np.zeros(VOCAB)
    counts[6:46] = 10_000
    counts[10] = 1
    objective = MaskedLanguageModel(
        Specials(
            pad=2, eos=EOS, mask=MASK, size=VOCAB, counts={"en": counts / 4, "fr": 0.75 * counts}
        ),
        constant(0.2),
        sample_alpha=0.5,
    )
    tokens = np.array([EOS, 7, 8, EOS, 9, 10, 46, 11, 12, 13, 14])  # nine after the first
    batch = rows([[(tokens, 4)]] * 400, 13)
    picked = objective.mask(batch, KEY, 0)
    chosen = np.zeros((400, 13))
    np.add.at(chosen, (np.arange(400)[:, None], np.asarray(picked.picks)), picked.weights)
    assert np.all(chosen[:, [0, 3, 6, 11, 12]] == 0)  # separators, unseen, padding
    assert chosen[:, 5].mean() > 0.9  # a hundred times the weight of the others
    assert chosen.sum() == pytest.approx(400 * 0.2 * 10, rel=0.01)  # the rate is that of all


def test_evaluation_masks_are_fixed_plain_and_spare_both_ends():
    """Law 7: the same masks whenever it runs, only mask tokens, a target in every sentence."""
    batch = rows([[example] for example in sentences()], 10)
    objective = masked(rate=0.1).for_evaluation()
    first = objective.mask(batch, KEY, 0)
    again = objective.mask(batch, KEY, 1_000)
    np.testing.assert_array_equal(first.inputs, again.inputs)
    np.testing.assert_array_equal(first.weights.sum(axis=1), 1)
    for row, (tokens, _) in enumerate(sentences()):
        place = int(first.picks[row, 0])
        assert 0 < place < len(tokens) - 1
        assert first.inputs[row, place] == MASK
        np.testing.assert_array_equal(
            np.delete(first.inputs[row], place), np.delete(batch["tokens"][row], place)
        )


@BOTH
@pytest.mark.parametrize("cfg", RECIPES.values(), ids=RECIPES)
def test_loss_and_gradient_are_the_same_on_eight_devices_and_in_microbatches(make, cfg):
    """With dropout: masks and dropped elements follow the rows wherever they are computed."""
    model, batch = randomised(cfg), packed(2)
    objective = make()

    def total(model, batch):
        out = objective.loss(model, batch, KEY, 0)
        return out.sum, out

    both = jax.jit(jax.value_and_grad(total, has_aux=True))
    (_, expected), expected_gradient = both(model, batch)

    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    rows_apart = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    (_, actual), gradient = both(jax.device_put(model, whole), jax.device_put(batch, rows_apart))
    assert_trees_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert_trees_close(gradient, expected_gradient, rtol=1e-5, atol=5e-5)

    halves = [{name: value[part::2] for name, value in batch.items()} for part in (0, 1)]
    (_, even), even_gradient = both(model, halves[0])
    (_, odd), odd_gradient = both(model, halves[1])
    assert_trees_close(even + odd, expected, rtol=1e-5, atol=1e-5)
    summed = jax.tree.map(jnp.add, even_gradient, odd_gradient)
    assert_trees_close(summed, expected_gradient, rtol=1e-5, atol=5e-5)


@BOTH
def test_dropout_only_where_it_is_asked_for(make):
    model, batch, objective = randomised(CLASSIC), packed(), make()
    still = randomised(dataclasses.replace(CLASSIC, dropout=0.0, attention_dropout=0.0))
    without = loss(objective, model, batch, KEY, True)
    np.testing.assert_allclose(without.sum, loss(objective, still, batch).sum, rtol=1e-6)
    assert abs(float(loss(objective, model, batch).sum - without.sum)) > 0.1


@pytest.mark.parametrize("name", ["causal_lm", "classification", "masked_lm"])
def test_every_objective_of_an_encoder_comes_from_its_group_of_the_config(name):
    group = base.objective(name, rate=((0, 0.3), (100, 0.15)), labels=("no", "yes"))
    objective = OBJECTIVES[name].from_config(group, SPECIALS, num_tasks=NUM_TASKS, z_loss=1e-4)
    batch = packed()
    labels = np.where(batch["positions"] == 0, 1, -1)
    model = randomised(dataclasses.replace(CLASSIC, num_labels=2))
    out = loss(objective, model, {**batch, "labels": labels})
    assert np.isfinite(out.sum)
    assert out.metrics["task/loss"].sum.shape == (NUM_TASKS,)
    assert isinstance(objective, LanguageModel) == (name != "classification")
    if isinstance(objective, LanguageModel):
        assert objective.for_evaluation().num_tasks == NUM_TASKS


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rate": 1.2}, r"rates lie in \[0, 1\)"),
        ({"rate": 0.3, "max_rate": 0.2}, r"max_rate=0.2: .*max_rate bounds them all"),
        ({"mask_keep_random": (0.8, 0.1, 0.2)}, r"mask_keep_random=.*sum to 1"),
        ({"sample_alpha": 1.5}, r"sample_alpha=1.5: give a number in"),
        ({"sample_alpha": 0.5}, r"sample_alpha=0.5 needs the counts"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(fields, message):
    with pytest.raises(ValueError, match=message):
        masked(**fields)


def test_schedules_are_piecewise_linear_and_constant_outside():
    schedule = piecewise(((10, 1.0), (20, 0.1), (40, 0.0)))
    steps = jnp.array([0, 10, 15, 20, 30, 40, 10**6])
    np.testing.assert_allclose(
        jax.jit(jax.vmap(schedule))(steps), [1, 1, 0.55, 0.1, 0.05, 0, 0], rtol=1e-6, atol=1e-7
    )
    assert (schedule.minimum, schedule.maximum) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("points", "zeros"),
    [
        (((0, 1.0),), 0),
        (((0, 0.0),), 96),
        (((20, 0.0), (21, 1.0)), 21),  # steps 0 to 20
        (((0, 1.0), (50, 0.1), (90, 0.0)), 6),  # 90 to 95
    ],
)
def test_steps_at_which_a_schedule_is_0_are_counted(points, zeros):
    assert piecewise(points).zeros(96) == zeros


@pytest.mark.parametrize("points", [(), ((5, 1.0), (5, 2.0)), ((5, 1.0), (3, 2.0)), (0.15,)])
def test_a_wrong_schedule_is_named(points):
    with pytest.raises(ValueError, match="rate = "):
        piecewise(points, "rate")
