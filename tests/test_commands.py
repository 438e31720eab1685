"""What the commands print: from numbers of runs, and, in minutes, from the runs themselves."""

import argparse
import functools
import itertools
import json
import subprocess
import sys

import pytest

from tests.small_run import small_config, write_data
from xlmjax.commands import bench, demo, plan
from xlmjax.configuration import load_config
from xlmjax.experiment import build_experiment
from xlmjax.throughput import kernels


def test_the_closing_table_of_the_demo_holds_every_task(tmp_path):
    lines = [
        {"step": 1, "train/loss": 3.0},
        {"step": 1, "eval/perplexity/mlm.de/accuracy": 0.25, "eval/perplexity/mlm.de/loss": 2.0},
        {"step": 2, "eval/perplexity/mlm.de/accuracy": 0.5, "eval/perplexity/de/accuracy": 0.1},
        {"step": 2, "eval/perplexity/tlm.de_en/accuracy": 0.625},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = demo.final_metrics(tmp_path)
    better = {**metrics, "eval/perplexity/tlm.de_en/accuracy": 0.875}
    table = demo.closing_table({"MLM": metrics, "MLM+TLM": better})
    assert [line.split() for line in table.splitlines()] == [
        ["MLM", "MLM+TLM"],
        ["mlm.de", "50.0%", "50.0%"],
        ["tlm.de_en", "62.5%", "87.5%"],
    ]


def test_the_tables_of_retrieval_and_translation():
    found = {
        "eval/retrieval/tlm.de_en/accuracy_csls": 0.25,
        "eval/retrieval/de/accuracy_csls": 0.5,
        "eval/translation/demo.mt.de_en/bleu": 61.26,
        "eval/translation/demo.mt.en_de/bleu": 5.0,
    }
    table = demo.retrieval_table({"MLM": found, "MLM+TLM": found})
    assert [line.split() for line in table.splitlines()] == [
        ["MLM", "MLM+TLM"],
        ["tlm.de_en", "25.0%", "25.0%"],
    ]
    table = demo.translation_table({"pairs": found, "text": found})
    assert [line.split() for line in table.splitlines()] == [
        ["pairs", "text"],
        ["de", "->", "en", "61.3", "61.3"],
        ["en", "->", "de", "5.0", "5.0"],
    ]


def test_the_demo_fine_tunes_the_model_that_it_pretrained():
    config = load_config("demo", ["--config.model.embed_dim=64", "--config.train.num_steps=7"])
    config.data.stores = "elsewhere"
    tuning = demo.follow_up(config, "demo_xnli:init=runs/demo/mlm")
    assert tuning.checkpoint.init_from == "runs/demo/mlm"
    assert (tuning.model.embed_dim, tuning.train.num_steps) == (64, 7)
    assert tuning.data.stores == "elsewhere"
    assert tuning.data.mixture == ("demo.xnli.en",)
    translator = demo.follow_up(config, "demo_mt:init=runs/demo/mlm_tlm")
    assert (translator.model.embed_dim, translator.model.decoder_layers) == (64, 3)
    assert not translator.model.language_embeddings  # of its encoder, as pretrained
    assert translator.data.stores == "elsewhere"
    assert config.data.mixture == ("mlm", "tlm")


def test_bench_reports_every_rate_and_an_unknown_peak():
    found = {
        "step": {
            "devices": "1 cpu",
            "step_seconds": 0.5,
            "fastest_seconds": 0.4,
            "slowest_seconds": 0.7,
            "compile_seconds": 3.0,
            "real_tokens": 900.0,
            "padded_tokens": 1000.0,
            "predicted_tokens": 135.0,
            "model_tflops": 0.123,
            "mfu": None,
        },
        "data": {
            "mlm": {"tasks": 3, "real_tokens": 2e6, "padded_tokens": 2.1e6, "plan_seconds": 0.2}
        },
    }
    printed = "\n".join(bench.report(found))
    for part in (
        "500.0 ms",
        "real 900",
        "padded 1,000",
        "predicted 135",
        "unknown peak",
        "2,100,000",
    ):
        assert part in printed
    found["step"]["mfu"] = 0.414
    assert "MFU 41.4%" in "\n".join(bench.report(found))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


def test_bench_reports_kernels_and_why_one_does_not_run():
    speed = {"group": "mlm", "kernel": "xla", "refusal": "", "devices": "8 TPU v4", "seconds": 0.25}
    speed |= {"fastest_seconds": 0.2, "slowest_seconds": 0.3, "real_tokens": 1e6, "mfu": 0.31}
    speed |= {"padded_tokens": 2e6, "predicted_tokens": None, "model_tflops": 700.0}
    refused = {"group": "mlm", "kernel": "cudnn", "refusal": "no GPU here"}
    first, *rest, last = bench.report({"attention": [speed, refused]})
    assert "attention of objectives.mlm, xla, on 8 TPU v4: 250.0 ms" in first
    assert "real 1,000,000  padded 2,000,000" in rest[0]
    assert "predicted" not in rest[0]
    assert "700.000, MFU 31.0%" in rest[1]
    assert last == "attention of objectives.mlm, cudnn: does not run here: no GPU here"


@pytest.mark.slow
def test_bench_measures_every_part(data, capsys):
    begins_later = ((1_000, 0.0), (1_001, 1.0))
    config = small_config(data, model__head_tile=32, objectives__mlm__weight=begins_later)
    bench.run(config, argparse.Namespace(part=[], steps=2, json=True))
    found = json.loads(capsys.readouterr().out)
    step, rows = found["step"], found["data"]["mlm"]
    assert 0 < step["predicted_tokens"] < step["real_tokens"] < step["padded_tokens"]
    assert step["fastest_seconds"] <= step["step_seconds"] <= step["slowest_seconds"]
    assert step["mfu"] is None
    assert 0 < rows["real_tokens"] < rows["padded_tokens"]
    assert rows["tasks"] == 3
    assert 2 < step["segment_length"] < 32
    assert step["model_tflops"] > 0
    assert "xla" in {kernel["kernel"] for kernel in found["attention"] if not kernel["refusal"]}
    whole, tiled = found["head"]
    assert (whole["kernel"], tiled["kernel"]) == ("one product", "tiles of 32")
    for kernel in (*found["head"], *found["attention"]):
        assert kernel["refusal"] or kernel["model_tflops"] > 0
    assert whole["predicted_tokens"] > 0
    assert whole["real_tokens"] is None


def test_bench_measures_tiles_that_are_some_and_attention_as_the_objective_has_it(
    data, monkeypatch
):
    config = small_config(data)  # head_tile is left to the program: one tile would hold all words
    experiment = build_experiment(config)
    words = experiment.model.vocab_size
    names = {found.kernel for found in kernels.measure_head(experiment, 1, 0)}
    assert names == {"one product", f"tiles of {-(-words // 2)}"}
    causal, attention = [], kernels.attention.attention
    monkeypatch.setattr(
        kernels.attention,
        "attention",
        lambda *args, **options: causal.append(options["causal"]) or attention(*args, **options),
    )
    for name in ("masked_lm", "causal_lm"):
        config.objectives.mlm.name = name
        found = list(kernels.measure_attention(build_experiment(config), 1, 0))
        assert [x.kernel for x in found if not x.refusal] == ["xla"]
        assert "needs a GPU" in next(x.refusal for x in found if x.kernel == "cudnn")
    assert set(causal) == {False, True}


def test_bench_knows_its_parts(data):
    with pytest.raises(ValueError, match="unknown part 'stpe'; known: step, attention, head, data"):
        bench.run(small_config(data), argparse.Namespace(part=["stpe"], steps=2, json=True))
    with pytest.raises(ValueError, match="--steps=0: time at least one"):
        bench.run(small_config(data), argparse.Namespace(part=[], steps=0, json=True))


def test_plan_prints_tasks_and_languages(data, capsys):
    plan.run(small_config(data, train__num_steps=100), argparse.Namespace())
    printed = capsys.readouterr().out
    for part in ("mlm.en", "tlm.en_fr", "French", "epochs", "tokens in all"):
        assert part in printed
    assert "weight 0" not in printed


def test_plan_tells_in_how_many_steps_nothing_is_learned_and_refuses_wrong_weights(data, capsys):
    config = small_config(data, train__num_steps=100)
    config.objectives.mlm.weight = ((30, 0.0), (31, 1.0))
    plan.run(config, argparse.Namespace())
    assert "100 steps of" in (head := capsys.readouterr().out.splitlines()[0])
    assert head.endswith(", of which 31 have weight 0: read, not learned from")
    config.objectives.mlm.weight = ((0, -1.0),)
    with pytest.raises(ValueError, match=r"objectives.mlm.weight = .* numbers of 0 or more"):
        plan.run(config, argparse.Namespace())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_runs_from_vocabulary_to_table(tmp_path):
    """All of it, with two steps of pretraining and a small vocabulary; in a process of its own,
    because this one simulates eight devices and two are enough."""
    fields = {
        "vocab.max_lines": 3_000,
        "vocab.size": 500,
        "train.num_steps": 2,
        "train.num_cpu_devices": 2,
        "checkpoint.every": 2,
        "evals.perplexity.max_rows": 8,
    }
    command = [sys.executable, "-m", "xlmjax.cli", "demo", f"--workdir={tmp_path}"]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    demo_run = functools.partial(subprocess.run, command, text=True, stdout=subprocess.PIPE)
    printed = demo_run(check=True).stdout
    table = [line.split() for line in printed.splitlines() if line.startswith(("mlm.", "tlm."))]
    codes = ("de", "en", "es", "fr", "sw")
    pairs = [f"tlm.{a}_{b}" for a, b in itertools.combinations(codes, 2)]
    assert [row[0] for row in table if len(row) == 3] == [
        *(f"mlm.{code}" for code in codes),
        *(pairs * 2),  # masked words, then retrieval
    ]
    inference = [line.split() for line in printed.splitlines() if line.startswith("all but en ")]
    assert [len(row) for row in inference] == [5]
    bleu = [line.split() for line in printed.splitlines() if line[2:6] == " -> "]
    assert [(row[0], row[2], len(row)) for row in bleu] == [("de", "en", 5), ("en", "de", 5)]
    assert printed.count("\n  de   ") == 5  # samples
    saved = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoints/*")}
    assert "5/5" in demo_run(check=True).stdout
    assert saved == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoints/*")}
