"""Models of transformers and torch files through our names and back: equal bits, equal logits."""

import dataclasses
import gzip
import itertools
import json
import os
import pathlib

import jax
import numpy as np
import pytest

from tests.convert_helpers import (
    MERGES,
    PIECES,
    config,
    sentencepiece_model,
    write_bpe,
    write_sentencepiece,
)
from tests.model_helpers import text
from tests.small_run import _vocabulary
from xlmjax import cli, conversion
from xlmjax.configuration import load_config
from xlmjax.conversion import compare, export_model, import_model, write_folder
from xlmjax.data.bpe_vocabulary import SPECIALS
from xlmjax.data.vocabulary import SentencePieceVocabulary
from xlmjax.experiment import build_experiment, load_trained
from xlmjax.interop import tokenizers
from xlmjax.interop.parity import Parity, compare_tokenizers
from xlmjax.interop.safetensors import read_safetensors
from xlmjax.languages import LANGUAGES
from xlmjax.training.state import named_leaves
from xlmjax.translation import Translator

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="the parity group (torch) is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

LANG2ID = {"fr": 0, "en": 1, "sw": 2}  # not in the order of the alphabet
XLM = {
    "vocab_size": len(PIECES),
    "emb_dim": 24,
    "n_layers": 3,
    "n_heads": 3,
    "n_langs": 3,
    "max_position_embeddings": 36,
    "lang2id": LANG2ID,
}
ROBERTA = {
    "vocab_size": len(sentencepiece_model()) and 61 + 2,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 38,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
CASES = {
    "xlm": ("XLMWithLMHead", XLM, {}),
    "xlm relu": ("XLMWithLMHead", XLM, {"gelu_activation": False}),
    "xlm sinusoidal": ("XLMWithLMHead", XLM, {"sinusoidal_embeddings": True}),
    "xlm untied": ("XLMWithLMHead", XLM, {"tie_word_embeddings": False}),
    "xlm without language embeddings": ("XLMWithLMHead", XLM, {"use_lang_emb": False}),
    "xlm of one language": ("XLMWithLMHead", XLM, {"n_langs": 1, "lang2id": {"en": 0}}),
    "xlm causal": ("XLMWithLMHead", XLM, {"causal": True}),
    "xlm-r": ("XLMRobertaForMaskedLM", ROBERTA, {}),
    "xlm-r of two token types": ("XLMRobertaForMaskedLM", ROBERTA, {"type_vocab_size": 2}),
    "xlm-r with spare rows": ("XLMRobertaForMaskedLM", ROBERTA, {"vocab_size": 70}),
    "xlm-r untied": ("XLMRobertaForMaskedLM", ROBERTA, {"tie_word_embeddings": False}),
    "xlm-r-xl": ("XLMRobertaXLForMaskedLM", ROBERTA, {}),
    "xlm-r-xl untied": ("XLMRobertaXLForMaskedLM", ROBERTA, {"tie_word_embeddings": False}),
}


def make(name, folder, **save):
    """Write a folder of transformers with random parameters; return the model."""
    kind, fields, changes = CASES[name]
    kind = kind if kind.endswith("LM") else f"{kind}Model"
    settings = getattr(
        transformers, kind.replace("WithLMHeadModel", "").replace("ForMaskedLM", "") + "Config"
    )(**{**fields, **changes})
    torch.manual_seed(0)
    model = getattr(transformers, kind)(settings).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "position_embeddings" not in key or not changes.get("sinusoidal_embeddings"):
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder, **save)
    (write_bpe if kind.startswith("XLMWith") else write_sentencepiece)(folder)
    return model


def rows(cfg):
    """Three rows of 11, 8 and 5 tokens, in the languages of the model."""
    generator = np.random.default_rng(1)
    real = np.arange(11) < np.array([[11], [8], [5]])
    tokens = generator.integers(4, cfg.vocab_size, real.shape)
    return {
        "tokens": np.where(real, tokens, cfg.pad_id).astype(np.int32),
        "positions": np.broadcast_to(np.arange(11, dtype=np.int32), real.shape),
        "segment_ids": real.astype(np.int32),
        "language_ids": np.array(
            [[cfg.language_ids[i % len(cfg.language_ids)]] * 11 for i in range(3)]
        ),
    }


