"""Two languages in one space from the text of each: counts, information, and a made-up pair."""

import collections
import dataclasses

import jax
import numpy as np
import pytest

from tests.small_run import small_config, write_data
from tests.stores import write_store
from xlmjax import cli
from xlmjax.alignment import common_space, spelling, translations
from xlmjax.alignment.common_space import draw_together, find_common_space, mutual
from xlmjax.alignment.contexts import NEAR, SMOOTHING, WINDOW, Contexts, positive_pmi
from xlmjax.alignment.inflection import SHARE, forms, pooled
from xlmjax.alignment.spelling import spelt_alike
from xlmjax.commands import vectors
from xlmjax.data.vocabulary import UntrainedVocabulary, Vocabulary
from xlmjax.data.word_vectors import read_word_vectors

KINDS, SHARED, FIRST = 200, 60, 5
VOCABULARY = UntrainedVocabulary(FIRST + 2 * KINDS)


def count(store, **limits):
    limits = {"min_count": 1, "max_pieces": 1_000, "max_contexts": 1_000} | limits
    return Contexts.of([store], VOCABULARY, **limits)


def test_counts_are_those_of_a_window_within_an_example(tmp_path):
    rng = np.random.default_rng(0)
    examples = [rng.integers(3, 30, size=rng.integers(0, 25)).tolist() for _ in range(50)]
    store = write_store(tmp_path, {"tokens": examples}, {"tokens": "en"})
    found = count(store, min_count=20, max_contexts=7)
    flat = np.concatenate([np.array(example, int) for example in examples])
    times = {piece: int((flat == piece).sum()) for piece in range(FIRST, 30)}
    assert dict(zip(found.pieces.tolist(), found.counts.tolist(), strict=True)) == {
        piece: number for piece, number in times.items() if number >= 20
    }
    assert 7 < len(found.pieces) < 25  # special pieces never, rare ones neither
    assert (np.diff(found.counts) <= 0).all()
    rank = {int(piece): number for number, piece in enumerate(found.pieces)}
    before, after, near = np.zeros((3, len(rank), 7))
    for example in examples:
        for i, piece in enumerate(example):
            for j, other in enumerate(example):
                if piece in rank and rank.get(other, 7) < 7 and 0 < abs(i - j) <= WINDOW:
                    table = after if j > i else before
                    table[rank[piece], rank[other]] += (WINDOW - abs(i - j) + 1) / WINDOW
                    near[rank[piece], rank[other]] += max(0, NEAR - abs(i - j) + 1) / NEAR
    np.testing.assert_allclose(found.before, before, rtol=1e-5)
    np.testing.assert_allclose(found.after, after, rtol=1e-5)
    np.testing.assert_allclose(found.near, near, rtol=1e-5)
    assert len(count(store, max_pieces=3).pieces) == 3
    with pytest.raises(ValueError, match="no piece occurs 1000 times"):
        count(store, min_count=1_000)


@pytest.mark.parametrize("gap", [0, NEAR + 1])
def test_text_without_neighbours_is_refused(tmp_path, gap):
    rare = list(range(10, 10 + gap))
    lines = [[FIRST], [FIRST + 1]] if not gap else [[FIRST, *rare, FIRST]]
    store = write_store(tmp_path, {"tokens": lines}, {"tokens": "en"})
    with pytest.raises(ValueError, match="no two frequent pieces stand near each other"):
        count(store, max_pieces=2 if not gap else 1)


def test_other_text_counts_the_same_pieces_anew(tmp_path):
    rng = np.random.default_rng(0)
    stores = [
        write_store(
            tmp_path / name,
            {"tokens": [rng.integers(3, high, size=9).tolist() for _ in range(80)]},
            {"tokens": "en"},
        )
        for name, high in (("a", 20), ("b", 40))
    ]
    first, other = (count(store, max_contexts=40) for store in stores)
    found = first.counted_in([stores[1]], VOCABULARY)
    np.testing.assert_array_equal(found.pieces, first.pieces)
    np.testing.assert_array_equal(found.counts, first.counts)
    rows = [other.pieces.tolist().index(piece) for piece in first.pieces]
    np.testing.assert_array_equal(found.before, other.before[np.ix_(rows, rows)])
    np.testing.assert_array_equal(found.after, other.after[np.ix_(rows, rows)])
    np.testing.assert_array_equal(found.near, other.near[np.ix_(rows, rows)])


