"""Batches: a pure function of (mixture, step), the same on any number of devices."""

import ast
import hashlib
import pathlib
import re

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tests.stores import write_store
from xlmjax.data import mixture as mixtures
from xlmjax.data.batches import Batches, EvaluationBatches, prefetched
from xlmjax.data.layout import Delimiters, make_layout
from xlmjax.ops.rows import row_keys

LENGTH, ROWS = 16, 8
DELIMITERS = Delimiters(eos=1, pad=2)


def sharding(devices):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("data"))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    rng = np.random.default_rng(1)

    def texts(count):
        return [list(rng.integers(10, 99, size=rng.integers(1, 7))) for _ in range(count)]

    def task(name, features, languages, layout):
        store = write_store(folder / name, features, languages, task=name)
        return mixtures.Task(name, store, make_layout(layout, store, LENGTH, DELIMITERS))

    return [
        task("mlm.en", {"tokens": texts(90)}, {"tokens": "en"}, "stream"),
        task("mlm.fr", {"tokens": texts(31)}, {"tokens": "fr"}, "stream"),
        task(
            "tlm.en_fr",
            {"tokens": texts(40), "target_tokens": texts(40)},
            {"tokens": "en", "target_tokens": "fr"},
            "pack",
        ),
    ]


MIXING = {"kind": "alpha", "alpha": 0.7, "pair_share": 0.25}


@pytest.fixture
def mixture(tasks):
    return mixtures.build_mixture(
        tasks,
        MIXING,
        name="mlm",
        length=LENGTH,
        rows_per_step=ROWS,
        num_steps=100,
        seed=5,
        block=64,
    )


def digest(batch):
    joined = b"".join(np.asarray(batch[name]).tobytes() for name in sorted(batch))
    return hashlib.sha256(joined).hexdigest()


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_batches_are_the_same_on_any_number_of_devices(mixture, devices):
    alone = Batches(mixture, ROWS, sharding(1))
    split = Batches(mixture, ROWS, sharding(devices))
    for step in (0, 1, 77):
        batch = split.at(step)
        assert len(batch["tokens"].sharding.device_set) == devices
        assert batch["tokens"].shape == (ROWS, LENGTH)
        assert digest(batch) == digest(alone.at(step))


def test_a_step_does_not_depend_on_the_steps_before(mixture):
    batches = Batches(mixture, ROWS, sharding(2))
    straight = [digest(batches.at(step)) for step in range(12)]
    assert len(set(straight)) == 12
    assert [digest(batches.at(step)) for step in (11, 3, 7)] == [straight[i] for i in (11, 3, 7)]


def test_rows_name_their_task_and_their_place(mixture, tasks):
    batch = Batches(mixture, ROWS, sharding(1)).at(3)
    np.testing.assert_array_equal(batch["row_ids"], np.arange(24, 32))
    languages = [{0: {4}, 1: {6}, 2: {4, 6}}[task] for task in np.asarray(batch["task_ids"])]
    for row, expected in enumerate(languages):
        real = np.asarray(batch["segment_ids"])[row] > 0
        assert set(np.asarray(batch["language_ids"])[row][real].tolist()) == expected


def test_rows_beyond_32_bits_are_read_and_masked_like_any_other(mixture):
    # XLM-R's 1.5M steps of 8,192 rows are 1.2e10. Ids go on modulo 2^32: within a step they differ,
    # and the key of a step tells steps apart.
    for boundary in (2**31, 2**32):
        rows = np.arange(boundary - 4, boundary + 4)
        batch = mixture.fill(rows)
        located = mixture.schedule.locate(rows)
        np.testing.assert_array_equal(batch["task_ids"], located.tasks)
        assert (located.epochs > 1e7).all()
        assert (batch["segment_ids"].max(axis=1) > 0).all()
        np.testing.assert_array_equal(batch["row_ids"].view(np.uint32), rows % 2**32)
        keys = row_keys(jax.random.key(0), jax.numpy.asarray(batch["row_ids"]))
        assert len({tuple(key) for key in jax.random.key_data(keys).tolist()}) == len(rows)


def test_the_share_of_pairs_is_kept(mixture):
    batches = Batches(mixture, ROWS, sharding(1))
    tasks = np.concatenate([np.asarray(batches.at(step)["task_ids"]) for step in range(8)])
    assert np.count_nonzero(tasks == 2) == 16  # a quarter of one block of 64 rows


def test_prefetching_changes_nothing(mixture):
    batches = Batches(mixture, ROWS, sharding(2))
    seen = list(prefetched(batches.at, 3, 9, depth=2))
    assert [step for step, _ in seen] == [3, 4, 5, 6, 7, 8]
    assert [digest(batch) for _, batch in seen] == [digest(batches.at(s)) for s in range(3, 9)]


def test_an_error_of_the_reader_arrives_and_ends_it():
    def make(step):
        if step == 2:
            raise OSError("disk gone")
        return step

    reader = prefetched(make, 0, 5, depth=2)
    assert [next(reader), next(reader)] == [(0, 0), (1, 1)]
    with pytest.raises(OSError, match="disk gone"):
        next(reader)


@pytest.mark.parametrize("devices", [1, 4])
def test_evaluation_reads_every_row_once(tasks, devices):
    batches = EvaluationBatches(tasks, 4, LENGTH, sharding(devices))
    seen = [{name: np.asarray(array) for name, array in batch.items()} for batch in batches]
    assert len(seen) == len(batches)
    for number, task in enumerate(tasks):
        rows = [
            tuple(batch["tokens"][row])
            for batch in seen
            for row in range(4)
            if batch["task_ids"][row] == number and batch["segment_ids"][row].any()
        ]
        assert len(rows) == task.layout.num_rows
    ids = [
        int(i) for b in seen for i, s in zip(b["row_ids"], b["segment_ids"], strict=True) if s.any()
    ]
    assert ids == list(range(sum(task.layout.num_rows for task in tasks)))


