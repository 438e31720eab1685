"""Models of others without their libraries: names, files, vocabularies, and what is refused."""

import dataclasses
import json
import os
import pickle
import sys
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
import sentencepiece

from tests.convert_helpers import (
    PIECES,
    config,
    sentencepiece_model,
    write_bpe,
    write_sentencepiece,
)
from tests.model_helpers import CLASSIC
from tests.stores import write_store
from xlmjax import cli
from xlmjax.configs import xnli
from xlmjax.configuration import load_config, to_json
from xlmjax.conversion import export_model, import_model
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.embedding import Embedder
from xlmjax.experiment import build_experiment, load_trained
from xlmjax.interop import names, tokenizers, torch_files
from xlmjax.interop.formats import FORMATS, ROBERTA, ROBERTA_XL, XLM, format_of
from xlmjax.interop.parity import compare_models, compare_tokenizers
from xlmjax.interop.safetensors import read_indexed, read_safetensors, write_safetensors
from xlmjax.interop.source import open_source
from xlmjax.interop.torch_files import read_torch
from xlmjax.models import xlm
from xlmjax.models.seq2seq import EncoderDecoder
from xlmjax.training.checkpoint import Checkpoints
from xlmjax.training.checkpoint_settings import CheckpointConfig
from xlmjax.training.state import named_leaves, parameter_axes

SHAPES = {
    "xlm": dataclasses.replace(CLASSIC, mlp_dim=64),
    "xlm-roberta": dataclasses.replace(
        CLASSIC,
        pad_id=1,
        language_embeddings=False,
        position_offset=2,
        token_types=2,
        head_transform=True,
        norm_epsilon=1e-5,
    ),
}
SHAPES["xlm-roberta-xl"] = dataclasses.replace(
    SHAPES["xlm-roberta"], norm="pre", embedding_norm=False
)


def parameters(cfg):
    """Return name -> shape and name -> axes of a model."""
    kind = EncoderDecoder if cfg.decoder_layers else xlm.XLM
    model = jax.eval_shape(lambda key: kind(cfg, key), jax.random.key(0))
    return {name: leaf.shape for name, leaf in named_leaves(model).items()}, parameter_axes(model)


@pytest.mark.parametrize("name", FORMATS)
def test_a_table_names_every_parameter_and_every_layer_once(name):
    shapes, axes = parameters(SHAPES[name])
    found = names.tensors(FORMATS[name].table, shapes)
    assert {tensor.parameter for tensor in found} == set(shapes)
    assert len({tensor.name for tensor in found}) == len(found)
    sizes = sum(
        int(np.prod(names.their_shape(x, shapes[x.parameter], axes[x.parameter]))) for x in found
    )
    assert sizes == sum(int(np.prod(shape)) for shape in shapes.values())
    assert sizes == SHAPES[name].num_parameters()


def test_the_table_of_the_original_names_both_halves():
    shapes, _ = parameters(dataclasses.replace(CLASSIC, decoder_layers=2))
    found = {
        (half, x.name, x.parameter)
        for half in ("encoder/", "decoder/")
        for x in names.tensors(XLM.table, shapes, half)
    }
    assert {parameter for *_, parameter in found} == set(shapes)
    crossing = ("decoder/", "transformer.encoder_attn.1.q_lin.weight")
    assert (*crossing, "decoder/transformer/layers/cross_attention/query/kernel") in found


@pytest.mark.parametrize("parameter", ["query", "out"])
def test_a_kernel_is_transposed_with_its_heads_side_by_side(parameter):
    shapes, axes = parameters(CLASSIC)
    name = f"transformer/layers/attention/{parameter}/kernel"
    tensor = next(x for x in names.tensors(XLM.table, shapes) if x.parameter == name)
    ours = np.random.default_rng(0).standard_normal(shapes[name][1:])
    theirs = names.to_theirs(tensor, ours, names.their_shape(tensor, shapes[name], axes[name]))
    x = np.random.default_rng(1).standard_normal(16)
    heads_in = parameter == "out"
    expected = np.tensordot(x.reshape(4, 4), ours, 2) if heads_in else x @ ours.reshape(16, 16)
    np.testing.assert_allclose(theirs @ x, expected.reshape(-1))
    np.testing.assert_array_equal(names.to_ours(tensor, theirs, shapes[name][1:]), ours)


