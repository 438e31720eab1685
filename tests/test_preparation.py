"""From text to stores through seqio: the only test module that imports TensorFlow."""

import argparse
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from ml_collections import ConfigDict

from xlmjax import languages
from xlmjax.commands import prepare as prepare_command
from xlmjax.configs import base
from xlmjax.data.mixture import resolve_names
from xlmjax.data.store import FeatureSpec, TokenStore
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.preparation import demo_parts, prepare, runners, shards, train_vocabulary

ROOT = pathlib.Path(__file__).resolve().parent.parent


class SameProcess:
    """A runner without processes, which may give up after some items, like a killed one."""

    def __init__(self, give_up_after: int | None = None):
        self.give_up_after = give_up_after
        self.ran: list = []

    def map(self, function, items):
        for index, item in enumerate(items):
            if function is shards.write_shard:
                if len(self.ran) == self.give_up_after:
                    raise KeyboardInterrupt
                self.ran.append((item[0].writer.task, item[0].writer.split, item[0].index))
            yield index, function(*item)

    def stop(self):
        pass


def make_lines(language: str, count: int) -> list[str]:
    generator = np.random.default_rng(languages.get(language).id)
    syllables = {"en": "the an er in", "fr": "le ou é ai", "sw": "ma wa ki na"}[language].split()
    return [
        " ".join("".join(generator.choice(syllables, 3)) for _ in range(generator.integers(1, 12)))
        for _ in range(count)
    ]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> pathlib.Path:
    """A folder of text: 60 lines of en, fr, sw, pairs in three formats, and a vocabulary."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = {code: make_lines(code, 60) for code in ("en", "fr", "sw")}
    for code, texts in lines.items():
        (folder / f"{code}.txt").write_text("\n".join(texts) + "\n")
        (folder / f"{code}.valid.txt").write_text("\n".join(texts[:9]) + "\n")
    rows = [f"{a}\t{b}" for a, b in zip(lines["fr"], lines["en"], strict=True)]
    (folder / "fr-en.tsv").write_text("\n".join(rows[:40]) + "\n")
    for code, keys in (("en", range(20)), ("sw", range(5, 30))):
        rows = [f"k{key}\t{lines[code][key]}" for key in keys]
        (folder / f"{code}.keyed").write_text("\n".join(rows) + "\n")
    config = make_config(folder)
    vocabulary, _ = train_vocabulary.train(config)
    train_vocabulary.save(vocabulary, config.data.vocabulary)
    return folder


def make_config(folder: pathlib.Path, stores: pathlib.Path | None = None, **data) -> ConfigDict:
    config = base.get_config()
    config.data.languages = ("en", "fr", "sw")
    config.data.pairs = ("en-fr", "sw-en")
    config.data.mixture = ("mlm", "tlm")
    config.data.train = ConfigDict(
        {
            "text": (f"text:{folder}/{{lang}}.txt",),
            "parallel": (f"tsv:{folder}/{{a}}-{{b}}.tsv", f"keyed:{folder}/{{lang}}.keyed"),
        }
    )
    config.data.validation = ConfigDict({"text": (f"text:{folder}/{{lang}}.valid.txt",)})
    config.data.validation.parallel = ()
    config.data.vocabulary = str(folder / "vocabulary.model")
    config.data.stores = str(stores or folder / "stores")
    config.vocab.size = 330
    config.data.update(data)
    return config


@pytest.fixture
def run(corpus, tmp_path, monkeypatch):
    """Prepare into `tmp_path`, in this process; returns what was said and the shards made."""
    monkeypatch.setattr(prepare, "_MIN_EXAMPLES", 1)

    def run(give_up_after: int | None = None, **data):
        said: list[str] = []
        runner = SameProcess(give_up_after)
        shards._registered.clear()  # a new process would register, and look at the files, again
        prepare.prepare(make_config(corpus, tmp_path, **data), runner, runner, said.append)
        return said, runner.ran

    return run


def read(stores: pathlib.Path, task: str, split: str = "train") -> list[list[list[int]]]:
    """The content of a store: for every example, the ids of each feature."""
    store = TokenStore.open(stores / task / split)
    return [
        [store.read(name, index).tolist() for name in store.manifest.features]
        for index in range(len(store))
    ]


def get_dataset(name: str, split: str = "train") -> list[dict[str, np.ndarray]]:
    import seqio

    dataset = seqio.get_mixture_or_task(name).get_dataset(split=split, shuffle=False, num_epochs=1)
    return list(dataset.as_numpy_iterator())


def register(config: ConfigDict) -> None:
    import xlmjax.tasks

    xlmjax.tasks.register(config)
    shards._registered.clear()  # so that `prepare` registers its own again


# What a store holds.


def test_a_store_holds_the_tokens_of_the_text(run, corpus, tmp_path):
    run()
    vocabulary = Vocabulary.load(corpus / "vocabulary.model")
    lines = (corpus / "en.txt").read_text().splitlines()
    assert read(tmp_path, "mlm.en") == [[ids] for ids in vocabulary.encode_batch(lines)]
    assert read(tmp_path, "mlm.en", "validation") == read(tmp_path, "mlm.en")[:9]
    manifest = TokenStore.open(tmp_path / "mlm.en" / "train").manifest
    assert manifest.kind == "text"
    assert manifest.features["tokens"].language == "en"
    assert manifest.vocabulary == vocabulary.fingerprint
    assert manifest.characters["tokens"] == sum(map(len, lines))


def test_bytes_are_those_of_utf8(run, corpus, tmp_path):
    run()
    manifest = TokenStore.open(tmp_path / "mlm.fr" / "train").manifest
    text = (corpus / "fr.txt").read_text().replace("\n", "")
    assert manifest.characters["tokens"] == len(text)
    assert manifest.bytes["tokens"] == len(text.encode()) > len(text)


def test_pairs_are_stored_once_in_alphabetical_order(run, corpus, tmp_path):
    run()
    vocabulary = Vocabulary.load(corpus / "vocabulary.model")
    manifest = TokenStore.open(tmp_path / "tlm.en_fr" / "train").manifest
    assert manifest.kind == "pair"
    assert [spec.language for spec in manifest.features.values()] == ["en", "fr"]
    french, english = (corpus / "fr-en.tsv").read_text().splitlines()[0].split("\t")
    first = [vocabulary.encode(english), vocabulary.encode(french)]
    assert read(tmp_path, "tlm.en_fr")[0] == first
    assert not (tmp_path / "tlm.en_fr" / "validation").exists()


def test_the_store_is_what_seqio_yields(run, corpus, tmp_path):
    run(max_words=9, max_tokens=14)
    register(make_config(corpus, tmp_path, max_words=9, max_tokens=14))
    for name in ("mlm.en", "tlm.en_fr", "tlm.en_sw"):
        features = list(TokenStore.open(tmp_path / name / "train").manifest.features)
        examples = get_dataset(name)
        assert read(tmp_path, name) == [
            [example[feature].tolist() for feature in features] for example in examples
        ]
        for example in examples:
            assert "held_out" not in example
            for feature, code in zip(features, name.partition(".")[2].split("_"), strict=True):
                assert example[f"{feature}_language"] == languages.get(code).id


@pytest.mark.slow
def test_a_task_outside_our_fast_path_gives_the_same_store(run, tmp_path, monkeypatch):
    run(max_words=9, max_tokens=14)
    fast = {name: read(tmp_path, name) for name in ("mlm.fr", "tlm.en_sw")}
    manifests = {name: TokenStore.open(tmp_path / name / "train").manifest for name in fast}
    shutil.rmtree(tmp_path)
    from xlmjax.preparation import sources

    class Other:
        """Nothing is an instance of this."""

    real = shards.example_batches

    def slow(*args):
        with monkeypatch.context() as patch:
            patch.setattr(sources, "CorpusSource", Other)
            yield from real(*args)

    monkeypatch.setattr(shards, "example_batches", slow)
    run(max_words=9, max_tokens=14)
    for name in fast:
        assert read(tmp_path, name) == fast[name]
        manifest = TokenStore.open(tmp_path / name / "train").manifest
        assert manifest.dropped == manifests[name].dropped
        assert manifest.bytes == manifests[name].bytes


@pytest.mark.parametrize("num_shards", [1, 3, 7])
def test_content_does_not_depend_on_the_number_of_shards(run, tmp_path, num_shards):
    run(num_shards=num_shards, max_words=9)
    content = {name: read(tmp_path, name) for name in ("mlm.en", "tlm.en_sw", "tlm.en_fr")}
    assert len(TokenStore.open(tmp_path / "mlm.en" / "train").manifest.shards) == num_shards
    shutil.rmtree(tmp_path)
    run(num_shards=2, max_words=9)
    assert content == {name: read(tmp_path, name) for name in content}


def test_small_stores_have_fewer_shards(corpus, tmp_path):
    config = make_config(corpus, tmp_path)
    prepare.prepare(config, SameProcess(), SameProcess(), lambda _: None)
    assert len(TokenStore.open(tmp_path / "mlm.en" / "train").manifest.shards) == 1


# What is dropped, and that it is counted.


def test_everything_dropped_is_counted_by_reason(run, corpus, tmp_path):
    lines = ["ma wa", "", "  \u3000", "ki " * 9, "na", "maki " * 6]
    (corpus / "odd.sw.txt").write_text("\n".join(lines) + "\n")
    vocabulary = Vocabulary.load(corpus / "vocabulary.model")
    limit = len(vocabulary.encode("maki " * 6)) - 1
    specs = ConfigDict({"text": (f"text:{corpus}/odd.{{lang}}.txt",), "parallel": ()})
    data = {"languages": ("sw",), "pairs": (), "mixture": ("mlm",), "train": specs}
    said, _ = run(validation=specs, max_words=8, max_tokens=limit, num_shards=2, **data)
    manifest = TokenStore.open(tmp_path / "mlm.sw" / "train").manifest
    assert manifest.dropped == {"empty": 2, "max_words": 1, "max_tokens": 1}
    assert manifest.examples + sum(manifest.dropped.values()) == len(lines)
    assert any("2 empty, 1 max_tokens, 1 max_words" in line for line in said)
    # Held-out text is never too long (law 12), but empty lines go.
    assert TokenStore.open(tmp_path / "mlm.sw" / "validation").manifest.dropped == {"empty": 2}


def test_pairs_are_dropped_for_either_side(run, corpus, tmp_path):
    rows = ["the\tle", "the an\t", "\tle", "the " * 5 + "\tle", "the\t" + "le " * 5]
    (corpus / "odd.en-fr.tsv").write_text("\n".join(rows) + "\n")
    parallel = (f"tsv:{corpus}/odd.{{a}}-{{b}}.tsv",)
    run(
        languages=("en", "fr"),
        pairs=("en-fr",),
        mixture=("tlm",),
        train=ConfigDict({"text": (), "parallel": parallel}),
        max_words=4,
    )
    manifest = TokenStore.open(tmp_path / "tlm.en_fr" / "train").manifest
    assert manifest.examples == 1
    assert manifest.dropped == {"empty": 2, "max_words": 2}


def test_keys_without_partner_are_counted(run, tmp_path):
    run(num_shards=3)
    manifest = TokenStore.open(tmp_path / "tlm.en_sw" / "train").manifest
    assert manifest.examples == 15  # keys 5 to 19
    assert manifest.dropped == {"unmatched": 5 + 10}


def test_a_corpus_of_which_nothing_is_left_is_an_error(run, corpus, tmp_path):
    (corpus / "blank.sw.txt").write_text("\n \n\n")
    train = ConfigDict({"text": (f"text:{corpus}/blank.{{lang}}.txt",), "parallel": ()})
    with pytest.raises(ValueError, match=r"mlm.sw/train: no example is left.*dropped: 3 empty"):
        run(mixture=("mlm.sw",), train=train)
    assert not TokenStore.is_finished(tmp_path / "mlm.sw" / "train")


# Reuse, and never of stale data.


def test_nothing_is_done_twice(run, tmp_path):
    run()
    before = (tmp_path / "mlm.en" / "train" / "manifest.json").stat().st_mtime_ns
    said, ran = run(num_shards=2)  # the content does not depend on it
    assert ran == []
    assert "mlm.en/train: up to date" in said
    assert (tmp_path / "mlm.en" / "train" / "manifest.json").stat().st_mtime_ns == before


def test_changed_text_is_made_again_with_a_line(run, corpus, tmp_path):
    path = corpus / "sw.txt"
    original = path.read_text()
    run()
    try:
        path.write_text(original.replace("ma", "mu", 1))  # same size
        said, ran = run()
    finally:
        path.write_text(original)
    assert {task for task, _, _ in ran} == {"mlm.sw"}
    assert "mlm.sw/train: made again: its text or the preprocessing has changed" in said
    assert "mlm.en/train: up to date" in said
    assert run()[1] != []


@pytest.mark.parametrize(
    "data", [{"lowercase": True}, {"strip_accents": True}, {"max_words": 5}, {"max_tokens": 50}]
)
def test_changed_preprocessing_is_made_again(run, data):
    run(mixture=("mlm.en",))
    said, ran = run(mixture=("mlm.en",), **data)
    assert ("mlm.en", "train", 0) in ran
    assert "mlm.en/train: made again: its text or the preprocessing has changed" in said


def test_another_vocabulary_makes_again(run, corpus, tmp_path):
    run(mixture=("mlm.en",))
    config = make_config(corpus)
    config.vocab.size = 340
    other, _ = train_vocabulary.train(config)
    train_vocabulary.save(other, tmp_path / "other.model")
    said, _ = run(mixture=("mlm.en",), vocabulary=str(tmp_path / "other.model"))
    assert any("mlm.en/train: made again: vocabulary was" in line for line in said)
    TokenStore.open(tmp_path / "mlm.en" / "train", other.fingerprint)


def test_a_truncated_store_is_made_again(run, tmp_path):
    run(mixture=("mlm.en",), num_shards=1)
    path = tmp_path / "mlm.en" / "train" / "tokens-00000-of-00001.tokens.npy"
    path.write_bytes(path.read_bytes()[:-2])
    said, _ = run(mixture=("mlm.en",), num_shards=1)
    assert any(line.startswith("mlm.en/train: made again:") for line in said)
    TokenStore.open(tmp_path / "mlm.en" / "train")


def test_moved_and_packed_text_is_not_made_again(run, corpus, tmp_path):
    run(mixture=("mlm.en",))
    shutil.copy(corpus / "en.txt", corpus / "moved.en.txt")
    train = ConfigDict({"text": (f"text:{corpus}/moved.{{lang}}.txt",), "parallel": ()})
    _, ran = run(mixture=("mlm.en",), train=train)
    assert ran == []


def test_an_interrupted_run_continues_with_the_missing_shards(run, corpus, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(give_up_after=2, num_shards=5, mixture=("mlm.en",))
    directory = tmp_path / "mlm.en" / "train"
    assert not TokenStore.is_finished(directory)
    assert not list(directory.glob("*.tmp-*"))
    said, ran = run(num_shards=5, mixture=("mlm.en",))
    assert ("mlm.en", "train", 0) not in ran
    assert ("mlm.en", "train", 1) not in ran
    assert [index for _, split, index in ran if split == "train"] == [2, 3, 4]
    assert "mlm.en/train: 2 of 5 shards are there already" in said
    content = read(tmp_path, "mlm.en")
    shutil.rmtree(tmp_path)
    run(mixture=("mlm.en",))
    assert content == read(tmp_path, "mlm.en")


def test_a_run_killed_before_the_manifest_only_writes_it(run, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    from xlmjax.data.store_writer import StoreWriter

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            run(num_shards=1, mixture=("mlm.en",), validation=ConfigDict({"text": ()}))
    _, ran = run(num_shards=1, mixture=("mlm.en",), validation=ConfigDict({"text": ()}))
    assert ran == []
    assert len(TokenStore.open(tmp_path / "mlm.en" / "train")) == 60


def test_a_second_prepare_waits_for_the_first_and_makes_nothing_again(corpus, tmp_path):
    held, said = threading.Event(), {"first": [], "second": []}

    class Slow(SameProcess):
        def map(self, function, items):
            for index, item in enumerate(items):
                if function is shards.write_shard:
                    held.set()
                    while not said["second"]:
                        time.sleep(0.01)
                yield index, function(*item)

    def start(name, runner):
        config = make_config(corpus, tmp_path, mixture=("mlm.en",))
        thread = threading.Thread(
            target=prepare.prepare, args=(config, SameProcess(), runner, said[name].append)
        )
        thread.start()
        return thread

    first = start("first", Slow())
    assert held.wait(60)
    second = start("second", after := SameProcess())
    for thread in (first, second):
        thread.join(60)
    assert "waiting until it ends" in said["second"][0]
    assert "mlm.en/train: up to date" in said["second"]
    assert after.ran == []


def test_what_a_killed_search_for_duplicates_left_is_removed(run, tmp_path):
    left = tmp_path / "doctor" / "repeats-0123.tmp-89ab-0.npy"
    left.parent.mkdir()
    left.touch()
    run(mixture=("mlm.en",))
    assert not left.exists()


# What a config may name.


def test_names_and_what_they_stand_for(run, tmp_path):
    run(mixture=("mlm", "tlm.en_sw"))
    mixtures = json.loads((tmp_path / "mixture.json").read_text())
    assert mixtures == {
        "mlm": {
            "tasks": ["mlm.en", "mlm.fr", "mlm.sw"],
            "rates": None,
            "languages": ["en", "fr", "sw"],
        },
        "tlm.en_sw": {"tasks": ["tlm.en_sw"], "rates": None},
    }
    said, _ = run(mixture=("mlm",), languages=("en",), pairs=())
    assert any("'mlm' stands for other tasks than before: mlm.en" in line for line in said)
    assert json.loads((tmp_path / "mixture.json").read_text())["tlm.en_sw"]


def test_objectives_and_evals_name_tasks_too(corpus):
    config = make_config(corpus)
    config.objectives.clm = base.objective("causal_lm", mixture=("clm.en",))
    config.evals.tlm = base.perplexity(("tlm",), split="validation")
    assert shards.named_tasks(config) == {
        "mlm": {"train": True, "validation": False},
        "tlm": {"train": True, "validation": True},
        "clm.en": {"train": True, "validation": False},
    }


def test_a_split_that_does_not_exist_is_an_error(corpus, tmp_path):
    config = make_config(corpus, tmp_path)
    config.evals.tlm = base.perplexity(("tlm",))
    with pytest.raises(ValueError, match=r"'tlm.en_fr' has no split 'validation'.*data.validation"):
        prepare.prepare(config, SameProcess(), SameProcess())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"mixture": ("mlm.xx",)}, r"unknown task or mixture 'mlm.xx'; known: .*mlm.en.*wiki40b"),
        ({"mixture": ("tlm",), "pairs": ()}, "'tlm' stands for nothing: data.pairs"),
        ({"mixture": ("mt",), "pairs": ()}, "'mt' stands for nothing: data.pairs"),
        ({"mixture": ("mt.en_xx",)}, r"unknown task or mixture 'mt.en_xx'; known: .*mt.en_fr"),
        ({"languages": ("en", "xx")}, "data.languages: unknown language 'xx'"),
        ({"languages": ("en", "fr", "sw", "zh")}, "no file for language 'zh'"),
        ({"modules": ("no_such_module",)}, "data.modules: cannot import 'no_such_module'"),
        ({"vocabulary": "absent.model"}, r"absent.model: no such file; train one"),
        ({"num_shards": 0}, "data.num_shards=0 must be 1 or more"),
        ({"max_words": -1}, "data.max_words=-1"),
    ],
)
def test_faults_of_the_config_stop_before_anything_is_written(run, tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        run(**data)
    assert not list(tmp_path.glob("*/*/*.npy"))


# The seqio side.


@pytest.mark.slow
def test_every_name_with_data_yields_examples(corpus, tmp_path, monkeypatch):
    import seqio

    monkeypatch.setattr(demo_parts, "TEXTS", {"train": 50})
    monkeypatch.setattr(demo_parts, "PAIRS", {"train": 50})
    monkeypatch.setattr(demo_parts, "INFERENCE", {"train": 50})
    config = make_config(corpus, tmp_path)
    register(config)
    ours = [
        name
        for name in (*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names())
        if name.split(".")[0] in ("mlm", "clm", "ae", "tlm", "mt", "demo")
    ]
    texts, pairs, mixtures = 3 * 3, 2 + 4, 5
    assert len(ours) == texts + pairs + mixtures + 3 * 5 + 5 + 10 + 20
    for name in ours:
        dataset = seqio.get_mixture_or_task(name).get_dataset(
            sequence_length={"tokens": 6, "target_tokens": 6}, split="train", shuffle=True, seed=3
        )
        for example in dataset.take(3).as_numpy_iterator():
            assert 0 < len(example["tokens"]) <= 6
            two = re.search(r"\b(tlm|mt|xnli)\b", name)
            assert ("target_tokens" in example) == bool(two)
            assert ("reference" in example) == bool(re.search(r"\bmt\b", name))


def test_clm_is_another_name_for_the_same_text(corpus):
    register(make_config(corpus))
    mlm, clm = get_dataset("mlm.sw"), get_dataset("clm.sw")
    assert all((a["tokens"] == b["tokens"]).all() for a, b in zip(mlm, clm, strict=True))


def test_shuffling_is_seeded(corpus):
    import seqio

    register(make_config(corpus))

    def order(seed):
        dataset = seqio.get_mixture_or_task("mlm.en").get_dataset(split="train", seed=seed)
        return [example["tokens"].tolist() for example in dataset.as_numpy_iterator()]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2))


def test_seqio_mixtures_have_the_rates_of_xlm(corpus):
    import seqio

    config = make_config(corpus)
    config.data.mixing.alpha = 0.5
    register(config)
    mixture = seqio.MixtureRegistry.get("tlm")
    rates = [mixture.get_rate(task) for task in mixture.tasks]
    np.testing.assert_allclose(rates, [40**0.5, 30**0.5])  # pairs; joined keys


def test_registering_again_forgets_the_first_config(corpus):
    import seqio

    register(make_config(corpus))
    assert "tlm.en_sw" in seqio.TaskRegistry.names()
    register(make_config(corpus, languages=("en",), pairs=()))
    assert "mlm.en" in seqio.TaskRegistry.names()
    for name in ("mlm.sw", "tlm.en_sw"):
        assert name not in seqio.TaskRegistry.names()
    assert "tlm" not in seqio.MixtureRegistry.names()
    assert [task.name for task in seqio.MixtureRegistry.get("mlm").tasks] == ["mlm.en"]


def test_seqio_vocabulary_has_the_same_ids(corpus, tmp_path):
    import tensorflow as tf

    from xlmjax.preparation.vocabulary import SeqioVocabulary

    path = corpus / "vocabulary.model"
    ours, theirs = Vocabulary.load(path), SeqioVocabulary(str(path))
    assert theirs.vocab_size == ours.size
    assert (theirs.bos_id, theirs.eos_id, theirs.pad_id, theirs.unk_id) == (0, 1, 2, 3)
    text = "maki été 漢字"
    ids = ours.encode(text)
    assert theirs.encode(text) == ids
    assert theirs.encode_tf(tf.constant(text)).numpy().tolist() == ids
    in_graph = tf.data.Dataset.from_tensors(text).map(theirs.encode_tf)
    assert next(iter(in_graph)).numpy().tolist() == ids
    assert theirs.decode(ids) == text
    assert theirs.decode_tf(tf.constant(ids)).numpy().decode() == text
    assert theirs.decode([*ids, ours.eos, *ids]) == text  # up to the first </s>, as seqio defines
    copy = path.with_name("copy.model")
    copy.write_bytes(path.read_bytes())
    assert theirs == SeqioVocabulary(str(copy))
    config = make_config(corpus)
    config.vocab.size = 340
    train_vocabulary.save(train_vocabulary.train(config)[0], tmp_path / "other.model")
    assert theirs != SeqioVocabulary(str(tmp_path / "other.model"))


def test_seqio_vocabulary_of_a_bpe_knows_its_language(tmp_path):
    from tests.convert_helpers import PIECES, write_bpe
    from xlmjax.interop.tokenizers import read_vocabulary
    from xlmjax.preparation.vocabulary import SeqioVocabulary

    write_bpe(tmp_path)
    ours, _ = read_vocabulary(tmp_path, len(PIECES))
    (tmp_path / "vocabulary.json").write_bytes(ours.model)
    theirs = SeqioVocabulary(str(tmp_path / "vocabulary.json"), "fr")
    text = "l'an, ande"
    assert theirs.encode(text) == ours.encode(text, "fr") != ours.encode(text, "en")
    assert (theirs.pad_id, theirs.unk_id, theirs.vocab_size) == (2, 3, ours.size)
    assert theirs.decode(ours.encode("ande to")) == "ande to"


USER_MODULE = """
import seqio
import tensorflow as tf
from xlmjax import tasks
from xlmjax.preparation.preprocessors import Rename

