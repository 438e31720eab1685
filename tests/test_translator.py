"""`SentenceTranslator`: order, lengths, what is compiled, and settings that are refused."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from tests.small_run import write_data
from tests.translation_helpers import expected, translator_config, use_fake
from xlmjax import languages
from xlmjax.configs import base
from xlmjax.evaluation.translator import (
    AT_LIMIT,
    CUT,
    EMPTY,
    DecodingConfig,
    SentenceTranslator,
    check_direction,
)
from xlmjax.experiment import build_experiment
from xlmjax.parallel.mesh import MeshConfig, make_mesh

EIGHT = MeshConfig(data=8)
LENGTHS = [3, 0, 12, 1, 7, 30, 3, 22, 5, 6, 9, 2]  # of 32 positions, delimiters not counted


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    use_fake(monkeypatch)


def sentences():
    rng = np.random.default_rng(0)
    return [rng.integers(5, 60, size=length).tolist() for length in LENGTHS]


def make(folder, rows=8, mesh=EIGHT, flat=None, **decoding):
    experiment = build_experiment(translator_config(folder, **(flat or {})))
    devices = jax.devices()[: math.prod(mesh.sizes)]
    translator = SentenceTranslator(
        make_mesh(mesh, devices),
        experiment.strategy,
        experiment.vocabulary,
        experiment.model,
        rows=rows,
        decoding=DecodingConfig(**decoding),
    )
    return translator, make_mesh(mesh, devices)


def translate(folder, tokens=None, first_number=1, **options):
    translator, mesh = make(folder, **options)
    tokens = sentences() if tokens is None else tokens
    source, target = (np.full(len(tokens), languages.get(c).id) for c in ("en", "fr"))
    with jax.set_mesh(mesh):
        found = translator({}, tokens, source, target, first_number)
    return found, translator


def as_lists(found):
    return [[one.tokens.tolist() for one in best] for best in found]


def test_translations_are_in_the_order_of_the_sentences(folder):
    found, translator = translate(folder)
    assert as_lists(found) == [[expected(tokens, "en", "fr")] for tokens in sentences()]
    assert [best[0].score for best in found] == [-(n + 2) if n else 0 for n in LENGTHS]
    assert translator.counts == {EMPTY: 1, AT_LIMIT: 1}  # 30 tokens fill all 32 positions


@pytest.mark.parametrize(
    ("rows", "mesh"),
    [
        (1, MeshConfig(data=1)),
        (24, MeshConfig(data=1, fsdp=4, tensor=2)),
        (12, MeshConfig(data=2, fsdp=2)),
    ],
)
@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
def test_translations_depend_on_neither_rows_nor_mesh(folder, rows, mesh, method):
    found, _ = translate(folder, rows=rows, mesh=mesh, method=method)
    assert as_lists(found) == as_lists(translate(folder, method=method)[0])


def test_samples_depend_on_the_number_of_the_sentence_alone(folder):
    whole = as_lists(translate(folder, method="sample", seed=3)[0])
    rest, _ = translate(folder, sentences()[4:], first_number=5, method="sample", seed=3)
    assert as_lists(rest) == whole[4:]
    assert as_lists(translate(folder, method="sample", seed=4)[0]) != whole
    twins = [[7, 8, 9]] * 4
    assert len({str(x) for x in as_lists(translate(folder, twins, method="sample")[0])}) > 1


def test_the_n_best_of_a_beam_come_best_first(folder):
    found, _ = translate(folder, method="beam", beams=3, n_best=2)
    assert as_lists(found) == [
        [expected(tokens, "en", "fr", extra=extra) for extra in (0, 1)] for tokens in sentences()
    ]
    assert all(a.score >= b.score for a, b in found)


def test_an_output_is_bounded_by_its_own_source(folder):
    found, translator = translate(folder, max_ratio=0.5, max_extra=3)
    for tokens, best in zip(sentences(), found, strict=True):
        longest = int(0.5 * (len(tokens) + 2) + 3)
        assert best[0].tokens.tolist() == expected(tokens, "en", "fr", longest=longest)
    assert translator.counts[AT_LIMIT] == sum(n > 0 and n >= (n + 2) // 2 + 1 for n in LENGTHS)
    assert DecodingConfig().longest(9, 512) == 23  # floor(13.5 + 10)
    assert DecodingConfig().longest(9, 20) == 20


def test_a_program_is_compiled_once_a_length(folder):
    tokens = sentences() * 3  # 36, of which 3 are empty: 5 batches
    _, translator = translate(folder, tokens)
    # Their longest have 3, 6, 9, 30 and 30 tokens and two delimiters.
    assert translator.shapes == [(8, 8), (8, 12), (8, 32)]
    again, mesh = make(folder)
    ids = np.full(4, 4)
    with jax.set_mesh(mesh):
        for _ in range(3):
            again({}, [[5], [6, 7], [8] * 6, [9] * 5], ids, ids)
            again({}, [[5]], ids[:1], ids[:1])
    assert again.shapes == [(8, 8)]


def test_nothing_is_compiled_for_nothing(folder):
    found, translator = translate(folder, [[], []])
    assert as_lists(found) == [[[]], [[]]]
    assert translator.shapes == []
    assert as_lists(translate(folder, [])[0]) == []


def test_long_sources_are_refused_or_cut_and_counted(folder):
    long = [9] * 31
    message = (
        r"sentence 12 has 33 tokens, delimiters included, more than 32 \(max_length, or model.max"
    )
    with pytest.raises(ValueError, match=message):
        translate(folder, [[5], long], first_number=11)
    found, translator = translate(folder, [[5], long], over_limit="cut")
    assert translator.counts[CUT] == 1
    assert found[1][0].tokens.tolist() == expected(long[:30], "en", "fr")
    flat = {"model__positions": "rope"}
    with pytest.raises(ValueError, match="more than 32 "):
        translate(folder, [long], flat=flat)
    rope, _ = translate(folder, [long], flat=flat, max_length=40)
    assert rope[0][0].tokens.tolist() == expected(long, "en", "fr")
    with pytest.raises(ValueError, match=r"max_length=40: .* has model.max_positions=32"):
        translate(folder, [long], max_length=40)
    short, translator = translate(folder, [long], max_length=20, over_limit="cut")
    assert translator.counts[CUT] == 1
    assert short[0][0].tokens.tolist() == expected(long[:18], "en", "fr")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "beem"}, r"method='beem' is unknown; known: greedy, sample, beam"),
        ({"over_limit": "drop"}, r"over_limit='drop' is unknown; known: error, cut"),
        ({"temperature": 0.0}, r"temperature=0.0 must be above 0; method='greedy'"),
        ({"beams": 0}, r"beams=0 must be 1 or more"),
        ({"n_best": 0}, r"n_best=0 must be 1 or more"),
        ({"max_ratio": -1.0}, r"max_ratio=-1.0 must be 0 or more"),
        ({"max_extra": 1}, r"max_extra=1 must be 2 or more"),
        ({"max_length": -1}, r"max_length=-1 must be 0 or more"),
        ({"max_length": 2}, r"max_length=2 has no room beside 2 delimiters"),
        ({"n_best": 2}, r"n_best=2 is more than the hypotheses that greedy finds"),
        ({"n_best": 5, "method": "beam"}, r"n_best=5 is more than the hypotheses that beams=4 has"),
    ],
)
def test_wrong_decoding_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DecodingConfig(**fields)
    with pytest.raises(ValueError, match=rf"evals.mt.decoding.{message}"):
        DecodingConfig.from_config(fields, "evals.mt.decoding")


def test_a_beam_wider_than_the_vocabulary_is_refused(folder):
    with pytest.raises(ValueError, match=r"beams=61: the vocabulary has only 60 words"):
        make(folder, method="beam", beams=61)


def test_languages_without_an_embedding_are_refused(folder):
    cfg = build_experiment(translator_config(folder)).model
    assert check_direction(cfg, "fr", "en", "x") == languages.ids(("fr", "en"))
    for source, target, message in (
        ("en", "de", r"x: 'de' is a target language without a decoder embedding; .*: en, fr"),
        ("de", "en", r"x: 'de' is a source language without an encoder embedding"),
        ("en", "xx", r"x: unknown language 'xx'"),
    ):
        with pytest.raises(ValueError, match=message):
            check_direction(cfg, source, target, "x")


def test_the_section_of_a_config_has_the_defaults_of_the_class():
    section = dict(base.decoding())
    fields = dataclasses.asdict(DecodingConfig())
    assert section == {name: value for name, value in fields.items() if name != "n_best"}
