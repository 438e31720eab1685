"""`xlmjax demo`: from a vocabulary to a translator, on this machine."""

import argparse
import json
import pathlib
import time
import types
from collections.abc import Mapping

from ml_collections import ConfigDict

from xlmjax.configs.demo import LANGUAGES
from xlmjax.configuration import load_config

HELP = """The method in miniature, on text that a small grammar of German, English, Spanish, French
and Swahili generates: trains a vocabulary, prepares token stores, pretrains with MLM alone and with
MLM+TLM on as many tokens, fine-tunes both for inference in English and scores them in the other
languages, and learns to translate between German and English, from pairs and from text alone.
Prints a table after each. Run it again to see the tables at once."""

DEFAULT_CONFIG = "demo"
RUNS = (("mlm", "MLM"), ("mlm_tlm", "MLM+TLM"))
TRANSLATORS = (  # mode, title, run
    ("supervised", "pairs", "mt"),
    ("unsupervised", "text, after TLM", "unmt"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the place of the files."""
    parser.add_argument("--workdir", default="runs/demo", help="where everything goes")


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Run the whole demo; finished parts are not done twice."""
    from xlmjax.commands import vocab
    from xlmjax.preparation import prepare, runners

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
    with runners.LocalRunner(runners.available_cores()) as local:
        modes = (f"demo_mt:mode={mode}" for mode, *_ in TRANSLATORS)
        for one in (config, *(follow_up(config, name) for name in ("demo_xnli", *modes))):
            prepare.prepare(one, planner=local, runner=local)

    _say("3/5  pretraining, with MLM and with MLM+TLM")
    pretraining = {}
    for objective, title in RUNS:
        one = config.copy_and_resolve_references()
        one.data.mixture = load_config(f"demo:objective={objective}").data.mixture
        pretraining[title] = one, root / objective
    _train(pretraining)
    scores = {title: final_metrics(workdir) for title, (_, workdir) in pretraining.items()}
    print(
        f"\n{closing_table(scores)}\n\n"
        "Masked accuracy on held-out text. A word masked in a pair can be read off its\n"
        "translation once the model has aligned the languages: TLM trains that, MLM alone does\n"
        f"not.\n\n{retrieval_table(scores)}\n\n"
        "Sentences that find their translation among the held-out ones of another language, the\n"
        "mean of both ways, by the cosine of mean states, corrected for hubs (CSLS).",
        flush=True,
    )

    _say("4/5  inference, fine-tuned in English, from either encoder")
    tuning = {
        title: (follow_up(config, f"demo_xnli:init={root / objective}"), root / f"xnli_{objective}")
        for objective, title in RUNS
    }
    _train(tuning)
    scores = {title: final_metrics(workdir) for title, (_, workdir) in tuning.items()}
    print(
        f"\n{inference_table(scores)}\n\n"
        "Accuracy on held-out pairs of sentences; chance is 33.3 %. Labels were seen in English\n"
        "only.",
        flush=True,
    )

    _say("5/5  translation, from the encoder of MLM+TLM: with pairs, and from text alone")
    encoder = root / "mlm_tlm"
    translators = {
        title: (follow_up(config, f"demo_mt:mode={mode},init={encoder}"), root / name)
        for mode, title, name in TRANSLATORS
    }
    _train(translators)
    scores = {title: final_metrics(workdir) for title, (_, workdir) in translators.items()}
    print(
        f"\n{translation_table(scores)}\n\n"
        "BLEU on held-out text. The second has seen pairs in pretraining only: it denoises, and\n"
        "learns from its own translations. Five translations of the first:\n\n"
        f"{samples(root / 'mt')}\n\n"
        f"Files: {root}/mlm, mlm_tlm, xnli_mlm, xnli_mlm_tlm, mt, unmt (config.json,\n"
        "metrics.jsonl, tensorboard, checkpoints, eval);\n"
        f"{time.monotonic() - started:.0f} s in all."
    )


def _train(runs: Mapping[str, tuple[ConfigDict, pathlib.Path]]) -> None:
    """Train: on CPUs all at the same time, as none of them fills two cores."""
    import jax

    from xlmjax.experiment import start_jax
    from xlmjax.side_by_side import train_side_by_side
    from xlmjax.train import train
    from xlmjax.training.preemption import PREEMPTED

    first, *others = runs.values()
    start_jax(first[0])
    if others and jax.default_backend() == "cpu":
        train_side_by_side(runs)
        return
    for title, (config, workdir) in runs.items():
        if others:
            _say(title)
        if train(config, workdir).preempted:
            raise SystemExit(PREEMPTED)


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


def inference_table(scores: dict[str, dict[str, float]]) -> str:
    """Return the accuracy in every language (rows), and their mean but English, by run."""
    prefix, suffix = "eval/xnli/", "/accuracy"
    rows = {code: f"{prefix}demo.xnli.{code}{suffix}" for code in LANGUAGES}
    return _table(rows | {"all but en": f"{prefix}zero_shot{suffix}"}, scores)


def translation_table(scores: dict[str, dict[str, float]]) -> str:
    """Return BLEU of both directions (rows) by run (columns)."""
    ways = {"de -> en": "de_en", "en -> de": "en_de"}
    rows = {title: f"eval/translation/demo.mt.{way}/bleu" for title, way in ways.items()}
    return _table(rows, scores, "8.1f")


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
        cells = (
            f"  {format(metrics[metric], style):>{max(8, len(column))}}"
            for column, metrics in scores.items()
        )
        lines.append(f"{title:<{width}}" + "".join(cells))
    return "\n".join(lines)


def _defaults(command: types.ModuleType) -> argparse.Namespace:
    """Return the arguments of a command that is given none."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([])


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)
