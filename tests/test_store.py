"""Token stores: what goes in comes out, across shards; damage is refused by name."""

import json
import pathlib

import numpy as np
import pytest

from tests import stores
from xlmjax.data import store_writer
from xlmjax.data.store import FeatureSpec, TokenStore
from xlmjax.data.store_writer import StoreWriter

VOCABULARY = "0123456789abcdef"


def make_examples(seed: int = 0) -> list[dict[str, np.ndarray]]:
    """23 pairs of 0 to 8 tokens."""
    generator = np.random.default_rng(seed)
    return [
        {
            feature: generator.integers(5, 65_536, size=generator.integers(0, 9))
            for feature in ("tokens", "target_tokens")
        }
        for _ in range(23)
    ]


def make_writer(directory: pathlib.Path, num_shards: int, **fields) -> StoreWriter:
    defaults = {
        "task": "tlm.en_fr",
        "split": "train",
        "kind": "pair",
        "features": {
            "tokens": FeatureSpec("uint16", "en"),
            "target_tokens": FeatureSpec("uint16", "fr"),
        },
        "vocabulary": VOCABULARY,
        "source_fingerprint": "text-1",
    }
    return StoreWriter(directory=directory, num_shards=num_shards, **{**defaults, **fields})


def write_shard(writer: StoreWriter, index: int, examples, batch: int = 3) -> None:
    with writer.shard(index) as shard:
        for start in range(0, len(examples), batch):
            part = examples[start : start + batch]
            columns = {name: [example[name] for example in part] for name in writer.features}
            lengths = {name: np.array([len(x) for x in column]) for name, column in columns.items()}
            shard.append(
                lengths,
                {name: np.concatenate(column) for name, column in columns.items()},
                characters={name: 4 * int(lengths[name].sum()) for name in columns},
                num_bytes={name: 5 * int(lengths[name].sum()) for name in columns},
            )
        writer.record(index, shard.finish(dropped={"empty": index}))


