"""`xlmjax demo`: from a vocabulary to a translator, on this machine."""

import argparse
import json
import pathlib
import time
import types

from ml_collections import ConfigDict

from xlmjax.configuration import load_config

HELP = """The method in miniature, on text that a small grammar of German, English, Spanish, French
and Swahili generates: trains a vocabulary, prepares token stores, pretrains with MLM alone and with
MLM+TLM on as many tokens, learns to translate between German and English, and prints how well each
encoder fills in masked words and finds translations, and how well the translator writes. Run it
again to see the tables at once."""

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
        _say("1/5  a vocabulary over all five languages")
        vocab.run(config, _defaults(vocab))
    _say("2/5  token stores")
    for one in (config, follow_up(config, "demo_mt")):
        prepare.run(one, _defaults(prepare))
    scores: dict[str, dict[str, float]] = {}
    for number, (objective, title) in enumerate(RUNS, start=3):
        _say(f"{number}/5  pretraining, {title}")
        one = config.copy_and_resolve_references()
        one.data.mixture = load_config(f"demo:objective={objective}").data.mixture
        train(one, root / objective)
        scores[title] = final_metrics(root / objective)
    _say("5/5  translation, from the encoder of MLM+TLM")
    train(follow_up(config, f"demo_mt:init={root / 'mlm_tlm'}"), root / "mt")
    print(f"\n{closing_table(scores)}\n")
    print(
        "Masked accuracy on held-out text. A word masked in a pair can be read off its\n"
        "translation once the model has aligned the languages: TLM trains that, MLM alone does\n"
        "not.\n"
    )
    print(f"{retrieval_table(scores)}\n")
    print(
        "Sentences that find their translation among the held-out ones of another language, the\n"
        "mean of both ways, by the cosine of mean states, corrected for hubs (CSLS).\n"
    )
    print(f"{translation_table(final_metrics(root / 'mt'))}\n")
    print(f"BLEU on held-out text. Five of the translations:\n\n{samples(root / 'mt')}\n")
    print(
        f"Files: {root}/mlm, mlm_tlm, mt (config.json, metrics.jsonl, tensorboard,\n"
        f"checkpoints, eval); {time.monotonic() - started:.0f} s in all."
    )


def follow_up(config: ConfigDict, name: str) -> ConfigDict:
    """Return the config `name` for what a pretraining run of `config` left behind.

    It shares the run's data, model and devices where it has nothing of its own to say, and is not
    longer.
    """
    own, usual, shared = (
        load_config(name),
        load_config("demo"),
        config.copy_and_resolve_references(),
    )
    for section in ("data", "model"):
        for field, value in usual[section].items():
            if own[section][field] == value:
                own[section][field] = shared[section][field]
    if own.model.decoder_layers:
        own.model.decoder_layers = own.model.num_layers
    for field in ("seed", "mesh", "log"):
        own[field] = shared[field]
    own.train.num_cpu_devices = config.train.num_cpu_devices
    own.train.num_steps = min(own.train.num_steps, config.train.num_steps)
    return own


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
    return _table({task: f"{prefix}{task}{suffix}" for task in tasks}, scores)


def retrieval_table(scores: dict[str, dict[str, float]]) -> str:
    """Return the accuracy of retrieval of every pair (rows) by run (columns)."""
    prefix, suffix = "eval/retrieval/", "/accuracy_csls"
    first = next(iter(scores.values()))
    tasks = sorted(
        name[len(prefix) : -len(suffix)]
        for name in first
        if name.startswith(f"{prefix}tlm.") and name.endswith(suffix)
    )
    return _table({task: f"{prefix}{task}{suffix}" for task in tasks}, scores)


def translation_table(metrics: dict[str, float]) -> str:
    """Return BLEU of both directions."""
    ways = {"de -> en": "de_en", "en -> de": "en_de"}
    rows = {title: f"eval/translation/demo.mt.{way}/bleu" for title, way in ways.items()}
    return _table(rows, {"BLEU": metrics}, "8.1f")


def samples(workdir: pathlib.Path, count: int = 5) -> str:
    """Return the first sources of a run, what it made of them at last, and references."""
    folder = max(
        (workdir / "eval").glob("translation-*/"),
        key=lambda path: int(path.name.partition("-")[2]),
    )
    columns = [
        (folder / f"demo.mt.de_en.{kind}.txt").read_text("utf-8").splitlines()[:count]
        for kind in ("src", "hyp", "ref")
    ]
    return "\n\n".join(
        f"  de   {source}\n  ->   {found}\n  en   {reference}"
        for source, found, reference in zip(*columns, strict=True)
    )


def _table(rows: dict[str, str], scores: dict[str, dict[str, float]], style: str = "8.1%") -> str:
    """Return a table; `rows` are titles and the metrics they show."""
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"  {title:>8}" for title in scores)]
    for title, metric in rows.items():
        cells = (f"  {metrics[metric]:{style}}" for metrics in scores.values())
        lines.append(f"{title:<{width}}" + "".join(cells))
    return "\n".join(lines)


def _defaults(command: types.ModuleType) -> argparse.Namespace:
    """Return the arguments of a command that is given none."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([])


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)