def test_a_format_is_found_or_what_prevents_it_is_named():
    for name, cfg in SHAPES.items():
        assert format_of(cfg) is FORMATS[name]
    with pytest.raises(ValueError, match=r"nearest is xlm, .*model.mlp='geglu'"):
        format_of(dataclasses.replace(SHAPES["xlm"], mlp="geglu"))
    with pytest.raises(ValueError, match=r"model.lora_rank=2"):
        format_of(dataclasses.replace(SHAPES["xlm"], lora_rank=2))
    with pytest.raises(ValueError, match="asm=True is not"):
        XLM.model_fields({"asm": True}, "config.json")
    sizes = {field.theirs: 1 for field in ROBERTA.fields.values()}
    with pytest.raises(ValueError, match="hidden_act='silu' is not supported"):
        ROBERTA.model_fields({**sizes, "model_type": "xlm-roberta", "hidden_act": "silu"}, "x")


def fill(folder, kind, cfg, **settings):
    """Write a folder of transformers with random parameters, by our names alone; return them."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes, axes = parameters(cfg)
    found = {x.name: x for x in names.tensors(kind.table, shapes)}
    theirs = {
        name: names.their_shape(x, shapes[x.parameter], axes[x.parameter])
        for name, x in found.items()
    }
    generator = np.random.default_rng(0)
    values = {n: generator.standard_normal(s).astype(np.float32) for n, s in theirs.items()}
    write_safetensors(folder, theirs, values.__getitem__, np.dtype("<f4"), 10**9)
    content = {**kind.configuration(cfg), **settings}
    (folder / "config.json").write_text(json.dumps(content))
    return values


XLM_CFG = dataclasses.replace(
    CLASSIC, vocab_size=len(PIECES), mlp_dim=64, language_ids=(4, 6, 9), num_layers=2
)
LANG2ID = {"sw": 0, "en": 1, "fr": 2}


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A small XLM of transformers as a workdir, by the command."""
    folder = tmp_path_factory.mktemp("xlm")
    values = fill(folder / "hf", XLM, XLM_CFG, n_langs=3, lang2id=LANG2ID)
    write_bpe(folder / "hf")
    # What an interrupted conversion leaves is no checkpoint.
    (folder / "run" / "checkpoints" / "0.orbax-checkpoint-tmp").mkdir(parents=True)
    command = ["convert", f"--source={folder / 'hf'}", f"--workdir={folder / 'run'}"]
    assert cli.main([*command, "--parity=never"]) == 0
    _, model = load_trained(load_config(str(folder / "run" / "config.json")), folder / "run")
    return folder, values, model, json.loads((folder / "run" / "conversion.json").read_text())


def test_languages_are_mapped_by_name(converted):
    _, values, model, report = converted
    assert report["languages"] == ["sw", "en", "fr"]
    assert report["parameters"] == XLM_CFG.num_parameters()
    assert report["renamed"]["transformer.ffns.1.lin2.bias"] == "transformer/layers/mlp/wo/bias[1]"
    assert set(report["renamed"]) == set(values)
    table = values["transformer.lang_embeddings.weight"]
    np.testing.assert_array_equal(model.embeddings.languages[...], table[[1, 2, 0]])  # en, fr, sw
    assert model.cfg.language_ids == (4, 6, 9)


def test_the_workdir_serves_the_other_commands(converted, tmp_path):
    folder, values, model, _ = converted
    saved = load_config(str(folder / "run" / "config.json"))
    vectors = Embedder(build_experiment(saved), model).embed(["An Ände to", ""], "fr")
    assert np.abs(vectors[0]).max() > 0
    assert not vectors[1].any()
    export_model(saved, folder / "run", tmp_path / "back", shard_bytes=9_000)
    arrays = read_indexed(tmp_path / "back", "model.safetensors.index.json", read_safetensors)
    assert len(list((tmp_path / "back").glob("model-*"))) > 2
    assert set(arrays) == set(values)
    for name, value in values.items():
        np.testing.assert_array_equal(arrays[name].open(), value, err_msg=name)
    content = json.loads((tmp_path / "back" / "config.json").read_text())
    assert content["lang2id"] == LANG2ID
    assert content["model_type"] == "xlm"
    for name in ("vocab.json", "merges.txt"):
        assert (tmp_path / "back" / name).read_bytes() == (folder / "hf" / name).read_bytes()


