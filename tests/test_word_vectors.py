"""Embeddings that start from word vectors: the file, its words as pieces, the tables of a model."""

import gzip
import io
import re

import jax
import numpy as np
import pytest
import sentencepiece

from tests.small_run import small_config, write_data
from tests.translation_helpers import translator_config
from xlmjax.data.bpe_vocabulary import SPECIALS, BpeVocabulary, serialise
from xlmjax.data.vocabulary import SentencePieceVocabulary
from xlmjax.data.word_vectors import VectorRows, read_word_vectors, write_word_vectors
from xlmjax.experiment import build_experiment
from xlmjax.train import train
from xlmjax.training.checkpoint_settings import CheckpointConfig
from xlmjax.training.initial_vectors import with_vectors
from xlmjax.training.state import named_leaves

FIELD = "checkpoint.init_vectors"


def vocabulary():
    """One of whole words and their letters."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["ba na so"] * 20 + ["so ba"] * 9),
        model_writer=model,
        model_type="bpe",
        vocab_size=17,
        bos_id=0,
        eos_id=1,
        pad_id=2,
        unk_id=3,
        control_symbols=["<mask>"],
        minloglevel=2,
        num_threads=1,
    )
    return SentencePieceVocabulary(model.getvalue())


VOCABULARY = vocabulary()


def write(path, words, vectors):
    write_word_vectors(path, words, np.array(vectors, np.float32))
    return str(path)


def test_a_file_is_read_as_it_was_written_gzipped_or_not(tmp_path):
    words, vectors = ["▁ba", "n\u00a0a", "é"], np.float32([[1.5, -2e-7], [3, 4], [-0.25, 1e20]])
    path = write(tmp_path / "a.vec", words, vectors)
    (tmp_path / "a.vec.gz").write_bytes(gzip.compress((tmp_path / "a.vec").read_bytes()))
    # As fastText ends lines, and as Windows does.
    text = (tmp_path / "a.vec").read_text("utf-8").replace("\n", " \r\n")
    (tmp_path / "b.vec").write_bytes(text.encode())
    for file in (path, f"{path}.gz", tmp_path / "b.vec"):
        found, read = read_word_vectors(file, FIELD)
        assert found == words
        np.testing.assert_array_equal(read, vectors)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ba 1 2\n", "line 1 is not `WORDS DIMENSIONS`"),
        (b"", "line 1 is not `WORDS DIMENSIONS`"),
        (b"2 2\nba 1 2\nna 1\n", "line 3 is not a word and 2 finite numbers"),
        (b"1 2\nba 1 two\n", "line 2 is not a word and 2 finite numbers"),
        (b"1 2\nba 1 nan\n", "line 2 is not a word and 2 finite numbers"),
        (b"1 2\nba 1 2\nna 1 2\n", "more than the 1 words that line 1 says"),
        (b"3 2\nba 1 2\n", "1 words where line 1 says 3: is it whole?"),
        (b"\xba\x16\x4f\x2f\xff", "no whole text"),
    ],
)
def test_a_file_of_another_format_is_refused_with_the_line(tmp_path, content, message):
    path = tmp_path / "a.vec"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{FIELD}: {path}: ") + ".*" + message):
        read_word_vectors(path, FIELD)
    with pytest.raises(ValueError, match=r"init_vectors: .*none.vec: no such file"):
        read_word_vectors(tmp_path / "none.vec", FIELD)
    (tmp_path / "a.vec.gz").write_bytes(b"1 1\nba 1\n")
    with pytest.raises(ValueError, match=r"a\.vec\.gz: no whole text"):
        read_word_vectors(tmp_path / "a.vec.gz", FIELD)
    (tmp_path / "b.vec.gz").write_bytes(gzip.compress(b"99 1\n" + b"ba 1\n" * 99)[:-12])
    with pytest.raises(ValueError, match=r"b\.vec\.gz: no whole text"):
        read_word_vectors(tmp_path / "b.vec.gz", FIELD)


def test_words_are_pieces_that_begin_a_word_and_pieces_are_themselves(tmp_path):
    pieces = VOCABULARY.pieces
    assert {"▁ba", "▁so", "a"} <= {*pieces}
    # "a" is a piece within words too, but as a word it is another one.
    words = write(tmp_path / "words.vec", ["ba", "a", "<mask>", "zebra"], [[1, 2], *3 * [[9, 9]]])
    read = VectorRows.read((words,), VOCABULARY, 2, FIELD)
    assert [pieces[row] for row in read.rows] == ["▁ba"]
    np.testing.assert_array_equal(read.vectors, [[1, 2]])
    assert (read.words, read.unmatched) == (4, 3)
    spelt = write(tmp_path / "spelt.vec", ["▁ba", "a", "bana", "<mask>"], [[3, 4], *3 * [[5, 6]]])
    read = VectorRows.read((words, spelt), VOCABULARY, 2, FIELD)
    found = {
        pieces[row]: vector.tolist() for row, vector in zip(read.rows, read.vectors, strict=True)
    }
    assert found == {"▁ba": [2, 3], "a": [5, 6]}  # the mean of two files
    assert (read.words, read.unmatched) == (8, 5)


def test_words_of_a_bpe_are_pieces_that_end_them(tmp_path):
    pieces = [*SPECIALS, "b", "a</w>", "ba</w>"]
    bpe = BpeVocabulary(serialise(pieces, ["b a</w>"], fold=False))
    path = write(tmp_path / "words.vec", ["ba", "b", "a"], [[1, 2], [3, 4], [5, 6]])
    read = VectorRows.read((path,), bpe, 2, FIELD)
    assert [pieces[row] for row in read.rows] == ["a</w>", "ba</w>"]


def test_vectors_that_do_not_fit_are_refused(tmp_path):
    path = write(tmp_path / "a.vec", ["ba"], [[1, 2]])
    with pytest.raises(ValueError, match=r"has 2 dimensions, the table model\.embed_dim=3"):
        VectorRows.read((path,), VOCABULARY, 3, FIELD)
    stranger = write(tmp_path / "b.vec", ["zebra"], [[1, 2]])
    with pytest.raises(
        ValueError, match=r"none of its 1 words is an entry of .*; the first ones are zebra"
    ):
        VectorRows.read((path, stranger), VOCABULARY, 2, FIELD)
    with pytest.raises(ValueError, match="init_from='runs/a' both say what the embeddings start"):
        CheckpointConfig(init_from="runs/a", init_vectors=(path,))


@pytest.mark.parametrize("shared", [True, False])
def test_every_table_of_a_translator_takes_them_at_its_own_size(tmp_path, shared):
    write_data(tmp_path)
    config = translator_config(tmp_path, model__share_embeddings=shared, mesh__tensor=2)
    config.model.tie_embeddings = shared
    experiment = build_experiment(config)
    pieces, dim = experiment.vocabulary.pieces, experiment.model.embed_dim
    chosen = [9, 20, 41]
    vectors = np.random.default_rng(0).normal(size=(3, dim)) * 7
    path = write(tmp_path / "a.vec", [pieces[row] for row in chosen], vectors)
    with jax.set_mesh(experiment.mesh):
        model = experiment.spec.create(jax.random.key(1)).model
        made, report = with_vectors(model, (path,), experiment.vocabulary)
    before, after = named_leaves(model), named_leaves(made)
    tables = {name for name in before if name.endswith(("embeddings/tokens", "head/table"))}
    assert len(tables) == (1 if shared else 4)
    assert report.startswith("3 of 60 rows of ")
    assert all(name in report for name in tables)
    for name in before:
        new, old = np.asarray(after[name]), np.asarray(before[name])
        assert after[name].sharding == before[name].sharding
        if name not in tables:
            np.testing.assert_array_equal(new, old)
            continue
        others = np.setdiff1d(np.arange(60), chosen)
        np.testing.assert_array_equal(new[others], old[others])
        factor = new[chosen] / vectors
        np.testing.assert_allclose(factor, factor[0, 0], rtol=1e-4)
        size = np.sqrt(np.mean(np.square(new[chosen])))
        assert size == pytest.approx(np.sqrt(np.mean(np.square(old))), rel=1e-4)


def test_vectors_of_nothing_are_refused(tmp_path):
    write_data(tmp_path)
    experiment = build_experiment(small_config(tmp_path))
    dim = experiment.model.embed_dim
    path = write(tmp_path / "a.vec", [experiment.vocabulary.pieces[9]], [[0] * dim])
    with jax.set_mesh(experiment.mesh):
        model = experiment.spec.create(jax.random.key(1)).model
        with pytest.raises(ValueError, match="all vectors are zero"):
            with_vectors(model, (path,), experiment.vocabulary)


def test_a_run_starts_from_vectors_and_goes_on_without_their_file(tmp_path):
    write_data(tmp_path)
    config = small_config(tmp_path, train__num_steps=2, checkpoint__every=1)
    dim, piece = config.model.embed_dim, build_experiment(config).vocabulary.pieces[9]
    config.checkpoint.init_vectors = (write(tmp_path / "a.vec", [piece], [range(1, dim + 1)]),)
    begun = train(config, tmp_path / "run", stop_after=1).state.model.embeddings.tokens[9]
    direction = begun / np.linalg.norm(begun)
    assert direction @ np.arange(1, dim + 1) / np.linalg.norm(np.arange(1, dim + 1)) > 0.95
    (tmp_path / "a.vec").unlink()
    assert int(train(config, tmp_path / "run").state.step) == 2
    with pytest.raises(ValueError, match=r"init_vectors: .*a\.vec: no such file"):
        train(config, tmp_path / "other")
