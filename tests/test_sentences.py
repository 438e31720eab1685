"""Sentences taken out of packed rows and put together again, against plain Python."""

import numpy as np
import pytest

from xlmjax.ops.sentences import put_together, take_apart

FILLER = -1


@pytest.fixture
def lengths():
    """Lengths, 1 to 9, of the sentences of 30 rows: none to 4 in each."""
    rng = np.random.default_rng(0)
    return [[int(n) for n in rng.integers(1, 10, size=i % 5)] for i in range(30)]


def packed(lengths, width):
    values = np.full((len(lengths), width), FILLER)
    segments = np.zeros_like(values)
    number = 0
    for row, of_row in enumerate(lengths):
        start = 0
        for segment, count in enumerate(of_row, start=1):
            values[row, start : start + count] = np.arange(number, number + count)
            segments[row, start : start + count] = segment
            start, number = start + count, number + count
    return values, segments


def test_each_sentence_gets_a_row(lengths):
    values, segments = packed(lengths, 40)
    apart = np.asarray(take_apart(values, segments, 4, 9, FILLER))
    assert apart.shape == (30 * 4, 9)
    for row in range(len(lengths)):
        for nth in range(4):
            expected = values[row][segments[row] == nth + 1].tolist()
            assert apart[row * 4 + nth].tolist() == expected + [FILLER] * (9 - len(expected))


def test_together_again_they_are_what_they_were(lengths):
    values, segments = packed(lengths, 40)
    apart = take_apart(values, segments, 4, 9, FILLER)
    counts = np.array([count for row in lengths for count in [*row, 0, 0, 0, 0][:4]])
    together, segment_ids, positions = put_together(apart, counts, 4, 40, FILLER)
    np.testing.assert_array_equal(together, values)
    np.testing.assert_array_equal(segment_ids, segments)
    for row, of_row in enumerate(lengths):
        expected = [place for count in of_row for place in range(count)]
        assert positions[row].tolist() == expected + [0] * (40 - len(expected))
