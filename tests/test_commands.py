"""What demo and bench print, from numbers of runs."""

import json

from xlmjax.commands import bench, demo


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
