"""Translations on the training side: stores, rows of two sides, batches, lengths by objective."""

import itertools

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from tests.small_run import small_config, write_data
from tests.stores import write_store
from xlmjax.configs import base
from xlmjax.data import features, mixture
from xlmjax.data.batches import Batches, EvaluationBatches
from xlmjax.data.layout import Delimiters, PackLayout, TranslationLayout, make_layout
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.experiment import build_experiment, check_kind, token_counts
from xlmjax.languages import get
from xlmjax.planning import mixture_plan
from xlmjax.throughput import measure_data
from xlmjax.train import _throughput, data_identity

EOS, PAD = 1, 2
DELIMITERS = Delimiters(eos=EOS, pad=PAD)
EN, FR = get("en").id, get("fr").id
REFERENCES = ["Été !", "", "  deux\u2028espaces "]


def write_translations(folder, sources, targets, **fields):
    sides = {"tokens": sources, "target_tokens": targets}
    codes = {"tokens": "en", "target_tokens": "fr", "source_text": "en", "reference": "fr"}
    for name, texts in fields.pop("raw", {}).items():
        sides[name] = [list(text.encode()) for text in texts]
    fields = {"task": "mt.en_fr", "kind": "translation", **fields}
    return write_store(folder, sides, codes, **fields)


def random_sides(count, longest=9):
    rng = np.random.default_rng(3)
    return [
        [[base + i] * int(rng.integers(1, longest)) for i in range(count)] for base in (100, 500)
    ]


def fill(layout, rows=None):
    rows = np.arange(layout.num_rows) if rows is None else np.asarray(rows)
    batch = mixture.empty_batch(len(rows), layout.length, features.SEQUENCES)
    layout.fill(rows, np.zeros_like(rows), batch)
    return batch


def segments(batch, names):
    """(row, segment) -> tokens, positions and languages of that side."""
    tokens, positions, ids, codes = (batch[name] for name in names)
    return {
        (row, segment): tuple(array[row][ids[row] == segment].tolist() for array in arrays)
        for row in range(len(ids))
        for segment in range(1, ids[row].max() + 1)
        for arrays in [(tokens, positions, codes)]
    }


# Stores.


def test_raw_text_is_read_as_it_was(tmp_path):
    raw = {"source_text": ["a", "bé", "c"], "reference": REFERENCES}
    store = write_translations(tmp_path, [[5], [6], [7, 8]], [[5], [6], [7]], raw=raw, num_shards=2)
    assert [store.text("reference", index) for index in range(3)] == REFERENCES
    assert [store.text("source_text", index) for index in range(3)] == raw["source_text"]
    assert store.manifest.kind == "translation"
    assert store.manifest.sides == ("tokens", "target_tokens")
    assert [tokens.tolist() for tokens in store.read_range("tokens", 1, 3)] == [[6], [7, 8]]
    assert store.read_range("tokens", 1, 1) == []
    with pytest.raises(IndexError, match="no example 3 of 3"):
        store.read_range("tokens", 2, 4)
    with pytest.raises(ValueError, match=r"'tokens' is no raw text.*has source_text, reference"):
        store.text("tokens", 0)


def test_a_store_without_raw_text_says_so(tmp_path):
    store = write_translations(tmp_path, [[5]], [[6]], num_shards=1)
    with pytest.raises(ValueError, match=r"'reference' is no raw text of this store, which has no"):
        store.text("reference", 0)


def test_raw_text_counts_as_no_token(tmp_path):
    raw = {"source_text": ["abc"] * 3, "reference": REFERENCES}
    store = write_translations(tmp_path, [[5], [6], [7, 8]], [[5], [6], [7]], raw=raw)
    task = mixture.Task("mt.en_fr", store, make_layout("pack", store, 8, DELIMITERS))
    assert task.languages == ("en", "fr")
    assert task.is_pair
    built = mixture.build_mixture(
        [task], {}, name="mt", length=8, rows_per_step=1, num_steps=4, seed=0, block=64
    )
    [plan] = mixture_plan.plan_tasks("mt", built, 1, 4)
    assert plan.pieces == 7
    assert plan.tokens == 7 + 2 * 2 * 3  # with the delimiters of either side
    assert plan.fill == plan.tokens / (2 * 8 * task.layout.num_rows)
    by_language = mixture_plan.plan_languages([plan], [task])
    assert {row.code: row.from_pairs for row in by_language} == {"en": 1, "fr": 1}
    assert sum(row.tokens for row in by_language) == pytest.approx(plan.seen)

    class SmallVocabulary:
        size, special_ids = 300, ()

    counts = token_counts(mixture.Group("mt", built, 1), SmallVocabulary())
    assert {code: of.nonzero()[0].tolist() for code, of in counts.items()} == {
        "en": [5, 6, 7, 8],
        "fr": [5, 6, 7],
    }
    assert all(of.max() == 1 for of in counts.values())