def their_logits(theirs, batch, codes, languages_of):
    """Return the logits of a model of transformers on our batch."""
    arguments = {"attention_mask": torch.tensor(batch["segment_ids"])}
    if (
        theirs.config.model_type == "xlm"
        and theirs.config.n_langs > 1
        and theirs.config.use_lang_emb
    ):
        rows = np.vectorize(lambda i: codes.index(languages_of[i]))(batch["language_ids"])
        arguments["langs"] = torch.tensor(rows)
    with torch.no_grad():
        return theirs(torch.tensor(batch["tokens"]), **arguments).logits.numpy()


@pytest.mark.parametrize("name", CASES)
def test_a_model_of_transformers_comes_back_bit_for_bit_with_equal_logits(name, tmp_path):
    theirs = make(name, tmp_path / "hf")
    _, model, report = import_model(config(), tmp_path / "hf", tmp_path / "run")
    cfg = model.cfg
    # transformers has two biases of an output table of its own, and uses one.
    unused = {"lm_head.bias"} & set(report.dropped)
    assert unused == ({"lm_head.bias"} if "xlm-r" in name and "untied" in name else set())
    theirs_only = len(unused) * cfg.vocab_size + (cfg.positions == "sinusoidal") * 36 * 24
    count = sum(p.numel() for p in theirs.parameters()) - theirs_only
    assert report.parameters == cfg.num_parameters() == count
    batch = rows(cfg)
    codes = {language.id: language.code for language in LANGUAGES}
    expected = their_logits(theirs, batch, list(report.languages), codes)
    hidden = model.encode(*text(batch), causal="causal" in name)
    real = batch["segment_ids"] != 0
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(model.logits(hidden)[real], expected[real], atol=1e-5)

    saved = load_config(str(tmp_path / "run" / "config.json"))
    export_model(saved, tmp_path / "run", tmp_path / "back")
    before, after = (read_safetensors(tmp_path / x / "model.safetensors") for x in ("hf", "back"))
    assert set(before) == set(after)
    for key, array in before.items():
        if key in unused:
            continue
        np.testing.assert_array_equal(array.open(), after[key].open(), err_msg=key)
    if name.startswith("xlm-r"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
        vocabulary = load_trained(saved, tmp_path / "run")[0].vocabulary
        assert tokenizer("bana").input_ids == [0, *vocabulary.encode("bana"), 2]
        assert tokenizer.mask_token_id == vocabulary.mask
    again = type(theirs).from_pretrained(tmp_path / "back").eval()
    np.testing.assert_array_equal(
        their_logits(again, batch, list(report.languages), codes), expected
    )


def halves():
    """State dicts of a small encoder and decoder of the original, random, and their sizes."""
    torch.manual_seed(0)
    words, width, langs = len(PIECES), 24, 3

    def linear(outputs, inputs):
        return {"weight": torch.randn(outputs, inputs) * 0.2, "bias": torch.randn(outputs)}

    def norm():
        return {"weight": 1 + 0.1 * torch.randn(width), "bias": 0.1 * torch.randn(width)}

    def half(decoder):
        table = torch.randn(words, width)
        parts = {
            "position_embeddings": {"weight": torch.randn(36, width)},
            "lang_embeddings": {"weight": torch.randn(langs, width)},
            "embeddings": {"weight": table},
            "layer_norm_emb": norm(),
            "pred_layer.proj": {"weight": table, "bias": torch.randn(words)},
        }
        for i in range(2):
            kinds = ("attentions", "encoder_attn") if decoder else ("attentions",)
            for kind in kinds:
                for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
                    parts[f"{kind}.{i}.{part}"] = linear(width, width)
            for name in ("layer_norm1", "layer_norm2", *(("layer_norm15",) if decoder else ())):
                parts[f"{name}.{i}"] = norm()
            parts[f"ffns.{i}.lin1"] = linear(4 * width, width)
            parts[f"ffns.{i}.lin2"] = linear(width, 4 * width)
        return {f"{a}.{b}": value for a, part in parts.items() for b, value in part.items()}

    return half(False), half(True)


def original(path, models, prefix="", **options):
    """Write a checkpoint in the layout of the original (specification 4.7)."""
    words = {
        index: piece
        if index < 14
        else piece.removesuffix("</w>") + ("" if piece.endswith("</w>") else "@@")
        for index, piece in enumerate(PIECES)
    }
    params = {
        "emb_dim": 24,
        "n_layers": 2,
        "n_heads": 3,
        "n_words": len(PIECES),
        "n_langs": 3,
        "lang2id": {"en": 0, "fr": 1, "sw": 2},
        "pad_index": 2,
        "gelu_activation": True,
        "sinusoidal_embeddings": False,
        "share_inout_emb": True,
        "use_lang_emb": True,
        "asm": False,
        "dropout": 0.1,
        "attention_dropout": 0,
        "mlm_steps": [("en", None), ("en", "fr")],
        "clm_steps": [],
        "pred_probs": torch.FloatTensor([0.8, 0.1, 0.1]),
        "mask_scores": np.ones(len(PIECES)),
    }
    content = {
        "epoch": 3,
        "n_total_iter": 70,
        "best_metrics": {"valid_mlm_ppl": np.float64(7.5)},
        "dico_id2word": words,
        "dico_word2id": {word: index for index, word in words.items()},
        "dico_counts": dict.fromkeys(words.values(), 0),
        "params": params | {"n_params": None},
    }
    content |= {
        key: {f"{prefix}{name}": value for name, value in model.items()}
        for key, model in models.items()
    }
    torch.save(content, path, **options)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "the layout of the published files"])
