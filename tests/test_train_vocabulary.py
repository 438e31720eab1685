"""Training of the vocabulary: alpha sampling, determinism, what it is trained on, its errors."""

import argparse
import collections
import itertools

import numpy as np
import pytest

from xlmjax.commands import vocab
from xlmjax.configs import base
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.preparation import corpora, demo_parts, train_vocabulary, vocabulary_text
from xlmjax.preparation.cleaning import Cleaning
from xlmjax.preparation.vocabulary_text import Sampled, alpha_sample


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Three languages of demo text, few lines of it, and one pair."""
    monkeypatch.setattr(demo_parts, "TEXTS", {"train": 300})
    monkeypatch.setattr(demo_parts, "PAIRS", {"train": 100})
    config = base.get_config()
    config.data.languages = ("sw", "en", "fr")
    config.data.pairs = ("sw-en",)
    config.data.vocabulary = str(tmp_path / "deep" / "vocabulary.model")
    config.vocab.size = 400
    return config


def test_alpha_sampling_by_hand():
    # p = .64, .32, .04; sqrt: .8, .565685, .2, which sum to 1.565685.
    sample = alpha_sample({"en": 640, "fr": 320, "sw": 40}, alpha=0.5, max_lines=10**6)
    shares = [0.510960, 0.361303, 0.127740]
    np.testing.assert_allclose([part.share for part in sample], shares, atol=2e-5)
    assert [part.drawn for part in sample] == [511, 361, 128]  # of 1000 lines, as many as there are


@pytest.mark.parametrize(("alpha", "drawn"), [(1.0, [64, 32, 4]), (0.0, [34, 33, 33])])
def test_alpha_one_follows_the_corpus_and_zero_is_flat(alpha, drawn):
    sample = alpha_sample({"en": 640, "fr": 320, "sw": 40}, alpha, max_lines=100)
    assert [part.drawn for part in sample] == drawn


def draw(texts: list[str], drawn: int, seed: int = 0) -> list[str]:
    class Texts:
        def __len__(self):
            return len(texts)

        def examples(self, start, stop):
            return iter([(b"other side", text.encode()) for text in texts[start:stop]])

    sampled = Sampled("en", len(texts), drawn, 1.0)
    generator = np.random.default_rng(seed)
    return list(vocabulary_text._draw([(Texts(), 1)], sampled, Cleaning(), generator))


@pytest.mark.parametrize("drawn", [1, 6, 7, 16, 21])
def test_lines_are_drawn_evenly(drawn):
    texts = [f"line {index}" for index in range(7)]
    counts = collections.Counter(draw(texts, drawn))
    assert sum(counts.values()) == drawn
    assert {counts[text] for text in texts} <= {drawn // 7, -(-drawn // 7)}
    assert draw(texts, drawn) == draw(texts, drawn)


def test_another_seed_draws_other_lines():
    texts = [f"line {index}" for index in range(100)]
    assert draw(texts, 10, seed=0) != draw(texts, 10, seed=1)


def test_long_lines_are_cut_not_left_out():
    text = "x" * 4_500
    assert [len(part) for part in draw([text], 1)] == [2_000, 2_000, 500]


def test_text_and_both_sides_of_pairs_count(config):
    _, sample = train_vocabulary.train(config)
    assert [(part.language, part.lines) for part in sample] == [
        ("en", 400),
        ("fr", 300),
        ("sw", 400),
    ]


def test_pieces_and_determinism(config):
    first, _ = train_vocabulary.train(config)
    again, _ = train_vocabulary.train(config)
    assert first.model == again.model
    assert first.size == 400
    assert first.pieces[:6] == ("<s>", "</s>", "<pad>", "<unk>", "<mask>", "<0x00>")
    for text in ("The worker fell.", "漢字 <mask> </s>"):
        ids = first.encode(text)
        assert first.decode(ids) == text
        assert not set(ids) & set(first.special_ids)
    config.seed = 1
    config.vocab.max_lines = 600
    other, _ = train_vocabulary.train(config)
    assert other.model != first.model


def test_lower_casing_is_applied_to_the_training_text(config):
    config.data.lowercase = True
    config.data.strip_accents = True
    vocabulary, _ = train_vocabulary.train(config)
    pieces = "".join(piece for piece in vocabulary.pieces if not piece.startswith("<"))
    assert pieces == pieces.lower()
    assert "é" not in pieces


def test_bpe(config):
    config.vocab.kind = "bpe"
    vocabulary, _ = train_vocabulary.train(config)
    assert vocabulary.decode(vocabulary.encode("Elle a ri.")) == "Elle a ri."


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 100_000}, "vocab.size=100000.*too high"),
        ({"size": 270}, "vocab.size=270.*smaller than required"),
        ({"kind": "words"}, "vocab.kind='words' is not one of: unigram, bpe"),
        ({"alpha": -1.0}, "vocab.alpha=-1.0 must be 0 or more"),
        ({"max_lines": 0}, "vocab.max_lines=0 1 or more"),
    ],
)
def test_faults_name_the_field(config, fields, message):
    config.vocab.update(fields)
    with pytest.raises(ValueError, match=message):
        train_vocabulary.train(config)


def test_an_error_of_the_text_is_not_one_of_the_trainer(config, monkeypatch):
    def fail(*_):
        raise OSError("disk unplugged")

    monkeypatch.setattr(corpora.Corpus, "examples", fail)
    with pytest.raises(OSError, match="disk unplugged"):
        train_vocabulary.train(config)


def test_no_text_at_all(config):
    config.data.train.text = ()
    with pytest.raises(ValueError, match=r"data.train: no text for fr"):
        train_vocabulary.train(config)


def test_command_writes_reports_and_does_not_overwrite(config, capsys):
    vocab.run(config, argparse.Namespace(force=False))
    vocabulary = Vocabulary.load(config.data.vocabulary)
    output = capsys.readouterr().out
    assert vocabulary.fingerprint in output
    assert "sw" in output
    with pytest.raises(
        ValueError, match=r"exists, and stores and checkpoints depend on it.*--force"
    ):
        vocab.run(config, argparse.Namespace(force=False))
    config.vocab.size = 410
    vocab.run(config, argparse.Namespace(force=True))
    assert Vocabulary.load(config.data.vocabulary).size == 410


def test_a_corpus_that_comes_twice_makes_no_long_repeat():
    lines = [str(number) for number in range(3_000)]
    once = list(vocabulary_text.shuffled(lines * 2, 0, window=500))
    assert sorted(once) == sorted(lines * 2)
    follows = list(itertools.pairwise(once))
    assert len(set(follows)) > 0.99 * len(follows)
    assert once == list(vocabulary_text.shuffled(lines * 2, 0, window=500))
