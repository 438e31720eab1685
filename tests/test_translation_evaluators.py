"""The evaluators `translation` and `round_trip`: scores, files, protocol, and what they refuse."""

import json

import jax
import numpy as np
import pytest
import sacrebleu

from tests.small_run import write_data
from tests.translation_helpers import (
    expected,
    translator_config,
    use_fake,
    write_text,
    write_translations,
)
from xlmjax.configs import base
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.evaluation import make_evaluators
from xlmjax.experiment import build_experiment
from xlmjax.parallel.mesh import MeshConfig, make_mesh


def sentences(seed, count=21):
    rng = np.random.default_rng(seed)
    return [rng.integers(5, 60, size=rng.integers(6, 20)).tolist() for _ in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    vocabulary = Vocabulary.load(folder / "vocabulary.model")
    for seed, (source, target) in enumerate((("en", "fr"), ("fr", "en"))):
        tokens = sentences(seed)
        right = [vocabulary.decode(expected(x, source, target)) for x in tokens]
        wrong = [vocabulary.decode(x) for x in tokens]
        references = [right[n] if n % 3 else f"{wrong[n]} ß" for n in range(len(tokens))]
        write_translations(folder, source, target, tokens, references)
        write_text(folder, source, tokens)
    return folder


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    use_fake(monkeypatch)


def config_of(folder, name="translation", **fields):
    config = translator_config(folder)
    if name == "translation":
        fields = {"tasks": ("mt.en_fr", "mt.fr_en"), "rows": 8, **fields}
    else:
        fields = {"tasks": ("ae.en", "ae.fr"), "steps": ("en-fr-en", "fr-en-fr"), **fields}
    config.evals.x = getattr(base, name)(**fields)
    return config


def evaluate(config, workdir=None, mesh=None, **options):
    experiment = build_experiment(config)
    context = experiment.evaluation_context
    if mesh is not None:
        context.__dict__["mesh"] = mesh
    with jax.set_mesh(context.mesh):
        [scheduled] = make_evaluators(context)
        return scheduled.run({}, 7, workdir, **options), scheduled.evaluator


def lines_of(path):
    return path.read_text("utf-8").removesuffix("\n").split("\n")


def test_scores_are_those_of_the_files_beside_them(folder, tmp_path):
    config = config_of(folder, tokenised=True)
    values, _ = evaluate(config, tmp_path)
    place, vocabulary = tmp_path / "eval" / "x-7", Vocabulary.load(config.data.vocabulary)
    found = json.loads(place.with_suffix(".json").read_text())
    for seed, (source, target) in enumerate((("en", "fr"), ("fr", "en"))):
        task = f"mt.{source}_{target}"
        hyp, ref, src = (lines_of(place / f"{task}.{part}.txt") for part in ("hyp", "ref", "src"))
        assert src == [vocabulary.decode(x) for x in sentences(seed)]
        assert hyp == [vocabulary.decode(expected(x, source, target)) for x in sentences(seed)]
        assert len(ref) == 21
        assert values[f"eval/x/{task}/bleu"] == sacrebleu.corpus_bleu(hyp, [ref]).score
        assert values[f"eval/x/{task}/chrf"] == sacrebleu.corpus_chrf(hyp, [ref]).score
        assert 30 < values[f"eval/x/{task}/bleu"] < 100
    for metric in ("bleu", "chrf", "tokenised_bleu"):
        both = [values[f"eval/x/mt.{pair}/{metric}"] for pair in ("en_fr", "fr_en")]
        assert values[f"eval/x/average/{metric}"] == pytest.approx(np.mean(both))
    protocol = found["protocol"]
    assert protocol["lines"] == {"mt.en_fr": 21, "mt.fr_en": 21}
    assert protocol["decoding"]["method"] == "greedy"
    assert "beams" not in protocol["decoding"]
    assert protocol["signatures"]["mt.en_fr"]["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok")
    assert protocol["vocabulary"] == vocabulary.fingerprint
    assert protocol["split"] == "validation"
    assert found["counts"]["mt.en_fr"] == {"outputs_at_limit": 0, "outputs_empty": 0}
    assert values == {f"eval/x/{name}": value for name, value in found["values"].items()}


@pytest.mark.parametrize("name", ["translation", "round_trip"])
def test_scores_depend_on_neither_rows_nor_devices(folder, name):
    values, evaluator = evaluate(config_of(folder, name))
    assert evaluator.files
    for rows, mesh in ((24, None), (3, make_mesh(MeshConfig(data=1), jax.devices()[:1]))):
        again, other = evaluate(config_of(folder, name, rows=rows), mesh=mesh)
        assert again == values
        assert other.files == evaluator.files


def test_some_lines_are_evenly_spaced(folder):
    values, evaluator = evaluate(config_of(folder, max_lines=7, decoding=base.decoding(beams=3)))
    assert evaluator.protocol["lines"]["mt.en_fr"] == 7
    whole = evaluate(config_of(folder))[1].files["mt.en_fr.hyp.txt"].splitlines()
    assert evaluator.files["mt.en_fr.hyp.txt"].splitlines() == whole[::3]
    assert values["eval/x/average/bleu"] < 50  # just those with a wrong reference


def test_a_model_averaged_over_checkpoints_is_told_from_others(folder, tmp_path):
    config = config_of(folder)
    evaluate(config, tmp_path)
    evaluate(config, tmp_path, averaged=[5, 7])
    names = sorted(path.name for path in (tmp_path / "eval").iterdir())
    assert names == ["x-7", "x-7-average2", "x-7-average2.json", "x-7.json"]
    found = json.loads((tmp_path / "eval" / "x-7-average2.json").read_text())
    assert found["protocol"]["averaged_checkpoints"] == [5, 7]


def test_there_and_back_is_the_sentence_itself(folder, tmp_path):
    values, _ = evaluate(config_of(folder, "round_trip"), tmp_path)
    assert values["eval/x/en-fr-en/bleu"] == pytest.approx(100)
    assert values["eval/x/average/bleu"] == pytest.approx(100)
    place = tmp_path / "eval" / "x-7"
    start, there, back = (lines_of(place / f"fr-en-fr.{leg}.txt") for leg in range(3))
    vocabulary = Vocabulary.load(folder / "vocabulary.model")
    assert start == back == [vocabulary.decode(x) for x in sentences(1)]
    assert there == [vocabulary.decode(expected(x, "fr", "en")) for x in sentences(1)]
    found = json.loads(place.with_suffix(".json").read_text())
    assert found["protocol"]["tasks"] == {"en-fr-en": "ae.en", "fr-en-fr": "ae.fr"}


def test_a_trip_that_loses_something_scores_less(folder):
    short = base.decoding(max_ratio=0.5, max_extra=4)
    values, evaluator = evaluate(
        config_of(folder, "round_trip", steps=("en-fr-en",), max_lines=5, decoding=short)
    )
    assert values["eval/x/en-fr-en/bleu"] < 60
    assert evaluator.details["counts"]["en-fr-en"]["outputs_at_limit"] > 0
    assert evaluator.protocol["lines"] == {"en-fr-en": 5}


def test_references_are_the_lines_as_they_stood_in_the_corpus(folder):
    _, evaluator = evaluate(config_of(folder))
    assert "ß" in evaluator.files["mt.en_fr.ref.txt"]  # which the vocabulary cannot spell


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("translation", {"tasks": ("mlm.en",)}, r"evals.x.tasks: 'mlm.en' .* a store of text with"),
        ("translation", {"tasks": ("tlm.en_fr",)}, r"tasks: 'tlm.en_fr' .* a store of pair with"),
        ("translation", {"tasks": ("mt.en_de",)}, r"no prepared mixture 'mt.en_de'"),
        ("translation", {"split": "test"}, r"mt.en_fr/test: no finished token store"),
        ("translation", {"rows": 9}, r"evals.x.rows=9 is not divisible"),
        ("translation", {"max_lines": -1}, r"evals.x.max_lines=-1 must be 0"),
        ("translation", {"tokenize": "no"}, r"evals.x.tokenize='no' is unknown"),
        (
            "translation",
            {"decoding": base.decoding(method="beam", beams=99)},
            r"evals.x.decoding.beams=99: the vocabulary has only 60 words",
        ),
        (
            "translation",
            {"decoding": base.decoding(method="best")},
            r"evals.x.decoding.method='best' is unknown",
        ),
        ("round_trip", {"steps": ()}, r"evals.x.steps is empty"),
        ("round_trip", {"steps": ("en-fr",)}, r"evals.x.steps: 'en-fr' is no way there and back"),
        ("round_trip", {"steps": ("en-de-en",)}, r"evals.x.steps: 'de' is a target language with"),
        (
            "round_trip",
            {"tasks": ("ae.fr",)},
            r"evals.x.steps: 'en-fr-en' begins in 'en', and evals.x.tasks=\('ae.fr',\) holds no",
        ),
        ("round_trip", {"tasks": ("tlm.en_fr",)}, r"'tlm.en_fr' holds pair, not text"),
        ("round_trip", {"tasks": ("ae.en", "mlm.en")}, r"'ae.en' and 'mlm.en' are both in 'en'"),
    ],
)
def test_what_cannot_be_scored_is_refused(folder, name, fields, message):
    with pytest.raises(ValueError, match=message):
        evaluate(config_of(folder, name, **fields))


def test_directions_the_model_lacks_are_refused(folder):
    config = config_of(folder, tasks=("mt.en_fr",))
    config.data.languages, config.data.pairs = ("en", "de"), ()
    message = r"evals.x.tasks: mt.en_fr: 'fr' is a target language without a decoder embedding"
    with pytest.raises(ValueError, match=message):
        evaluate(config)
