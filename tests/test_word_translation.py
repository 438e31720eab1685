"""Word translation and similarity from the embedding table, against plain NumPy."""

import gzip

import jax
import numpy as np
import pytest

from tests.similarity_reference import cosines, scores
from tests.small_run import small_config, write_data
from xlmjax.configs import base
from xlmjax.evaluation import WordTranslation
from xlmjax.experiment import build_experiment
from xlmjax.ops import similarity

# Of the small vocabulary: some are one piece, most are several; "tz" has an unknown one.
FRENCH = {"ba": ("na", "no"), "bana": ("dora",), "kun": ("ba",), "lora": ("gen",), "gi": ("na",)}
ENGLISH = [(word, translation) for word, right in FRENCH.items() for translation in right]
UNKNOWN = [("tz", "ba"), ("ba", "xyz")]
SCORED = [
    ("ba", "na", 3.5),
    ("bana", "dora", 1),
    ("kun", "gi", 1),
    ("lora", "no", 4),
    ("ba", "gi", 2),
]
NEIGHBOURS = 3


def lines(rows):
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    (folder / "words.gz").write_bytes(gzip.compress((lines(ENGLISH + UNKNOWN) + "\n").encode()))
    (folder / "scored").write_text(lines(SCORED))
    return folder


@pytest.fixture(scope="module")
def host_model(folder):
    experiment = build_experiment(small_config(folder))
    return jax.device_get(experiment.spec.init(jax.random.key(0)).model)


def evaluator_of(folder, dictionaries=("en-fr:words.gz",), similarities=("en-fr:scored",), **flat):
    def placed(entries):
        return tuple(entry.replace(":", f":{folder}/") for entry in entries)

    fields = base.word_translation(
        placed(dictionaries), placed(similarities), neighbours=NEIGHBOURS
    )
    experiment = build_experiment(small_config(folder, **flat))
    with jax.set_mesh(experiment.mesh):
        return experiment, WordTranslation("words", fields, experiment.evaluation_context)


def measure(folder, host_model, **options):
    experiment, evaluator = evaluator_of(folder, **options)
    with jax.set_mesh(experiment.mesh):
        model = jax.tree.map(jax.device_put, host_model, experiment.spec.shardings.model)
        return dict(evaluator.evaluate(model)), evaluator


@pytest.fixture(scope="module")
def reference(folder, host_model):
    return measure(folder, host_model)


@pytest.fixture(scope="module")
def vector_of(folder, host_model):
    vocabulary = build_experiment(small_config(folder)).vocabulary
    table = np.asarray(host_model.embeddings.tokens[...])
    return lambda word: table[vocabulary.encode(word)].mean(axis=0)


def test_words_spelt_alike_are_told_apart(folder, host_model, vector_of):
    """They share a vector, so that their precision says nothing of alignment."""
    rows = [("ba", "ba"), ("gi", "na"), ("na", "gi"), ("lora", "lora"), ("kun", "no"), ("ba", "no")]
    (folder / "alike").write_text(lines(rows))
    options = {"dictionaries": ("en-fr:alike",), "similarities": ()}
    values, evaluator = measure(folder, host_model, **options)
    first, second = (list(dict.fromkeys(side)) for side in zip(*rows, strict=True))
    others = ["gi", "na", "kun"]
    table = scores(*(np.array([vector_of(w) for w in side]) for side in (first, second)), "csls", 3)
    best = {word: second[row.argmax()] for word, row in zip(first, table, strict=True)}
    right = sum((word, best[word]) in rows for word in others)
    assert values["en_fr/precision_at_1_other_spelling"] == pytest.approx(right / 3)
    assert values["en_fr/precision_at_1"] == pytest.approx((right + 2) / 5)
    facts = evaluator.protocol["dictionaries"]["en_fr"]
    assert facts["words_spelt_alike"] == [2, 2]


def precision(first, second, right, count, vector_of):
    """Return the share of words of which a right one is among the `count` best, by loops."""
    x, y = (np.array([vector_of(word) for word in words]) for words in (first, second))
    table = scores(x, y, "csls", NEIGHBOURS)
    hits = 0
    for row, word in zip(table, first, strict=True):
        best = np.argsort(-row, kind="stable")[:count]
        hits += any((word, second[index]) in right for index in best)
    return hits / len(first)


@pytest.mark.parametrize("count", [1, 5])
def test_precision_is_that_of_the_definition_both_ways(reference, vector_of, count):
    values, _ = reference
    first, second = (list(dict.fromkeys(side)) for side in zip(*ENGLISH, strict=True))
    there = precision(first, second, set(ENGLISH), count, vector_of)
    swapped = {pair[::-1] for pair in ENGLISH}
    back = precision(second, first, swapped, count, vector_of)
    assert values[f"en_fr/precision_at_{count}"] == pytest.approx(there)
    assert values[f"fr_en/precision_at_{count}"] == pytest.approx(back)
    for name in ("en", "fr", "average"):
        assert values[f"{name}/precision_at_{count}"] == pytest.approx((there + back) / 2)


def test_translations_and_other_pairs_are_compared(reference, vector_of):
    values, _ = reference
    x, y = (np.array([vector_of(word) for word in side]) for side in zip(*ENGLISH, strict=True))
    others = ~np.eye(len(x), dtype=bool)
    distance = np.linalg.norm(x[:, None] - y[None], axis=-1)
    for name, table in (("cosine", cosines(x, y)), ("l2", distance)):
        assert values[f"en_fr/{name}_pairs"] == pytest.approx(np.diag(table).mean(), rel=1e-5)
        assert values[f"en_fr/{name}_random"] == pytest.approx(table[others].mean(), rel=1e-4)


