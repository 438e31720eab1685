"""Corpora: what the formats mean, which files make a corpus, and what is wrong with bad ones."""

import gzip
import os

import pytest

from xlmjax.configs import base
from xlmjax.preparation import corpora, demo_parts, text_files


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The data section for en, fr and sw, with no text; files are looked for in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    data = base.get_config().data
    data.languages = ("en", "fr", "sw")
    data.pairs = ("fr-en", "en-sw")
    data.train.text = ()
    data.train.parallel = ()
    return data


def write(name: str, *lines: str, end: str = "\n") -> None:
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    content = (end.join(lines) + end).encode()
    if name.endswith(".gz"):
        content = gzip.compress(content)
    with open(name, "wb") as file:
        file.write(content)


def text_of(data, language):
    corpus = corpora.text_corpus(data, "train", language)
    return [line.decode() for (line,) in corpus.examples(0, len(corpus))]


def pairs_of(data, pair=("en", "fr")):
    corpus = corpora.pair_corpus(data, "train", pair)
    return [
        tuple(None if side is None else side.decode() for side in row)
        for row in corpus.examples(0, len(corpus))
    ]


def test_text_is_one_example_a_line(data):
    write("en.txt", "one", "two\t2", "", "three\u2028still three")
    data.train.text = ("text:{lang}.txt",)
    assert text_of(data, "en") == ["one", "two\t2", "", "three\u2028still three"]


def test_files_are_concatenated_in_order_of_specs_and_names(data):
    write("b/en-1.txt", "b1")
    write("b/en-2.txt.gz", "b2", "b3")
    write("a.en", "a")
    write("k.en", "key\tk")
    data.train.text = ("text:b/{lang}-*", "text:missing.{lang}", "text:a.{lang}", "keyed:k.{lang}")
    assert text_of(data, "en") == ["b1", "b2", "b3", "a", "k"]


def test_windows_line_ends_byte_order_mark_and_missing_last_line_feed(data):
    with open("en.txt", "wb") as file:
        file.write(b"\xef\xbb\xbfone\r\ntwo\r\nthree")
    data.train.text = ("text:{lang}.txt",)
    assert text_of(data, "en") == ["one", "two", "three"]


def test_aligned_files_are_matched_by_what_wildcards_stand_for(data):
    for year, count in (("2010", 1), ("2009", 2)):
        write(f"news{year}.en.gz", *(f"en {year} {i}" for i in range(count)))
        write(f"news{year}.fr", *(f"fr {year} {i}" for i in range(count)))
    data.train.parallel = ("aligned:news*.{lang}*",)
    with pytest.raises(ValueError, match="has no partner"):
        pairs_of(data)  # the second wildcard is ".gz" on one side only
    for year in ("2009", "2010"):
        os.rename(f"news{year}.en.gz", f"news{year}.en")
        with open(f"news{year}.en", "rb") as file:
            content = gzip.decompress(file.read())
        with open(f"news{year}.en", "wb") as file:
            file.write(content)
    data.train.parallel = ("aligned:news*.{lang}",)
    expected = [(f"en {name}", f"fr {name}") for name in ("2009 0", "2009 1", "2010 0")]
    assert pairs_of(data) == expected


def test_a_file_without_partner_is_named(data):
    write("news1.en", "x")
    write("news1.fr", "x")
    write("news2.fr", "x")
    data.train.parallel = ("aligned:news*.{lang}",)
    with pytest.raises(ValueError, match=r"data.train.parallel: news2.fr has no partner.*en-fr"):
        pairs_of(data)


@pytest.mark.parametrize("order", ["en-fr", "fr-en"])
def test_tables_are_found_in_both_orders_and_turned(data, order):
    write(f"{order}.tsv", *("the\tle" if order == "en-fr" else "le\tthe", "\t"))
    data.train.parallel = ("tsv:{a}-{b}.tsv",)
    assert pairs_of(data) == [("the", "le"), ("", "")]


