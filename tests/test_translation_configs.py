"""The configs of translation: what they train on and how large they are."""

import pytest

from xlmjax import languages
from xlmjax.configuration import load_config
from xlmjax.data.mixture import rows_per_group
from xlmjax.models.config import ModelConfig


def size(config, vocab_size):
    cfg = ModelConfig.from_config(
        config.model,
        vocab_size=vocab_size,
        language_ids=languages.ids(tuple(config.data.languages)),
        pad_id=2,
    )
    return cfg.num_parameters()


RECIPE = {  # XLM, specification 3.8
    "learning_rate": 1e-4,
    "b1": 0.9,
    "b2": 0.98,
    "schedule": "inverse_sqrt",
    "warmup_steps": 4_000,
    "dropout": 0.1,
    "attention_dropout": 0.1,
}


def of_paper(config):
    found = {**config.optimizer, **config.model}
    return {name: found[name] for name in RECIPE}


def places(config):
    """Return the places a batch of each objective."""
    return {
        name: rows * (config.objectives[name].length or config.train.length)
        for name, rows in rows_per_group(config).items()
    }


@pytest.mark.parametrize("name", ["unmt_ende", "unmt_enfr", "unmt_enro"])
def test_unsupervised_translation_of_the_paper(name):
    config = load_config(f"{name}:root=DATA,init=runs/mlm")
    assert size(config, 64_139) == 141_848_203 + 167_050_891
    assert set(config.objectives) == {"denoising", "back_translation"}
    assert config.objectives.denoising.weight == ((0, 1.0), (100_000, 0.1), (300_000, 0.0))
    assert config.checkpoint.init_from == "runs/mlm"
    assert config.evals.test.tokenised
    assert config.evals.test.decoding.method == "greedy"
    assert places(config) == {"denoising": 2 * 16_384, "back_translation": 2 * 16_384}
    assert of_paper(config) == RECIPE
    noise = config.objectives.denoising
    assert (noise.shuffle, noise.drop, noise.blank) == (3.0, 0.1, 0.1)
    assert config.vocab.kind == "bpe"
    encoder = load_config(f"{name}:root=DATA,mode=mlm")
    assert size(encoder, 64_139) == 141_848_203
    assert set(encoder.objectives) == {"mlm"}
    assert encoder.data.train.text == config.data.train.text
    assert places(encoder) == {"mlm": 64 * 32 * 256}
    assert of_paper(encoder) == RECIPE | {"b2": 0.999, "schedule": "constant", "warmup_steps": 0}


def test_supervised_translation_of_the_paper_learns_from_text_as_well():
    config = load_config("wmt16_roen:root=DATA")
    assert config.objectives.mt.mixture == ("mt.ro_en", "mt.en_ro")
    assert config.objectives.back_translation.steps == ("en-ro-en", "ro-en-ro")
    assert config.evals.translation.tokenised
    assert config.evals.test.decoding.method == "greedy"
    assert places(config) == {"mt": 2 * 16_384, "back_translation": 2 * 16_384}
    assert of_paper(config) == RECIPE
    assert config.checkpoint.best_metric == "eval/translation/average/bleu"


@pytest.mark.parametrize(("both", "ways"), [(0, ("mt.en_sw",)), (1, ("mt.en_sw", "mt.sw_en"))])
def test_any_pair_in_one_direction_or_two(both, ways):
    config = load_config(f"mt_supervised:root=DATA,src=en,tgt=sw,both={both}")
    assert config.data.mixture == config.evals.translation.tasks == ways


def test_multi30k_without_pairs_sees_no_pair():
    config = load_config("multi30k_tiny:root=DATA,pair=en-fr,mode=translate")
    assert config.data.train.parallel == ()
    assert config.data.train.text == (
        "text:DATA/train.{lang=en}.gz[0::4]",
        "text:DATA/train.{lang=en}.gz[1::4]",
        "text:DATA/train.{lang=fr}.gz[2::4]",
        "text:DATA/train.{lang=fr}.gz[3::4]",
    )
    assert config.data.stores != load_config("multi30k_tiny:root=DATA,pair=en-fr").data.stores
    assert config.data.vocabulary != load_config("multi30k_tiny:root=DATA").data.vocabulary
    assert config.evals.round_trip.lowercase


def test_multi30k_from_vectors_keeps_them_near_where_they_are():
    vectors, fresh = (
        load_config(f"multi30k_tiny:root=DATA,pair=en-fr,mode=mlm{more}")
        for more in (",vectors=runs/captions.vec", "")
    )
    assert vectors.checkpoint.init_vectors == ("runs/captions.vec",)
    assert fresh.checkpoint.init_vectors == ()
    assert dict(vectors.optimizer.scales)["embeddings/tokens"] < 1
    assert dict(fresh.optimizer.scales)["embeddings/tokens"] > 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("multi30k_tiny:pair=en", "pair='en' is not like en-de"),
        ("multi30k_tiny:mode=some", "mode='some' is unknown; known: supervised, mlm, translate"),
        ("demo_mt:mode=some", "mode='some' is unknown; known: supervised, unsupervised"),
    ],
)
def test_wrong_arguments_are_named(name, message):
    with pytest.raises(ValueError, match=message):
        load_config(name)