def test_a_file_of_the_original_is_read_without_torch(new, tmp_path):
    encoder, _ = halves()
    original(
        tmp_path / "mlm.pth",
        {"model": encoder},
        prefix="" if new else "module.",
        _use_new_zipfile_serialization=new,
    )
    write_bpe(tmp_path / "tokenizer")
    codes = str(tmp_path / "tokenizer" / "merges.txt")
    found = import_model(config(), tmp_path / "mlm.pth", tmp_path / "run", codes=codes)
    experiment, model, report = found
    assert report.dropped == {"pred_layer.proj.weight": "tied to the embeddings, which it equals"}
    assert experiment.vocabulary.pieces == PIECES
    assert experiment.vocabulary.merges == MERGES
    attention = model.transformer.layers.attention
    for name, ours in (("q_lin", attention.query), ("out_lin", attention.out)):
        theirs = encoder[f"attentions.1.{name}.weight"].numpy()
        np.testing.assert_array_equal(ours.kernel[1].reshape(24, 24), theirs.T)
    text_file = [("en", "ande to le"), ("fr", "l'Änd")]
    report = compare(experiment, model, report, text_file)
    assert report.parity.hidden_states < 1e-5
    assert report.parity.logits < 1e-5
    assert (report.tokenisation.lines, report.tokenisation.different) == (2, 0)


def test_a_translator_of_the_original_is_read_in_both_halves(tmp_path):
    encoder, decoder = halves()
    original(tmp_path / "mt.pth", {"encoder": encoder, "decoder": decoder})
    write_bpe(tmp_path / "tokenizer")
    codes = str(tmp_path / "tokenizer" / "merges.txt")
    experiment, model, report = import_model(
        config(), tmp_path / "mt.pth", tmp_path / "run", codes=codes
    )
    leaves = named_leaves(model)
    assert len(leaves) == len(named_leaves(model.encoder)) + len(named_leaves(model.decoder))
    cross = decoder["encoder_attn.1.k_lin.weight"].numpy()
    kernel = leaves["decoder/transformer/layers/cross_attention/key/kernel"]
    np.testing.assert_array_equal(kernel[1].reshape(24, 24), cross.T)
    norm = decoder["layer_norm15.0.weight"].numpy()
    np.testing.assert_array_equal(leaves["decoder/transformer/layers/cross_norm/scale"][0], norm)
    np.testing.assert_array_equal(leaves["encoder/embeddings/tokens"], encoder["embeddings.weight"])
    np.testing.assert_array_equal(leaves["decoder/embeddings/tokens"], decoder["embeddings.weight"])
    report = compare(experiment, model, report, [])
    assert report.parity.not_computed == "transformers' XLM has no decoder"
    with pytest.raises(ValueError, match="XLM has no decoder"):
        export_model(str(tmp_path / "run/config.json"), tmp_path / "run", tmp_path / "x")
    saved = load_config(str(tmp_path / "run/config.json"))
    translator = Translator.load(saved, tmp_path / "run", rows=8)
    assert len(translator.translate(["ande to", ""], "en", "fr")) == 2