def write_store(directory: pathlib.Path, num_shards: int, **fields) -> list[dict[str, np.ndarray]]:
    examples = make_examples()
    writer = make_writer(directory, num_shards, **fields)
    writer.start()
    bounds = [len(examples) * shard // num_shards for shard in range(num_shards + 1)]
    for index in range(num_shards):
        write_shard(writer, index, examples[bounds[index] : bounds[index + 1]])
    writer.finish()
    return examples


# 31 shards of 23 examples: some are empty.
@pytest.mark.parametrize("num_shards", [1, 4, 31])
def test_every_access_sees_the_examples_in_order(tmp_path, num_shards):
    examples = write_store(tmp_path, num_shards)
    store = TokenStore.open(tmp_path, VOCABULARY)
    assert len(store) == store.manifest.examples == 23
    for feature in ("tokens", "target_tokens"):
        expected = [example[feature] for example in examples]
        flat = np.concatenate(expected)
        np.testing.assert_array_equal(store.lengths(feature), [len(x) for x in expected])
        starts = store.starts(feature, np.arange(len(store) + 1))
        np.testing.assert_array_equal(np.diff(starts), store.lengths(feature))
        assert starts[0] == 0
        assert starts[-1] == len(flat) == store.manifest.tokens[feature]
        picked = np.array([[7, 0, 23], [22, 7, 15]])
        np.testing.assert_array_equal(store.starts(feature, picked), starts[picked])
        for delimiters in (1, 2):
            holder = np.repeat(np.arange(23), store.lengths(feature) + delimiters)
            found = [store.example_at(feature, place, delimiters) for place in range(len(holder))]
            np.testing.assert_array_equal(found, holder)
        np.testing.assert_array_equal(np.concatenate(store.flat(feature)), flat)
        for index, tokens in enumerate(expected):
            np.testing.assert_array_equal(store.read(feature, index), tokens)
        for start in range(len(flat) + 1):
            for stop in (start, min(start + 7, len(flat)), len(flat)):
                np.testing.assert_array_equal(
                    store.gather(feature, start, stop), flat[start:stop], err_msg=f"{start} {stop}"
                )
        assert store.read(feature, 0).dtype == store.gather(feature, 0, 9).dtype == np.uint16


def test_manifest_adds_up_the_shards(tmp_path):
    examples = write_store(tmp_path, 4)
    manifest = TokenStore.open(tmp_path).manifest
    tokens = sum(len(example["tokens"]) for example in examples)
    assert manifest.tokens["tokens"] == tokens
    assert manifest.characters["tokens"] == 4 * tokens
    assert manifest.bytes["tokens"] == 5 * tokens
    assert manifest.dropped == {"empty": 0 + 1 + 2 + 3}
    written = json.loads((tmp_path / "manifest.json").read_text())
    assert written["examples"] == 23
    assert written["tokens"]["tokens"] == tokens


def test_a_store_is_read_only(tmp_path):
    write_store(tmp_path, 1)
    with pytest.raises(ValueError, match="read-only"):
        TokenStore.open(tmp_path).read("tokens", 1)[:] = 0


def test_reads_outside_are_refused(tmp_path):
    write_store(tmp_path, 4)
    store = TokenStore.open(tmp_path)
    total = store.manifest.tokens["tokens"]
    for index in (-1, 23):
        with pytest.raises(IndexError, match=f"no example {index} of 23"):
            store.read("tokens", index)
    for start, stop in ((-1, 2), (3, 2), (0, total + 1)):
        with pytest.raises(IndexError, match=f"no tokens {start} to {stop} of {total}"):
            store.gather("tokens", start, stop)
    for place in (-1, total + 23):
        with pytest.raises(IndexError, match=f"no place {place} of {total + 23}"):
            store.example_at("tokens", place, 1)
    with pytest.raises(KeyError, match="no feature 'labels'; known: tokens, target_tokens"):
        store.lengths("labels")


def test_a_vocabulary_above_sixteen_bits_is_kept(tmp_path):
    writer = make_writer(tmp_path, 1, kind="text", features={"tokens": FeatureSpec("uint32", "en")})
    writer.start()
    write_shard(writer, 0, [{"tokens": np.array([70_000, 3])}])
    writer.finish()
    np.testing.assert_array_equal(TokenStore.open(tmp_path).read("tokens", 0), [70_000, 3])


def test_missing_store_names_the_command(tmp_path):
    with pytest.raises(ValueError, match=r"no finished token store here.*xlmjax prepare"):
        TokenStore.open(tmp_path / "absent")
    assert not TokenStore.is_finished(tmp_path / "absent")


def test_other_vocabulary_is_refused_with_both_fingerprints(tmp_path):
    write_store(tmp_path, 1)
    with pytest.raises(ValueError, match=rf"vocabulary {VOCABULARY}, this run has fedc.*data\.voc"):
        TokenStore.open(tmp_path, "fedc")


def test_other_format_version_is_refused(tmp_path):
    write_store(tmp_path, 1)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(ValueError, match="format version 99, this xlmjax reads 1; delete"):
        TokenStore.open(tmp_path)


@pytest.mark.parametrize("text", ["{", "{}", '{"format_version": 1, "shards": []}', "[]"])
def test_damaged_manifest_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest.json.*delete the directory"):
        TokenStore.open(tmp_path)


def test_truncated_shard_is_refused_by_name(tmp_path):
    write_store(tmp_path, 4)
    path = tmp_path / "tokens-00002-of-00004.tokens.npy"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"tokens-00002-of-00004.tokens.npy.*truncated"):
        TokenStore.open(tmp_path, verify=False)


def test_altered_shard_is_refused_by_name(tmp_path):
    write_store(tmp_path, 4)
    path = tmp_path / "target_tokens-00001-of-00004.offsets.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"target_tokens-00001-of-00004.offsets.npy: CRC-32"):
        TokenStore.open(tmp_path)
    TokenStore.open(tmp_path, verify=False)


def test_missing_shard_file_is_refused_by_name(tmp_path):
    write_store(tmp_path, 4)
    (tmp_path / "tokens-00000-of-00004.tokens.npy").unlink()
    with pytest.raises(ValueError, match=r"tokens-00000-of-00004.tokens.npy: shard file is miss"):
        TokenStore.open(tmp_path)