def register(config):
    def read(split, shuffle_files, seed=None):
        return tf.data.Dataset.from_tensor_slices({"sentence": ["Ma wa", "", "ki na ki"] * 5})
    source = seqio.FunctionDataSource(read, splits=["train"], num_input_examples={"train": 15})
    tasks.add_text("mine.sw", source, "sw", config.data, before=[Rename((("text", "sentence"),))])
    tasks.add_mixture("mine", ["mine.sw", "mlm.sw"], config.data)
"""


def test_a_module_of_the_user(run, tmp_path, monkeypatch):
    (tmp_path / "my_tasks.py").write_text(USER_MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    data = {"modules": ("my_tasks",), "mixture": ("mine",), "num_shards": 2}
    run(**data)
    manifest = TokenStore.open(tmp_path / "mine.sw" / "train").manifest
    assert manifest.examples == 10
    assert manifest.dropped == {"empty": 5}
    assert manifest.bytes == {"tokens": 5 * len("Ma waki na ki")}
    entry = json.loads((tmp_path / "mixture.json").read_text())["mine"]
    assert entry["tasks"] == ["mine.sw", "mlm.sw"]
    np.testing.assert_allclose(entry["rates"], [15**0.7, 60**0.7])
    assert run(**data)[1] == []
    assert run(**data, lowercase=True)[1] != []
    sys.modules.pop("my_tasks")


def test_a_task_that_cannot_be_stored_says_so(corpus, run):
    import seqio

    from xlmjax.preparation.vocabulary import SeqioVocabulary

    vocabulary = SeqioVocabulary(str(corpus / "vocabulary.model"))
    source = seqio.FunctionDataSource(lambda split, shuffle_files: None, splits=["train"])
    for name, feature in (("bad.inputs", "inputs"), ("bad.language", "tokens")):
        seqio.TaskRegistry.remove(name)
        outputs = {feature: seqio.Feature(vocabulary)}
        seqio.TaskRegistry.add(name, source, output_features=outputs, preprocessors=[])
    with pytest.raises(ValueError, match=r"\['inputs'\] cannot be stored.*add_text"):
        run(mixture=("bad.inputs",))
    with pytest.raises(ValueError, match="'tokens' names no language"):
        run(mixture=("bad.language",))


# Labelled examples.


def write_inference(folder: pathlib.Path, **files: str) -> ConfigDict:
    """Write nli/SPLIT-LANG.tsv files, `train_en="..."`, and return the sections that read them."""
    (folder / "nli").mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / "nli" / f"{name.replace('_', '-')}.tsv").write_text(textwrap.dedent(text))
    return {
        split: {"text": (), "parallel": (), "xnli": (f"tsv:{folder}/nli/{split}-{{lang}}.tsv",)}
        for split in ("train", "validation")
    }


TRAIN = "the an\ther er\tentailment\nin the\tan in\tneutral\n\ner er\tthe the\tcontradiction\n"


def test_labelled_pairs_are_stored_with_their_labels(run, corpus, tmp_path):
    data = write_inference(tmp_path, train_en=TRAIN, validation_en="er\tthe an\tneutral\n")
    run(mixture=("xnli",), **data)
    vocabulary = Vocabulary.load(corpus / "vocabulary.model")
    store = TokenStore.open(tmp_path / "xnli.en" / "train")
    assert store.manifest.labels == ("entailment", "neutral", "contradiction")
    assert store.labels.tolist() == [0, 1, 2]
    assert store.manifest.dropped == {"empty": 1}
    assert read(tmp_path, "xnli.en")[1] == [vocabulary.encode("in the"), vocabulary.encode("an in")]
    assert TokenStore.open(tmp_path / "xnli.en" / "validation").labels.tolist() == [1]
    mixtures = json.loads((tmp_path / "mixture.json").read_text())
    assert mixtures["xnli"]["tasks"] == ["xnli.en"]


def test_xnli_of_other_languages_is_told(run, corpus, tmp_path):
    """A language without files then may have some now: what it stands for would be out of date."""
    data = write_inference(tmp_path, train_en=TRAIN)
    run(mixture=("xnli",), languages=("en", "fr"), pairs=(), **data)
    config = make_config(corpus, tmp_path, languages=("en", "fr"), pairs=(), **data)
    assert resolve_names(config.data, ("xnli",)) == ("xnli.en",)
    config.data.languages = ("en", "fr", "sw")
    with pytest.raises(
        ValueError, match=r"'xnli' was prepared for data.languages=en, fr, and this"
    ):
        resolve_names(config.data, ("xnli",))
    for section in (config.data.train, config.data.validation):
        section.xnli = ()  # TFDS has the same languages whatever the config
    assert resolve_names(config.data, ("xnli",)) == ("xnli.en",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a\tb\tmaybe\n", r"train-en.tsv:1: label 'maybe' is not one of entailment, neutral, con"),
        ("a\tb\tneutral\nx\ty\n", r"train-en.tsv:2: 2 tab-separated columns where 3 are"),
    ],
)
def test_a_wrong_line_of_labelled_examples_is_named(run, tmp_path, line, message):
    with pytest.raises(ValueError, match=message):
        run(mixture=("xnli",), **write_inference(tmp_path, train_en=line))


def test_a_task_of_another_shape_needs_a_registration_only(run, corpus, tmp_path):
    """One sentence, labels by number, as GLUE's SST-2 or CoLA."""
    import seqio
    import tensorflow as tf

    from xlmjax.tasks import add_classification

    texts, labels = ["the an", "in her", "er er er"], [1, -1, 0]
    source = seqio.FunctionDataSource(
        lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(
            {"text": texts, "label": labels}
        ),
        splits=("train",),
    )
    seqio.TaskRegistry.remove("sentiment.en")
    add_classification("sentiment.en", source, ["en"], ["bad", "good"], make_config(corpus).data)
    run(mixture=("sentiment.en",))
    store = TokenStore.open(tmp_path / "sentiment.en" / "train")
    assert store.manifest.kind == "text"
    assert store.manifest.labels == ("bad", "good")
    assert store.labels.tolist() == [1, 0]
    assert sum(store.manifest.dropped.values()) == 1


