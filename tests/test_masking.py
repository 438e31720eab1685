"""Which tokens become targets, and what becomes of them (XLM pitfalls, laws 4 to 7).

Differences by design: a row has a static number of slots and its number of targets is the
expectation, rounded at random (XLM draws every position); with token weights the choice is made
per row and padding does not count (XLM: over the batch, padding counted).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests.model_helpers import EOS, MASK, PAD, VOCAB
from xlmjax.ops import masking

NUM_SPECIAL = 6
CORRUPTION = masking.Corruption(MASK, VOCAB)
KEY = jax.random.key(5)


def packed_rows(rows, length, seed=0):
    """Rows of two segments and padding; separators inside; every position has a known kind."""
    generator = np.random.default_rng(seed)
    place = np.arange(length)
    cut = generator.integers(length // 3, length // 2, (rows, 1))
    end = generator.integers(3 * length // 4, length + 1, (rows, 1))
    segments = np.where(place < end, 1 + (place >= cut), 0)
    tokens = generator.integers(NUM_SPECIAL, VOCAB, (rows, length))
    tokens = np.where(generator.random((rows, length)) < 0.2, EOS, tokens)
    return np.where(segments == 0, PAD, tokens).astype(np.int32), segments.astype(np.int32)


def mask(tokens, candidates, rate=0.15, key=KEY, row_ids=None, corruption=CORRUPTION, **kwargs):
    row_ids = np.arange(len(tokens)) if row_ids is None else row_ids
    kwargs.setdefault("slots", masking.num_slots(rate, tokens.shape[1]))
    return masking.mask_tokens(tokens, candidates, key, row_ids, rate, corruption, **kwargs)


def chosen_positions(masked, shape):
    """Return [b, l]: how often each position is a target."""
    chosen = np.zeros(shape)
    np.add.at(chosen, (np.arange(shape[0])[:, None], np.asarray(masked.picks)), masked.weights)
    return chosen


def within(actual, expected, draws, deviations=5):
    assert abs(actual - expected) < deviations * np.sqrt(expected * (1 - expected) / draws)


def test_targets_stand_in_the_order_of_the_row():
    """So the segments of a row's targets do not decrease, and attention from them skips tiles."""
    tokens, segments = packed_rows(8, 256)
    masked = jax.tree.map(np.asarray, mask(tokens, masking.eligible(segments)))
    assert (np.diff(masked.picks) > 0).all()
    held = masked.weights > 0
    before = np.take_along_axis(tokens, masked.picks, axis=1)
    np.testing.assert_array_equal(masked.targets[held], before[held])
    after = np.take_along_axis(masked.inputs, masked.picks, axis=1)
    assert (after[~held] == before[~held]).all()
    assert (after[held] != before[held]).mean() > 0.5


@pytest.fixture(scope="module")
def million():
    tokens, segments = packed_rows(4000, 256)
    candidates = masking.eligible(segments)
    masked = jax.tree.map(np.asarray, jax.jit(mask)(tokens, candidates))
    return tokens, segments, np.asarray(candidates), masked


def test_eligible_positions():
    segments = np.array([[1, 1, 1, 1, 2, 2, 3, 0], [4, 4, 4, 4, 4, 4, 4, 4]])
    inside = [[0, 1, 1, 1, 0, 1, 0, 0], [0, 1, 1, 1, 1, 1, 1, 1]]
    spared = [[0, 1, 1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1, 0]]
    np.testing.assert_array_equal(masking.eligible(segments), inside)
    np.testing.assert_array_equal(masking.eligible(segments, spare_last=True), spared)


def test_rate_over_a_million_positions(million):
    tokens, segments, candidates, masked = million
    chosen = chosen_positions(masked, tokens.shape)
    assert tokens.size > 10**6
    assert set(np.unique(chosen)) == {0, 1}  # no position twice
    firsts = np.diff(segments, axis=1, prepend=0) != 0
    assert chosen[segments == 0].sum() == 0
    assert chosen[firsts].sum() == 0
    within(chosen[candidates].mean(), 0.15, candidates.sum())
    inner_separators = candidates & (tokens == EOS)
    within(chosen[inner_separators].mean(), 0.15, inner_separators.sum())
    for place in (1, 100, 180):  # no place of a row is favoured
        within(chosen[candidates[:, place], place].mean(), 0.15, candidates[:, place].sum())


def test_number_of_targets_is_the_expectation_rounded(million):
    tokens, _, candidates, masked = million
    number, expected = masked.weights.sum(axis=1), 0.15 * candidates.sum(axis=1)
    assert masked.picks.shape == (4000, masking.num_slots(0.15, 256)) == (4000, 39)
    assert np.all((number == np.floor(expected)) | (number == np.ceil(expected)))
    assert abs((number - expected).mean()) < 5 * 0.5 / np.sqrt(len(tokens))


