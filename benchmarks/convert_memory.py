"""Peak memory and time of converting a large model, in a process of its own.

  python -m benchmarks.convert_memory --folder=/tmp/xl            # XLM-R XL: 3.5e9 parameters
  python -m benchmarks.convert_memory --folder=/tmp/base --size=base

Writes a folder of transformers with random parameters (a block of noise, repeated) in float32
shards, converts it in a child, and prints the child's peak of resident memory, beside the size of
the parameters, as JSON. The folder is removed at the end unless --keep.
"""

import argparse
import dataclasses
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import time

import jax
import numpy as np

from xlmjax.interop import names
from xlmjax.interop.formats import ROBERTA, ROBERTA_XL, Format
from xlmjax.interop.safetensors import write_safetensors
from xlmjax.models.config import ModelConfig
from xlmjax.models.xlm import XLM
from xlmjax.training.state import named_leaves, parameter_axes

_ROBERTA = ModelConfig(
    vocab_size=250_002,
    language_ids=(4,),
    pad_id=1,
    embed_dim=768,
    num_layers=12,
    num_heads=12,
    language_embeddings=False,
    position_offset=2,
    token_types=1,
    head_transform=True,
    norm_epsilon=1e-5,
)
_XL = dataclasses.replace(_ROBERTA, vocab_size=250_880, norm="pre", embedding_norm=False)
SIZES: dict[str, tuple[Format, ModelConfig]] = {
    "base": (ROBERTA, _ROBERTA),
    "xl": (
        ROBERTA_XL,
        dataclasses.replace(_XL, embed_dim=2560, mlp_dim=10_240, num_layers=36, num_heads=32),
    ),
}
SHARD_BYTES = 5 * 10**9


def write_folder(folder: pathlib.Path, kind: Format, cfg: ModelConfig) -> None:
    """Write config.json and weights; the vocabulary is a file of ours beside them."""
    folder.mkdir(parents=True)
    abstract = jax.eval_shape(lambda key: XLM(cfg, key), jax.random.key(0))
    axes = parameter_axes(abstract)
    shapes = {name: leaf.shape for name, leaf in named_leaves(abstract).items()}
    theirs = {
        x.name: names.their_shape(x, shapes[x.parameter], axes[x.parameter])
        for x in names.tensors(kind.table, shapes)
    }
    noise = np.random.default_rng(0).standard_normal(1 << 20).astype(np.float32) * 0.02

    def value(name: str) -> np.ndarray:
        return np.resize(noise, theirs[name])

    write_safetensors(folder, theirs, value, np.dtype("<f4"), SHARD_BYTES)
    (folder / "config.json").write_text(json.dumps(kind.configuration(cfg)))
    _write_vocabulary(folder / "vocabulary.json", cfg)


def _write_vocabulary(path: pathlib.Path, cfg: ModelConfig) -> None:
    """Write a BPE of made-up words of the right size, padding in the right place."""
    from xlmjax.data import bpe_vocabulary

    pieces = [x for x in bpe_vocabulary.SPECIALS if x != "<pad>"]
    pieces.insert(cfg.pad_id, "<pad>")
    pieces += [f"word{number}</w>" for number in range(cfg.vocab_size - len(pieces))]
    path.write_bytes(bpe_vocabulary.serialise(pieces, ("a b 1",), True))


def main() -> None:
    """Write, convert, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="xl")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    kind, cfg = SIZES[args.size]
    source, workdir = args.folder / "source", args.folder / "run"
    started = time.monotonic()
    write_folder(source, kind, cfg)
    written = time.monotonic()
    command = ["convert", f"--source={source}", f"--workdir={workdir}", "--parity=never"]
    vocabulary = f"--vocabulary={source / 'vocabulary.json'}"
    try:
        subprocess.run([sys.executable, "-m", "xlmjax.cli", *command, vocabulary], check=True)
        size = 4 * cfg.num_parameters()
        found = {
            "parameters": cfg.num_parameters(),
            "parameters_gib": round(size / 2**30, 2),
            "peak_gib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 2),
            "write_seconds": round(written - started),
            "convert_seconds": round(time.monotonic() - written),
        }
        print(json.dumps(found))
    finally:
        if not args.keep:
            shutil.rmtree(args.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
