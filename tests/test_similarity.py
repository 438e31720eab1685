"""Pooling, neighbours and correlations against plain NumPy, and laws that need no reference."""

import jax
import numpy as np
import pytest

from tests.model_helpers import rows, sentences
from tests.similarity_reference import cosines, matched, scores
from xlmjax.ops import similarity


def vectors(n, e=9, seed=0):
    return (
        np.random.default_rng(seed).standard_normal((n, e)).astype(np.float32) + 0.6
    )  # near means are positive


def translations(n, noise, seed=0):
    x = vectors(n, seed=seed)
    return x, x + noise * vectors(n, seed=seed + 1)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(similarity, "BLOCK", 16)


@pytest.mark.parametrize(("n", "k"), [(37, 10), (37, 3), (7, 10), (64, 5)])
@pytest.mark.usefixtures("small_blocks")
def test_alignment_is_that_of_the_definitions(n, k):
    x, y = translations(n, noise=1.0)
    sums = similarity.align(x, y, n, k)
    for index, measure in enumerate(similarity.MEASURES):
        table = scores(x, y, measure, k)
        assert sums.forward[index] == matched(table)
        assert sums.backward[index] == matched(table.T)
    if n > 30:  # neither trivial nor hopeless, and the measures differ
        assert len({*map(int, sums.forward), *map(int, sums.backward), 0, n}) > 3
    cosine = cosines(x, y)
    distance = np.linalg.norm(x[:, None] - y[None], axis=-1)
    others = ~np.eye(n, dtype=bool)
    means = sums.means(n)
    assert means["cosine_pairs"] == pytest.approx(np.diag(cosine).mean(), rel=1e-5)
    assert means["cosine_random"] == pytest.approx(cosine[others].mean(), rel=1e-4)
    assert means["l2_pairs"] == pytest.approx(np.diag(distance).mean(), rel=1e-5)
    assert means["l2_random"] == pytest.approx(distance[others].mean(), rel=1e-5)


@pytest.mark.usefixtures("small_blocks")
def test_the_whole_matrix_of_csls_is_that_of_the_definition():
    x, y = translations(37, noise=1.0)
    np.testing.assert_allclose(similarity.csls(x, y[:23], 5), scores(x, y[:23], "csls", 5), 1e-4)


@pytest.mark.usefixtures("small_blocks")
def test_filler_rows_change_nothing():
    x, y = translations(37, noise=1.0)
    expected = similarity.align(x, y, 37)
    filler = np.full((11, x.shape[1]), 7.0, np.float32)
    found = similarity.align(np.concatenate([x, filler]), np.concatenate([y, filler]), 37)
    for name, value in expected._asdict().items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-5, err_msg=name)


@pytest.mark.usefixtures("small_blocks")
def test_neither_length_nor_common_rotation_matters_to_accuracy():
    x, y = translations(37, noise=1.0)
    expected = similarity.align(x, y, 37)
    turn, _ = np.linalg.qr(vectors(9, seed=5))
    lengths = np.exp(vectors(37, 1, seed=6))
    found = similarity.align(lengths * (x @ turn), 3 * (y @ turn), 37)
    np.testing.assert_array_equal(found.forward, expected.forward)
    np.testing.assert_array_equal(found.backward, expected.backward)
    np.testing.assert_allclose(found.pairs_cosine, expected.pairs_cosine, rtol=1e-5)


def test_swapping_the_sides_swaps_the_directions():
    x, y = translations(20, noise=1.0)
    one, other = similarity.align(x, y, 20), similarity.align(y, x, 20)
    np.testing.assert_array_equal(one.forward, other.backward)
    np.testing.assert_array_equal(one.backward, other.forward)


def test_equal_vectors_match_once_only():
    same = np.ones((20, 4), np.float32)
    sums = similarity.align(same, same, 20)
    assert np.all(sums.forward == 1)
    assert float(sums.others_distance) == pytest.approx(0, abs=1)


