"""`xlmjax demo`: vocabulary, data, two pretraining runs and what they learned, on this machine."""

import argparse
import json
import pathlib
import time
import types

from ml_collections import ConfigDict

from xlmjax.configuration import load_config

HELP = """The method in miniature, on text that a small grammar of German, English, Spanish, French
and Swahili generates: trains a vocabulary, prepares token stores, pretrains with MLM alone and with
MLM+TLM on as many tokens, and prints how well each fills in masked words, alone and beside a
translation. Run it again to see the table at once."""

DEFAULT_CONFIG = "demo"
RUNS = (("mlm", "MLM"), ("mlm_tlm", "MLM+TLM"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the place of the files."""
    parser.add_argument("--workdir", default="runs/demo", help="where everything goes")


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Run the whole demo; finished parts are not done twice."""
    from xlmjax.commands import prepare, vocab
    from xlmjax.train import train

    started = time.monotonic()
    root = pathlib.Path(args.workdir)
    if args.config.partition(":")[0] != "demo":
        raise ValueError(f"--config={args.config}: `xlmjax demo` runs the config demo")
    config.data.vocabulary = str(root / "vocabulary.model")
    config.data.stores = str(root / "stores")
    if not pathlib.Path(config.data.vocabulary).is_file():
        _say("1/4  a vocabulary over all five languages")
        vocab.run(config, _defaults(vocab))
    _say("2/4  token stores")
    prepare.run(config, _defaults(prepare))
    scores = {}
    for number, (objective, title) in enumerate(RUNS, start=3):
        _say(f"{number}/4  pretraining, {title}")
        one = ConfigDict(config)
        one.data.mixture = load_config(f"demo:objective={objective}").data.mixture
        workdir = root / objective
        train(one, workdir)
        scores[title] = final_metrics(workdir)
    print(f"\n{closing_table(scores)}\n")
    print(
        "Masked accuracy on held-out text. A word masked in a pair can be read off its\n"
        "translation once the model has aligned the languages: TLM trains that, MLM alone does\n"
        "not.\n"
        f"Files: {root}/mlm and {root}/mlm_tlm (config.json, metrics.jsonl, tensorboard,\n"
        f"checkpoints); {time.monotonic() - started:.0f} s in all."
    )


def final_metrics(workdir: pathlib.Path) -> dict[str, float]:
    """Return the newest value of every evaluation metric of a run."""
    metrics: dict[str, float] = {}
    for line in (workdir / "metrics.jsonl").read_text("utf-8").splitlines():
        entries = json.loads(line)
        metrics.update({name: value for name, value in entries.items() if name[:5] == "eval/"})
    return metrics


def closing_table(scores: dict[str, dict[str, float]]) -> str:
    """Return the masked accuracy of every task (rows) by run (columns)."""
    prefix, suffix = "eval/perplexity/", "/accuracy"
    first = next(iter(scores.values()))
    tasks = sorted(
        name[len(prefix) : -len(suffix)]
        for name in first
        if name.startswith((f"{prefix}mlm.", f"{prefix}tlm.")) and name.endswith(suffix)
    )
    width = max(map(len, tasks))
    lines = [" " * width + "".join(f"  {title:>8}" for title in scores)]
    for task in tasks:
        values = [metrics[f"{prefix}{task}{suffix}"] for metrics in scores.values()]
        lines.append(f"{task:<{width}}" + "".join(f"  {value:8.1%}" for value in values))
    return "\n".join(lines)


def _defaults(command: types.ModuleType) -> argparse.Namespace:
    """Return the arguments of a command that is given none."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([])


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)