def test_an_adaptive_softmax_is_refused(tmp_path):
    encoder, _ = halves()
    original(tmp_path / "x.pth", {"model": encoder})
    content = torch.load(tmp_path / "x.pth", weights_only=False)
    content["params"]["asm"] = True
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="asm=True is not supported: an adaptive softmax"):
        import_model(config(), tmp_path / "x.pth", tmp_path / "run")


def test_bins_whole_or_in_shards_are_read_like_safetensors(tmp_path):
    theirs = make("xlm-r", tmp_path / "hf")
    weights = {name: value for name, value in theirs.state_dict().items()}
    (tmp_path / "hf" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "hf" / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    *_, whole = import_model(config(), tmp_path / "hf", tmp_path / "run")
    assert whole.dropped == {
        "lm_head.decoder.bias": "the same as lm_head.bias",
        "lm_head.decoder.weight": "tied to the embeddings, which it equals",
    }
    (tmp_path / "hf" / "pytorch_model.bin").unlink()
    shards = {"a.bin": list(weights)[::2], "b.bin": list(weights)[1::2]}
    for file, names in shards.items():
        torch.save({name: weights[name] for name in names}, tmp_path / "hf" / file)
    weight_map = {name: file for file, names in shards.items() for name in names}
    index = tmp_path / "hf" / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    *_, sharded = import_model(config(), tmp_path / "hf", tmp_path / "run2")
    assert dataclasses.replace(sharded, peak_memory=0) == dataclasses.replace(whole, peak_memory=0)
    (tmp_path / "hf" / "b.bin").unlink()
    with pytest.raises(ValueError, match=r"names 'b.bin', which is not there"):
        import_model(config(), tmp_path / "hf", tmp_path / "run3")


def test_a_body_alone_is_read_and_its_head_is_new(tmp_path):
    theirs = make("xlm-r", tmp_path / "hf")
    theirs.roberta.save_pretrained(tmp_path / "body")
    write_sentencepiece(tmp_path / "body")
    experiment, model, report = import_model(config(), tmp_path / "body", tmp_path / "run")
    assert {name.partition("/")[0] for name in report.fresh} == {"head"}
    words = theirs.roberta.embeddings.word_embeddings.weight.detach()
    np.testing.assert_array_equal(model.embeddings.tokens[...], words)
    assert np.abs(model.head.transform.dense.kernel[...]).max() > 0
    parity = compare(experiment, model, report, []).parity
    assert parity.hidden_states < 1e-5
    assert parity.logits is None  # each head is a random one
    assert "logits not compared, since the source has no head" in str(parity)


def test_a_published_folder_of_an_xl_has_a_tokenizer_to_compare_with(tmp_path):
    """It has a SentencePiece model alone, of which AutoTokenizer makes nothing for an XL."""
    make("xlm-r-xl", tmp_path / "hf")
    experiment, model, report = import_model(config(), tmp_path / "hf", tmp_path / "run")
    report = compare(experiment, model, report, [("en", "bana gela")])
    assert report.parity.hidden_states < 1e-5
    assert (report.tokenisation.lines, report.tokenisation.different) == (1, 0)


def test_an_xlm_r_with_another_vocabulary_leaves_with_its_positions_moved(tmp_path):
    """Theirs begin behind the id of padding, which the new vocabulary has elsewhere."""
    make("xlm-r", tmp_path / "hf")
    import_model(config(), tmp_path / "hf", tmp_path / "run")
    new = config()
    new.update(load_config(str(tmp_path / "run" / "config.json")))
    (tmp_path / "new.model").write_bytes(_vocabulary())
    new.data.vocabulary = str(tmp_path / "new.model")
    experiment = build_experiment(new)
    assert experiment.model.position_offset != experiment.model.pad_id + 1
    with jax.set_mesh(experiment.mesh):
        model = experiment.spec.create(jax.random.key(0)).model
    write_folder(experiment, model, tmp_path / "out")
    batch = rows(model.cfg)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    expected = their_logits(theirs, batch, [], {})
    real = batch["segment_ids"] != 0
    found = model.logits(model.encode(*text(batch)))
    np.testing.assert_allclose(found[real], expected[real], atol=1e-5)
    assert theirs.config.max_position_embeddings == model.cfg.max_positions + model.cfg.pad_id + 1
    _, again, _ = import_model(
        config(), tmp_path / "out", tmp_path / "again", vocabulary=str(tmp_path / "new.model")
    )
    np.testing.assert_allclose(again.logits(again.encode(*text(batch))), found, atol=1e-6)


def test_languages_that_contradict_a_source_are_refused(tmp_path):
    make("xlm", tmp_path / "hf")
    with pytest.raises(ValueError, match=r"--languages: en has id 0 in it and 1 in .*hf"):
        import_model(config(), tmp_path / "hf", tmp_path / "r", language_codes=("en", "fr", "sw"))
    with pytest.raises(ValueError, match=r"--codes and --cased are for \.pth files"):
        import_model(config(), tmp_path / "hf", tmp_path / "r", codes="x")
    assert not (tmp_path / "r").exists()


def test_what_is_another_model_ends_with_an_error(tmp_path, monkeypatch, capsys):
    make("xlm", tmp_path / "hf")
    monkeypatch.setattr(
        conversion, "compare_models", lambda *_: Parity(hidden_states=3.7, logits=9.0)
    )
    command = ["convert", f"--source={tmp_path / 'hf'}", f"--workdir={tmp_path / 'r'}"]
    with pytest.raises(SystemExit, match="so it is another model: do not use"):
        cli.main(command)
    assert "hidden states within 3.7e+00" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["xlm", "xlm-r", "ours"])