@pytest.mark.slow
def test_the_demo_has_labelled_pairs_in_every_language(run, tmp_path):
    run(mixture=("demo.xnli.en",), languages=("en", "sw"), pairs=())
    store = TokenStore.open(tmp_path / "demo.xnli.en" / "validation")
    counts = np.bincount(store.labels)
    assert counts.sum() == demo_parts.INFERENCE["validation"]
    assert counts.min() > 0.3 * counts.sum()


# Translations.


LINES = {
    "en": ["The  an", "er", "", "the " * 9, "Er the\u2028the", "the er "],
    "fr": ["LE \tou", "ai", "ou", "le", "É ou", " e\u0301 ai le"],
}


@pytest.fixture
def translated(corpus):
    """Parallel text with odd white space, capitals and an empty line, in every split."""
    for code, lines in LINES.items():
        (corpus / f"odd.{code}").write_text("\r\n".join(lines) + "\r\n", newline="")
    part = {"text": (), "parallel": (f"aligned:{corpus}/odd.{{lang}}",)}
    return {
        "languages": ("en", "fr"),
        "pairs": ("en-fr",),
        "lowercase": True,
        "strip_accents": True,
        **{split: ConfigDict(part) for split in ("train", "validation", "test")},
    }


def prepare_test_too(corpus, stores, **data):
    config = make_config(corpus, stores, **data)
    config.evals.bleu = base.perplexity(data["mixture"], split="test")
    shards._registered.clear()
    prepare.prepare(config, SameProcess(), SameProcess(), lambda _: None)