def test_evaluation_can_read_a_spaced_sample(tasks):
    whole = {
        int(i): np.asarray(b["tokens"])[n]
        for b in EvaluationBatches(tasks, 4, LENGTH, sharding(1))
        for n, i in enumerate(b["row_ids"])
        if np.asarray(b["segment_ids"])[n].any()
    }
    sample = EvaluationBatches(tasks, 4, LENGTH, sharding(2), max_rows=6)
    assert len(sample) == 2 * len(tasks)
    seen = 0
    for batch in sample:
        real = np.asarray(batch["segment_ids"]).any(axis=1)
        for row, row_id in zip(
            np.asarray(batch["tokens"])[real], np.asarray(batch["row_ids"])[real], strict=True
        ):
            np.testing.assert_array_equal(row, whole[int(row_id)])
        seen += real.sum()
    assert seen == 6 * len(tasks)


def test_rates_follow_the_config(tasks):
    sizes = np.array([task.layout.num_rows for task in tasks[:2]])
    config = mixtures.MixingConfig(alpha=0.5, pair_share=0.25)
    rates = mixtures.rates_of(tasks, config, budget=100)
    np.testing.assert_allclose(rates[:2], 0.75 * sizes**0.5 / (sizes**0.5).sum())
    assert rates[2] == pytest.approx(0.25)
    together = mixtures.rates_of(tasks, mixtures.MixingConfig(alpha=1.0, pair_share=-1), 100)
    everything = np.array([task.layout.num_rows for task in tasks])
    np.testing.assert_allclose(together, everything / everything.sum())
    explicit = mixtures.MixingConfig(
        kind="explicit", rates=(("mlm.en", 1.0), ("mlm.fr", 2.0), ("tlm.en_fr", 5.0))
    )
    np.testing.assert_allclose(mixtures.rates_of(tasks, explicit, 100), [0.125, 0.25, 0.625])
    only_english = mixtures.MixingConfig(languages=("en",))
    np.testing.assert_allclose(mixtures.rates_of(tasks, only_english, 100), [1, 0, 0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "alfa"}, "data.mixing.kind='alfa' is not one of"),
        ({"pair_share": 1.5}, "data.mixing.pair_share=1.5"),
        ({"kind": "explicit", "rates": (("mlm.en", 1.0),)}, r"missing \['mlm.fr', 'tlm.en_fr'\]"),
        ({"languages": ("sw",)}, "leaves no task"),
    ],
)
def test_wrong_mixing_is_refused_by_field(tasks, fields, message):
    with pytest.raises(ValueError, match=message):
        mixtures.rates_of(tasks, mixtures.MixingConfig(**fields), 100)


def test_stages_change_what_they_name_and_keep_the_rest():
    stages = mixtures.parse_stages(
        {
            "alpha": 0.7,
            "pair_share": 0.5,
            "stages": ((10, "alpha=0.5"), (20, "pair_share=0.1", "languages=en+fr")),
        }
    )
    assert [step for step, _ in stages] == [0, 10, 20]
    assert [config.alpha for _, config in stages] == [0.7, 0.5, 0.5]
    assert [config.pair_share for _, config in stages] == [0.5, 0.5, 0.1]
    assert stages[2][1].languages == ("en", "fr")
    with pytest.raises(ValueError, match="'alfa=1' is not FIELD=VALUE"):
        mixtures.parse_stages({"stages": ((10, "alfa=1"),)})


def test_the_stages_of_the_documentation_are_read():
    text = (pathlib.Path(__file__).parent.parent / "docs" / "sampling.md").read_text()
    [example] = re.findall(r"stages = (\(.*?\n\))", text, re.DOTALL)
    stages = mixtures.parse_stages({"stages": ast.literal_eval(example)})
    assert [step for step, _ in stages] == [0, 100_000, 200_000]
    assert stages[0][1].languages == ("en", "fr", "de")
    assert [config.alpha for _, config in stages] == [0.7, 0.5, 0.3]
    assert stages[2][1].languages == ("en", "fr", "de", "sw", "ur")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (((20, "alpha=0.5"), (10, "alpha=0.3")), "a stage at step 10 after one at step 20"),
        (((10, "alpha=0.5"), (10, "alpha=0.3")), "a stage at step 10 after one at step 10"),
        (((10, "alpha=abc"),), "'alpha=abc': 'abc' is no float"),
        (((1, "alpha=0.5"), (7, "alpha=0.3")), "the stage at step 7 and the one before it fall"),
    ],
)
def test_wrong_stages_are_refused_by_step(tasks, stages, message):
    fields = {**MIXING, "stages": stages}
    with pytest.raises(ValueError, match=message):
        mixtures.build_mixture(
            tasks, fields, name="m", length=LENGTH, rows_per_step=8, num_steps=9, seed=0, block=64
        )


def test_a_stage_starts_at_a_block(tasks):
    fields = {**MIXING, "stages": ((9, "pair_share=0.75"),)}
    mixture = mixtures.build_mixture(
        tasks, fields, name="mlm", length=LENGTH, rows_per_step=8, num_steps=32, seed=0, block=64
    )
    pairs = mixture.schedule.locate(np.arange(256)).tasks.reshape(4, 64) == 2
    np.testing.assert_array_equal(pairs.sum(axis=1), [16, 16, 48, 48])