FINE_TUNING = """
from xlmjax.configs import base, xnli
from xlmjax.configuration import load_config


def get_config(arg=""):
    config = load_config(f"{arg}/config.json")
    config.data.mixture = ("xnli.en",)
    xnli.fine_tune(config, arg, ("xnli.en",), every=2)
    config.evals.again = base.classification(("xnli.en",), every=2)
    return config
"""


@pytest.mark.slow
def test_a_run_goes_on_from_converted_weights_and_another_is_fine_tuned(converted, tmp_path):
    folder, *_ = converted
    fingerprint = Vocabulary.load(folder / "run" / "vocabulary.json").fingerprint
    texts = np.random.default_rng(0).integers(14, len(PIECES), (40, 5)).tolist()
    for name, split, sides, labels in (
        ("mlm.en", "train", ("tokens",), ((), ())),
        ("xnli.en", "train", ("tokens", "target_tokens"), (xnli.LABELS, [0, 1, 2, 0] * 10)),
        ("xnli.en", "validation", ("tokens", "target_tokens"), (xnli.LABELS, [0, 1, 2, 0] * 10)),
    ):
        write_store(
            tmp_path / "stores" / name / split,
            dict.fromkeys(sides, texts),
            dict.fromkeys(sides, "en"),
            task=name,
            split=split,
            vocabulary=fingerprint,
            labels=labels,
        )
    names = {name: {"tasks": [name], "rates": None} for name in ("mlm.en", "xnli.en")}
    (tmp_path / "stores" / "mixture.json").write_text(json.dumps(names))
    (tmp_path / "mine.py").write_text(FINE_TUNING)
    sizes = {"train.num_steps": 2, "train.rows": 8, "train.length": 24, "checkpoint.every": 2}
    fields = {"data.stores": tmp_path / "stores", "data.auto_prepare": False, **sizes}
    given = [f"--config.{name}={value}" for name, value in fields.items()]
    more = [
        f"--config={folder / 'run' / 'config.json'}",
        f"--config.checkpoint.init_from={folder / 'run'}",
        "--config.data.mixture=('mlm.en',)",
    ]
    assert cli.main(["train", *more, *given, f"--workdir={tmp_path / 'more'}"]) == 0
    mine = f"--config={tmp_path / 'mine.py'}:{folder / 'run'}"
    assert cli.main(["train", mine, *given, f"--workdir={tmp_path / 'tuned'}"]) == 0
    before = named_leaves(converted[2])["transformer/layers/mlp/wi/kernel"][...]
    for name in ("more", "tuned"):
        saved = load_config(str(tmp_path / name / "config.json"))
        _, model = load_trained(saved, tmp_path / name)
        moved = np.abs(named_leaves(model)["transformer/layers/mlp/wi/kernel"][...] - before).max()
        assert 0 < moved < 0.01
    scored = sorted(path.name for path in (tmp_path / "tuned" / "eval").iterdir())
    assert scored == ["again-2.json", "xnli-2.json"]


def test_a_converted_workdir_is_started_from_and_not_gone_on_with(converted, capsys):
    folder, *_ = converted
    arguments = [f"--config={folder / 'run' / 'config.json'}", f"--workdir={folder / 'run'}"]
    found = load_config(arguments[0].partition("=")[2])
    experiment = build_experiment(found)
    checkpoints = Checkpoints(folder / "run", CheckpointConfig(), experiment.identity)
    with pytest.raises(ValueError, match=r"optimizer.name is 'none' there.*checkpoint.init_from"):
        checkpoints.restore(experiment.spec)
    checkpoints.close()
    assert cli.main(["convert", f"--source={folder / 'hf'}", arguments[1]]) == 2
    assert "holds checkpoints already" in capsys.readouterr().err