def test_held_out_translations_keep_their_text_and_their_length(corpus, tmp_path, translated):
    prepare_test_too(corpus, tmp_path, mixture=("mt",), max_words=4, max_tokens=30, **translated)
    vocabulary = Vocabulary.load(corpus / "vocabulary.model")
    kept = [0, 1, 3, 4, 5]
    for way, split in itertools.product((("en", "fr"), ("fr", "en")), ("validation", "test")):
        store = TokenStore.open(tmp_path / f"mt.{'_'.join(way)}" / split)
        assert store.manifest.kind == "translation"
        assert store.manifest.dropped == {"empty": 1}
        for raw, code in zip(("source_text", "reference"), way, strict=True):
            texts = [store.text(raw, index) for index in range(len(store))]
            assert texts == [LINES[code][index] for index in kept]
            assert store.manifest.features[raw] == FeatureSpec("uint8", code)
            assert store.manifest.bytes[raw] == sum(len(text.encode()) for text in texts)
            assert store.manifest.characters[raw] == sum(map(len, texts))
        assert store.manifest.features["tokens"].language == way[0]
        first = {"en": "the an", "fr": "le ou"}
        assert store.read("tokens", 0).tolist() == vocabulary.encode(first[way[0]])
        assert store.read("target_tokens", 0).tolist() == vocabulary.encode(first[way[1]])
    train = TokenStore.open(tmp_path / "mt.en_fr" / "train")
    assert list(train.manifest.features) == ["tokens", "target_tokens"]
    assert train.manifest.kind == "translation"
    assert train.manifest.dropped == {"empty": 1, "max_words": 1}
    mixtures = json.loads((tmp_path / "mixture.json").read_text())
    assert mixtures["mt"] == {
        "tasks": ["mt.en_fr", "mt.fr_en"],
        "rates": None,
        "languages": ["en", "fr"],
    }


