"""Stream and pack layouts: what stands where, and that nothing is lost."""

import itertools
import tracemalloc

import numpy as np
import pytest

from tests.stores import write_store
from xlmjax.data import features
from xlmjax.data.layout import (
    Delimiters,
    LabelledLayout,
    PackLayout,
    StreamLayout,
    Whole,
    make_layout,
)
from xlmjax.data.mixture import empty_batch
from xlmjax.data.packing import pack
from xlmjax.languages import get

EOS, PAD = 1, 2
DELIMITERS = Delimiters(eos=EOS, pad=PAD)
EN, FR = get("en").id, get("fr").id


def fill(layout, rows, epochs=None, of=features.TEXT):
    rows = np.asarray(rows)
    batch = empty_batch(len(rows), layout.length, of)
    layout.fill(rows, np.zeros_like(rows) if epochs is None else np.asarray(epochs), batch)
    return batch


@pytest.fixture
def texts(rng):
    return [list(rng.integers(10, 90, size=n)) for n in (3, 1, 9, 2, 2, 17, 4, 1, 5, 30, 6)]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_stream_is_the_concatenation_cut_without_overlap(tmp_path, texts):
    layout = StreamLayout(
        write_store(tmp_path / "s", {"tokens": texts}, {"tokens": "en"}), 8, DELIMITERS
    )
    flat = [token for text in texts for token in [*text, EOS]]
    assert layout.num_tokens == len(flat)
    assert layout.num_rows == -(-len(flat) // 8)
    batch = fill(layout, range(layout.num_rows))
    padding = layout.num_rows * 8 - len(flat)
    assert padding
    np.testing.assert_array_equal(batch["tokens"].reshape(-1), flat + [PAD] * padding)
    np.testing.assert_array_equal(batch["segment_ids"].reshape(-1), [1] * len(flat) + [0] * padding)
    np.testing.assert_array_equal(batch["positions"], np.tile(np.arange(8), (layout.num_rows, 1)))
    assert (batch["language_ids"] == EN).all()


def test_stream_rows_come_in_any_order(tmp_path, texts):
    layout = StreamLayout(
        write_store(tmp_path / "s", {"tokens": texts}, {"tokens": "en"}), 5, DELIMITERS
    )
    whole = fill(layout, range(layout.num_rows))
    picked = [4, 0, 9, 4]
    some = fill(layout, picked)
    np.testing.assert_array_equal(some["tokens"], whole["tokens"][picked])


@pytest.mark.parametrize(
    ("kind", "sides", "allowed"),
    [("stream", 1, 0), ("pack", 1, 8), ("pack", 2, 8), ("pad", 2, 8)],
)
def test_memory_of_a_layout_does_not_grow_with_offsets(tmp_path, rng, kind, sides, allowed):
    """What stays is a number an example and a row (32 bits each), for streams nothing."""
    texts = [[9] * int(n) for n in rng.integers(1, 8, size=20_000)]
    names = ("tokens", "target_tokens")[:sides]
    codes = dict(zip(names, ("en", "fr"), strict=False))
    store = write_store(tmp_path / "s", dict.fromkeys(names, texts), codes, num_shards=2)
    tracemalloc.start()
    try:
        layout = make_layout(kind, store, 32, DELIMITERS)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert layout.num_rows
    assert held < allowed * len(texts) + 10_000


def test_packed_texts_are_delimited_isolated_and_whole(tmp_path, texts):
    layout = PackLayout(
        write_store(tmp_path / "s", {"tokens": texts}, {"tokens": "en"}), 12, DELIMITERS
    )
    found = _segments(fill(layout, range(layout.num_rows)))
    # Texts longer than 12 - 2 tokens come in pieces of 10.
    pieces = [text[i : i + 10] for text in texts for i in range(0, len(text), 10)]
    expected = sorted([EOS, *piece, EOS] for piece in pieces)
    assert sorted(tokens for tokens, _, _ in found) == expected
    for tokens, positions, language_ids in found:
        assert positions == list(range(len(tokens)))
        assert language_ids == [EN] * len(tokens)
    assert layout.num_tokens == sum(map(len, expected))


def test_a_packed_pair_is_the_papers_tlm_row(tmp_path):
    # Law 2: four end symbols, positions restarted and the language switched at the second sentence.
    store = write_store(
        tmp_path / "s",
        {"tokens": [[10, 11]], "target_tokens": [[60]]},
        {"tokens": "en", "target_tokens": "fr"},
        num_shards=1,
    )
    layout = PackLayout(store, 9, DELIMITERS)
    first = fill(layout, [0, 0], [0, 1])
    rows = {tuple(row) for row in first["tokens"].tolist()}
    assert rows == {(1, 10, 11, 1, 1, 60, 1, PAD, PAD), (1, 60, 1, 1, 10, 11, 1, PAD, PAD)}
    forward = first["tokens"].tolist().index([1, 10, 11, 1, 1, 60, 1, PAD, PAD])
    assert first["positions"][forward].tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 0]
    assert first["language_ids"][forward].tolist() == [EN] * 4 + [FR] * 3 + [0, 0]
    assert first["segment_ids"][forward].tolist() == [1] * 7 + [0, 0]
    backward = 1 - forward
    assert first["positions"][backward].tolist() == [0, 1, 2, 0, 1, 2, 3, 0, 0]
    assert first["language_ids"][backward].tolist() == [FR] * 3 + [EN] * 4 + [0, 0]


