"""The vocabulary: ids by name, lossless text, messages with the remedy."""

import io
import pickle

import numpy as np
import pytest
import sentencepiece

from xlmjax.data.vocabulary import SPECIAL_PIECES, SentencePieceVocabulary, Vocabulary


def train(**options) -> bytes:
    """A model of about 330 pieces on lines made up here."""
    stems = [a + b + c for a in "bdgklmnprst" for b in "aeiou" for c in ("", "n", "ra", "ti")]
    generator = np.random.default_rng(0)
    lines = (" ".join(generator.choice(stems, size=6)) for _ in range(400))
    model = io.BytesIO()
    defaults = {
        "vocab_size": 330,
        "byte_fallback": True,
        "bos_id": 0,
        "eos_id": 1,
        "pad_id": 2,
        "unk_id": 3,
        "control_symbols": ["<mask>"],
        "normalization_rule_name": "identity",
        "minloglevel": 2,
        "num_threads": 1,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, **{**defaults, **options}
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def model() -> bytes:
    return train()


def test_special_ids_are_found_by_name():
    moved = SentencePieceVocabulary(
        train(bos_id=3, eos_id=2, pad_id=1, unk_id=0, control_symbols=["x", "<mask>"])
    )
    assert (moved.bos, moved.eos, moved.pad, moved.unk, moved.mask) == (3, 2, 1, 0, 5)
    assert moved.special_ids == (0, 1, 2, 3, 4, 5)
    assert [moved.pieces[index] for index in (3, 2, 1, 0, 5)] == list(SPECIAL_PIECES)


def test_bytes_are_not_special(model):
    vocabulary = SentencePieceVocabulary(model)
    assert vocabulary.special_ids == (0, 1, 2, 3, 4)
    assert vocabulary.pieces[5] == "<0x00>"
    assert vocabulary.size == len(vocabulary.pieces) == 330


@pytest.mark.parametrize("text", ["nara tin", "naïve ☃ Ж 漢字", "<mask> </s> <pad>", "🙂"])
def test_text_survives(model, text):
    vocabulary = SentencePieceVocabulary(model)
    ids = vocabulary.encode(text)
    assert vocabulary.decode(np.asarray(ids, vocabulary.dtype)) == text
    assert not set(ids) & set(vocabulary.special_ids)


def test_a_batch_is_its_texts(model):
    vocabulary = SentencePieceVocabulary(model)
    texts = ["nara", "", "ti ko pe", "Ж"]
    assert vocabulary.encode_batch(texts) == [vocabulary.encode(text) for text in texts]
    assert vocabulary.encode_batch([]) == []


def test_fingerprint_is_that_of_the_model(model, tmp_path):
    path = tmp_path / "v.model"
    path.write_bytes(model)
    vocabulary = Vocabulary.load(path)
    assert vocabulary == SentencePieceVocabulary(model)
    assert len(vocabulary.fingerprint) == 16
    assert vocabulary != SentencePieceVocabulary(train(vocab_size=331))
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary


@pytest.mark.parametrize(("size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_dtype_holds_the_largest_id(model, size, dtype):
    vocabulary = SentencePieceVocabulary(model)
    vocabulary.size = size
    assert vocabulary.dtype == dtype
    assert np.array(size - 1).astype(vocabulary.dtype) == size - 1


def test_missing_file_names_path_and_command(tmp_path):
    with pytest.raises(ValueError, match=r"absent.model: no such file.*xlmjax vocab"):
        Vocabulary.load(tmp_path / "absent.model")


def test_another_kind_of_file_is_refused(tmp_path):
    path = tmp_path / "v.model"
    for content in (b"", b"hello world"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"v.model: not a SentencePiece model.*xlmjax vocab"):
            Vocabulary.load(path)


@pytest.mark.parametrize(
    ("piece", "options"),
    [("<mask>", {"control_symbols": []}), ("<pad>", {"pad_id": -1, "unk_id": 2})],
)
def test_a_model_without_a_special_piece_is_refused_by_name(piece, options):
    with pytest.raises(ValueError, match=f"no piece '{piece}'"):
        SentencePieceVocabulary(train(**options))
