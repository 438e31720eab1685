"""A vocabulary of the pieces of another one: which stay, that nothing else changes, its errors."""

import argparse

import numpy as np
import pytest

from xlmjax.commands import vocab
from xlmjax.configs import base
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.data.vocabulary_change import VocabularyChange
from xlmjax.interop.tokenizer_json import tokenizer_json
from xlmjax.preparation import demo_parts, train_vocabulary
from xlmjax.preparation.vocabulary_subset import take_subset
from xlmjax.preparation.vocabulary_text import drawn_lines


@pytest.fixture
def config(tmp_path, monkeypatch):
    """English alone, to be written with pieces of English, French and Swahili."""
    monkeypatch.setattr(demo_parts, "TEXTS", {"train": 300})
    config = base.get_config()
    config.data.languages = ("en", "fr", "sw")
    config.vocab.size = 900
    vocabulary, _ = train_vocabulary.train(config)
    config.vocab.subset_of = str(tmp_path / "whole.model")
    train_vocabulary.save(vocabulary, config.vocab.subset_of)
    config.data.languages = ("en",)
    config.data.vocabulary = str(tmp_path / "subset.model")
    config.vocab.size = 600
    return config


def counts(vocabulary: Vocabulary, texts: list[str]) -> np.ndarray:
    ids = [index for text in texts for index in vocabulary.encode(text)]
    return np.bincount(ids, minlength=vocabulary.size)


def test_what_the_text_needs_is_cut_as_before(config):
    whole = Vocabulary.load(config.vocab.subset_of)
    subset, sample, kept = take_subset(config)
    texts = list(drawn_lines(config)[0])
    assert [part.language for part in sample] == ["en"]
    assert subset.size == 600
    assert subset.pieces[:5] == whole.pieces[:5]
    assert set(subset.pieces) < set(whole.pieces)
    assert kept.covered == 1.0
    for text in texts:
        theirs, ours = ([v.pieces[i] for i in v.encode(text)] for v in (whole, subset))
        assert ours == theirs
    assert subset.decode(subset.encode("漢字 <mask> </s>")) == "漢字 <mask> </s>"  # in bytes
    # So every vector of a checkpoint is kept, and none is made up.
    sources = VocabularyChange(whole, subset).sources
    assert [whole.pieces[old] for (old,) in sources] == list(subset.pieces)


def test_the_rarest_pieces_go_and_no_character_does(config):
    whole = Vocabulary.load(config.vocab.subset_of)
    texts = list(drawn_lines(config)[0])
    used = counts(whole, texts)
    config.vocab.size = 320
    subset, _, kept = take_subset(config)
    assert subset.size == 320
    gone = [index for index, piece in enumerate(whole.pieces) if piece not in set(subset.pieces)]
    words = [
        index
        for index, piece in enumerate(whole.pieces)
        if piece in set(subset.pieces) and len(piece) > 1 and index not in whole.special_ids
    ]
    chosen = [index for index in words if not whole.pieces[index].startswith("<0x")]
    assert max(used[gone]) <= min(used[chosen])
    assert kept.covered == pytest.approx(1 - used[gone].sum() / used.sum())
    assert 0.5 < kept.covered < 1
    for text in texts:
        ours, theirs = ([v.pieces[i] for i in v.encode(text)] for v in (subset, whole))
        assert [piece for piece in ours if piece.startswith("<0x")] == [
            piece for piece in theirs if piece.startswith("<0x")
        ]
        assert subset.decode(subset.encode(text)) == text


def test_the_command_says_what_is_covered(config, capsys):
    vocab.run(config, argparse.Namespace(force=False))
    out = capsys.readouterr().out
    assert f"600 pieces of the 900 pieces of {config.vocab.subset_of}; they are 100.00% of" in out
    assert Vocabulary.load(config.data.vocabulary).size == 600


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 901}, r"vocab.size=901 is more than the 900 pieces of vocab.subset_of=.*whole"),
        ({"size": 280}, r"vocab.size=280 is too small for the \d+ pieces .* characters"),
        ({"subset_of": "nowhere.model"}, "vocab.subset_of=nowhere.model: no such file"),
        ({"alpha": -1.0}, "vocab.alpha=-1.0 must be 0 or more"),
    ],
)
def test_faults_name_the_field(config, fields, message):
    config.vocab.update(fields)
    with pytest.raises(ValueError, match=message):
        take_subset(config)


def test_pieces_of_a_bpe_cannot_be_left_out(config, tmp_path):
    config.vocab.kind, config.vocab.size = "bpe", 700
    bpe, _ = train_vocabulary.train(config)
    config.vocab.subset_of = str(tmp_path / "bpe.model")
    train_vocabulary.save(bpe, config.vocab.subset_of)
    with pytest.raises(ValueError, match=r"bpe.model is a BPE, whose pieces are made of each oth"):
        take_subset(config)


def test_a_subset_leaves_as_a_tokenizer(config):
    """Nothing of the old size is left in the model."""
    subset, _, _ = take_subset(config)
    assert len(tokenizer_json(subset, "<s>")["model"]["vocab"]) == subset.size
