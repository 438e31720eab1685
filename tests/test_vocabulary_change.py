"""A checkpoint moves to another vocabulary: shared rows are copied, others are means."""

import dataclasses
import io

import jax
import numpy as np
import pytest
import sentencepiece

from tests.convert_helpers import PIECES, config, write_bpe
from xlmjax.data.vocabulary import SentencePieceVocabulary
from xlmjax.data.vocabulary_change import VocabularyChange
from xlmjax.experiment import build_experiment
from xlmjax.interop import tokenizers
from xlmjax.training.checkpoint import Checkpoints
from xlmjax.training.checkpoint_settings import CheckpointConfig
from xlmjax.training.initialization import initial_state
from xlmjax.training.state import named_leaves


def train(size, order=(0, 1, 2, 3), letters="bdgkln"):
    """A unigram model on made-up words."""
    words = [a + b + c for a in letters for b in "aeiou" for c in ("", "n", "ra")]
    generator = np.random.default_rng(0)
    model = io.BytesIO()
    names = dict(zip(("bos_id", "eos_id", "pad_id", "unk_id"), order, strict=True))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(" ".join(generator.choice(words, size=6)) for _ in range(300)),
        model_writer=model,
        vocab_size=size,
        control_symbols=["<mask>"],
        minloglevel=2,
        num_threads=1,
        **names,
    )
    return SentencePieceVocabulary(model.getvalue())


BEFORE = train(45)
AFTER = train(70, order=(3, 2, 1, 0), letters="bdgklnz")


def test_every_new_piece_comes_from_its_old_pieces():
    change = VocabularyChange(BEFORE, AFTER)
    sources = dict(zip(AFTER.pieces, change.sources, strict=True))
    for piece in ("<s>", "</s>", "<pad>", "<unk>", "<mask>"):
        assert sources[piece] == (BEFORE.pieces.index(piece),)
    shared = set(BEFORE.pieces) & set(AFTER.pieces)
    assert len(shared) > 20
    for piece in shared:
        assert sources[piece] == (BEFORE.pieces.index(piece),)
    assert sources["z"] == ()
    split = {piece: parts for piece, parts in sources.items() if len(parts) > 1}
    assert len(split) > 5
    for piece, parts in split.items():
        spelt = "".join(BEFORE.pieces[part] for part in parts)
        assert spelt == piece or "z" in piece, piece


def test_the_old_vocabulary_may_be_a_bpe_and_the_new_one_may_not(tmp_path):
    write_bpe(tmp_path)
    old, _ = tokenizers.read_vocabulary(tmp_path, len(PIECES))
    sources = dict(zip(AFTER.pieces, VocabularyChange(old, AFTER).sources, strict=True))
    assert [old.pieces[i] for i in sources["\u2581ba"]] == ["b", "a</w>"]
    assert sources["<mask>"] == (5,)
    with pytest.raises(ValueError, match="new SentencePiece vocabulary only"):
        VocabularyChange(BEFORE, old)


def small(folder, vocabulary, languages, **flat):
    """A config of a tiny model with a vocabulary."""
    folder.mkdir(exist_ok=True)
    path = folder / "vocabulary.model"
    path.write_bytes(vocabulary.model)
    return config(
        data__languages=languages,
        data__vocabulary=str(path),
        model__embed_dim=16,
        model__num_layers=1,
        model__num_heads=4,
        model__max_positions=32,
        model__tie_embeddings=False,
        train__length=24,
        train__rows=8,
        **flat,
    )


@pytest.mark.slow
def test_a_run_starts_from_a_checkpoint_of_another_vocabulary_and_more_languages(tmp_path):
    old = build_experiment(small(tmp_path / "old", BEFORE, ("en", "sw")))
    new = build_experiment(small(tmp_path / "new", AFTER, ("en", "fr", "sw"), mesh__tensor=2))
    with jax.set_mesh(old.mesh):
        state = old.spec.create(jax.random.key(1))
        checkpoints = Checkpoints(tmp_path / "old", CheckpointConfig(), old.identity)
        checkpoints.save(state)
        checkpoints.close()
    settings = CheckpointConfig(init_from=str(tmp_path / "old"))
    moved, lost = (
        dataclasses.replace(settings, init_vocabulary=str(path))
        for path in (tmp_path / "old" / "vocabulary.model", tmp_path / "stranger.model")
    )
    (tmp_path / "stranger.model").write_bytes(train(46).model)
    change = VocabularyChange(BEFORE, AFTER)
    with jax.set_mesh(new.mesh):
        checkpoints = Checkpoints(tmp_path / "new", settings, new.identity)
        arguments = new.identity, new.spec, jax.random.key(2), new.vocabulary
        with pytest.raises(ValueError, match=r"name it in checkpoint.init_vocabulary"):
            initial_state(checkpoints, settings, *arguments)
        with pytest.raises(ValueError, match="the file that the checkpoint was trained with"):
            initial_state(checkpoints, lost, *arguments)
        made, report = initial_state(checkpoints, moved, *arguments)
        fresh = named_leaves(new.spec.create(jax.random.key(2)).model)
        checkpoints.close()
    counts = np.bincount([min(len(parts), 2) for parts in change.sources])
    wanted = f"{counts[1]} copied, {counts[2]} means of several, {counts[0]} new"
    assert wanted in report
    before, after = named_leaves(state.model), named_leaves(made.model)
    for name in ("embeddings/tokens", "head/table", "head/bias"):
        source, found = np.asarray(before[name]), np.asarray(after[name])
        for index, parts in enumerate(change.sources):
            expected = source[list(parts)].mean(axis=0) if parts else fresh[name][index]
            np.testing.assert_allclose(found[index], expected, rtol=1e-6, atol=1e-7)
            if len(parts) == 1:
                np.testing.assert_array_equal(found[index], source[parts[0]])
    rows = np.asarray(after["embeddings/languages"])
    np.testing.assert_array_equal(rows[[0, 2]], before["embeddings/languages"])
    np.testing.assert_array_equal(rows[1], fresh["embeddings/languages"][1])