def test_a_column_of_a_table_is_text_of_its_language(data):
    write("en-fr.tsv", "the\tle", "a\tun", "an\tune")
    data.train.text = ("tsv:{a}-{b}.tsv[1:]",)
    for code, expected in (("en", [("a",), ("an",)]), ("fr", [("un",), ("une",)])):
        corpus = corpora.text_corpus(data, "train", code)
        assert [tuple(x.decode() for x in row) for row in corpus.examples(0, 2)] == expected
        assert corpus.place(0) == "en-fr.tsv:2"
    english, french = (corpora.text_corpus(data, "train", code) for code in ("en", "fr"))
    assert english.fingerprint() != french.fingerprint()


def test_aligned_files_with_the_pair_in_their_name_are_found_in_both_orders(data):
    write("fr-en/fr", "le")
    write("fr-en/en", "the")
    data.train.parallel = ("aligned:{a}-{b}/{lang}",)
    assert pairs_of(data) == [("the", "le")]


def test_keyed_files_are_joined_and_what_has_no_partner_is_kept_to_be_counted(data):
    write("en.tsv", "1\tone", "3\tthree", "2\ttwo\ttabs stay out", end="\n")
    data.train.parallel = ("keyed:{lang}.tsv",)
    write("fr.tsv", "2\tdeux", "4\tquatre", "1\tun")
    with pytest.raises(ValueError, match=r"en.tsv:3: 3 tab-separated columns where 2 are expected"):
        pairs_of(data)
    write("en.tsv", "1\tone", "3\tthree", "", "2\ttwo")
    assert pairs_of(data) == [("one", "un"), ("three", None), ("two", "deux"), (None, "quatre")]


def test_a_pair_uses_every_spec_whose_files_exist(data):
    write("en-fr.tsv", "the\tle")
    write("news.en", "news")
    write("news.fr", "nouvelles")
    write("news.sw", "habari")
    data.train.parallel = ("aligned:news.{lang}", "tsv:{a}-{b}.tsv", "keyed:bible/{lang}.tsv")
    assert pairs_of(data) == [("news", "nouvelles"), ("the", "le")]
    assert pairs_of(data, ("en", "sw")) == [("news", "habari")]


def test_ranges_of_a_corpus_are_contiguous_across_parts(data, monkeypatch):
    monkeypatch.setattr(text_files, "_STRIDE", 3)  # seek into the middle of small files
    monkeypatch.setattr(text_files, "_BLOCK", 16)
    for number, lines in enumerate((7, 1, 11)):
        write(f"{number}.en", *(f"line {i} of é {number}" for i in range(lines)))
        write(f"{number}.zip.en.gz", *(f"packed {i} {number}" for i in range(lines)))
    data.train.text = ("text:*.{lang}", "text:*.{lang}.gz")
    corpus = corpora.text_corpus(data, "train", "en")
    whole = list(corpus.examples(0, len(corpus)))
    assert len(whole) == len(corpus) == 38
    for start in range(39):
        for stop in range(start, 39):
            assert list(corpus.examples(start, stop)) == whole[start:stop]
    for count in (1, 2, 5, 38, 50):
        shards = [corpus.shard(index, count) for index in range(count)]
        assert [number for shard in shards for number in shard] == list(range(38))
        assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_fingerprint_is_of_the_content(data):
    write("en.txt", "one", "two")
    data.train.text = ("text:{lang}.txt",)
    before = corpora.text_corpus(data, "train", "en").fingerprint()
    write("en.txt", "one", "too")  # same size
    os.utime("en.txt", ns=(1, 1))
    changed = corpora.text_corpus(data, "train", "en").fingerprint()
    write("elsewhere/en.gz", "one", "two")
    data.train.text = ("text:elsewhere/{lang}.gz",)
    moved = corpora.text_corpus(data, "train", "en").fingerprint()
    assert before == moved != changed


