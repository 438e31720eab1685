"""Sentences to vectors on the CPU: `Embedder` beside Hugging Face's XLMModel, taking turns.

    uv run --group parity python benchmarks/embedding_vs_hf.py \\
        --config=wiki15:root=DATA,recipe=xlm --text=DATA/ntrex128/{lang}.txt.gz --rounds 7

Both embed the same sentences of several languages, mixed, with the same weights (random, of the
config's size) in float32: tokenised by the same vocabulary, encoded as `</s> x </s>`, mean of the
last states. Hugging Face pads to the longest of a batch, in the order of the file or sorted by
length. Before anything is timed each contender writes its vectors, and the largest difference is
printed. How the contenders take turns: turns.py.
"""

import argparse
import gzip
import itertools
import os
import pathlib
import sys
import tempfile

import numpy as np
import turns

from xlmjax.cli import with_kept_memory
from xlmjax.configuration import load_config

TITLES = {
    "padded": "HF XLM, padded, in the order of the file",
    "sorted": "HF XLM, padded, sorted by length",
    "xlmjax": "xlmjax",
}
SIDES = {"hf": ("padded", "sorted"), "ours": ("xlmjax",)}
REFERENCE = "sorted"
WEIGHTS = "weights.npz"


def read_texts(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return sentences and their languages, one of each language in turn."""
    paths = [arguments.text.replace("{lang}", code) for code in arguments.languages]
    files = [gzip.decompress(pathlib.Path(path).read_bytes()).decode() for path in paths]
    lines = itertools.chain.from_iterable(zip(*(text.splitlines() for text in files), strict=True))
    texts = list(itertools.islice(lines, arguments.sentences))
    if len(texts) < arguments.sentences:
        raise ValueError(
            f"--sentences={arguments.sentences}: {arguments.text} has {len(texts)} in "
            f"{', '.join(arguments.languages)}; ask for fewer, or name more languages"
        )
    codes = itertools.islice(itertools.cycle(arguments.languages), len(texts))
    return texts, list(codes)


def configure(name: str):
    """Return the config, in float32."""
    config = load_config(name)
    config.model.dtype = "float32"
    return config


def our_steps(arguments: argparse.Namespace) -> dict[str, turns.Step]:
    """Return one step, which embeds all sentences; writes the weights and the vectors."""
    import hf_weights
    import jax

    from xlmjax.embedding import Embedder
    from xlmjax.experiment import build_experiment

    experiment = build_experiment(configure(arguments.config))
    with jax.set_mesh(experiment.mesh):
        model = experiment.spec.create(jax.random.key(0)).model
    folder = pathlib.Path(arguments.folder)
    np.savez(folder / WEIGHTS, **hf_weights.state_dict(jax.device_get(model)))
    embedder = Embedder(experiment, model, rows=arguments.rows)
    texts, codes = read_texts(arguments)
    np.save(folder / "xlmjax.npy", embedder.embed(texts, codes))

    def step() -> float:
        return len(embedder.embed(texts, codes))

    return {"xlmjax": step}


def hf_steps(arguments: argparse.Namespace) -> dict[str, turns.Step]:
    """Return a step for each order of the batches; reads the weights and writes the vectors."""
    import torch
    from transformers import XLMConfig, XLMModel

    from xlmjax.data.vocabulary import Vocabulary
    from xlmjax.preparation.cleaning import Cleaning

    torch.set_num_threads(arguments.threads)
    config = configure(arguments.config)
    sizes, vocabulary = config.model, Vocabulary.load(config.data.vocabulary)
    folder = pathlib.Path(arguments.folder)
    model = XLMModel(
        XLMConfig(
            vocab_size=vocabulary.size,
            emb_dim=sizes.embed_dim,
            n_layers=sizes.num_layers,
            n_heads=sizes.num_heads,
            gelu_activation=True,
            n_langs=len(config.data.languages),
            use_lang_emb=True,
            max_position_embeddings=sizes.max_positions,
            layer_norm_eps=sizes.norm_epsilon,
            pad_index=vocabulary.pad,
            eos_index=vocabulary.eos,
            mask_index=vocabulary.mask,
        )
    ).eval()
    with np.load(folder / WEIGHTS) as weights:
        prefix = "transformer."
        ours = {
            name.removeprefix(prefix): torch.tensor(weights[name])
            for name in weights
            if name.startswith(prefix)
        }
    model.load_state_dict(ours)
    clean = Cleaning.from_config(config.data)
    texts, codes = read_texts(arguments)
    language_row = {code: row for row, code in enumerate(sorted(config.data.languages))}

    def embed(by_length: bool) -> np.ndarray:
        tokens = vocabulary.encode_batch([clean(text) for text in texts])
        order = np.arange(len(texts))
        if by_length:
            order = np.argsort([len(ids) for ids in tokens], kind="stable")
        vectors = np.zeros((len(texts), sizes.embed_dim), np.float32)
        for chosen in np.split(order, range(arguments.rows, len(order), arguments.rows)):
            lengths = torch.tensor([len(tokens[number]) + 2 for number in chosen])
            inputs = torch.full((len(chosen), int(lengths.max())), vocabulary.pad)
            for row, number in enumerate(chosen):
                ids = (vocabulary.eos, *tokens[number], vocabulary.eos)
                inputs[row, : len(ids)] = torch.tensor(ids)
            langs = torch.tensor([language_row[codes[number]] for number in chosen])
            with torch.inference_mode():
                states = model(
                    input_ids=inputs, lengths=lengths, langs=langs[:, None].expand_as(inputs)
                )[0]
            vectors[chosen] = (states.sum(dim=1) / lengths[:, None]).numpy()  # padding is zero
        return vectors

    def step_of(name: str) -> turns.Step:
        np.save(folder / f"{name}.npy", embed(name == "sorted"))
        return lambda: len(embed(name == "sorted"))

    return {name: step_of(name) for name in SIDES["hf"]}


def measure(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Return sentences a second of every contender in every round."""
    workers = {}
    pythons = {"ours": arguments.ours_python, "hf": arguments.hf_python}
    with tempfile.TemporaryDirectory() as folder:
        for side, python in pythons.items():  # ours first: it writes the weights
            command = [python, os.path.abspath(__file__), *sys.argv[1:], "--serve", side]
            # As each is used: Hugging Face as it is, ours as the `xlmjax` command starts itself.
            environment = with_kept_memory(os.environ) if side == "ours" else os.environ
            worker = turns.Worker([*command, "--folder", folder], environment)
            workers.update(dict.fromkeys(SIDES[side], worker))
        vectors = {name: np.load(pathlib.Path(folder) / f"{name}.npy") for name in TITLES}
    for name in SIDES["hf"]:
        apart = np.abs(vectors[name] - vectors["xlmjax"]).max()
        print(f"{TITLES[name]}: largest difference to xlmjax {apart:.1e}", flush=True)
        if not apart < 1e-3:
            raise ValueError("the contenders do not compute the same vectors")
    return turns.measure(workers, arguments.rounds, arguments.steps, warmup=1)


def main() -> None:
    """Parse the command line and measure, or serve one side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True)
    parser.add_argument("--text", required=True, help="gzipped lines, {lang} in the name")
    parser.add_argument("--languages", nargs="+", default=["de", "en", "ru", "sw", "th", "zh"])
    parser.add_argument("--sentences", type=int, default=384)
    parser.add_argument("--rows", type=int, default=32, help="sentences a batch, on both sides")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1, help="times all sentences, each round")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--hf-python", default=sys.executable)
    parser.add_argument("--ours-python", default=sys.executable)
    parser.add_argument("--serve", choices=sorted(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        make = hf_steps if arguments.serve == "hf" else our_steps
        turns.serve(make(arguments))
        return
    print(turns.table(measure(arguments), TITLES, REFERENCE, "sentences/s"))


if __name__ == "__main__":
    main()
