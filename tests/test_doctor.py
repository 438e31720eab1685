"""The data doctor: what it finds, that it counts the same however text is cut, what it drops."""

import collections
import dataclasses
import json
import pathlib
import random
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.test_preparation import SameProcess, get_dataset, make_config, read, register
from xlmjax import languages
from xlmjax.data.store import TokenStore
from xlmjax.preparation import doctor, examination, prepare, repeats, shards, train_vocabulary
from xlmjax.preparation.doctor import Doctor, EvaluationIndex, HashSet, Units

WORDS = [f"{a}{b}" for a in ("ka", "le", "mo", "ni", "su") for b in ("ra", "te", "vi", "zo")]
HAN = "".join(chr(0x4E00 + number) for number in range(100))


def index_of(texts: list[str], language: str) -> EvaluationIndex:
    units = Units.of(texts)
    ngrams, _ = units.ngram_hashes(doctor.ngram_size(language))
    return EvaluationIndex(HashSet(np.unique(units.line_hashes())), HashSet(np.unique(ngrams)))


def found(
    finding: str, texts: list[str], language: str = "en", *, evaluation=None, **fields
) -> list[bool]:
    """Return which lines of one language have a finding."""
    flags = doctor.examine([texts], [language], Doctor(**fields), evaluation, [finding])
    assert list(flags) == [finding]
    assert flags[finding].shape == (1, len(texts))
    return flags[finding][0].tolist()


def found_in_pairs(
    finding: str, pairs: list[tuple[str, str]], codes: tuple[str, str] = ("en", "fr"), **fields
) -> list[bool]:
    sides = [list(side) for side in zip(*pairs, strict=True)]
    flags = doctor.examine(sides, codes, Doctor(**fields), None, [finding])
    return flags[finding].any(axis=0).tolist() if flags else []


# What is found.


def test_control_characters_are_found_and_those_of_orthography_are_not():
    bad = ["a\x00b", "a\x9fb", "a\ue000b", "a\ufffdb", "a\ufeffb"]
    good = ["a b", "می\u200cخواهم", "क्\u200dष", "\u200fאב", "so\u00adft"]
    assert found(doctor.CONTROL, bad + good) == [True] * 5 + [False] * 5


@pytest.mark.parametrize(
    ("language", "right", "wrong"),
    [
        ("en", ["ＡＢＣ ok", "12, 34!", "ﬁne ªº"], ["Привет мир", "ab где бы"]),
        ("ru", ["Привет world"[:9], "№ 5"], ["hello", "мы and they"]),
        ("zh", ["我和Alice很好", "3.14"], ["hello there", "こんにちは", "我 hello"]),
        ("ja", ["これは漢字と片仮名 カタカナ", "ｶﾀｶﾅ"], ["hello", "안녕하세요"]),
        ("th", ["สวัสดีครับ hi"], ["hello ครับ"]),
        ("ko", ["안녕하세요 漢字", "\u1112\u1161\u11ab"], ["hello"]),
        ("hi", ["नमस्ते दुनिया"], ["سلام دنیا"]),
    ],
)
def test_a_line_is_in_the_wrong_script_by_the_share_of_its_letters(language, right, wrong):
    expected = [False] * len(right) + [True] * len(wrong)
    assert found(doctor.WRONG_SCRIPT, right + wrong, language) == expected


def test_the_share_of_the_script_is_the_threshold():
    assert found(doctor.WRONG_SCRIPT, ["abcdгдеж"]) == [False]
    assert found(doctor.WRONG_SCRIPT, ["abcdгдежз"]) == [True]
    assert found(doctor.WRONG_SCRIPT, ["abcdгдежз"], min_script_share=0.4) == [False]


@pytest.mark.parametrize("language", languages.LANGUAGES, ids=lambda language: language.code)
def test_every_language_has_a_script_and_a_length_of_ngram(language):
    assert doctor._own_scripts(language.code).any()
    unspaced = language.script in ("Hans", "Jpan", "Thai", "Laoo", "Khmr", "Mymr")
    assert (doctor.ngram_size(language.code) == 13) != unspaced


def test_identical_sides_are_those_of_equal_words():
    pairs = [("Not translated.", "not translated"), ("a b", "ab"), ("...", "..."), ("12", "12")]
    assert found_in_pairs(doctor.IDENTICAL, pairs) == [True, False, False, True]