def test_scans_are_recalled_until_the_file_changes(data, tmp_path):
    write("en.txt", "one")
    scan = text_files.scan("en.txt")
    text_files.save_scans(tmp_path / "scans.json", [scan])
    [loaded] = text_files.load_scans(tmp_path / "scans.json")
    assert loaded == scan
    assert text_files.scan("en.txt") is scan
    write("en.txt", "one", "two")
    assert text_files.scan("en.txt").lines == 2
    assert text_files.load_scans(tmp_path / "absent.json") == []


def test_missing_files_name_pattern_and_language(data):
    data.train.text = ("text:wiki/{lang}.txt.gz", "text:more/{lang}/*")
    with pytest.raises(
        ValueError,
        match=r"data.train.text: no file for language 'sw'; looked for text:wiki/\{lang\}.txt.gz, ",
    ):
        text_of(data, "sw")
    data.train.parallel = ("tsv:{a}-{b}.tsv",)
    with pytest.raises(ValueError, match=r"no file for pair 'en-fr'; looked for tsv:\{a\}-\{b\}"):
        pairs_of(data)


def test_demo_text_of_another_language_is_missing(data):
    data.languages = ("zh",)
    data.train.text = ("demo:",)
    with pytest.raises(ValueError, match=r"no file for language 'zh'.*demo text exists for.*sw"):
        text_of(data, "zh")


@pytest.mark.parametrize("name", ["en.txt", "en.txt.gz"])
def test_invalid_utf8_names_file_and_line(data, name, monkeypatch):
    monkeypatch.setattr(text_files, "_BLOCK", 8)
    content = "été\n".encode() * 40 + b"caf\xe9\n"
    with open(name, "wb") as file:
        file.write(gzip.compress(content) if name.endswith(".gz") else content)
    data.train.text = ("text:{lang}.txt*",)
    with pytest.raises(ValueError, match=rf"{name}:41: not UTF-8 \(byte 0xe9"):
        text_of(data, "en")


def test_damaged_gzip_is_named(data):
    write("en.gz", "a quick", "brown fox")
    with open("en.gz", "rb") as file:
        content = file.read()
    with open("en.gz", "wb") as file:
        file.write(content[:-4])
    data.train.text = ("text:{lang}.gz",)
    with pytest.raises(ValueError, match=r"en.gz: damaged gzip file"):
        text_of(data, "en")


def test_aligned_files_of_different_length_give_both_counts(data):
    write("x.en", "1", "2", "3")
    write("x.fr", "1", "2")
    data.train.parallel = ("aligned:x.{lang}",)
    with pytest.raises(ValueError, match=r"x.en has 3 lines, x.fr has 2: .*aligned line by line"):
        pairs_of(data)


@pytest.mark.parametrize("line", ["only one", "one\ttwo\tthree"])
def test_a_table_line_without_two_columns_names_file_and_line(data, line):
    write("en-fr.tsv", "a\tb", "c\td", line)
    data.train.parallel = ("tsv:{a}-{b}.tsv",)
    with pytest.raises(ValueError, match=r"en-fr.tsv:3: [13] tab-separated columns where 2 are"):
        pairs_of(data)


def test_a_repeated_key_names_file_and_line(data):
    write("en.tsv", "1\tone", "2\ttwo", "1\tuno")
    write("fr.tsv", "1\tun")
    data.train.parallel = ("keyed:{lang}.tsv",)
    with pytest.raises(ValueError, match=r"en.tsv:3: key '1' is there twice"):
        pairs_of(data)