# Rows.


def test_rows_of_translations_by_hand(tmp_path):
    store = write_translations(tmp_path, [[10, 11], [12]], [[60], [61, 62, 63]], num_shards=1)
    batch = fill(TranslationLayout(store, 10, DELIMITERS, alone=False))
    assert {name: array.tolist() for name, array in batch.items() if array.ndim == 2} == {
        # The longer example stands first: 5 and 3 tokens of 5 + 4 at most.
        "tokens": [[1, 12, 1, 1, 10, 11, 1, PAD, PAD, PAD]],
        "positions": [[0, 1, 2, 0, 1, 2, 3, 0, 0, 0]],
        "segment_ids": [[1, 1, 1, 2, 2, 2, 2, 0, 0, 0]],
        "language_ids": [[EN] * 7 + [0] * 3],
        "target_tokens": [[1, 61, 62, 63, 1, 1, 60, 1, PAD, PAD]],
        "target_positions": [[0, 1, 2, 3, 4, 0, 1, 2, 0, 0]],
        "target_segment_ids": [[1] * 5 + [2] * 3 + [0] * 2],
        "target_language_ids": [[FR] * 8 + [0] * 2],
    }
    assert all(array.dtype == np.int32 for array in batch.values())


@pytest.mark.parametrize("kind", ["pack", "pad"])
def test_every_translation_is_there_once_and_segments_agree(tmp_path, kind):
    sources, targets = random_sides(60)
    store = write_translations(tmp_path, sources, targets)
    layout = make_layout(kind, store, 24, DELIMITERS)
    batch = fill(layout)
    here = segments(batch, features.SIDE)
    there = segments(batch, features.TARGET_SIDE)
    assert here.keys() == there.keys()
    found = []
    for key, (tokens, positions, codes) in here.items():
        target, target_positions, target_codes = there[key]
        assert positions == list(range(len(tokens)))
        assert target_positions == list(range(len(target)))
        assert set(codes) == {EN}
        assert set(target_codes) == {FR}
        found.append((tokens, target))
    assert sorted(found) == sorted(
        ([EOS, *a, EOS], [EOS, *b, EOS]) for a, b in zip(sources, targets, strict=True)
    )
    assert layout.num_tokens == sum(len(a) + len(b) for a, b in found)
    assert layout.places == 48
    assert layout.dropped == {}
    assert layout.longest == max(len(side) + 2 for side in sources + targets)
    alone = {segment for _, segment in here} == {1}
    assert alone == (kind == "pad")
    assert (layout.num_rows == 60) == (kind == "pad")
    for name in ("tokens", "target_tokens"):
        padding = batch[name.replace("tokens", "segment_ids")] == 0
        assert ((batch[name] == PAD) == padding).all()


def test_rows_of_translations_come_in_any_order(tmp_path):
    layout = TranslationLayout(
        write_translations(tmp_path, *random_sides(40)), 20, DELIMITERS, alone=False
    )
    whole, some = fill(layout), fill(layout, [3, 0, 3])
    for name in (*features.SIDE, *features.TARGET_SIDE):
        np.testing.assert_array_equal(some[name], whole[name][[3, 0, 3]])


def test_a_translation_with_a_side_longer_than_a_row_is_dropped_and_counted(tmp_path):
    sources = [[10] * 6, [11] * 7, [12], [13]]
    targets = [[20], [21], [22] * 6, [23] * 9]
    store = write_translations(tmp_path, sources, targets)
    for kind in ("pack", "pad"):
        layout = make_layout(kind, store, 8, DELIMITERS)
        assert layout.dropped == {"longer than a row": 2}
        assert layout.longest == 11
        kept = {tokens[1] for tokens, *_ in segments(fill(layout), features.SIDE).values()}
        assert kept == {10, 12}


