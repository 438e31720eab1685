"""Workdirs of runs that never ran, written as real ones are: for tests and figures of reports."""

import json
import math
import pathlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

from xlmjax import languages
from xlmjax.configs import base

CODES = tuple(language.code for language in languages.LANGUAGES)


def write_run(
    folder: pathlib.Path,
    *,
    codes: Sequence[str] = ("en", "sw"),
    lines: int = 20,
    every: int = 10,
    num_steps: int = 400,
    evaluations: int = 3,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    mixtures: bool = True,
) -> pathlib.Path:
    """Write config.json, metrics.jsonl and eval/*.json; returns the folder.

    `lines` of training, one of each `every` steps, and so many evaluations spread over them;
    `changes` are dotted fields of the config.
    """
    rng = random.Random(seed)
    (folder / "eval").mkdir(parents=True)
    config = base.get_config()
    config.data.languages = tuple(codes)
    config.train.num_steps = num_steps
    config.update_from_flattened_dict(changes or {})
    (folder / "config.json").write_text(json.dumps(_description(config, codes, mixtures)))
    due = {round(lines * (i + 1) / evaluations) for i in range(evaluations)}
    with (folder / "metrics.jsonl").open("w") as file:
        for number in range(1, lines + 1):
            line = json.dumps({"step": number * every, **_training(codes, number / lines, rng)})
            file.write(line + "\n")
            if number in due:
                values = _scores(folder, codes, number * every, number / lines)
                file.write(json.dumps({"step": number * every, **values}) + "\n")
    return folder


def training_line(step: int, loss: float) -> str:
    """Return a short line of training."""
    values = {
        "train/loss": loss,
        "train/en/loss": loss + 0.5,
        "perf/steps_per_second": 2.0,
        "perf/tokens_per_second": 200.0,
    }
    return json.dumps({"step": step, **values}) + "\n"


def _description(config: Any, codes: Sequence[str], mixtures: bool) -> dict[str, Any]:
    quota = 65_536 // len(codes)
    quotas = [65_536 - quota * (len(codes) - 1), *[quota] * (len(codes) - 1)]
    tasks = [
        {"name": f"mlm.{code}", "rows": 1_000, "tokens": 10_000, "targets": {code: 10_000.0}}
        for code in codes
    ]
    group = {"name": "mlm", "rows": 64, "tasks": tasks, "first_rows": [0], "quotas": [quotas]}
    return {
        "config": config.to_dict(),
        "versions": {"xlmjax": "0.1.0", "jax": "0.10.2"},
        "code": "0123456789abcdef",
        "commit": "abc1234",
        "mesh": {"replica": 1, "data": 8, "fsdp": 1, "tensor": 1},
        "devices": "8 cpu",
        "vocabulary": "fedcba9876543210",
        "parameters": {"a": {"shape": [1_000, 128]}, "b": {"shape": [7]}},
        **({"mixtures": [group]} if mixtures else {}),
    }


def _training(codes: Sequence[str], done: float, rng: random.Random) -> dict[str, float]:
    values: dict[str, float] = {}
    for index, code in enumerate(codes):
        loss = 3.0 + index / len(codes) + 7.0 * math.exp(-6 * done) + rng.gauss(0, 0.05)
        for owner in (code, f"mlm.{code}"):
            values[f"train/{owner}/loss"] = loss
            values[f"train/{owner}/targets"] = float(rng.randint(90, 110))
    values["train/loss"] = sum(values[f"train/{code}/loss"] for code in codes) / len(codes)
    return values | {
        "perf/steps_per_second": 2.0 + rng.gauss(0, 0.02),
        "perf/tokens_per_second": 16_000 + rng.gauss(0, 100),
        "perf/goodput": 0.9 * min(1.0, 10 * done),
        "perf/share_compile": 0.04,
        "perf/share_data": 0.06,
        "optim/learning_rate": 1e-3 * (1 - done),
        "optim/grad_norm": 1.0 + rng.random(),
        "optim/nonfinite_steps": 0.0,
    }


def _scores(folder: pathlib.Path, codes: Sequence[str], step: int, done: float) -> dict[str, float]:
    """Write the files of one evaluation of each kind; returns their values by their full names."""
    accuracies = {code: 0.33 + 0.4 * done / (1 + i / len(codes)) for i, code in enumerate(codes)}
    found: dict[str, dict[str, float]] = {
        "perplexity": {"mlm/average/perplexity": 30 + 900 * math.exp(-5 * done)},
        "retrieval": {"average/accuracy_csls": 0.9 * done},
        "xnli": {
            "average/accuracy": sum(accuracies.values()) / len(codes),
            "zero_shot/accuracy": 0.6 * done,
        },
        "translation": {"average/bleu": 30 * done, "mt.en_sw/bleu": 30 * done},
    }
    for code, accuracy in accuracies.items():
        found["perplexity"][f"{code}/perplexity"] = 30 + 900 * math.exp(-5 * accuracy)
        found["retrieval"][f"{code}/accuracy_csls"] = 0.9 * done * accuracy
        found["xnli"][f"xnli.{code}/accuracy"] = accuracy
    values: dict[str, float] = {}
    for name, scores in found.items():
        content = {"step": step, "protocol": {"evaluator": name, "max_rows": 8}, "values": scores}
        (folder / "eval" / f"{name}-{step}.json").write_text(json.dumps(content))
        values |= {f"eval/{name}/{metric}": value for metric, value in scores.items()}
    return values