def test_an_xlm_r_goes_onto_a_mesh_shard_by_shard(tmp_path):
    size = 63 + 5  # five rows without a piece
    cfg = dataclasses.replace(SHAPES["xlm-roberta-xl"], vocab_size=size)
    values = fill(tmp_path / "hf", ROBERTA_XL, cfg)
    write_sentencepiece(tmp_path / "hf")
    experiment, model, report = import_model(
        config(mesh__fsdp=2, mesh__tensor=2), tmp_path / "hf", tmp_path / "run"
    )
    kernel = model.transformer.layers.mlp.wi.kernel[...]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(3, 8, 12)}
    theirs = [values[f"roberta.encoder.layer.{i}.intermediate.dense.weight"].T for i in range(3)]
    np.testing.assert_array_equal(kernel, np.stack(theirs))
    assert experiment.vocabulary.size == size
    assert any("5 rows without a piece" in note for note in report.notes)
    assert experiment.config.data.bos
    saved = load_config(str(tmp_path / "run" / "config.json"))
    export_model(saved, tmp_path / "run", tmp_path / "back", dtype="bfloat16")
    half = read_safetensors(tmp_path / "back" / "model.safetensors")["lm_head.bias"].open()
    np.testing.assert_array_equal(half, values["lm_head.bias"].astype(ml_dtypes.bfloat16))
    back = (tmp_path / "back" / "sentencepiece.bpe.model").read_bytes()
    assert back == sentencepiece_model()


def test_a_causal_model_is_trained_and_read_causally(tmp_path):
    fill(tmp_path / "hf", XLM, XLM_CFG, n_langs=3, lang2id=LANG2ID, causal=True)
    write_bpe(tmp_path / "hf")
    experiment, model, _ = import_model(config(), tmp_path / "hf", tmp_path / "run")
    assert [group.name for group in experiment.config.objectives.values()] == ["causal_lm"]
    first = Embedder(experiment, model, pooling="first").embed(["an", "to le"], "en")
    np.testing.assert_allclose(first[0], first[1], atol=1e-5)  # the first sees itself alone
    mean = Embedder(experiment, model).embed(["an", "to le"], "en")
    assert np.abs(mean[0] - mean[1]).max() > 0.01


def test_heads_are_dropped_or_new_and_said_so_and_bodies_are_complete(tmp_path):
    values = fill(tmp_path, XLM, dataclasses.replace(XLM_CFG, language_embeddings=False))
    write_bpe(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text()) | {"lang2id": {"en": 0, "xx": 1}}
    (tmp_path / "config.json").write_text(json.dumps(settings))

    def rewrite(**changed):
        arrays = {name: value for name, value in {**values, **changed}.items() if value is not None}
        shapes = {name: value.shape for name, value in arrays.items()}
        write_safetensors(tmp_path, shapes, arrays.__getitem__, np.dtype("<f4"), 10**9)

    extra = np.zeros((2, 3), np.float32)
    rewrite(**{"pred_layer.proj.bias": None, "qa_outputs.weight": extra})
    *_, report = import_model(config(), tmp_path, tmp_path / "run")
    assert report.fresh == ("head/bias",)
    assert report.dropped == {"qa_outputs.weight": "a head for another use"}
    assert report.languages == ("en",)
    assert any("xx" in note for note in report.notes)
    rewrite(**{"transformer.memories.0.values": extra})
    with pytest.raises(ValueError, match=r"memories.0.values has no place"):
        import_model(config(), tmp_path, tmp_path / "run2")
    rewrite(**{"transformer.layer_norm1.1.bias": None})
    with pytest.raises(ValueError, match=r"layer_norm1.1.bias is missing"):
        import_model(config(), tmp_path, tmp_path / "run3")
    rewrite(**{"transformer.layer_norm1.1.bias": extra})
    with pytest.raises(ValueError, match=r"layer_norm1.1.bias has shape \(2, 3\)"):
        import_model(config(), tmp_path, tmp_path / "run4")


def test_languages_without_names_have_to_be_named(tmp_path):
    fill(tmp_path, XLM, XLM_CFG, n_langs=3)
    write_bpe(tmp_path)
    with pytest.raises(ValueError, match=r"has 3 languages and names 0.*--languages"):
        import_model(config(), tmp_path, tmp_path / "run")
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        import_model(config(), tmp_path, tmp_path / "run", language_codes=("en", "fr", "xx"))