def test_information_is_that_of_the_definition():
    counts = np.float32([[4, 0, 1], [1, 2, 0], [0, 0, 0]])
    frequency = counts.sum(axis=0) ** SMOOTHING
    frequency /= frequency.sum()
    expected = np.zeros((3, 3))
    for i, j in np.argwhere(counts):
        expected[i, j] = max(0, np.log(counts[i, j] / counts[i].sum() / frequency[j]))
    np.testing.assert_allclose(positive_pmi(counts), expected, rtol=1e-5)
    assert 0 < (expected > 0).sum() < (counts > 0).sum()


def write_language(folder, pieces, seed, chain_seed=0, number=4_000):
    """Text of a chain in which each kind is followed by few others; kind i is pieces[i]."""
    chain = np.random.default_rng(chain_seed)
    often = 1 / np.arange(1, KINDS + 1) ** 0.7
    follow = [chain.choice(KINDS, 6, p=often / often.sum()) for _ in range(KINDS)]
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(number):
        kinds = [int(rng.integers(KINDS))]
        while len(kinds) < 10:
            kinds.append(int(follow[kinds[-1]][min(5, rng.geometric(0.4) - 1)]))
        examples.append([int(pieces[kind]) for kind in kinds])
    return write_store(folder, {"tokens": examples}, {"tokens": "en"})


def translated(tmp_path, other_chain, examples=4_000, more=0):
    """Return the share of pieces with a spelling of their own whose translation is found.

    `examples` of text are there of each language, and `more` of the same to refine on.
    """
    own = np.random.default_rng(5).permutation(KINDS) + FIRST + KINDS
    shared = np.random.default_rng(6).choice(KINDS, SHARED, replace=False)
    here, there = np.arange(KINDS) + FIRST, own.copy()
    there[shared] = here[shared]
    languages = (("a", here, 1, 0), ("b", there, 2, other_chain))
    sides = [
        count(write_language(tmp_path / name, pieces, seed, chain, examples), min_count=3)
        for name, pieces, seed, chain in languages
    ]
    wider = [
        side.counted_in(
            [write_language(tmp_path / f"more-{name}", pieces, 10 + seed, chain, more)], VOCABULARY
        )
        for side, (name, pieces, seed, chain) in zip(sides, languages, strict=True)
        if more
    ]
    told = []
    space = find_common_space(*sides, 32, jax.random.key(0), told.append, wider)
    assert any("in more text" in line for line in told) == bool(more)
    both = {*sides[0].pieces.tolist()} & {*sides[1].pieces.tolist()}
    assert SHARED - 5 < len(both) == space.shared <= SHARED
    assert f"{len(both)} pieces stand in the text of both" in told[0]
    ranks = [{int(piece): i for i, piece in enumerate(side.pieces)} for side in sides]
    right = {
        (ranks[0][here[kind]], ranks[1][there[kind]])
        for kind in range(KINDS)
        if here[kind] != there[kind] and here[kind] in ranks[0] and there[kind] in ranks[1]
    }
    assert len(right) > 100
    np.testing.assert_allclose(np.linalg.norm(space.first, axis=1), 1, rtol=1e-5)
    found = {*map(tuple, space.pairs.tolist())}
    # They were each other's best before they were drawn together, so they are the more so now.
    now = mutual(space.first, space.second, min(len(space.first), len(space.second)))
    assert found <= {*map(tuple, now.tolist())}
    return len(right & found) / len(right)


def test_translations_are_found_from_the_text_of_each_language_alone(tmp_path):
    assert translated(tmp_path, other_chain=0) > 0.8


def test_they_are_not_where_the_texts_have_nothing_in_common(tmp_path):
    assert translated(tmp_path, other_chain=1) < 0.1


def test_more_text_finds_more_of_them(tmp_path):
    few = translated(tmp_path / "few", other_chain=0, examples=600)
    assert 0.2 < few < translated(tmp_path / "more", other_chain=0, examples=600, more=8_000) - 0.1


def test_pieces_are_alike_by_the_parts_that_they_share():
    alike = spelt_alike(["▁guitar", "▁dog", "a"], ["▁guitare", "▁dog", "▁chien", "▁doge", "b"])
    assert alike.shape == (3, 5)
    assert alike[1, 1] == pytest.approx(1)
    assert 0.9 > alike[0, 0] > alike[1, 3] > 0.3
    assert not alike[2].any()
    assert not alike[:, 2].any()