def test_a_text_alone_is_whole_or_dropped(tmp_path):
    texts = [[10, 11], [12] * 9, [13]]
    store = write_store(tmp_path, {"tokens": texts}, {"tokens": "en"}, task="ae.en")
    layout = make_layout("pad", store, 6, DELIMITERS)
    assert isinstance(layout, PackLayout)
    batch = mixture.empty_batch(2, 6)
    layout.fill(np.arange(2), np.zeros(2, int), batch)
    assert batch["tokens"].tolist() == [[1, 10, 11, 1, PAD, PAD], [1, 13, 1, PAD, PAD, PAD]]
    assert batch["segment_ids"].tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]]
    assert batch["positions"][0].tolist() == [0, 1, 2, 3, 0, 0]
    assert layout.dropped == {"longer than a row": 1}
    assert (layout.longest, layout.num_tokens, layout.places) == (11, 7, 6)


def test_translations_cannot_stream(tmp_path):
    store = write_translations(tmp_path, [[5]], [[6]], num_shards=1)
    with pytest.raises(ValueError, match=r"data\.layout\.translation='stream'.*known: pack, pad"):
        make_layout("stream", store, 8, DELIMITERS)


# Batches.


def sharding(devices):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("data"))


@pytest.fixture
def task(tmp_path):
    store = write_translations(tmp_path / "mt", *random_sides(50))
    return mixture.Task("mt.en_fr", store, make_layout("pack", store, 24, DELIMITERS))


def test_training_batches_hold_both_sides(task):
    built = mixture.build_mixture(
        [task], {}, name="mt", length=24, rows_per_step=8, num_steps=4, seed=0, block=64
    )
    one, four = (Batches(built, 8, sharding(devices)).at(2) for devices in (1, 4))
    assert set(one) == {feature.name for feature in features.SEQUENCES}
    for name, array in one.items():
        np.testing.assert_array_equal(array, four[name])
    batch = {name: np.asarray(array) for name, array in one.items()}
    assert segments(batch, features.SIDE).keys() == segments(batch, features.TARGET_SIDE).keys()
    for key, (tokens, *_) in segments(batch, features.SIDE).items():
        assert segments(batch, features.TARGET_SIDE)[key][0][1] == tokens[1] + 400


def test_evaluation_reads_every_translation_once(task):
    seen = []
    for batch in EvaluationBatches([task], 4, 24, sharding(2)):
        host = {name: np.asarray(array) for name, array in batch.items()}
        here, there = (segments(host, names) for names in (features.SIDE, features.TARGET_SIDE))
        seen += [(here[key][0][1], there[key][0][1]) for key in here]
    assert sorted(seen) == [(100 + i, 500 + i) for i in range(50)]


def test_translations_share_no_batch_with_others(task, tmp_path):
    text = write_store(tmp_path / "ae", {"tokens": [[5]] * 4}, {"tokens": "en"}, task="ae.en")
    other = mixture.Task("ae.en", text, make_layout("pad", text, 24, DELIMITERS))
    message = r"mt.en_fr \(translations\) and ae.en \(text\) cannot share.*config.objectives"
    with pytest.raises(ValueError, match=message):
        mixture.features_of([task, other])
    assert mixture.features_of([task, task]) == features.SEQUENCES


# A length and a layout for each objective.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    fingerprint = Vocabulary.load(folder / "vocabulary.model").fingerprint
    sides = [[[5 + i % 50] * (1 + i % 7) for i in range(40)] for _ in range(2)]
    write_translations(folder / "stores" / "mt.en_fr" / "train", *sides, vocabulary=fingerprint)
    return folder


def config_of(folder, **groups):
    config = small_config(folder)
    config.objectives = ConfigDict()
    for name, fields in groups.items():
        config.objectives[name] = base.objective(**fields)
    return config


@pytest.fixture
def config(folder):
    return config_of(
        folder,
        ae={"name": "denoising", "mixture": ("mlm.en",), "layout": "pad", "length": 12},
        mlm={"name": "masked_lm", "mixture": ("mlm.en",)},
        mt={"name": "translation", "mixture": ("mt.en_fr",), "length": 16, "share": 2.0},
    )


@pytest.fixture
def experiment(config):
    return build_experiment(config)