def test_the_store_of_translations_is_what_seqio_yields(run, corpus, tmp_path, translated):
    run(mixture=("mt.fr_en",), max_words=4, **translated)
    register(make_config(corpus, tmp_path, max_words=4, **translated))
    for split in ("train", "validation"):
        store = TokenStore.open(tmp_path / "mt.fr_en" / split)
        examples = get_dataset("mt.fr_en", split)
        assert len(examples) == len(store)
        for index, example in enumerate(examples):
            for side in ("tokens", "target_tokens"):
                assert store.read(side, index).tolist() == example[side].tolist()
            if split != "train":
                assert store.text("reference", index).encode() == example["reference"]
                assert store.text("source_text", index).encode() == example["source_text"]


def test_ae_is_another_name_for_the_same_text(run, tmp_path):
    run(mixture=("ae", "mlm"))
    for code in ("en", "fr", "sw"):
        assert read(tmp_path, f"ae.{code}") == read(tmp_path, f"mlm.{code}")


def test_text_and_pairs_of_a_config_from_before_there_was_a_test_split(run, tmp_path):
    run(mixture=("mlm.en",), test=ConfigDict({"xnli": ()}))
    assert TokenStore.is_finished(tmp_path / "mlm.en" / "train")


def test_translations_of_any_source(corpus, tmp_path, translated):
    """A source that is not ours, whose examples do not say that they are held out."""
    import seqio
    import tensorflow as tf

    from xlmjax.preparation.preprocessors import Rename
    from xlmjax.tasks import add_translation

    rows = {"en": ["The an", "er " * 9, ""], "fr": ["Le  ou", "ai", "le"]}
    source = seqio.FunctionDataSource(
        lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(rows),
        splits=("train", "validation", "test"),
    )
    before = [Rename((("text", "fr"), ("target_text", "en")))]
    seqio.TaskRegistry.remove("mine.fr_en")
    data = make_config(corpus, lowercase=True, max_words=5).data
    add_translation("mine.fr_en", source, ("fr", "en"), data, before)
    examples = get_dataset("mine.fr_en", "test")
    assert [example["reference"].decode() for example in examples] == rows["en"][:2]
    prepare_test_too(corpus, tmp_path, mixture=("mine.fr_en",), **translated)
    store = TokenStore.open(tmp_path / "mine.fr_en" / "test")
    assert [store.text("reference", i) for i in range(2)] == rows["en"][:2]
    assert [store.text("source_text", i) for i in range(2)] == rows["fr"][:2]
    vocabulary = Vocabulary.load(corpus / "vocabulary.model")
    assert store.read("tokens", 0).tolist() == vocabulary.encode("le ou")
    assert store.manifest.dropped == {"empty": 1}
    train = TokenStore.open(tmp_path / "mine.fr_en" / "train").manifest
    assert train.dropped == {"empty": 1, "max_words": 1}