def test_similarity_correlates_with_the_scores(reference, vector_of):
    values, _ = reference
    cosine = [cosines(vector_of(a)[None], vector_of(b)[None]).item() for a, b, _ in SCORED]
    scored = [score for _, _, score in SCORED]
    assert values["en_fr/pearson"] == pytest.approx(similarity.pearson(cosine, scored), rel=1e-5)
    assert values["en_fr/spearman"] == pytest.approx(similarity.spearman(cosine, scored), rel=1e-5)
    assert values["average/pearson"] == values["en_fr/pearson"]


def test_a_table_that_translates_is_perfect(folder, host_model):
    """With every word its own translation, nothing is nearer than the word itself."""
    (folder / "same").write_text(lines((word, word) for word in FRENCH))
    values, _ = measure(folder, host_model, dictionaries=("en-fr:same",), similarities=())
    assert values["en_fr/precision_at_1"] == values["fr_en/precision_at_1"] == 1.0
    assert not any("other_spelling" in name for name in values)
    assert values["en_fr/cosine_pairs"] == pytest.approx(1)
    assert values["en_fr/l2_pairs"] == pytest.approx(0)
    assert not any("pearson" in name for name in values)


def test_values_do_not_depend_on_the_mesh(folder, host_model, reference):
    values, _ = measure(folder, host_model, mesh__fsdp=2, mesh__tensor=4)
    assert values.keys() == reference[0].keys()
    for name, value in reference[0].items():
        np.testing.assert_allclose(values[name], value, rtol=1e-5, err_msg=name)


def test_what_was_left_out_or_averaged_is_counted(folder, reference):
    vocabulary = build_experiment(small_config(folder)).vocabulary
    facts = reference[1].protocol["dictionaries"]["en_fr"]
    assert facts["unknown_pairs"] == 2
    assert facts["pairs"] == len(ENGLISH)
    sides = [set(side) for side in zip(*ENGLISH, strict=True)]
    several = [sum(len(vocabulary.encode(word)) > 1 for word in side) for side in sides]
    assert facts["words_of_several_pieces"] == several
    assert facts["words"] == [len(side) for side in sides]
    assert any(several)
    assert several != facts["words"]


def test_words_are_cleaned_as_text_is(folder, host_model, reference):
    (folder / "upper").write_text(lines((a.upper(), b.title()) for a, b in ENGLISH))
    options = {"dictionaries": ("en-fr:upper",), "data__lowercase": True}
    values, _ = measure(folder, host_model, **options)
    assert values["en_fr/l2_pairs"] == pytest.approx(reference[0]["en_fr/l2_pairs"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ba\tna\nba na\n", r"{}:2: 1 columns in 'ba na'; a line of .* is WORD<tab>WORD$"),
        ("ba\tna\n\nba\tna\t1\n", r"{}:3: 3 columns in"),
        ("ba\tna\nba\t\n", r"{}:2: 2 columns in 'ba\\t'"),
        (b"ba\tna\nb\xff\tna\n", r"{}:2: not UTF-8"),
        ("ba\tna\n", r"{}: 1 word pairs; evals.words.dictionaries needs 2 or more"),
        ("tz\tba\nxx\tna\n", r"dictionaries: {}: the vocabulary can write 0 of 2 pairs"),
    ],
)
def test_a_wrong_dictionary_is_refused_with_file_and_line(folder, content, message):
    path = folder / "wrong"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message.format(path)):
        evaluator_of(folder, dictionaries=("en-fr:wrong",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ba\tna\t1\nba\tno\tmany\n", r"{}:2: the score 'many' is not a number"),
        ("ba\tna\t1\nba\tno\n", r"{}:2: 2 columns .* is WORD<tab>WORD<tab>SCORE"),
        ("ba\tna\t1\nba\tno\t1\n", r"{}: all scores are 1; nothing can correlate"),
    ],
)
def test_a_wrong_list_of_scores_is_refused_with_file_and_line(folder, content, message):
    (folder / "wrong").write_text(content)
    with pytest.raises(ValueError, match=message.format(folder / "wrong")):
        evaluator_of(folder, similarities=("en-fr:wrong",))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (("en-fr:none",), r"evals.words.dictionaries: .*none: no such file"),
        (("words.gz",), r"evals.words.dictionaries: 'words.gz' is not A-B:PATH"),
        (("en-qq:words.gz",), r"evals.words.dictionaries: 'en-qq:.*': unknown language 'qq'"),
        (("en-fr:words.gz",) * 2, r"evals.words.dictionaries: en-fr comes twice"),
    ],
)
def test_wrong_entries_are_refused(folder, entries, message):
    with pytest.raises(ValueError, match=message):
        evaluator_of(folder, dictionaries=entries)


def test_no_list_at_all_and_a_damaged_file_are_refused(folder):
    with pytest.raises(ValueError, match="dictionaries and similarities are both empty"):
        evaluator_of(folder, dictionaries=(), similarities=())
    (folder / "broken.gz").write_bytes((folder / "words.gz").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"broken.gz: damaged gzip file"):
        evaluator_of(folder, dictionaries=("en-fr:broken.gz",))