def test_an_empty_corpus_is_an_error(data):
    open("en.txt", "w").close()
    data.train.text = ("text:{lang}.txt",)
    with pytest.raises(
        ValueError, match=r"data.train.text: empty corpus for en: no line in en.txt"
    ):
        text_of(data, "en")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"languages": ("en", "xx")}, "data.languages: unknown language 'xx'; known: .*af"),
        ({"languages": ("en", "fr", "en")}, "data.languages: 'en' is named twice"),
        ({"pairs": ("en-xx",)}, "data.pairs: unknown language 'xx'"),
        ({"pairs": ("enfr",)}, "data.pairs: 'enfr' is not a pair"),
        ({"pairs": ("en-en",)}, "data.pairs: 'en-en' is not a pair"),
        ({"pairs": ("en-fr", "fr-en")}, "data.pairs: en-fr is named twice"),
        ({"pairs": ("en-de",)}, "data.pairs: de-en needs 'de' in data.languages="),
    ],
)
def test_languages_and_pairs_are_checked(data, fields, message):
    data.update(fields)
    check = corpora.languages_of if "languages" in fields else corpora.pairs_of
    with pytest.raises(ValueError, match=message):
        check(data)


def test_pairs_are_sorted_as_xlm_sorts_them(data):
    assert corpora.pairs_of(data) == [("en", "fr"), ("en", "sw")]


@pytest.mark.parametrize(
    ("field", "spec", "message"),
    [
        (
            "text",
            "tsv:{a}-{b}",
            "data.train.text: no file for language 'en'; looked for tsv:{a}-{b}",
        ),
        ("text", "aligned:{lang}", "'aligned:{lang}' does not begin with one of text:, tsv:, "),
        ("text", "wiki/{lang}.txt", "does not begin with one of text:, tsv:, keyed:, demo:$"),
        ("parallel", "text:{lang}", "data.train.parallel: 'text:{lang}' does not begin with one"),
        ("parallel", "tsv:{lang}", "'tsv:{lang}' must hold {a} and {b}"),
        ("parallel", "aligned:x", "pattern 'x' must hold {lang}"),
    ],
)
def test_specs_are_checked(data, field, spec, message):
    data.train[field] = (spec,)
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        text_of(data, "en") if field == "text" else pairs_of(data)


def test_a_pattern_can_be_of_one_language_only(data):
    write("a.en", "all en")
    write("a.fr", "all fr")
    write("b.en", "only en")
    write("b.fr", "never")
    data.train.text = ("text:a.{lang}", "text:b.{lang=en}")
    assert text_of(data, "en") == ["all en", "only en"]
    assert text_of(data, "fr") == ["all fr"]
    data.train.text = ("text:b.{lang=en}",)
    with pytest.raises(ValueError, match=r"no file for language 'fr'; looked for text:b.\{lang=en"):
        text_of(data, "fr")
    data.train.text = ("text:a.{lang}", "text:b.{lang=de}")
    with pytest.raises(
        ValueError, match=r"'text:b.\{lang=de\}' is for 'de', which data.languages="
    ):
        text_of(data, "en")
    data.train.parallel = ("aligned:a.{lang=en}",)
    with pytest.raises(ValueError, match="keeps itself to one language"):
        pairs_of(data)


RANGES = ["[:4]", "[4:]", "[2:9]", "[-3:]", "[:-3]", "[-5:-1]", "[0:10]"]
STEPS = ["[::2]", "[1::2]", "[::3]", "[1:8:3]", "[-5::4]", "[::10]", "[:9:1]"]


@pytest.mark.parametrize("name", ["x.en", "x.en.gz"])
@pytest.mark.parametrize("lines", RANGES + STEPS)
def test_a_range_of_lines_is_a_python_slice(data, monkeypatch, name, lines):
    monkeypatch.setattr(text_files, "_STRIDE", 3)
    text = [f"line {i}" for i in range(10)]
    write(name, *text)
    data.train.text = (f"text:{name.replace('en', '{lang=en}')}{lines}",)
    expected = eval(f"text{lines}")
    corpus = corpora.text_corpus(data, "train", "en")
    assert [line.decode() for (line,) in corpus.examples(0, len(corpus))] == expected
    for start in range(len(expected)):
        some = [line.decode() for (line,) in corpus.examples(start, start + 2)]
        assert some == expected[start : start + 2]