# TensorFlow Datasets: registered, and wired to the right features; nothing is downloaded.


def test_tfds_tasks_are_registered(corpus):
    import seqio

    register(make_config(corpus))
    names = seqio.TaskRegistry.names()
    for code in languages.XNLI:
        assert f"xnli.{code}" in names
        assert (f"wiki40b.mlm.{code}" in names) == (code not in ("sw", "ur"))
    for year, splits in (("14", ["test"]), ("18", ["test"]), ("19", [])):
        expected = ["train", "validation", *splits]
        assert list(seqio.TaskRegistry.get(f"wmt{year}.mt.de_en").source.splits) == expected
    for name in (
        "multi_nli.en",
        "wmt14.tlm.en_fr",
        "wmt16.tlm.de_en",
        "wmt16.tlm.en_ro",
        "wmt19.tlm.en_zh",
        "wmt14.mt.en_fr",
        "wmt14.mt.fr_en",
        "wmt16.mt.de_en",
        "wmt19.mt.zh_en",
        "wmt16.ro_en.ae.ro",
        "wmt14.fr_en.ae.en",
        "opus.opensubtitles.tlm.de_en",
        "opus.opensubtitles.tlm.en_zh",
        "opus.tanzil.tlm.en_sw",
        "opus.tanzil.tlm.en_ur",
    ):
        assert name in names