def test_without_torch_it_says_that_nothing_was_compared(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    vocabulary, _ = tokenizers.from_fairseq(sentencepiece_model(), 63, tmp_path)
    assert "not computed: torch and transf" in str(compare_models(tmp_path, XLM, None, False))
    found = compare_tokenizers(tmp_path, vocabulary, [("en", "bana")])
    assert (found.lines, found.different) == (1, None)
    assert "not compared: torch and transf" in str(found)


def test_a_classifier_of_other_states_than_the_first_has_no_place_in_the_format():
    first = dataclasses.replace(CLASSIC, mlp_dim=4 * CLASSIC.embed_dim, num_labels=3)
    assert not XLM.misfits(first)
    for pooling in ("mean", "difference"):
        [wrong] = XLM.misfits(dataclasses.replace(first, pooling=pooling))
        assert wrong == f"model.pooling={pooling!r} (its classifier sees the first state)"
    assert not XLM.misfits(dataclasses.replace(first, pooling="mean", num_labels=0))


def test_a_damaged_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(tmp_path, {"a": (3, 2)}, lambda _: np.ones((3, 2)), np.dtype("<f4"), 10**9)
    np.testing.assert_array_equal(read_safetensors(path)["a"].open(), np.ones((3, 2)))
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="a should be 24 bytes"):
        read_safetensors(path)
    path.write_bytes(content[:7])
    with pytest.raises(ValueError, match="not a safetensors file"):
        read_safetensors(path)
    for entry in (b"{}", b"7", b'{"dtype":"F32","shape":[2],"data_offsets":[0]}'):
        header = b'{"a":' + entry + b"}"
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(ValueError, match=r"model.safetensors: a has no dtype, shape and two"):
            read_safetensors(path)


class Harm:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("layout", ["zip", "old"])
def test_a_pickle_that_would_run_code_is_refused_by_name(layout, tmp_path):
    harm = pickle.dumps({"model": {}, "params": Harm(tmp_path / "harmed")}, protocol=2)
    pickle.loads(harm)
    assert (tmp_path / "harmed").is_dir()  # it does harm where it is loaded
    (tmp_path / "harmed").rmdir()
    path = tmp_path / "x.pth"
    if layout == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", harm)
    else:
        write_old_layout(path, harm)
    with pytest.raises(ValueError, match=r"x.pth: refused, .*asks for (posix|nt|os).mkdir"):
        read_torch(path)
    assert not (tmp_path / "harmed").exists()


def write_old_layout(path, content):
    before = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    path.write_bytes(b"".join(pickle.dumps(x, protocol=2) for x in before) + content)


def test_a_pickle_cannot_change_what_it_may_name(tmp_path):
    name, path = b"torch._utils\n_rebuild_parameter", tmp_path / "x.pth"
    # GLOBAL, then BUILD with {"hello": "a"}: it would stay for the rest of the process.
    write_old_layout(path, b"\x80\x02c" + name + b"\n}U\x05helloU\x01asb.")
    with pytest.raises(ValueError, match=r"x.pth: not a file of torch.save, or damaged"):
        read_torch(path)
    for value in torch_files._ADMITTED.values():
        assert not hasattr(value, "hello")


def test_a_damaged_file_of_torch_is_told_by_name(tmp_path):
    """One byte anywhere: it is read as something, or refused in a sentence with its name."""
    content = pickle.dumps({"params": {"emb_dim": 24, "mask_scores": np.ones(5)}}, protocol=2)
    whole = {"zip": tmp_path / "zip.pth", "old": tmp_path / "old.pth"}
    with zipfile.ZipFile(whole["zip"], "w") as archive:
        archive.writestr("x/data.pkl", content)
    write_old_layout(whole["old"], content + pickle.dumps([], protocol=2))
    messages = []
    for path in whole.values():
        good = path.read_bytes()
        assert read_torch(path)["params"]["emb_dim"] == 24
        for place in range(len(good)):
            for byte in (0x00, 0xFF, good[place] ^ 0x01):
                path.write_bytes(good[:place] + bytes([byte]) + good[place + 1 :])
                try:
                    read_torch(path)
                except ValueError as error:
                    messages.append(str(error))
        assert all(str(path) in message for message in messages)
        assert len(messages) > 100
        messages.clear()


def test_arrays_of_numpy_among_the_options_of_a_file_are_passed_over(tmp_path):
    """XLM keeps `mask_scores` so in all of its checkpoints."""
    content = {"params": {"emb_dim": 24, "mask_scores": np.ones(50), "best": np.float64(7.5)}}
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(content, protocol=2))
    params = read_torch(tmp_path / "x.pth")["params"]
    assert (params["emb_dim"], params["best"]) == (24, 7.5)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"), [(0, (2, 3), (3, 1)), (0, (2, 2), (5, -5)), (-1, (3,), (1,))]
)
def test_a_tensor_lies_within_its_storage(offset, shape, strides, tmp_path):
    storage = torch_files._Storage("0", np.dtype("<f4"), 4)
    tensor = torch_files._Tensor(storage, offset, shape, strides)
    with pytest.raises(ValueError, match="is beyond its storage"):
        torch_files._placed({"x": tensor}, tmp_path, lambda _: 64)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", "config.json: not JSON"),
        ("config.json", "[]", "config.json: holds list, where an object is wanted"),
        ("model.safetensors.index.json", "{}", "index.json has no 'weight_map'"),
    ],
)
def test_a_damaged_json_file_is_told_by_name(file, content, message, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "xlm"}')
    (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps(7), pickle.dumps({"a": 1})])