def test_transformers_tokenizes_a_written_folder_as_we_do(kind, tmp_path):
    if kind == "xlm":
        write_bpe(tmp_path / "hf")
        vocabulary, _ = tokenizers.read_vocabulary(tmp_path / "hf", len(PIECES))
    elif kind == "xlm-r":
        write_sentencepiece(tmp_path / "hf")
        vocabulary, _ = tokenizers.read_vocabulary(tmp_path / "hf", 63)
    else:
        vocabulary = SentencePieceVocabulary(_vocabulary())
    tokenizers.write_vocabulary(vocabulary, tmp_path, 512, "</s>")
    lines = [("en", text) for text in ("bana gela nonti", " an  ande to", "Änd l'an, le.", "")]
    found = compare_tokenizers(tmp_path, vocabulary, lines)
    assert (found.lines, found.different, found.examples) == (4, 0, ())
    if kind != "xlm":
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
        start = vocabulary.bos if kind == "xlm-r" else vocabulary.eos
        ids = [start, *vocabulary.encode("bana"), vocabulary.eos]
        assert tokenizer("bana").input_ids == ids
        assert tokenizer.mask_token_id == vocabulary.mask


XLM15 = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
# zh, ja and th need segmenters that are not installed.
LINES = int(os.environ.get("NTREX_LINES", "40"))
CODES = ("ar", "bg", "cs", "de", "el", "en", "es", "fr", "hi", "ro", "ru", "sw", "tr", "ur", "vi")


@pytest.mark.skipif(not (XLM15 / "xlm15_bpe").is_dir(), reason="../shared/data/xlm15_bpe is absent")
def test_the_published_bpe_splits_news_as_transformers_does(tmp_path):
    """Of 15 languages, 40 lines each, or NTREX_LINES: every id is equal."""
    lines = (XLM15 / "xlm15_bpe" / "vocab_xnli_15").read_text("utf-8").split("\n")
    words = [row[0] for row in map(str.split, lines) if len(row) == 2]
    pieces = [*SPECIALS, *dict.fromkeys(map(tokenizers.spelling, words))][:95_000]
    write = {piece: index for index, piece in enumerate(pieces)}
    (tmp_path / "vocab.json").write_text(json.dumps(write), "utf-8")
    codes = (XLM15 / "xlm15_bpe" / "codes_xnli_15").read_bytes()
    (tmp_path / "merges.txt").write_bytes(codes)
    vocabulary, _ = tokenizers.read_vocabulary(tmp_path, 95_000)
    news = []
    for code in CODES:
        with gzip.open(XLM15 / "ntrex128" / f"{code}.txt.gz", "rt", encoding="utf-8") as file:
            news += [(code, line.rstrip("\n")) for line in itertools.islice(file, LINES)]
    found = compare_tokenizers(tmp_path, vocabulary, news)
    assert (found.lines, found.different) == (LINES * len(CODES), 0)
    unknown = [vocabulary.encode(text, code).count(vocabulary.unk) for code, text in news]
    assert sum(unknown) < LINES * 2.5