def test_length_ratio_has_a_threshold_and_spares_the_short():
    long = "x" * 60
    pairs = [(long, "y" * 20), (long, "y" * 19), ("Yes", "y" * 45), ("Yes", "y" * 46)]
    assert found_in_pairs(doctor.LENGTH_RATIO, pairs) == [False, True, False, True]
    assert not any(found_in_pairs(doctor.LENGTH_RATIO, pairs, max_length_ratio=4.0))


def test_a_chinese_character_is_as_long_as_three_letters():
    pairs = [("x" * 60, HAN[:20]), ("x" * 60, HAN[:6]), ("x" * 20, HAN[:21])]
    assert found_in_pairs(doctor.LENGTH_RATIO, pairs, ("en", "zh")) == [False, True, True]


def test_premise_and_hypothesis_are_no_translations():
    pairs = [("x" * 100, "x"), ("same", "same")]
    assert found_in_pairs(doctor.LENGTH_RATIO, pairs, ("en", "en")) == []
    assert found_in_pairs(doctor.IDENTICAL, pairs, ("en", "en")) == []


@pytest.mark.parametrize(
    ("language", "size", "units", "space"),
    [("en", 13, WORDS, " "), ("zh", 24, HAN, ""), ("th", 70, [chr(0x0E01)], "")],
)
def test_an_ngram_is_13_words_or_as_many_characters(language, size, units, space):
    words = [units[number % len(units)] + "\u0e35" * (language == "th") for number in range(90)]
    # A Thai consonant and the vowel above it are two characters.
    inside = size // 2 if language == "th" else size
    index = index_of([space.join(words)], language)
    shared = [space.join(["qq ", *words[5 : 5 + count], " zz"]) for count in (inside, inside - 1)]
    assert found(doctor.EVALUATION_NGRAM, shared, language, evaluation=index) == [True, False]


def test_overlap_ignores_case_punctuation_and_width():
    index = index_of([" ".join(WORDS), "Oh, no!"], "en")
    texts = [
        f"... {', '.join(WORDS[3:16]).upper()}?",
        "oh no",
        "ＯＨ — NO",
        "oh no no",
        "ohno",
        "...",
    ]
    ngram = found(doctor.EVALUATION_NGRAM, texts, evaluation=index)
    line = found(doctor.EVALUATION_LINE, texts, evaluation=index)
    assert ngram == [True] + [False] * 5
    assert line == [False, True, True, False, False, False]


def test_an_ngram_does_not_reach_over_the_end_of_a_line():
    index = index_of([" ".join(WORDS[:13])], "en")
    texts = [" ".join(WORDS[:6]), " ".join(WORDS[6:13])]
    assert found(doctor.EVALUATION_NGRAM, texts, evaluation=index) == [False, False]


def test_a_finding_of_a_side_tells_the_side():
    sides = [["fine", "hel\x01lo"], ["Привет", "bon"]]
    flags = doctor.examine(sides, ("en", "fr"), Doctor(), None, doctor.FINDINGS)
    assert flags[doctor.CONTROL].tolist() == [[False, True], [False, False]]
    assert flags[doctor.WRONG_SCRIPT].tolist() == [[False, False], [True, False]]


def test_no_example_has_no_finding():
    flags = doctor.examine([[], []], ("en", "fr"), Doctor(), index_of(["a"], "en"))
    assert set(flags) == set(doctor.FINDINGS) - {doctor.DUPLICATE}
    assert all(flag.shape[1] == 0 for flag in flags.values())
    assert len(doctor.text_hashes([[], []])) == 0


def test_texts_that_differ_have_hashes_that_differ():
    generator = random.Random(0)
    texts = list({"".join(generator.choices("ab \u0e01", k=12)) for _ in range(50_000)})
    texts += [text + "\x00" for text in texts[:100]]
    assert len(np.unique(doctor.text_hashes([texts]))) == len(texts)
    assert (
        len(np.unique(Units.of([f"w{n} w{n + 1}" for n in range(50_000)]).line_hashes())) == 50_000
    )
    one, other = doctor.text_hashes([["a b", "a"], ["c", "b c"]])
    assert one != other
    # The same whatever is beside it in a batch.
    assert doctor.text_hashes([["x", *texts]])[1:].tolist() == doctor.text_hashes([texts]).tolist()


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_a_set_has_its_hashes_and_no_others(count):
    hashes = np.random.default_rng(count).integers(0, 1 << 64, 2000, np.uint64)
    hashes[:4] = [0, (1 << 64) - 1, 1, 1 << 63]
    inside = HashSet(np.unique(hashes[:count]))
    assert inside.has(hashes).tolist() == [number < count for number in range(2000)]
    assert inside.has(hashes[:0]).tolist() == []