def test_another_file_is_no_torch_file(content, tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"not a file of torch.save"):
        read_torch(path)


def test_a_bpe_splits_words_by_its_merges_in_order(tmp_path):
    write_bpe(tmp_path)
    found, notes = tokenizers.read_vocabulary(tmp_path, len(PIECES) + 2)
    assert notes == ["2 rows without a word of their own: <unused{}>"]
    path = tmp_path / "vocabulary.json"
    path.write_bytes(found.model)
    vocabulary = Vocabulary.load(path)
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary == found
    assert (vocabulary.bos, vocabulary.eos, vocabulary.pad, vocabulary.unk, vocabulary.mask) == (
        0,
        1,
        2,
        3,
        5,
    )
    assert vocabulary.special_ids == tuple(range(14))

    def spelt(text, language="en"):
        return [vocabulary.pieces[index] for index in vocabulary.encode(text, language)]

    # an, to</w>, and, le, ande</w>, le</w>: the earlier merge first, wherever it stands.
    assert spelt("Ände") == ["ande</w>"]
    assert spelt("andto") == ["and", "to</w>"]
    assert spelt("tole") == ["t", "o", "le</w>"]
    assert spelt("an x") == ["a", "n</w>", "<unk>"]
    assert spelt("l\u2019an", "fr") == ["l", "<unk>", "a", "n</w>"]
    assert spelt("a\u200be") == ["a", "e</w>"]
    assert vocabulary.decode(vocabulary.encode("ande to x")) == "ande to \u2047"
    assert vocabulary.encode_batch(["to", ""], ["en", "fr"]) == [vocabulary.encode("to"), []]
    assert len(vocabulary.pieces) == len(PIECES) + 2


def test_text_that_a_segmenter_has_to_prepare_is_warned_about_once(tmp_path, caplog):
    write_bpe(tmp_path)
    vocabulary, _ = tokenizers.read_vocabulary(tmp_path, len(PIECES))
    vocabulary.encode("an to", "th")
    vocabulary.encode("to", "th")
    assert caplog.text.count("PyThaiNLP") == 1


@pytest.mark.parametrize(
    ("word", "spelt"), [("an@@", "an"), ("an", "an</w>"), ("@@@", "@"), ("</s>", "</s>")]
)
def test_words_of_the_original_are_spelt_as_those_of_transformers(word, spelt):
    assert tokenizers.spelling(word) == spelt


def test_a_vocabulary_of_xlm_r_has_the_ids_of_fairseq_and_comes_back(tmp_path):
    write_sentencepiece(tmp_path)
    raw = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model())
    for size in (63, 66):
        vocabulary, _ = tokenizers.read_vocabulary(tmp_path, size)
        specials = (vocabulary.bos, vocabulary.pad, vocabulary.eos, vocabulary.unk)
        assert specials == (0, 1, 2, 3)
        assert (vocabulary.mask, vocabulary.size) == (62, size)
        text = "bana gela nonti"
        assert vocabulary.encode(text) == [i + 1 if i > 2 else 3 for i in raw.encode(text)]
        assert tokenizers.to_fairseq(vocabulary) == sentencepiece_model()
    with pytest.raises(ValueError, match="63 words with <pad> and <mask>, of the model's 60"):
        tokenizers.read_vocabulary(tmp_path, 60)


def test_the_config_of_a_workdir_is_a_config(tmp_path):
    found = load_config("xnli", ["--config.train.rows=24"])
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"config": json.loads(to_json(found))}))
    again = load_config(str(path), ["--config.train.rows=32"])
    assert again.train.rows == 32
    again.train.rows = 24
    assert to_json(again) == to_json(found)
    assert again.optimizer.scales == found.optimizer.scales
    with pytest.raises(ValueError, match="no such file"):
        load_config(str(tmp_path / "other.json"))