@pytest.mark.parametrize(
    ("name", "split", "dataset"),
    [
        ("wiki40b.mlm.zh", "validation", "wiki40b/zh-cn:1.3.0"),
        ("wmt16.tlm.en_ro", "train", "wmt16_translate/ro-en:1.0.0"),
        ("wmt16.mt.ro_en", "test", "wmt16_translate/ro-en:1.0.0"),
        ("wmt16.ro_en.ae.ro", "train", "wmt16_translate/ro-en:1.0.0"),
        ("opus.opensubtitles.tlm.en_zh", "train", "opus/OpenSubtitles.en-zh_cn:0.1.0"),
        ("multi_nli.en", "validation_mismatched", "multi_nli:1.1.0"),
    ],
)
def test_tfds_tasks_yield_tokens_of_mock_data(corpus, name, split, dataset):
    import seqio
    import tensorflow_datasets as tfds

    register(make_config(corpus))
    task = seqio.get_mixture_or_task(name)
    source = getattr(task.source, "source", task.source)
    assert source.tfds_dataset.name == dataset
    with tfds.testing.mock_data(num_examples=5):
        dataset = task.get_dataset(split=split, shuffle=False, try_in_mem_cache=False)
        examples = list(dataset.take(3).as_numpy_iterator())
    assert examples
    for example in examples:
        assert example["tokens"].dtype == np.int32
        text = {"mlm", "ae"} & {*name.split(".")}
        assert ("target_tokens" in example) == (not text)
        assert ("label" in example) == (name == "multi_nli.en")


def test_xnli_examples_are_taken_apart_by_language(corpus, monkeypatch):
    import seqio
    import tensorflow as tf

    register(make_config(corpus))
    task = seqio.get_mixture_or_task("xnli.sw")
    assert task.source.source.tfds_dataset.name == "xnli:1.1.0"
    example = {
        "premise": {code: [f"{code} premise"] for code in languages.XNLI},
        "hypothesis": {"language": [["fr", "sw"]], "translation": [["an le", "ma wa"]]},
        "label": [2],
    }
    dataset = tf.data.Dataset.from_tensor_slices(example)
    monkeypatch.setattr(task.source.source, "get_dataset", lambda *_, **__: dataset)
    [tokens] = task.get_dataset(split="test", shuffle=False, try_in_mem_cache=False)
    vocabulary = Vocabulary.load(corpus / "vocabulary.model")
    assert tokens["tokens"].numpy().tolist() == vocabulary.encode("sw premise")
    assert tokens["target_tokens"].numpy().tolist() == vocabulary.encode("ma wa")
    assert tokens["label"] == 2