def test_an_interrupted_shard_leaves_no_file(tmp_path):
    writer = make_writer(tmp_path, 1)
    writer.start()
    with pytest.raises(KeyboardInterrupt), writer.shard(0):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_killed_attempt_is_continued_and_its_litter_removed(tmp_path):
    examples = make_examples()
    writer = make_writer(tmp_path, 2)
    writer.start()
    write_shard(writer, 0, examples[:11])
    writer.shard(1)  # killed here: temporary files stay, no record
    assert not TokenStore.is_finished(tmp_path)
    again = make_writer(tmp_path, 2)
    again.start()
    assert again.finished_shard(0).examples == 11
    assert again.finished_shard(1) is None
    with pytest.raises(ValueError, match=r"shards \[1\] of 2 are missing"):
        again.finish()
    write_shard(again, 1, examples[11:])
    again.finish()
    assert len(TokenStore.open(tmp_path)) == 23
    assert len(list(tmp_path.iterdir())) == 2 * 2 * 2 + 1


@pytest.mark.parametrize("field", ["vocabulary", "source_fingerprint", "task"])
def test_shards_made_from_something_else_are_not_continued(tmp_path, field):
    writer = make_writer(tmp_path, 2)
    writer.start()
    write_shard(writer, 0, make_examples()[:11])
    assert writer.finished_shard(0) is not None
    assert make_writer(tmp_path, 2, **{field: "another"}).finished_shard(0) is None


def test_a_damaged_shard_is_not_continued(tmp_path):
    writer = make_writer(tmp_path, 2)
    writer.start()
    write_shard(writer, 0, make_examples()[:11])
    path = tmp_path / "tokens-00000-of-00002.tokens.npy"
    path.write_bytes(path.read_bytes()[:-1])
    assert writer.finished_shard(0) is None


def test_starting_over_unfinishes_the_old_store(tmp_path):
    write_store(tmp_path, 1)
    make_writer(tmp_path, 1, source_fingerprint="text-2").start()
    assert not TokenStore.is_finished(tmp_path)


def test_a_batch_of_unequal_columns_is_refused(tmp_path):
    with make_writer(tmp_path, 1).shard(0) as shard:
        zeros = {"tokens": 0, "target_tokens": 0}
        with pytest.raises(ValueError, match="different numbers of examples"):
            shard.append(
                {"tokens": np.array([1]), "target_tokens": np.array([1, 1])},
                {"tokens": np.array([5]), "target_tokens": np.array([5, 6])},
                zeros,
                zeros,
            )
        with pytest.raises(ValueError, match="target_tokens: lengths add up to"):
            shard.append(
                {"tokens": np.array([1]), "target_tokens": np.array([1])},
                {"tokens": np.array([5]), "target_tokens": np.array([5, 6])},
                zeros,
                zeros,
            )


def test_json_is_renamed_into_place(tmp_path, monkeypatch):
    path = tmp_path / "mixture.json"
    store_writer.write_json(path, {"a": 1})
    monkeypatch.setattr(store_writer.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        store_writer.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["mixture.json"]


def test_labels_come_back_in_order(tmp_path):
    texts = [[7, 8], [9], [10, 11, 12], [13], [14]]
    names = ("no", "yes")
    store = stores.write_store(
        tmp_path / "labelled", {"tokens": texts}, {"tokens": "en"}, labels=(names, [1, 0, 0, 1, 1])
    )
    assert store.manifest.labels == names
    assert store.labels.tolist() == [1, 0, 0, 1, 1]
    plain = stores.write_store(tmp_path / "plain", {"tokens": texts}, {"tokens": "en"})
    with pytest.raises(ValueError, match=r"carry no labels.*add_classification"):
        _ = plain.labels


def test_an_altered_label_file_is_refused(tmp_path):
    stores.write_store(
        tmp_path / "s", {"tokens": [[7], [8]]}, {"tokens": "en"}, labels=(("a", "b"), [0, 1])
    )
    path = next((tmp_path / "s").glob("label-00001-*"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match=r"label-00001.*CRC"):
        TokenStore.open(tmp_path / "s")
