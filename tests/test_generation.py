"""Decoding against plain references: cached against uncached, the beam against loops in Python."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_helpers import CLASSIC, EOS, LANGUAGES, MODERN, PAD, VOCAB, randomised, sentences
from xlmjax.models.beam import beam_search
from xlmjax.models.generation import Source, _first_best, generate
from xlmjax.models.seq2seq import Text
from xlmjax.parallel.mesh import MeshConfig, make_mesh
from xlmjax.parallel.partition import batch_sharding, param_shardings, replicated, use_rules

LENGTH = 12
RECIPES = {
    "classic": dataclasses.replace(CLASSIC, decoder_layers=2),
    "modern, one table": dataclasses.replace(MODERN, decoder_layers=3, share_embeddings=True),
}
recipes = pytest.mark.parametrize("cfg", RECIPES.values(), ids=RECIPES)


def sources(extra_rows=0, length=10):
    """Return the sentences of the helpers, one a row, and below them rows of padding."""
    rows = sentences()
    tokens = np.full((len(rows) + extra_rows, length), PAD, np.int32)
    segments, languages = np.zeros_like(tokens), np.full_like(tokens, LANGUAGES[0])
    for row, (words, language) in enumerate(rows):
        tokens[row, : len(words)] = words
        segments[row, : len(words)] = 1
        languages[row] = language
    return Source(*map(jnp.asarray, (tokens, segments, languages)))


def targets(rows):
    return jnp.asarray([LANGUAGES[i % 3] for i in range(rows)], jnp.int32)


@jax.jit
def _log_p_after(model, source, prefix, last, language):
    positions = jnp.broadcast_to(jnp.arange(prefix.shape[1]), prefix.shape)
    rows = Text(prefix, positions, jnp.ones_like(prefix), jnp.full_like(prefix, language))
    hidden = model.decode(rows, model.read(source.text()))
    return jax.nn.log_softmax(model.target_logits(hidden[0, last]))


def next_log_p(model, source, row, prefix, language):
    """Return log p of the word after a prefix, [v], by a model that keeps no cache."""
    one = Source(*(x[row : row + 1] for x in source))
    # Padded to one length, which a causal decoder does not see, so that it compiles once.
    padded = np.full((1, LENGTH), PAD, np.int32)
    padded[0, : len(prefix)] = prefix
    return np.asarray(_log_p_after(model, one, padded, len(prefix) - 1, language))


def greedy_reference(model, source, row, language, limit, words=slice(None)):
    prefix = [EOS]
    while True:
        log_p = np.full(VOCAB, -np.inf)
        log_p[words] = next_log_p(model, source, row, prefix, language)[words]
        word = int(log_p.argmax())
        prefix.append(EOS if len(prefix) + 1 == limit else word)
        if prefix[-1] == EOS:
            return prefix


def with_end_bias(model, bias):
    """Return the model with the logit of the end symbol raised, in every state."""
    if model.decoder.head.bias is None:
        return model
    copy = jax.tree.map(lambda x: x, model)
    copy.decoder.head.bias[...] = model.decoder.head.bias[...].at[EOS].add(bias)
    return copy


@recipes
def test_greedy_equals_the_uncached_reference_token_by_token(cfg):
    model = randomised(cfg)
    source = sources(extra_rows=1)
    limits = jnp.asarray([LENGTH, 5, LENGTH, 9, LENGTH], jnp.int32)
    languages = targets(5)
    got = jax.jit(functools.partial(generate, max_length=LENGTH, eos=EOS, pad=PAD))(
        model, source, languages, limits
    )
    for row in range(4):
        expected = greedy_reference(model, source, row, int(languages[row]), int(limits[row]))
        length = int(got.lengths[row, 0])
        assert got.tokens[row, 0, :length].tolist() == expected
        assert (got.tokens[row, 0, length:] == PAD).all()
        log_p = sum(
            next_log_p(model, source, row, expected[:i], int(languages[row]))[expected[i]]
            for i in range(1, length)
        )
        np.testing.assert_allclose(got.scores[row, 0], log_p, rtol=1e-4)
    assert got.tokens[4, 0].tolist() == [EOS, EOS, *[PAD] * (LENGTH - 2)]
    assert got.lengths[4, 0] == 2


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_a_row_is_written_in_the_words_that_it_may_have(temperature):
    model, source, languages = randomised(RECIPES["classic"]), sources(), targets(4)
    words = np.zeros((4, VOCAB), bool)
    words[:, EOS] = words[0, 6:20] = words[1, 20:34] = words[3, 6:] = True
    run = functools.partial(generate, max_length=LENGTH, eos=EOS, pad=PAD, temperature=temperature)
    limits = jnp.full(4, LENGTH, jnp.int32)
    got = jax.jit(run)(model, source, languages, limits, key=jax.random.key(1), words=words)
    for row in range(4):
        length = int(got.lengths[row, 0])
        assert words[row][got.tokens[row, 0, :length]].all()
        if not temperature:
            language = int(languages[row])
            expected = greedy_reference(model, source, row, language, LENGTH, words[row])
            assert got.tokens[row, 0, :length].tolist() == expected
    assert got.lengths[:2].min() > 2  # otherwise nothing was written
    assert got.scores[2, 0] == 0  # its one word has all of the probability


@pytest.mark.parametrize(("bias", "length"), [(-100.0, 8), (100.0, 2)])
def test_the_limit_is_the_end_and_an_immediate_end_is_allowed(bias, length):
    model = with_end_bias(randomised(RECIPES["classic"]), bias)
    source = sources()
    limits = jnp.full(4, 8, jnp.int32)
    run = functools.partial(generate, max_length=LENGTH, eos=EOS, pad=PAD)
    got = jax.jit(run)(model, source, targets(4), limits)
    assert (got.lengths == length).all()
    assert ((got.tokens == EOS).sum(axis=2) == 2).all()
    assert (got.tokens[:, 0, length - 1] == EOS).all()


def test_sampling_depends_on_key_and_row_id_only():
    model = randomised(RECIPES["classic"])
    source, limits = sources(), jnp.full(4, LENGTH, jnp.int32)
    run = jax.jit(functools.partial(generate, max_length=LENGTH, eos=EOS, pad=PAD, temperature=1.5))
    ids = jnp.asarray([7, 3, 11, 2], jnp.int32)
    whole = run(model, source, targets(4), limits, key=jax.random.key(3), row_ids=ids)
    order = jnp.asarray([2, 0, 3, 1])
    shuffled = run(
        model,
        Source(*(x[order] for x in source)),
        targets(4)[order],
        limits,
        key=jax.random.key(3),
        row_ids=ids[order],
    )
    np.testing.assert_array_equal(whole.tokens[order], shuffled.tokens)
    other = run(model, source, targets(4), limits, key=jax.random.key(4), row_ids=ids)
    assert (other.tokens != whole.tokens).any()
    greedy = jax.jit(functools.partial(generate, max_length=LENGTH, eos=EOS, pad=PAD))(
        model, source, targets(4), limits
    )
    cold = jax.jit(
        functools.partial(generate, max_length=LENGTH, eos=EOS, pad=PAD, temperature=1e-4)
    )(model, source, targets(4), limits, key=jax.random.key(3), row_ids=ids)
    np.testing.assert_array_equal(cold.tokens, greedy.tokens)


def beam_reference(next_log_p, limit, beams, penalty, early_stopping):
    """Return [(score, tokens)], best first: one sentence, the rules of XLM in plain loops."""
    prefixes, found, length = [(0.0, [EOS])], [], 1
    while length < limit:
        candidates = []
        for number, (score, prefix) in enumerate(prefixes):
            for word, log_p in enumerate(next_log_p(prefix)):
                candidates.append((score + float(log_p), number, word))
        candidates.sort(key=lambda c: -c[0])
        candidates = candidates[: 2 * beams]
        if len(found) == beams:
            worst = min(score for score, _ in found)
            if early_stopping or worst >= candidates[0][0] / (limit - 1) ** penalty:
                break
        following = []
        for score, number, word in candidates:
            prefix = prefixes[number][1]
            if word == EOS or length + 1 == limit:
                found.append((score / length**penalty, [*prefix, EOS]))
                found = sorted(found, key=lambda f: -f[0])[:beams]
            else:
                following.append((score, [*prefix, word]))
            if len(following) == beams:
                break
        prefixes, length = following, length + 1
    return found


@pytest.mark.parametrize(
    ("beams", "penalty", "early"),
    [(1, 1.0, False), (3, 1.0, False), (4, 0.6, False), (3, 1.4, True)],
)
@recipes
def test_the_beam_equals_loops_in_python(cfg, beams, penalty, early):
    model = with_end_bias(randomised(cfg), 1.0)
    source = sources(extra_rows=1)
    limits = jnp.asarray([LENGTH, 4, 7, LENGTH, LENGTH], jnp.int32)
    languages = targets(5)
    run = functools.partial(
        beam_search,
        max_length=LENGTH,
        eos=EOS,
        pad=PAD,
        beams=beams,
        length_penalty=penalty,
        early_stopping=early,
        n_best=beams,
    )
    got = jax.jit(run)(model, source, languages, limits)
    for row in range(4):

        def log_p(prefix, row=row):
            return next_log_p(model, source, row, prefix, int(languages[row]))

        expected = beam_reference(log_p, int(limits[row]), beams, penalty, early)
        assert len(expected) == beams
        for rank, (score, tokens) in enumerate(expected):
            length = int(got.lengths[row, rank])
            assert got.tokens[row, rank, :length].tolist() == tokens
            assert (got.tokens[row, rank, length:] == PAD).all()
            np.testing.assert_allclose(got.scores[row, rank], score, rtol=1e-4)
    assert (got.lengths[4] == 2).all()


@recipes
def test_a_beam_of_one_is_greedy(cfg):
    model, source = randomised(cfg), sources()
    limits = jnp.full(4, LENGTH, jnp.int32)
    sizes = dict(max_length=LENGTH, eos=EOS, pad=PAD)
    greedy = jax.jit(functools.partial(generate, **sizes))(model, source, targets(4), limits)
    beam = jax.jit(functools.partial(beam_search, **sizes, beams=1))(
        model, source, targets(4), limits
    )
    # Where greedy is cut at its limit the word that would follow is dropped by both.
    np.testing.assert_array_equal(beam.tokens, greedy.tokens)


def test_beams_wider_than_the_vocabulary_are_refused():
    model, source = randomised(RECIPES["classic"]), sources()
    arguments = (model, source, targets(4), jnp.full(4, LENGTH))
    sizes = dict(max_length=LENGTH, eos=EOS, pad=PAD)
    with pytest.raises(ValueError, match=f"beams={VOCAB}: the vocabulary has only {VOCAB} words"):
        beam_search(*arguments, **sizes, beams=VOCAB)
    with pytest.raises(ValueError, match="n_best=3 must be from 1 to beams=2"):
        beam_search(*arguments, **sizes, beams=2, n_best=3)


@pytest.mark.parametrize("axes", [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}], ids=str)
def test_any_mesh_finds_the_same(axes):
    model = randomised(dataclasses.replace(RECIPES["classic"], vocab_size=VOCAB + 1))
    source = jax.tree.map(lambda x: jnp.concatenate([x, x]), sources())
    languages, limits = targets(8), jnp.full(8, LENGTH, jnp.int32)
    sizes = dict(max_length=LENGTH, eos=EOS, pad=PAD)
    mesh = make_mesh(MeshConfig(**{"data": 1} | axes))
    shardings = param_shardings(model, mesh, "fsdp_tensor")
    for search in (generate, functools.partial(beam_search, beams=3)):
        alone = jax.jit(functools.partial(search, **sizes))(model, source, languages, limits)

        def sharded(*arguments, search=search):
            with use_rules("fsdp_tensor"):
                return search(*arguments, **sizes)

        with jax.set_mesh(mesh):
            spread = jax.jit(sharded, out_shardings=replicated(mesh))(
                jax.device_put(model, shardings),
                *jax.device_put((source, languages, limits), batch_sharding(mesh)),
            )
        np.testing.assert_array_equal(spread.tokens, alone.tokens)
        np.testing.assert_allclose(spread.scores, alone.scores, rtol=1e-5)


def test_the_best_word_is_the_first_of_equals():
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 20, size=(50, 300)).astype(np.float32)  # each value many times
    logits[0] = -np.inf
    np.testing.assert_array_equal(_first_best(jnp.asarray(logits)), logits.argmax(axis=1))
    logits[1] = np.nan  # a broken model writes some word of its vocabulary
    assert 0 <= _first_best(jnp.asarray(logits))[1] < 300