def test_both_directions_of_every_pair_in_two_epochs(tmp_path, rng):
    sources = [[100 + i] * int(rng.integers(1, 6)) for i in range(40)]
    targets = [[200 + i] * int(rng.integers(1, 6)) for i in range(40)]
    store = write_store(
        tmp_path / "s",
        {"tokens": sources, "target_tokens": targets},
        {"tokens": "en", "target_tokens": "fr"},
    )
    layout = PackLayout(store, 24, DELIMITERS)
    orders = []
    for epoch in (0, 1):
        rows = np.arange(layout.num_rows)
        segments = _segments(fill(layout, rows, np.full_like(rows, epoch)))
        assert len(segments) == 40
        orders.append({tuple(sorted(t)): t[1] < 200 for t, _, _ in segments})
    assert orders[0].keys() == orders[1].keys()
    assert all(orders[0][pair] != orders[1][pair] for pair in orders[0])
    assert 8 < sum(orders[0].values()) < 32, "each epoch mixes both directions"


def test_a_pair_longer_than_a_row_is_dropped_and_counted(tmp_path):
    store = write_store(
        tmp_path / "s",
        {"tokens": [[10] * 3, [11] * 4], "target_tokens": [[60], [61]]},
        {"tokens": "en", "target_tokens": "fr"},
        num_shards=1,
    )
    layout = PackLayout(store, 8, DELIMITERS)
    assert layout.dropped == {"longer than a row": 1}
    assert layout.num_rows == 1
    assert 11 not in fill(layout, [0])["tokens"]


def test_texts_that_stay_whole_are_few_in_a_row_and_none_is_long(tmp_path, texts):
    store = write_store(tmp_path / "s", {"tokens": texts}, {"tokens": "en"})
    layout = PackLayout(store, 24, DELIMITERS, Whole(most=3, longest=8))
    rows = fill(layout, range(layout.num_rows))
    assert rows["segment_ids"].max() == 3
    short = [[EOS, *text, EOS] for text in texts if len(text) <= 6]
    assert sorted(tokens for tokens, _, _ in _segments(rows)) == sorted(short)
    assert layout.dropped == {"longer than 8 tokens": len(texts) - len(short)}
    assert layout.dropped["longer than 8 tokens"] > 0


@pytest.mark.parametrize("most", [1, 3, 8])
def test_pack_holds_at_most_so_many_items(rng, most):
    sizes = np.minimum(rng.geometric(0.05, size=3_000) + 2, 128)
    first, items = pack(sizes, 128, most)
    assert sorted(items) == list(range(3_000))
    assert np.diff(first).max() == most
    assert np.add.reduceat(sizes[items], first[:-1]).max() <= 128


def test_pack_fills_rows_and_uses_every_item_once(rng):
    sizes = np.minimum(rng.geometric(0.05, size=5_000) + 2, 128)
    first, items = pack(sizes, 128)
    np.testing.assert_array_equal(np.sort(items), np.arange(5_000))
    used = np.add.reduceat(sizes[items], first[:-1])
    assert used.max() <= 128
    assert sizes.sum() / (128 * (len(first) - 1)) > 0.99


def test_pack_by_hand():
    first, items = pack(np.array([3, 5, 2, 8, 5]), 8)
    rows = sorted(tuple(items[a:b]) for a, b in itertools.pairwise(first))
    assert rows == [(1, 0), (3,), (4, 2)]


def test_padding_carries_nothing(tmp_path, texts):
    layout = PackLayout(
        write_store(tmp_path / "s", {"tokens": texts}, {"tokens": "en"}), 13, DELIMITERS
    )
    batch = fill(layout, range(layout.num_rows))
    padding = batch["segment_ids"] == 0
    assert padding.any()
    assert (batch["tokens"][padding] == PAD).all()
    assert (batch["tokens"][~padding] != PAD).all()
    assert (batch["positions"][padding] == 0).all()


def test_pairs_cannot_stream(tmp_path):
    store = write_store(
        tmp_path / "s",
        {"tokens": [[10]], "target_tokens": [[60]]},
        {"tokens": "en", "target_tokens": "fr"},
        num_shards=1,
    )
    with pytest.raises(ValueError, match=r"data\.layout\.pair='stream'.*pack"):
        make_layout("stream", store, 8, DELIMITERS)