def test_translations_are_those_of_the_first_model_of_brown_and_others(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    pairs = [
        (rng.integers(3, 20, rng.integers(0, 7)).tolist(), rng.integers(15, 30, 4).tolist())
        for _ in range(25)
    ]
    store = write_store(
        tmp_path,
        {"tokens": [a for a, _ in pairs], "target_tokens": [b for _, b in pairs]},
        {"tokens": "en", "target_tokens": "fr"},
    )
    special = {*VOCABULARY.special_ids}
    first, second = np.arange(5, 12), np.arange(16, 26)  # all others are one
    pairs = [
        [
            [
                list(own).index(token) if token in own else -1
                for token in side
                if token not in special
            ]
            for side, own in zip(pair, (first, second), strict=True)
        ]
        for pair in pairs
    ]

    def learned(pairs):
        chances = collections.defaultdict(lambda: 1.0)
        for _ in range(translations.ITERATIONS):
            counts, of_source = collections.Counter(), collections.Counter()
            for source, target in pairs:
                for word in target:
                    over = sum(chances[other, word] for other in source)
                    for other in source:
                        counts[other, word] += chances[other, word] / over
                        of_source[other] += chances[other, word] / over
            chances = collections.defaultdict(
                float, {pair: count / of_source[pair[0]] for pair, count in counts.items()}
            )
        return chances

    there, back = learned(pairs), learned([pair[::-1] for pair in pairs])
    expected = [
        [np.sqrt(there[i, j] * back[j, i]) for j in range(len(second))] for i in range(len(first))
    ]
    monkeypatch.setattr(translations, "_CHUNK", 7)
    found = translations.translated(store, VOCABULARY, first, second)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert found.max() > 0.2


def test_between_translations_as_good_clues_decide():
    x = np.random.default_rng(0).standard_normal((30, 16)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = x.copy()
    y[0], y[1] = 0.48 * x[0] + 0.52 * x[1], 0.52 * x[0] + 0.48 * x[1]
    clues = np.zeros((40, 50), np.float32)  # of more pieces than are looked at
    clues[2, 3] = 0.3
    by_context = mutual(x, y, 30)
    assert by_context[:2].tolist() == [[0, 1], [1, 0]]
    np.testing.assert_array_equal(mutual(x, y, 30, clues), by_context)
    clues[[0, 1], [0, 1]] = 0.15
    assert mutual(x, y, 30, clues).tolist() == [[n, n] for n in range(30)]


def test_the_two_of_a_pair_are_drawn_together():
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((n, 64)).astype(np.float32) for n in (40, 50))
    x, y = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, y))
    pairs = np.array([[0, 3], [7, 1]])
    first, second = draw_together(x, y, pairs)
    for before, after in ((x, first), (y, second)):
        assert after.shape == before.shape
        np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, rtol=1e-5)
    before, after = ((a @ b.T) for a, b in ((x, y), (first, second)))
    for pair in map(tuple, pairs):
        # Of two at a right angle, each goes a quarter of the way: cosine 0.6.
        assert abs(before[pair]) < 0.3
        assert after[pair] == pytest.approx(0.6 + before[pair] / 2, abs=0.12)
    rest = np.ones_like(before, bool)
    rest[pairs[:, 0]] = rest[:, pairs[:, 1]] = False
    assert np.abs(after - before)[rest].max() < 0.1


def test_a_space_is_of_all_windows_and_drawn_together(tmp_path, monkeypatch):
    sides = [
        count(write_language(tmp_path / name, np.arange(KINDS) + FIRST, seed), max_contexts=120)
        for name, seed in (("a", 1), ("b", 2))
    ]
    for found, counts in zip(
        sides[0].information(), (sides[0].before, sides[0].after, sides[0].near), strict=True
    ):
        np.testing.assert_array_equal(found, positive_pmi(counts))
    space = find_common_space(*sides, 32, jax.random.key(0))
    monkeypatch.setattr(common_space, "draw_together", lambda x, y, pairs: (x, y))
    apart = find_common_space(*sides, 32, jax.random.key(0))
    np.testing.assert_array_equal(apart.pairs, space.pairs)
    expected = draw_together(apart.first, apart.second, apart.pairs)
    np.testing.assert_array_equal(space.first, expected[0])
    np.testing.assert_array_equal(space.second, expected[1])
    assert np.abs(space.first - apart.first).max() > 1e-3
    others = [dataclasses.replace(side, near=side.before) for side in sides]
    other = find_common_space(*others, 32, jax.random.key(0))
    assert np.abs(apart.first @ apart.first.T - other.first @ other.first.T).max() > 0.01