def test_shares_of_mask_keep_and_random(million):
    tokens, _, _, masked = million
    chosen = chosen_positions(masked, tokens.shape) > 0
    before, after = tokens[chosen], masked.inputs[chosen]
    np.testing.assert_array_equal(masked.inputs[~chosen], tokens[~chosen])
    is_target = masked.weights > 0
    rows = np.nonzero(is_target)[0]
    np.testing.assert_array_equal(masked.targets[is_target], tokens[rows, masked.picks[is_target]])
    total = chosen.sum()
    masked_share = (after == MASK).mean()
    within(masked_share, 0.8 + 0.1 / VOCAB, total)  # a random token may be the mask too
    within(((after == before) & (before != MASK)).mean(), 0.1 + 0.1 / VOCAB, total)
    # Of the random ones, those that are special: uniform over the whole table.
    special = (after < NUM_SPECIAL) & (after != MASK) & (after != before)
    words = before >= NUM_SPECIAL
    within(special[words].mean(), 0.1 * (NUM_SPECIAL - 1) / VOCAB, words.sum())


def test_other_shares():
    tokens, segments = packed_rows(600, 200)
    candidates = masking.eligible(segments)
    masked = mask(tokens, candidates, corruption=masking.Corruption(MASK, VOCAB, 0.5, 0.5))
    chosen = chosen_positions(masked, tokens.shape) > 0
    before, after = tokens[chosen], np.asarray(masked.inputs)[chosen]
    assert np.all((after == before) | (after == MASK))
    within((after == MASK).mean(), 0.5, chosen.sum())


def inclusion_by_brute_force(weights, number):
    """Return the probability of each item to be among `number` draws without replacement."""
    included = np.zeros(len(weights))
    for order in itertools.permutations(np.flatnonzero(weights), number):
        left, probability = sum(weights), 1.0
        for item in order:
            probability *= weights[item] / left
            left -= weights[item]
        included[list(order)] += probability
    return included


def test_token_weights_against_brute_force():
    counts = np.zeros(VOCAB)
    counts[NUM_SPECIAL:] = np.arange(1, VOCAB - NUM_SPECIAL + 1) ** 2
    token_weights = np.where(counts > 0, np.maximum(counts, 1) ** -0.5, 0)
    row = np.array([9, 7, EOS, 6, 12, 30, 46, 7, PAD])
    candidates = np.array([0, 1, 1, 1, 1, 1, 1, 1, 0], bool)
    rate, draws = 3 / 7, 40_000  # 3 of 7 candidates exactly
    masked = mask(
        np.tile(row, (draws, 1)),
        np.tile(candidates, (draws, 1)),
        rate,
        slots=4,
        token_weights=jnp.asarray(token_weights, jnp.float32),
    )
    shares = chosen_positions(masked, (draws, len(row))).mean(axis=0)
    expected = inclusion_by_brute_force(np.where(candidates, token_weights[row], 0), 3)
    assert shares[2] == shares[0] == shares[8] == 0  # separator, first position, padding
    for share, probability in zip(shares, expected, strict=True):
        within(share, probability, draws) if probability else None
    assert expected.sum() == pytest.approx(3)


def test_with_too_few_weighted_candidates_all_of_them_are_targets():
    row = np.array([[EOS, EOS, 8, EOS, EOS, EOS]])
    weights = jnp.where(jnp.arange(VOCAB) < NUM_SPECIAL, 0.0, 1.0)
    masked = mask(row, row != -1, 0.9, slots=6, token_weights=weights)
    np.testing.assert_array_equal(chosen_positions(masked, row.shape), [[0, 0, 1, 0, 0, 0]])


def test_at_least_one_target_where_there_is_a_candidate():
    candidates = np.array([[0, 1, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]], bool)
    tokens = np.full((3, 4), 9)
    masked = mask(tokens, candidates, 0.01, slots=2, at_least=1)
    np.testing.assert_array_equal(masked.weights.sum(axis=1), [1, 0, 1])


def test_masks_do_not_depend_on_sharding_microbatches_or_the_order_of_rows():
    tokens, segments = packed_rows(16, 24)
    candidates = np.asarray(masking.eligible(segments))
    ids = np.random.default_rng(0).permutation(1000)[:16]
    whole = jax.jit(mask)(tokens, candidates, row_ids=ids)
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    place = NamedSharding(mesh, PartitionSpec("data"))
    sharded = jax.jit(mask)(
        *jax.device_put((tokens, candidates), place), row_ids=jax.device_put(ids, place)
    )
    order = np.arange(16)[::-1]
    turned = mask(tokens[order], candidates[order], row_ids=ids[order])
    part = mask(tokens[3:5], candidates[3:5], row_ids=ids[3:5])
    for field in masking.Masked._fields:
        expected = np.asarray(getattr(whole, field))
        np.testing.assert_array_equal(getattr(sharded, field), expected)
        np.testing.assert_array_equal(getattr(turned, field)[order], expected)
        np.testing.assert_array_equal(getattr(part, field), expected[3:5])
    other = mask(tokens, candidates, row_ids=ids, key=jax.random.key(6))
    assert np.any(np.asarray(other.picks) != np.asarray(whole.picks))


@pytest.mark.parametrize(
    ("rate", "length", "slots"), [(0.15, 256, 39), (0.15, 20, 3), (0.07, 100, 7), (0.15, 128, 20)]
)
def test_number_of_slots(rate, length, slots):
    assert masking.num_slots(rate, length) == slots