# Duplicates.


@pytest.mark.parametrize("run_size", [7, 64, 10_000])
@pytest.mark.parametrize("num_shards", [1, 5])
def test_duplicates_do_not_depend_on_runs_and_shards(monkeypatch, tmp_path, run_size, num_shards):
    monkeypatch.setattr(repeats, "_RUN", run_size)
    generator = np.random.default_rng(0)
    kinds = generator.integers(0, 1 << 64, 300, np.uint64)
    hashes = kinds[(300 * generator.random(500) ** 3).astype(int)]
    files = []
    for shard, part in enumerate(np.array_split(np.arange(500), num_shards)):
        writer = repeats.RunWriter(tmp_path / f"runs-{shard}")
        for batch in np.array_split(part, 9):
            writer.append(hashes[batch], batch)
        writer.flush()
        files += [tmp_path / name for name in writer.names]
    assert len(files) >= 500 // (run_size + 500 // 9) * (run_size < 500)
    count, shown = repeats.merge(files, 4, tmp_path / "result")
    times = collections.Counter(hashes.tolist())
    firsts = {value: hashes.tolist().index(value) for value in times}
    assert count == 500 - len(times)
    expected = sorted(
        ((firsts[v], n) for v, n in times.items()), key=lambda item: (-item[1], item[0])
    )
    assert shown == expected[:4]
    again = repeats.Repeats.open(tmp_path / "result").were_there(hashes, np.arange(500))
    assert again.tolist() == [firsts[value] != place for place, value in enumerate(hashes.tolist())]


def test_a_text_without_duplicates_has_none(tmp_path):
    writer = repeats.RunWriter(tmp_path / "runs")
    writer.flush()
    assert repeats.merge([], 5, tmp_path / "result") == (0, [])
    empty = repeats.Repeats.open(tmp_path / "result")
    assert not empty.were_there(np.ones(3, np.uint64), np.arange(3)).any()


# The section of the config.


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("drop", ("duplicates",), "'duplicates' is no finding; name some of control_characters"),
        ("max_length_ratio", 1.0, "must be above 1"),
        ("min_script_share", 1.5, "must be a share from 0"),
        ("max_shown", -1, "must be 0"),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_a_remedy(field, value, remedy):
    with pytest.raises(ValueError, match=rf"data\.doctor\.{field}=.*{remedy}"):
        dataclasses.replace(Doctor(), **{field: value})


# Whole stores.