def test_forms_of_a_word_begin_alike():
    pieces = ["▁noir", "▁noire", "▁noirs", "noir", "▁no", "▁porte", "▁porche", "▁red", "▁reddest"]
    found = [(pieces[a], pieces[b]) for a, b in forms(pieces)]
    alike = [("▁noir", "▁noire"), ("▁noir", "▁noirs"), ("▁noire", "▁noirs"), ("▁porte", "▁porche")]
    assert sorted(found) == sorted(pair for one in alike for pair in (one, one[::-1]))
    assert forms(["▁a", "▁b"]).shape == (0, 2)


def test_a_form_is_given_a_share_of_those_alike_and_nothing_of_others():
    x = np.array([[1, 0], [0.6, 0.8], [-1, 0], [0, 1]], np.float32)
    pairs = np.array([(0, 1), (1, 0), (0, 2), (2, 0)])
    found = pooled(x, pairs)
    np.testing.assert_allclose(found[0], x[0] + SHARE * 0.6 * x[1], rtol=1e-6)
    np.testing.assert_allclose(found[1], x[1] + SHARE * 0.6 * x[0], rtol=1e-6)
    np.testing.assert_array_equal(found[2:], x[2:])
    np.testing.assert_array_equal(pooled(x, pairs[:0]), x)


def test_translations_are_those_of_words_pooled_with_their_forms(tmp_path, monkeypatch):
    sides = [
        count(write_language(tmp_path / name, np.arange(KINDS) + FIRST, seed), max_contexts=120)
        for name, seed in (("a", 1), ("b", 2))
    ]
    monkeypatch.setattr(common_space, "draw_together", lambda x, y, pairs: (x, y))
    alone = find_common_space(*sides, 32, jax.random.key(0))
    cosines = np.triu(alone.first @ alone.first.T, 1)
    a, b = np.unravel_index(cosines.argmax(), cosines.shape)
    of_two = np.array([(a, b), (b, a)])
    space = find_common_space(*sides, 32, jax.random.key(0), forms=(of_two, of_two[:0]))
    np.testing.assert_allclose(
        space.first, common_space._unit(pooled(alone.first, of_two)), atol=1e-6
    )
    assert space.first[a] @ space.first[b] > cosines[a, b] + 1e-3
    np.testing.assert_array_equal(space.pairs, mutual(space.first, space.second, 120))


def test_contexts_are_shared_among_those_that_are_counted(tmp_path):
    sides = [
        count(write_language(tmp_path / name, np.arange(KINDS) + FIRST, seed), max_contexts=120)
        for name, seed in (("a", 1), ("b", 2))
    ]
    space = find_common_space(*sides, 32, jax.random.key(0))
    assert len(sides[0].pieces) > 150
    assert 100 < len(space.pairs) <= 120
    assert space.pairs.max() < 120


def test_too_little_to_begin_with_is_refused(tmp_path):
    a = count(write_language(tmp_path / "a", np.arange(KINDS) + FIRST, 1), min_count=3)
    b = count(write_language(tmp_path / "b", np.arange(KINDS) + FIRST + KINDS, 2), min_count=3)
    with pytest.raises(ValueError, match="0 pieces in common, fewer than the 32 dimensions"):
        find_common_space(a, b, 32, jax.random.key(0))
    narrow = count(write_language(tmp_path / "c", np.arange(KINDS) + FIRST, 1), max_contexts=99)
    with pytest.raises(ValueError, match="99 contexts for vectors of 190 dimensions"):
        find_common_space(narrow, narrow, 190, jax.random.key(0))


@pytest.fixture
def text(tmp_path):
    """A prepared run whose two languages follow one chain of 50 pieces, most of them shared."""
    write_data(tmp_path)
    path = tmp_path / "vocabulary.model"
    fingerprint = Vocabulary.load(path).fingerprint
    chain = np.random.default_rng(0)
    follow = [chain.choice(50, 4) for _ in range(50)]
    for code, seed in (("en", 1), ("fr", 2)):
        rng = np.random.default_rng(seed)
        examples = []
        for _ in range(2_000):
            kinds = [int(rng.integers(50))]
            while len(kinds) < 10:
                kinds.append(int(rng.choice(follow[kinds[-1]])))
            # Two words are called otherwise in the second language.
            names = {3: 51, 4: 52} if code == "fr" else {}
            examples.append([FIRST + names.get(kind, kind) for kind in kinds])
        write_store(
            tmp_path / "stores" / f"mlm.{code}" / "train",
            {"tokens": examples},
            {"tokens": code},
            task=f"mlm.{code}",
            vocabulary=fingerprint,
        )
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "from tests.small_run import small_config\n"
        f"def get_config(arg=''):\n    return small_config(Path({str(tmp_path)!r}))\n"
    )
    return tmp_path