def test_ranges_of_files_of_pairs(data):
    for code in ("en", "fr"):
        write(f"x.{code}", *(f"{code} {i}" for i in range(5)))
    write("fr-en.tsv", *(f"fr {i}\ten {i}" for i in range(5)))
    data.train.parallel = ("aligned:x.{lang}[1::2]", "tsv:{a}-{b}.tsv[-1:]")
    assert pairs_of(data) == [(f"en {i}", f"fr {i}") for i in (1, 3, 4)]


def test_the_fingerprint_tells_ranges_apart(data):
    write("x.en", *map(str, range(10)))

    def fingerprint(lines):
        data.train.text = (f"text:x.{{lang}}{lines}",)
        return corpora.text_corpus(data, "train", "en").fingerprint()

    whole, first, *others = map(fingerprint, ("", "[:5]", "[5:]", "[::2]", "[1::2]", "[1:6]"))
    assert len({whole, first, *others}) == 6
    assert whole == fingerprint("[0:]")  # the same text, so nothing is made again
    assert first == fingerprint("[0:-5]")
    assert fingerprint("[::2]") == fingerprint("[0:9:2]")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("text:x.{lang}[:11]", r"'text:x.{lang}\[:11\]' takes lines \[:11\] of x.en, which has 10"),
        ("text:x.{lang}[-11:]", "which has 10"),
        ("text:x.{lang}[5:5]", "which has 10"),
        ("text:x.{lang}[10:]", "which has 10"),
        ("text:x.{lang}[a:5]", r"ends in \[a:5\], which is not \[START:STOP\] or .* whole numbers"),
        ("text:x.{lang}[::0]", r"ends in \[::0\], which is not .* a step of 1 or more"),
        ("text:x.{lang}[::-1]", r"ends in \[::-1\], which is not .* a step of 1 or more"),
        ("text:x.{lang}[:11:2]", r"takes lines \[:11:2\] of x.en, which has 10"),
        ("text:*.{lang}[:3]", "lines of one file, but matches x.en, y.en: give each an entry"),
        ("keyed:x.{lang}[:3]", "takes a range of lines, which keyed does not have"),
        ("demo:[:3]", "takes a range of lines, which demo does not have"),
    ],
)
def test_wrong_ranges_name_the_pattern(data, spec, message):
    write("x.en", *map(str, range(10)))
    write("y.en", "y")
    data.train.text = (spec,)
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        text_of(data, "en")


def test_a_glob_may_still_end_in_a_class_of_characters(data):
    write("en.1", "one")
    write("en.2", "two")
    data.train.text = ("text:{lang}.[12]",)
    assert text_of(data, "en") == ["one", "two"]


def test_translations_go_both_ways(data):
    write("x.en", "the", "an")
    write("x.fr", "le", "un")
    data.test.parallel = ("aligned:x.{lang}",)
    ways = [("en", "fr"), ("fr", "en")]
    there, back = (corpora.translation_corpus(data, "test", way) for way in ways)
    assert list(there.examples(0, 2)) == [(b"the", b"le"), (b"an", b"un")]
    assert list(back.examples(1, 2)) == [(b"un", b"an")]
    assert back.name == "fr-en"
    assert there.fingerprint() != back.fingerprint()
    assert there.fingerprint() == corpora.pair_corpus(data, "test", ("en", "fr")).fingerprint()
    assert list(back.turn().examples(0, 2)) == list(there.examples(0, 2))


def test_demo_text_is_the_same_in_every_range():
    corpus = corpora.demo_corpus(("en", "sw"), "validation")
    whole = list(corpus.examples(0, 50))
    assert len(corpus) == demo_parts.PAIRS["validation"]
    assert list(corpus.examples(20, 31)) == whole[20:31]
    assert len({row for row in whole}) > 40
    texts = corpora.demo_corpus(("sw",), "validation")
    assert texts.fingerprint() != corpora.demo_corpus(("sw",), "train").fingerprint()