def test_groups_have_rows_of_their_own_length(config, experiment):
    groups = {g.name: g for g in mixture.open_groups(config, experiment.vocabulary)}
    assert {name: (g.rows, g.mixture.length) for name, g in groups.items()} == {
        "ae": (2, 12),
        "mlm": (2, 24),
        "mt": (4, 16),
    }
    assert groups["ae"].mixture.fill(np.arange(5))["segment_ids"].max() == 1
    assert groups["mlm"].mixture.features == features.TEXT
    assert groups["mt"].mixture.fill(np.arange(5))["target_tokens"].shape == (5, 16)
    places = 2 * 12 + 2 * 24 + 4 * 16 * 2  # sources and targets
    data = list(groups.values())
    assert mixture.places_of(data) == _throughput(experiment, data).padded_tokens == places


def test_segment_length_is_by_token_over_every_side_and_group(config, experiment):
    data = mixture.open_groups(config, experiment.vocabulary)
    lengths = []
    for group in data:
        for step in (1, 2):
            batch = group.mixture.fill(np.arange(step * group.rows, (step + 1) * group.rows))
            for name in ("segment_ids", "target_segment_ids"):
                for row in batch.get(name, ()):
                    lengths += [int((row == i).sum()) for i in set(row.tolist()) - {0}]
    expected = sum(n * n for n in lengths) / sum(lengths)
    assert len(set(lengths)) > 3
    assert mixture.segment_length(data, (1, 2)) == pytest.approx(expected)


def test_bench_counts_the_places_of_both_sides(config, experiment):
    speeds = {speed.group: speed for speed in measure_data(experiment, seconds=0.05)}
    assert 0.5 < speeds["mt"].real_tokens / speeds["mt"].padded_tokens <= 1


def test_checkpoints_of_runs_without_such_fields_still_match(folder):
    config = config_of(folder, mlm={"name": "masked_lm", "mixture": ("mlm.en",)})
    experiment = build_experiment(config)
    found = data_identity(experiment, mixture.open_groups(config, experiment.vocabulary))
    assert found["train.length"] == 24
    assert found["data.layout"] == {"text": "stream", "pair": "pack", "labelled": "pack"}


def test_a_run_is_told_from_one_with_other_rows(config, experiment):
    def identity():
        return data_identity(experiment, mixture.open_groups(config, experiment.vocabulary))

    before = identity()
    assert before["train.length"] == {"ae": 12, "mlm": 24, "mt": 16}
    assert before["data.layout"]["translation"] == "pack"
    config.objectives.mt.length = 20
    assert identity()["train.length"] != before["train.length"]
    config.objectives.mt.layout = "pad"
    assert identity()["data.layout"] != before["data.layout"]
    config.objectives.ae.update(layout="pack", sentences=2, sentence_length=12)
    bounded = identity()["data.layout"]
    config.objectives.ae.sentences = 3
    assert identity()["data.layout"] != bounded


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": 40}, r"objectives.x.length=40 is longer than model.max_positions=32"),
        ({"length": -1}, r"objectives.x.length=-1 must be 0 \(train.length\) or 2 tokens or more"),
        ({"length": 1}, r"objectives.x.length=1 must be 0"),
        ({"layout": "stream"}, r"objectives.x.layout='stream' is no layout of mt.en_fr"),
        ({"layout": "bag"}, r"objectives.x.layout='bag' is no layout of mt.en_fr .*pack, pad"),
        ({"length": 2}, r"fits a row of 2 tokens; raise train.length or objectives.x.length"),
    ],
)
def test_wrong_rows_of_an_objective_are_named(folder, fields, message):
    config = config_of(folder, x={"name": "translation", "mixture": ("mt.en_fr",), **fields})
    with pytest.raises(ValueError, match=message):
        mixture.open_groups(config, build_experiment(config).vocabulary)


def test_objectives_are_given_what_they_read(config, experiment):
    groups = {g.name: g for g in mixture.open_groups(config, experiment.vocabulary)}
    objectives = ("translation", "back_translation", "causal_lm")
    for group, objective in itertools.product(groups, objectives):
        fits = {"translation": group == "mt", "back_translation": group != "mt"}
        if fits.get(objective, group != "mt"):
            check_kind(groups[group], objective, f"objectives.{group}")
        else:
            with pytest.raises(ValueError, match=rf"objectives.{group}.*{objective!r}.* in objec"):
                check_kind(groups[group], objective, f"objectives.{group}")


def test_mt_and_ae_stand_for_every_language_and_both_ways():
    data = base.get_config().data
    data.languages, data.pairs = ("en", "fr"), ("fr-en",)
    assert mixture.own_tasks(data, "ae") == {"ae.en", "ae.fr"}
    assert mixture.own_tasks(data, "mt") == {"mt.en_fr", "mt.fr_en"}