def test_hubs_are_what_csls_and_margin_correct():
    """A row of y near to everything attracts all queries by cosine, none by the other two."""
    x = 0.3 + np.eye(12, dtype=np.float32)
    y = 0.3 + 0.4 * np.eye(12, dtype=np.float32)
    y[0] = 1.0
    y[1:] += np.roll(0.5 * np.eye(12, dtype=np.float32), 3, axis=1)[1:]
    sums = similarity.align(x, y, 12, k=4)
    for measure in (1, 2):
        assert sums.forward[measure] >= sums.forward[0]
        assert matched(scores(x, y, similarity.MEASURES[measure], 4)) == sums.forward[measure]


@pytest.mark.parametrize("measure", similarity.MEASURES)
@pytest.mark.usefixtures("small_blocks")
def test_top_matches_are_the_largest_scores(measure):
    x, y = vectors(23), vectors(41, seed=3)
    found = similarity.top_matches(x, y, 5, measure, 6)
    expected = np.argsort(-scores(x, y, measure, 6), axis=1)[:, :5]
    np.testing.assert_array_equal(found, expected)


def test_mean_by_segment_is_the_mean_of_the_real_positions():
    batch = rows([sentences()[:2], sentences()[2:3]], 17)
    segments = batch["segment_ids"]
    states = np.random.default_rng(0).standard_normal((2, 17, 6)).astype(np.float32)
    found = similarity.mean_by_segment(states, segments, 2)
    for row in range(2):
        for segment in (1, 2):
            real = states[row][segments[row] == segment]
            expected = real.mean(axis=0) if len(real) else np.zeros(6)
            np.testing.assert_allclose(found[row, segment - 1], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(similarity.pool(states, segments, "first"), states[:, 0])
    mean = similarity.pool(states, segments, "mean")
    np.testing.assert_allclose(mean, found[:, 0], rtol=1e-5, atol=1e-6)


def test_the_whole_matrix_of_similarities_never_exists():
    side = jax.ShapeDtypeStruct((8192, 64), np.float32)
    compiled = jax.jit(similarity.align).lower(side, side, 8000).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 8192 * 8192 * 4 / 2


def test_ranks_share_the_average_on_ties():
    np.testing.assert_array_equal(
        similarity.ranks(np.array([3.0, 1.0, 3.0, 2.0, 3.0])), [4, 1, 4, 2, 4]
    )


def test_correlations_are_those_of_the_definitions():
    a = np.array([1.0, 4.0, 2.0, 2.0, 9.0, 4.0, 4.0])
    b = np.array([0.5, 3.0, 3.0, 1.0, 2.0, 5.0, 2.0])

    def correlation(a, b):
        n = len(a)
        mean_a, mean_b = sum(a) / n, sum(b) / n
        product = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
        squares = [sum((x - m) ** 2 for x in z) for z, m in ((a, mean_a), (b, mean_b))]
        return product / (squares[0] * squares[1]) ** 0.5

    def rank(z):
        return [sum(y < x for y in z) + (sum(y == x for y in z) + 1) / 2 for x in z]

    assert similarity.pearson(a, b) == pytest.approx(correlation(a, b), rel=1e-12)
    assert similarity.spearman(a, b) == pytest.approx(correlation(rank(a), rank(b)), rel=1e-12)


def test_correlation_laws():
    a, b = vectors(30, 1)[:, 0], vectors(30, 1, seed=1)[:, 0]
    assert similarity.pearson(a, 3 * a + 2) == pytest.approx(1)
    assert similarity.pearson(a, -a) == pytest.approx(-1)
    assert similarity.spearman(a, np.exp(a)) == pytest.approx(1)
    assert similarity.spearman(np.exp(a), b) == pytest.approx(similarity.spearman(a, b))
    assert np.isnan(similarity.pearson(a, np.full(30, 0.1)))
    assert np.isnan(similarity.spearman(np.full(30, 0.1), a))