def _segments(batch):
    """Return (tokens, positions, languages) of every segment of a batch."""
    found = []
    for row in range(len(batch[features.TOKENS])):
        ids = batch[features.SEGMENT_IDS][row]
        for segment in range(1, ids.max() + 1):
            chosen = ids == segment
            found.append(
                tuple(
                    batch[name][row][chosen].tolist()
                    for name in (features.TOKENS, features.POSITIONS, features.LANGUAGE_IDS)
                )
            )
    return found


def test_texts_and_pairs_begin_with_another_symbol_where_there_is_one(tmp_path):
    """XLM-R: `<s> a </s>`, `<s> a </s> </s> b </s>`."""
    bos = Delimiters(eos=EOS, pad=PAD, bos=3)
    sides = {"tokens": [[10, 11]], "target_tokens": [[60]]}
    store = write_store(tmp_path / "p", sides, {"tokens": "en", "target_tokens": "fr"})
    rows = fill(PackLayout(store, 8, bos), [0, 0], [0, 1])["tokens"].tolist()
    assert sorted(rows) == [[3, 10, 11, 1, 1, 60, 1, PAD], [3, 60, 1, 1, 10, 11, 1, PAD]]
    text = write_store(tmp_path / "t", {"tokens": [[10]]}, {"tokens": "en"})
    row = fill(PackLayout(text, 7, bos), [0])["tokens"][0].tolist()
    assert row == [3, 10, 1, PAD, PAD, PAD, PAD]


def labelled(tmp_path, alone=False, length=16, **sides):
    names, ids = ("no", "yes", "perhaps"), [index % 3 for index in range(len(sides["tokens"]))]
    store = write_store(
        tmp_path / "s", sides, dict.fromkeys(sides, "fr"), labels=(names, ids), task="xnli.fr"
    )
    layout = LabelledLayout(store, length, DELIMITERS, alone)
    return layout, fill(layout, range(layout.num_rows), of=features.LABELLED)


def test_a_labelled_pair_has_one_separator_and_positions_that_run_on(tmp_path):
    """Law 3 of XLM: `</s> a </s> b </s>`, length len1 + len2 - 1 of the delimited sides."""
    _, batch = labelled(tmp_path, tokens=[[10, 11]], target_tokens=[[60]])
    assert batch["tokens"][0].tolist() == [EOS, 10, 11, EOS, 60, EOS] + [PAD] * 10
    assert batch["positions"][0].tolist() == [*range(6), *[0] * 10]
    assert batch["language_ids"][0].tolist() == [FR] * 6 + [0] * 10
    assert batch["segment_ids"][0].tolist() == [1] * 6 + [0] * 10
    assert batch["labels"][0].tolist() == [0] + [-1] * 15


@pytest.mark.parametrize("alone", [False, True])
def test_every_labelled_example_is_there_once_with_its_label(tmp_path, texts, alone):
    others = texts[::-1]
    layout, batch = labelled(tmp_path, alone, 48, tokens=texts, target_tokens=others)
    assert layout.truncated == 0
    found = []
    for row in range(layout.num_rows):
        segments = batch["segment_ids"][row]
        assert not alone or segments.max() == 1
        for segment in range(1, segments.max() + 1):
            here = np.flatnonzero(segments == segment)
            assert (batch["labels"][row, here[1:]] == -1).all()
            assert batch["positions"][row, here].tolist() == list(range(len(here)))
            found.append((batch["tokens"][row, here].tolist(), batch["labels"][row, here[0]]))
    expected = [
        ([EOS, *a, EOS, *b, EOS], index % 3)
        for index, (a, b) in enumerate(zip(texts, others, strict=True))
    ]
    assert sorted(found) == sorted(expected)
    assert (batch["labels"][batch["segment_ids"] == 0] == -1).all()
    assert layout.num_tokens == sum(len(tokens) for tokens, _ in expected)
    assert alone or layout.num_rows < len(texts)


def test_a_labelled_text_stands_alone(tmp_path):
    _, batch = labelled(tmp_path, True, 6, tokens=[[10, 11], [12]])
    assert batch["tokens"].tolist() == [[EOS, 10, 11, EOS, PAD, PAD], [EOS, 12, EOS, PAD, PAD, PAD]]
    assert batch["labels"][:, 0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (9, 2, (5, 2)),
        (2, 9, (2, 5)),
        (9, 9, (4, 3)),
        (4, 3, (4, 3)),
        (3, 5, (3, 4)),
        (6, 3, (4, 3)),
    ],
)
def test_the_longer_side_is_cut_and_counted(tmp_path, first, second, kept):
    a, b = [*range(10, 10 + first)], [*range(50, 50 + second)]
    layout, batch = labelled(tmp_path, True, 10, tokens=[a], target_tokens=[b])
    row = batch["tokens"][0].tolist()
    assert row == [EOS, *a[: kept[0]], EOS, *b[: kept[1]], EOS]
    assert layout.truncated == (first + second > 7)