def test_wiki40b_articles_become_paragraphs():
    import tensorflow as tf

    from xlmjax.tasks.monolingual import ParagraphsOfWiki40B

    text = (
        "\n_START_ARTICLE_\nTitle\n_START_PARAGRAPH_\nFirst one._NEWLINE_Second.\n_START_SECTION_\n"
        "Heading\n_START_PARAGRAPH_\nThird."
    )
    articles = tf.data.Dataset.from_tensors({"text": text, "wikidata_id": "Q1"})
    lines = [example["text"] for example in ParagraphsOfWiki40B()(articles).as_numpy_iterator()]
    assert lines == [b"First one.", b"Second.", b"Third."]


# Real processes.


@pytest.mark.slow
def test_the_command_runs_processes_and_gives_the_same_stores(run, corpus, tmp_path, capsys):
    run(mixture=("mlm", "tlm"))
    expected = {name: read(tmp_path, name) for name in ("mlm.fr", "tlm.en_sw")}
    findings = [(tmp_path / name / "train" / "findings.json").read_text() for name in expected]
    stores = tmp_path / "by_processes"
    config = make_config(corpus, stores, num_shards=3)
    args = argparse.Namespace(processes=2, runner="", runner_options="")
    prepare_command.run(config, args)
    assert {name: read(stores, name) for name in expected} == expected
    for name, text in zip(expected, findings, strict=True):
        assert (stores / name / "train" / "findings.json").read_text() == text
    assert "mlm.fr/train: 60 examples" in capsys.readouterr().out

    # An error in a process is raised here.
    (corpus / "bad.en.txt").write_bytes(b"caf\xe9\n")
    config.data.train.text = (f"text:{corpus}/bad.{{lang}}.txt",)
    config.data.mixture = ("mlm.en",)
    args.processes = 1
    with pytest.raises(ValueError, match=r"bad.en.txt:1: not UTF-8"):
        prepare_command.run(config, args)


def test_a_killed_worker_is_reported():
    with runners.LocalRunner(1) as runner, pytest.raises(ValueError, match="want of memory"):
        list(runner.map(_die, [()]))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_beam_runner_or_the_group_it_needs(run, corpus, tmp_path):
    try:
        import apache_beam  # noqa: F401
    except ImportError:
        with pytest.raises(ValueError, match=r"--runner=DirectRunner needs Apache Beam: `uv sync "):
            runners.BeamRunner("DirectRunner")
        return
    run(mixture=("mlm.fr",))
    expected = read(tmp_path, "mlm.fr")
    findings = (tmp_path / "mlm.fr" / "train" / "findings.json").read_text()
    shutil.rmtree(tmp_path)
    config = make_config(corpus, tmp_path, mixture=("mlm.fr",), num_shards=3)
    prepare.prepare(config, SameProcess(), runners.BeamRunner("DirectRunner"))
    assert read(tmp_path, "mlm.fr") == expected
    assert (tmp_path / "mlm.fr" / "train" / "findings.json").read_text() == findings


@pytest.fixture
def big_run(corpus, tmp_path):
    """A command that makes four shards of about a second each; returns it and its stores."""
    line = " ".join(make_lines("en", 8)[:8])
    (tmp_path / "en.txt").write_text(f"{line}\n" * (4 * prepare._MIN_EXAMPLES))
    config = textwrap.dedent(f"""
        from xlmjax.configs import base
        def get_config(arg=""):
            config = base.get_config()
            config.data.train.text = ("text:{tmp_path}/{{lang}}.txt",)
            config.data.validation.text = ()
            config.data.vocabulary = "{corpus}/vocabulary.model"
            config.data.stores = "{tmp_path}/stores"
            return config
    """)
    (tmp_path / "config.py").write_text(config)
    command = [sys.executable, "-m", "xlmjax.cli", "prepare", "--processes=1"]
    return [*command, f"--config={tmp_path}/config.py"], tmp_path / "stores" / "mlm.en" / "train"


def start_until_first_shard(command, directory) -> subprocess.Popen:
    # A shell's background job ignores Ctrl-C, and so would what it starts: a terminal does not.
    process = subprocess.Popen(
        ["env", "--default-signal=INT", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 300
    while not (directory / "shard-00000-of-00004.json").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def children_of(process: subprocess.Popen) -> list[int]:
    path = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(child) for child in path.read_text().split()]


def wait_until_gone(processes: list[int]) -> None:
    assert processes
    deadline = time.monotonic() + 30
    while any(pathlib.Path(f"/proc/{process}").exists() for process in processes):
        assert time.monotonic() < deadline, "processes of `prepare` outlive it"
        time.sleep(0.05)


@pytest.mark.slow
def test_kill_minus_nine_is_continued_by_the_same_command(big_run):
    command, directory = big_run
    process = start_until_first_shard(command, directory)
    children = children_of(process)
    process.kill()
    process.wait()
    wait_until_gone(children)
    assert not TokenStore.is_finished(directory)
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "of 4 shards are there already" in done.stdout
    assert len(TokenStore.open(directory)) == 4 * prepare._MIN_EXAMPLES
    assert not list(directory.glob("*.tmp-*"))


@pytest.mark.slow
def test_ctrl_c_leaves_a_clean_state(big_run):
    command, directory = big_run
    process = start_until_first_shard(command, directory)
    children = children_of(process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.decode().strip() == "xlmjax prepare: interrupted"
    wait_until_gone(children)
    assert not list(directory.glob("*.tmp-*"))
    assert (directory / "shard-00000-of-00004.json").exists()


def test_the_parent_does_not_import_tensorflow():
    code = (
        "import sys, xlmjax.commands.prepare, xlmjax.commands.vocab\n"
        "assert not {'tensorflow', 'seqio', 'jax'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_tasks_refuse_another_name():
    code = "import sys; sys.path.insert(0, '.'); import tasks"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "import this package as 'xlmjax.tasks', not as 'tasks'" in done.stderr