def run(folder, *more):
    out = folder / "out" / "ab.vec"
    return cli.main(["vectors", f"--config={folder / 'mine.py'}", f"--out={out}", *more])


def test_the_command_writes_what_a_run_can_start_from(text, capsys):
    assert run(text) == 0
    printed = capsys.readouterr().out
    pieces = Vocabulary.load(text / "vocabulary.model").pieces
    assert "en: 20,000 pieces of 50 kinds" in printed
    for number, other in ((3, 51), (4, 52)):
        pair = f"{pieces[FIRST + number]} {pieces[FIRST + other]}".replace("▁", "")
        assert pair in printed.partition("en = fr: ")[2]
    words, table = read_word_vectors(text / "out/ab.vec", "test")
    assert set(words) == {pieces[FIRST + number] for number in (*range(50), 51, 52)}
    assert table.shape == (52, small_config(text).model.embed_dim)


def test_the_command_compares_how_contexts_are_spelt(text, monkeypatch):
    found = []

    def watched(first, second, dim, key, report, wider, clues, forms):
        found.append((first, second, clues, forms))
        return find_common_space(first, second, dim, key, report, wider, clues)

    monkeypatch.setattr(vectors, "find_common_space", watched)
    monkeypatch.setattr(vectors, "forms", lambda pieces: [*pieces])
    assert run(text, "--max-contexts=40") == 0
    [(first, second, clues, of_sides)] = found
    same = first.pieces[:40, None] == second.pieces[:40]
    assert 30 < same.sum() <= 40
    np.testing.assert_array_equal(clues > spelling.WORTH - 1e-5, same)
    # Forms are looked for among the pieces of each side, in their order.
    pieces = Vocabulary.load(text / "vocabulary.model").pieces
    assert of_sides == [[pieces[piece] for piece in side.pieces] for side in (first, second)]
    assert of_sides[0] != of_sides[1]


@pytest.mark.parametrize("way", ["mt.en_fr", "mt.fr_en"])
def test_the_command_takes_translations_of_another_translator(text, monkeypatch, capsys, way):
    vocabulary = Vocabulary.load(text / "vocabulary.model")
    rng, found = np.random.default_rng(0), []
    sentences = [(rng.permutation(50)[:6] + FIRST).tolist() for _ in range(400)]
    other = [[FIRST + (token - FIRST + 1) % 50 for token in reversed(own)] for own in sentences]
    sides = (sentences, other) if way == "mt.en_fr" else (other, sentences)
    write_store(
        text / "pairs" / way / "train",
        {"tokens": sides[0], "target_tokens": sides[1]},
        dict(zip(("tokens", "target_tokens"), way.removeprefix("mt.").split("_"), strict=True)),
        task=way,
        vocabulary=vocabulary.fingerprint,
    )

    def watched(first, second, dim, key, report, wider, clues, forms):
        found.append((first, second, clues))
        return find_common_space(first, second, dim, key, report, wider, clues, forms)

    monkeypatch.setattr(vectors, "find_common_space", watched)
    assert run(text, f"--translations={text / 'pairs'}") == 0
    [(first, second, clues)] = found
    expected = FIRST + (first.contexts - FIRST + 1) % 50
    known = np.isin(expected, second.contexts)
    assert known.sum() == 48
    np.testing.assert_array_equal(second.contexts[clues.argmax(axis=1)][known], expected[known])
    capsys.readouterr()
    assert run(text, f"--translations={text}") == 2
    printed = capsys.readouterr()
    assert "there is no" in printed.err
    assert "kinds" not in printed.out  # nothing was counted


def test_the_command_refines_on_other_stores(text, capsys):
    assert run(text, f"--refine-on={text / 'stores'}") == 0
    assert "round 6 of 6 in more text" in capsys.readouterr().out
    capsys.readouterr()
    assert run(text, f"--refine-on={text}") == 2
    printed = capsys.readouterr()
    assert "mlm.en/train" in printed.err
    assert "kinds" not in printed.out


@pytest.mark.parametrize("languages", ["en", "en,en", "en,sw", "en,fr,en"])
def test_the_command_takes_two_languages_that_have_text(text, capsys, languages):
    assert run(text, f"--languages={languages}") == 2
    assert f"--languages={languages}: name two that" in capsys.readouterr().err
