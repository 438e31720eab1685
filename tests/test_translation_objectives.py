"""Translation, denoising, back-translation: what is predicted from what, and for whom."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_helpers import (
    CLASSIC,
    EOS,
    LANGUAGES,
    MODERN,
    PAD,
    SPECIALS,
    VOCAB,
    assert_trees_close,
    randomised,
    rows,
    sentences,
)
from xlmjax.configs import base
from xlmjax.languages import LANGUAGES as TABLE
from xlmjax.models.config import ModelConfig
from xlmjax.models.generation import Source, generate
from xlmjax.objectives import OBJECTIVES, BackTranslation, Denoising, Translation
from xlmjax.objectives.translation import TeacherForcing, text_of
from xlmjax.ops.noising import Noise

KEY = jax.random.key(3)
CFG = dataclasses.replace(CLASSIC, decoder_layers=2)
RECIPES = {
    "classic": CFG,
    "modern, one table": dataclasses.replace(MODERN, decoder_layers=2, share_embeddings=True),
}
recipes = pytest.mark.parametrize("cfg", RECIPES.values(), ids=RECIPES)
CODES = [TABLE[i].code for i in LANGUAGES]


@functools.partial(jax.jit, static_argnums=(0, 4))
def loss(objective, model, batch, key=KEY, deterministic=False):
    return objective.loss(model, batch, key, 0, deterministic)


def pairs(groups, length=24):
    """Return the batch of pairs of sentences (i, j) of the helpers, packed as in `groups`."""
    examples = sentences()
    batch = rows([[examples[i] for i, _ in group] for group in groups], length)
    target = rows([[examples[j] for _, j in group] for group in groups], length)
    names = ("tokens", "positions", "segment_ids", "language_ids")
    return batch | {f"target_{name}": target[name] for name in names}


def by_hand(model, source, target, smoothing):
    """Return summed loss, summed nll and number of predictions of one pair, from the logits."""
    batch = rows([[source]], len(source[0]))
    memory = model.read(text_of(batch))
    goal = text_of(rows([[target]], len(target[0])))
    log_p = jax.nn.log_softmax(model.target_logits(model.decode(goal, memory)))[0]
    words = target[0][1:]
    nll = -sum(float(log_p[t, word]) for t, word in enumerate(words))
    uniform = -float(log_p[: len(words)].mean(axis=1).sum())
    return (1 - smoothing) * nll + smoothing * uniform, nll, len(words)


@recipes
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_each_pair_alone(cfg, smoothing):
    model, examples = randomised(cfg), sentences()
    groups = [[(0, 1), (2, 3)], [(3, 2)]]
    out = loss(Translation(TeacherForcing(smoothing, 2)), model, pairs(groups), KEY, True)
    found = [
        by_hand(model, examples[i], examples[j], smoothing) for group in groups for i, j in group
    ]
    total, nll, count = map(sum, zip(*found, strict=True))
    np.testing.assert_allclose(out.sum, total, rtol=1e-5)
    np.testing.assert_allclose(out.metrics["loss"].sum, nll, rtol=1e-5)
    assert out.weight == count == sum(len(examples[j][0]) - 1 for g in groups for _, j in g)
    by_language = out.metrics["language/loss"].weight
    assert by_language[examples[1][1]] == len(examples[1][0]) - 1 + len(examples[3][0]) - 1


def test_what_follows_is_not_seen_and_padding_counts_for_nothing():
    model, batch = randomised(CFG), pairs([[(0, 1)]])
    objective = Translation(TeacherForcing())
    whole = loss(objective, model, batch, KEY, True)
    longer = {
        name: np.pad(x, ((0, 0), (0, 6)), constant_values=PAD if name.endswith("tokens") else 0)
        if x.ndim == 2
        else x
        for name, x in batch.items()
    }
    assert_trees_close(loss(objective, model, longer, KEY, True).sum, whole.sum)

    @jax.jit
    def states(tokens):
        target = text_of(batch, "target_")._replace(tokens=tokens)
        return model.decode(target, model.read(text_of(batch)))

    tokens = jnp.asarray(batch["target_tokens"])
    changed = states(tokens.at[0, 4].add(1)) != states(tokens)
    assert not changed[0, :4].any()
    assert changed[0, 4:9].any(axis=-1).all()


@recipes
def test_an_encoder_may_do_without_languages_which_a_decoder_has(cfg):
    model = randomised(dataclasses.replace(cfg, language_embeddings=False))
    batch = pairs([[(0, 1), (2, 3)]])
    source, target = text_of(batch), text_of(batch, "target_")

    def changed(text):
        other = jnp.where(text.language_ids == LANGUAGES[0], LANGUAGES[1], LANGUAGES[0])
        return text._replace(language_ids=other)

    @jax.jit
    def run(source, target):
        memory = model.read(source)
        return memory.states, model.decode(target, memory)

    (states, written), (as_other, _) = run(source, target), run(changed(source), target)
    np.testing.assert_array_equal(states, as_other)
    assert (run(source, changed(target))[1] != written).any()
    assert (model.encoder.embeddings.languages is not None) == cfg.share_embeddings
    size = sum(leaf.size for leaf in jax.tree.leaves(model))
    assert size == model.cfg.num_parameters()


@recipes
@pytest.mark.slow
def test_each_half_is_trained_and_tables_are_two_unless_shared(cfg):
    model, batch = randomised(cfg), pairs([[(0, 1), (2, 3)]])
    objective = Translation(TeacherForcing())
    gradient = jax.grad(lambda m: loss(objective, m, batch).sum)(model)
    for leaf in jax.tree.leaves((gradient.encoder.transformer, gradient.decoder)):
        assert jnp.abs(leaf).max() > 0
    assert (gradient.decoder.embeddings is None) == cfg.share_embeddings
    size = sum(leaf.size for leaf in jax.tree.leaves(model))
    assert size == cfg.num_parameters()


def test_parameter_counts_of_the_paper():
    config = base.get_config().model
    config.update(embed_dim=1024, num_layers=6, num_heads=8, decoder_layers=6)
    cfg = ModelConfig.from_config(config, vocab_size=64_139, language_ids=(4, 6), pad_id=2)
    assert cfg.num_parameters() == 141_848_203 + 167_050_891


def test_denoising_without_noise_is_translation_into_itself():
    model, batch = randomised(CFG), pairs([[(0, 0), (2, 2)], [(1, 1)]])
    quiet = Denoising(SPECIALS, TeacherForcing(), Noise(0, 0, 0))
    clean = loss(Translation(TeacherForcing()), model, batch, KEY, True)
    assert_trees_close(loss(quiet, model, batch, KEY, True), clean)
    noisy = Denoising(SPECIALS, TeacherForcing(), Noise(3, 0.5, 0.5))
    assert loss(noisy, model, batch, KEY, True).sum != clean.sum
    assert loss(noisy, model, batch, KEY, True).weight == clean.weight


def alone(order=(0, 1, 2, 3)):
    examples = sentences()
    return rows([[examples[i]] for i in order], 10)


STEPS = tuple(f"{a}-{b}-{a}" for a, b in zip(CODES, [*CODES[1:], CODES[0]], strict=True))


def back(**fields):
    return BackTranslation(SPECIALS, TeacherForcing(), STEPS, **fields)


@recipes
@pytest.mark.slow
def test_back_translation_is_translation_of_its_own_translations(cfg):
    """Value and gradient: none flows through the translations, which see no dropout."""
    cfg = dataclasses.replace(cfg, dropout=0.5)
    model, batch = randomised(cfg), alone()
    objective = back()
    run = jax.jit(lambda m, key: objective.translate(m, batch, key))
    translations = run(model, KEY)
    assert_trees_close(run(model, jax.random.key(99)), translations)
    source_lengths = (batch["segment_ids"] != 0).sum(axis=1)
    lengths = (np.asarray(translations.segment_ids) != 0).sum(axis=1)
    assert translations.tokens.shape[1] == math.floor(1.3 * 10 + 5)
    assert (lengths <= np.floor(1.3 * source_lengths + 5)).all()
    via = dict(zip(LANGUAGES, [*LANGUAGES[1:], LANGUAGES[0]], strict=True))
    assert translations.language_ids[:, 0].tolist() == [
        via[language] for _, language in sentences()
    ]
    assert ((np.asarray(translations.tokens) == EOS).sum(axis=1) == 2).all()

    key_dropout = jax.random.split(KEY)[1]

    def on_fixed(model):
        out = objective.forcing.loss(model, translations, text_of(batch), batch, key_dropout)
        return out.sum

    value, gradient = jax.jit(jax.value_and_grad(on_fixed))(model)
    other, own = jax.jit(jax.value_and_grad(lambda m: loss(objective, m, batch).sum))(model)
    np.testing.assert_allclose(value, other, rtol=1e-5)
    assert_trees_close(own, gradient, rtol=1e-4, atol=1e-5)


def test_translations_are_those_of_greedy_decoding():
    model, batch = randomised(CFG), alone()
    translations = jax.jit(lambda m: back().translate(m, batch, KEY))(model)
    source = Source(*(jnp.asarray(batch[n]) for n in ("tokens", "segment_ids", "language_ids")))
    lengths = (batch["segment_ids"] != 0).sum(axis=1)
    limits = jnp.asarray(np.floor(1.3 * lengths + 5), jnp.int32)
    run = functools.partial(generate, max_length=18, eos=EOS, pad=PAD)
    greedy = jax.jit(run)(model, source, translations.language_ids[:, 0], limits)
    np.testing.assert_array_equal(greedy.tokens[:, 0], translations.tokens)


@pytest.mark.parametrize("cfg", [RECIPES["modern, one table"]])
def test_packed_sentences_are_translated_and_learned_from_as_if_alone(cfg):
    """Value and gradient; the translations stand where their sources do."""
    model, examples = randomised(cfg), [tokens for tokens, _ in sentences()]
    grouped = [[(examples[0], 0), (examples[2], 0), (examples[1], 0)], [(examples[3], 1)]]
    by_language = [[(tokens, LANGUAGES[nth]) for tokens, nth in row] for row in grouped]
    packed = rows(by_language, 32)
    single = rows([[sentence] for row in by_language for sentence in row], 10)

    @functools.partial(jax.jit, static_argnums=0)
    def run(objective, batch):
        def value(model):
            return objective.loss(model, batch, KEY, 0, deterministic=True).sum

        return objective.translate(model, batch, KEY), *jax.value_and_grad(value)(model)

    one, expected, gradient_alone = run(back(), single)
    many, found, gradient = run(back(sentences=4, sentence_length=10), packed)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert_trees_close(gradient, gradient_alone, rtol=1e-4, atol=1e-5)
    assert many.tokens.shape == (2, math.floor(1.3 * 32 + 5 * 4))
    for row, segment, nth in ((0, 1, 0), (0, 2, 1), (0, 3, 2), (1, 1, 3)):
        inside, whole = many.segment_ids[row] == segment, one.segment_ids[nth] != 0
        for together, apart in zip(many, one, strict=True):
            if together is not many.segment_ids:
                np.testing.assert_array_equal(together[row][inside], apart[nth][whole])
    assert set(np.asarray(many.tokens[many.segment_ids == 0]).tolist()) <= {PAD}
    assert many.segment_ids[1].max() == 1


def test_translations_are_written_in_frequent_tokens_of_their_language():
    counts = {code: np.zeros(VOCAB, np.int64) for code in CODES}
    for nth, code in enumerate(CODES):
        counts[code][[6 + 10 * nth, 9 + 10 * nth]] = 3  # not in the text of the others
        counts[code][33:40] = 2
    specials = dataclasses.replace(SPECIALS, counts=counts)
    model, batch, tokens = randomised(CFG), alone(), {}
    for least in (0, 2, 3):
        objective = BackTranslation(
            specials, TeacherForcing(), STEPS, temperature=9.0, min_count=least
        )
        found = jax.jit(lambda m, bt=objective: bt.translate(m, batch, KEY))(model)
        tokens[least] = [set(row[row != PAD].tolist()) for row in np.asarray(found.tokens)]
        languages = [TABLE[i].code for i in found.language_ids[:, 0]]
    for least in (2, 3):
        for row, code in zip(tokens[least], languages, strict=True):
            assert row <= {EOS, *np.flatnonzero(counts[code] >= least).tolist()}
        assert set.union(*tokens[least]) > {EOS}  # otherwise nothing was written
    assert set.union(*tokens[2]) & {*range(33, 40)}
    assert set.union(*tokens[0]) - {*range(33, 40), *range(6, 30)}


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (None, "min_count=5: steps=.* write de, of which the mixture has no text to count"),
        ({"de": np.full(VOCAB, 9)}, "min_count=5: steps=.* write en, of which"),
        (
            {"de": np.full(VOCAB, 9), "en": np.full(VOCAB, 4)},
            "min_count=5: no token occurs so often in en, the most frequent 4 times; lower it",
        ),
    ],
)
def test_text_that_cannot_tell_the_words_of_a_language_is_refused(counts, message):
    specials = dataclasses.replace(SPECIALS, counts=counts)
    with pytest.raises(ValueError, match=message):
        BackTranslation(specials, TeacherForcing(), ("en-de-en", "de-en-de"), min_count=5)


def test_translations_that_the_table_of_positions_has_no_room_for_are_refused():
    objective = back(sentences=8, sentence_length=10)
    batch = rows([[sentences()[0]]], CFG.max_positions)
    with pytest.raises(ValueError, match=r"more than model.max_positions=.*: lower length"):
        objective.translate(randomised(CFG), batch, KEY)


def test_a_row_draws_one_of_several_steps_by_its_id():
    steps = (f"{CODES[0]}-{CODES[1]}-{CODES[0]}", f"{CODES[0]}-{CODES[2]}-{CODES[0]}")
    objective = BackTranslation(SPECIALS, TeacherForcing(), steps)
    ids = jnp.arange(400)
    via = objective._via(jnp.full(400, LANGUAGES[0]), KEY, ids)
    assert set(np.asarray(via).tolist()) == {LANGUAGES[1], LANGUAGES[2]}
    assert abs((via == LANGUAGES[1]).mean() - 0.5) < 0.1
    np.testing.assert_array_equal(
        objective._via(jnp.full(400, LANGUAGES[0]), KEY, ids[::-1]), via[::-1]
    )


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("translation", {"label_smoothing": 1.0}, r"label_smoothing=1.0: give a share in \[0, 1\)"),
        ("denoising", {"drop": 1.0}, r"drop=1.0: give a share in \[0, 1\)"),
        ("denoising", {"shuffle": -1.0}, "shuffle=-1.0: give a distance"),
        ("denoising", {"whole_words": True}, "whole_words needs a vocabulary that marks"),
        ("back_translation", {}, "name one or more, each once, like 'en-de-en'"),
        ("back_translation", {"steps": ("en-de",)}, "'en-de' is not like 'en-de-en'"),
        ("back_translation", {"steps": ("en-de-fr",)}, "'en-de-fr' is not like"),
        ("back_translation", {"steps": ("en-xx-en",)}, "steps: 'en-xx-en': .*'xx'"),
        ("back_translation", {"steps": ("en-de-en",), "temperature": -1.0}, "temperature=-1.0"),
        ("back_translation", {"steps": ("en-de-en",), "min_count": -1}, "min_count=-1: give a"),
    ],
)
def test_wrong_fields_are_named(name, fields, message):
    group = base.objective(name, **fields)
    with pytest.raises(ValueError, match=message):
        OBJECTIVES[name].from_config(group, SPECIALS)


def test_languages_without_a_step_are_named():
    objective = BackTranslation(SPECIALS, TeacherForcing(), ("en-de-en",))
    with pytest.raises(ValueError, match="none that begins with de, fr, a language of its mixture"):
        objective.check_languages(["en", "fr", "de"], ["de", "en", "fr"])
