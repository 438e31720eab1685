"""Noise of denoising (pitfall 13): how far words move, what stays, what depends on what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_helpers import EOS, MASK, PAD
from xlmjax.ops.noising import Noise, add_noise

KEY = jax.random.key(5)
ROWS, LENGTH = 400, 24
WORDS = np.arange(10, 10 + 15)  # distinct, so that a word can be followed


def packed():
    """Return rows `</s> 10 .. 17 </s> </s> 18 .. 24 </s>` of two segments, padded to 24."""
    first, second = WORDS[:8], WORDS[8:]
    row = [EOS, *first, EOS, EOS, *second, EOS]
    segments = [1] * (len(first) + 2) + [2] * (len(second) + 2)
    padding = LENGTH - len(row)
    tokens = np.tile(np.array([*row, *[PAD] * padding], np.int32), (ROWS, 1))
    return tokens, np.tile(np.array([*segments, *[0] * padding], np.int32), (ROWS, 1))


@functools.partial(jax.jit, static_argnums=0)
def noised(noise, word_starts=None):
    tokens, segments = packed()
    ids = jnp.arange(ROWS)
    sizes = dict(mask_id=MASK, pad_id=PAD, word_starts=word_starts)
    return add_noise(jnp.asarray(tokens), jnp.asarray(segments), KEY, ids, noise, **sizes)


def sentences_of(result):
    """Yield, of every row, the tokens of its two segments."""
    rows = zip(np.asarray(result.tokens), np.asarray(result.segment_ids), strict=True)
    for tokens, segments in rows:
        yield tokens[segments == 1], tokens[segments == 2]


def test_without_noise_rows_stay_as_they_are():
    tokens, segments = packed()
    result = noised(Noise(0, 0, 0))
    np.testing.assert_array_equal(result.tokens, tokens)
    np.testing.assert_array_equal(result.segment_ids, segments)
    np.testing.assert_array_equal(result.positions[0], [*range(10), *range(9), *[0] * 5])


def test_words_move_by_less_than_k_places_inside_their_sentence():
    result = noised(Noise(3, 0, 0))
    farthest = 0
    for first, second in sentences_of(result):
        for words, was in ((first, WORDS[:8]), (second, WORDS[8:])):
            assert words[0] == words[-1] == EOS
            assert sorted(words[1:-1]) == sorted(was)
            moved = np.abs(np.argsort(words[1:-1]) - np.arange(len(was)))
            farthest = max(farthest, moved.max())
    assert farthest == 2


def test_a_word_of_every_sentence_stays():
    lengths = [[len(s) for s in pair] for pair in sentences_of(noised(Noise(3, 0.999, 0)))]
    assert np.min(lengths) == 3
    assert np.mean(lengths) < 3.2
    for pair in sentences_of(noised(Noise(3, 0.999, 0))):
        assert all(s[0] == s[-1] == EOS for s in pair)


def test_shares_of_what_is_dropped_and_blanked():
    result = noised(Noise(0, 0.2, 0.3))
    inside = [s[1:-1] for pair in sentences_of(result) for s in pair]
    kept = sum(map(len, inside))
    assert abs(kept / (ROWS * 15) - 0.8) < 0.02
    assert abs(sum((s == MASK).sum() for s in inside) / kept - 0.3) < 0.02
    # What is left keeps its order, and positions count what is there.
    assert all((np.diff(s[s != MASK]) > 0).all() for s in inside)
    for row in range(20):
        for segment in (1, 2):
            positions = result.positions[row][result.segment_ids[row] == segment]
            np.testing.assert_array_equal(positions, np.arange(len(positions)))
    holes = result.segment_ids == 0
    assert (np.asarray(result.tokens)[holes] == PAD).all()


def test_pieces_of_a_word_share_its_fate():
    starts = np.zeros(40, bool)
    starts[10:40:3] = True  # 10 11 12 are a word, 13 14 15, 16 17 | 18, 19 20 21, 22 23 24
    groups = [{10, 11, 12}, {13, 14, 15}, {16, 17}, {18}, {19, 20, 21}, {22, 23, 24}]
    moved = False
    for pair in sentences_of(noised(Noise(3, 0.3, 0), word_starts=jnp.asarray(starts))):
        for s in pair:
            words = s[1:-1].tolist()
            for group in groups:
                found = [w for w in words if w in group]
                assert found in ([], sorted(group))
                if found:
                    at = words.index(found[0])
                    assert words[at : at + len(found)] == found  # together
            moved |= words != sorted(words)
    assert moved


@pytest.mark.parametrize("order", [[3, 1, 0, 2], [2, 3, 1, 0]])
def test_the_noise_of_a_row_depends_on_its_id_only(order):
    tokens, segments = (jnp.asarray(x[:4]) for x in packed())
    run = jax.jit(functools.partial(add_noise, noise=Noise(3, 0.2, 0.2), mask_id=MASK, pad_id=PAD))
    ids = jnp.asarray([7, 1, 30, 4])
    whole = run(tokens, segments, jax.random.key(1), ids)
    other = run(tokens, segments, jax.random.key(1), ids[jnp.asarray(order)])
    for a, b in zip(whole, other, strict=True):
        np.testing.assert_array_equal(a[jnp.asarray(order)], b)
    assert (whole.tokens[0] != whole.tokens[1]).any()