SENTENCES = [" ".join(random.Random(n).choices(WORDS, k=6)) + f" {n}" for n in range(300)]
LONG = [" ".join(random.Random(1000 + n).choices(WORDS, k=20)) for n in range(3)]
EN = [
    *SENTENCES[:40],
    "Привет, это не тот алфавит",
    *SENTENCES[:2],  # duplicates
    "a\x01b",
    f"Before {LONG[0].title()}, after",
    *SENTENCES[40:80],
    SENTENCES[0],
    f"{SENTENCES[200].upper()}!",
    "",
    *SENTENCES[80:100],
]
FOUND_IN_EN = {
    "control_characters": 1,
    "wrong_script": 1,
    "identical_sides": 0,
    "length_ratio": 0,
    "duplicate": 3,
    "evaluation_line": 1,
    "evaluation_ngram": 1,
}
EN_HELD_OUT = [*SENTENCES[200:210], LONG[0]]
PAIRS = [
    *((f"{text} en", f"{text} fr") for text in SENTENCES[:50]),
    ("Not translated", "not translated"),
    ("le ra " * 20, "le ra"),
    ("Bonjour", "Привет"),
    (f"{SENTENCES[0]} en", f"{SENTENCES[0]} fr"),
    (f"{SENTENCES[0]} en", "another translation"),
]
FOUND_IN_PAIRS = {
    "control_characters": 0,
    "wrong_script": 1,
    "identical_sides": 1,
    "length_ratio": 1,
    "duplicate": 1,
    "evaluation_line": 0,
    "evaluation_ngram": 0,
}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> pathlib.Path:
    """A folder of text with one fault or more of every kind, and a vocabulary."""
    folder = tmp_path_factory.mktemp("text")
    for name, lines in (("en.txt", EN), ("en.valid.txt", EN_HELD_OUT), ("fr.txt", SENTENCES[:30])):
        (folder / name).write_text("\n".join(lines) + "\n")
    (folder / "fr.valid.txt").write_text(SENTENCES[250] + "\n")
    (folder / "en-fr.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in PAIRS))
    config = settings_of(folder, folder / "stores")
    vocabulary, _ = train_vocabulary.train(config)
    train_vocabulary.save(vocabulary, config.data.vocabulary)
    return folder


def settings_of(folder: pathlib.Path, stores: pathlib.Path, **fields) -> ConfigDict:
    config = make_config(folder, stores)
    config.data.languages = ("en", "fr")
    config.data.pairs = ("en-fr",)
    config.data.train.parallel = (f"tsv:{folder}/{{a}}-{{b}}.tsv",)
    for field, value in fields.items():
        section = config.data if field in config.data else config.data.doctor
        section[field] = value
    return config


@pytest.fixture
def run(text, tmp_path, monkeypatch):
    """Prepare into `tmp_path`, in this process; returns what was said and what ran."""
    monkeypatch.setattr(prepare, "_MIN_EXAMPLES", 1)

    class Recording(SameProcess):
        def map(self, function, items):
            items = list(items)
            calls.extend((function.__name__, *item) for item in items)
            return super().map(function, items)

    calls: list = []

    def run(**fields) -> tuple[list[str], list]:
        said: list[str] = []
        calls.clear()
        shards._registered.clear()
        runner = Recording()
        prepare.prepare(settings_of(text, tmp_path, **fields), runner, runner, said.append)
        return said, [call[1] for call in calls if call[0] == "examine_shard"]

    return run


def findings(stores: pathlib.Path, store: str) -> dict:
    return json.loads((stores / store / "findings.json").read_text())


def counts(stores: pathlib.Path, store: str) -> dict[str, int]:
    return {name: found["examples"] for name, found in findings(stores, store)["findings"].items()}


def dropped(stores: pathlib.Path, task: str) -> dict[str, int]:
    return TokenStore.open(stores / task / "train").manifest.dropped


def test_findings_are_counted_and_nothing_is_dropped(run, text, tmp_path):
    said, _ = run()
    assert counts(tmp_path, "mlm.en/train") == FOUND_IN_EN
    assert counts(tmp_path, "tlm.en_fr/train") == FOUND_IN_PAIRS
    assert findings(tmp_path, "mlm.en/train")["examined"] == len(EN) - 1
    assert dropped(tmp_path, "mlm.en") == {"empty": 1}
    assert dropped(tmp_path, "tlm.en_fr") == {}
    sets = ["mlm.en/validation", "mlm.fr/validation"]
    assert findings(tmp_path, "mlm.en/train")["compared_with"] == sets
    held_out = counts(tmp_path, "mlm.en/validation")
    assert set(held_out) == set(doctor.FINDINGS) - set(doctor.OVERLAP)
    assert not any(held_out.values())
    table = "\n".join(said)
    assert "compared with 12 lines and 8 n-grams of 2 evaluation sets" in table
    assert "2 of 5 stores have findings" in table
    assert "wrong script by language, all stores together: en 1, fr 1" in table
    [row] = [line.split() for line in said if line.startswith("mlm.en/train  ")]
    assert row[1:] == [str(len(EN) - 1), *map(str, FOUND_IN_EN.values())]


def test_examples_are_shown_with_file_and_line(run, text, tmp_path):
    run(max_shown=1)
    found = findings(tmp_path, "mlm.en/train")["findings"]
    line = EN.index("a\x01b") + 1
    assert found["control_characters"]["shown"] == [
        {"texts": ["a\x01b"], "place": f"{text}/en.txt:{line}"}
    ]
    assert found["duplicate"]["shown"] == [
        {"times": 3, "texts": [SENTENCES[0]], "place": f"{text}/en.txt:1"}
    ]
    [shown] = findings(tmp_path, "tlm.en_fr/train")["findings"]["identical_sides"]["shown"]
    assert shown["texts"] == ["Not translated", "not translated"]
    assert shown["place"].endswith("en-fr.tsv:51")


@pytest.mark.parametrize("num_shards", [3, 7])
def test_findings_and_drops_do_not_depend_on_the_number_of_shards(run, tmp_path, num_shards):
    def result(count: int):
        shutil.rmtree(tmp_path)
        run(num_shards=count, drop=doctor.FINDINGS)
        stores = ("mlm.en", "mlm.fr", "tlm.en_fr")
        return [
            (findings(tmp_path, f"{name}/train"), read(tmp_path, name), dropped(tmp_path, name))
            for name in stores
        ]

    assert result(num_shards) == result(1)


def test_what_is_dropped_is_counted_by_reason_on_both_paths(run, text, tmp_path):
    run(drop=doctor.FINDINGS)
    expected = {name: number for name, number in FOUND_IN_EN.items() if number}
    assert dropped(tmp_path, "mlm.en") == {"empty": 1, **expected}
    expected = {name: number for name, number in FOUND_IN_PAIRS.items() if number}
    assert dropped(tmp_path, "tlm.en_fr") == expected
    contents = {name: read(tmp_path, name) for name in ("mlm.en", "tlm.en_fr")}
    assert len(contents["mlm.en"]) == 100
    assert len(read(tmp_path, "mlm.en", "validation")) == len(EN_HELD_OUT)
    # seqio alone, where nothing has been prepared.
    shutil.rmtree(tmp_path / "doctor")
    register(settings_of(text, tmp_path, drop=doctor.FINDINGS))
    for name, content in contents.items():
        rows = [
            [row[feature].tolist() for feature in ("tokens", "target_tokens") if feature in row]
            for row in get_dataset(name)
        ]
        assert rows == content
    assert len(get_dataset("mlm.en", "validation")) == len(EN_HELD_OUT)


@pytest.mark.parametrize("finding", doctor.FINDINGS)
def test_only_what_is_named_is_dropped(run, tmp_path, finding):
    run(drop=(finding,), mixture=("mlm.en", "tlm.en_fr"))
    counted = {**FOUND_IN_EN}
    assert dropped(tmp_path, "mlm.en").get(finding, 0) == counted[finding]
    assert set(dropped(tmp_path, "mlm.en")) <= {"empty", finding}
    assert dropped(tmp_path, "tlm.en_fr").get(finding, 0) == FOUND_IN_PAIRS[finding]


def test_an_example_with_two_findings_is_dropped_once(run, text, tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(text, folder)
    (folder / "fr.txt").write_text("Привет\n" * 3 + "ma\n")
    run_config = settings_of(folder, tmp_path, drop=("duplicate", "wrong_script"))
    run_config.data.mixture = ("mlm.fr",)
    prepare.prepare(run_config, SameProcess(), SameProcess(), lambda _: None)
    assert counts(tmp_path, "mlm.fr/train")["duplicate"] == 2
    assert dropped(tmp_path, "mlm.fr") == {"wrong_script": 3}


def test_text_is_examined_once(run, tmp_path):
    _, examined = run(mixture=("mlm.en", "clm.en"))
    # Two texts of four shards each, although there are twice as many stores.
    assert sorted((job.task, job.split) for job in examined) == [
        *[("mlm.en", "train")] * 4,
        *[("mlm.en", "validation")] * 4,
    ]
    assert counts(tmp_path, "clm.en/train") == FOUND_IN_EN
    said, examined = run(mixture=("mlm.en", "clm.en"))
    assert examined == []
    assert any(line.startswith("mlm.en/train  ") for line in said)
    assert not [path for path in (tmp_path / "doctor").iterdir() if path.suffix == ".work"]
    _, examined = run(mixture=("mlm.en", "clm.en"), min_script_share=0.1)
    assert {job.split for job in examined} == {"train", "validation"}
    _, examined = run(mixture=("mlm.en", "clm.en"), min_script_share=0.1, examine=False)
    assert examined == []


def test_an_interrupted_examination_goes_on(run, text, tmp_path, monkeypatch):
    done = []
    real = examination.examine_shard

    def examine_shard(job, index):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(real(job, index))

    with monkeypatch.context() as patch:
        patch.setattr(examination, "examine_shard", examine_shard)
        with pytest.raises(KeyboardInterrupt):
            run()
    records = list((tmp_path / "doctor").glob("*.work/shard-*.json"))
    assert len(records) == 3
    before = {path: path.stat().st_mtime_ns for path in records}
    seen = {}
    together = examination.put_together

    def put_together(job):
        seen.update({path: path.stat().st_mtime_ns for path in job.work.glob("shard-*.json")})
        together(job)

    monkeypatch.setattr(examination, "put_together", put_together)
    run()
    assert {path: seen[path] for path in before} == before
    assert counts(tmp_path, "mlm.en/train") == FOUND_IN_EN


# When stores are told to be stale.


def made_again(said: list[str]) -> set[str]:
    return {line.partition(":")[0] for line in said if ": made again: " in line}


def test_counting_leaves_stores_and_dropping_makes_them_again(run):
    mixture = {"mixture": ("mlm.en",)}
    run(**mixture)
    assert not made_again(run(**mixture, max_length_ratio=2.0, examine=False)[0])
    assert "mlm.en/train" in made_again(run(**mixture, drop=("duplicate",))[0])
    assert not made_again(run(**mixture, drop=("duplicate",))[0])
    more = {"drop": ("duplicate",), "min_script_share": 0.6}
    assert "mlm.en/train" in made_again(run(**mixture, **more)[0])


def test_another_evaluation_set_is_compared_and_told(run, text, tmp_path):
    held_out = tmp_path / "held_out.txt"
    held_out.write_text(SENTENCES[5] + "\n")
    other = ConfigDict({"text": (f"text:{held_out}",), "parallel": (), "xnli": ()})
    run(mixture=("mlm.fr",))
    said, _ = run(mixture=("mlm.fr",), test=other)
    assert counts(tmp_path, "mlm.fr/train")["evaluation_line"] == 1
    assert not made_again(said)
    drop = {"mixture": ("mlm.fr",), "drop": ("evaluation_line",)}
    run(**drop)
    assert dropped(tmp_path, "mlm.fr").get("evaluation_line", 0) == 0
    said, _ = run(**drop, test=other)
    assert "mlm.fr/train" in made_again(said)
    assert dropped(tmp_path, "mlm.fr") == {"evaluation_line": 1}


def test_an_evaluation_set_that_cannot_be_read_is_told(run, tmp_path):
    gone = ConfigDict({"text": ("text:nowhere/{lang}.txt",), "parallel": (), "xnli": ()})
    said, _ = run(mixture=("mlm.fr",), test=gone)
    assert [line for line in said if "not compared with mlm.en/test: data.test.text" in line]


# Sources that are not our files.


def test_other_sources_are_examined_but_their_duplicates_stay(run, text, tmp_path):
    import seqio
    import tensorflow as tf

    from xlmjax import tasks

    lines = ["ma wa", "a\x01b", "ma wa", "ki na"]

    def add(**fields):
        config = settings_of(text, tmp_path, **fields)
        source = seqio.FunctionDataSource(
            lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(
                {"text": lines}
            ),
            splits=("train", "validation"),
        )
        seqio.TaskRegistry.remove("other.sw")
        tasks.add_text("other.sw", source, "sw", config.data)
        return {"mixture": ("other.sw",), **fields}

    run(**add())
    assert counts(tmp_path, "other.sw/train")["duplicate"] == 1
    assert counts(tmp_path, "other.sw/train")["control_characters"] == 1
    assert counts(tmp_path, "other.sw/train")["evaluation_line"] == 4
    run(**add(drop=("control_characters",)))
    assert dropped(tmp_path, "other.sw") == {"control_characters": 1}
    assert len(read(tmp_path, "other.sw", "validation")) == 4
    with pytest.raises(ValueError, match=r"'duplicate'.*'other.sw'.*take 'duplicate' out of"):
        run(**add(drop=("duplicate",)))


def test_labelled_examples_differ_by_their_label(run, text, tmp_path):
    rows = ["le ra\tmo\tneutral", "le ra\tmo\tneutral", "le ra\tmo\tentailment"]
    (tmp_path / "en.nli").write_text("\n".join(rows) + "\n")
    train = ConfigDict({"text": (), "parallel": (), "xnli": (f"tsv:{tmp_path}/{{lang}}.nli",)})
    run(mixture=("xnli.en",), train=train, pairs=(), languages=("en",), drop=("duplicate",))
    assert dropped(tmp_path, "xnli.en") == {"duplicate": 1}
    assert "length_ratio" in findings(tmp_path, "xnli.en/train")["findings"]
    assert counts(tmp_path, "xnli.en/train")["length_ratio"] == 0
