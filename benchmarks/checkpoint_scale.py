"""What a checkpoint takes as the model grows: bytes, seconds of a save and of a restore.

    python benchmarks/checkpoint_scale.py --folder=/mnt/disk          # a folder on the disk meant

The checkpoints of training itself, of models with Adam in float32, on one device. "blocks"
is how long the training loop stands still, checksums included; the rest of the save goes on beside
it. Restoring reads what was just written, so mostly from the page cache. `raw write` is a file of
as many bytes written beside it and synced: what the disk can do.
"""

import argparse
import dataclasses
import functools
import os
import pathlib
import shutil
import tempfile
import time

import jax
import numpy as np

from xlmjax.configs.sizes import SIZES
from xlmjax.models.config import ModelConfig
from xlmjax.models.xlm import XLM
from xlmjax.parallel.mesh import MeshConfig, make_mesh
from xlmjax.training.checkpoint import Checkpoints, Identity
from xlmjax.training.checkpoint_settings import CheckpointConfig
from xlmjax.training.optimizer import OptimizerConfig, make_optimizer
from xlmjax.training.state import TrainState, state_spec

# (size of configs/sizes.py, vocabulary)
MODELS = (("tiny", 8_192), ("mini", 32_000), ("small", 64_000), ("base", 95_000), ("xlm", 95_000))
_BLOCK = 1 << 24


def raw_write_seconds(folder: pathlib.Path, size: int) -> float:
    """Return how long a file of so many bytes takes to be written and synced."""
    block = np.random.default_rng(0).bytes(_BLOCK)
    path = folder / "raw"
    start = time.perf_counter()
    with path.open("wb") as file:
        for first in range(0, size, _BLOCK):
            file.write(block[: size - first])
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    path.unlink()
    return seconds


def with_moments(state: TrainState) -> TrainState:
    """Fill the optimizer's zeros, which would be compressed to nothing, with noise."""
    generator = np.random.default_rng(0)

    def fill(leaf: jax.Array) -> jax.Array:
        if not leaf.ndim:
            return leaf
        return jax.device_put(generator.standard_normal(leaf.shape, leaf.dtype), leaf.sharding)

    return dataclasses.replace(state, opt_state=jax.tree.map(fill, state.opt_state))


def measure(folder: pathlib.Path, size: str, vocabulary: int) -> str:
    """Save and restore one model; return a line of the table."""
    width, layers, heads = SIZES[size]
    cfg = ModelConfig(
        vocab_size=vocabulary,
        language_ids=(0,),
        pad_id=2,
        embed_dim=width,
        num_layers=layers,
        num_heads=heads,
    )
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    optimizer = functools.partial(make_optimizer, OptimizerConfig())
    spec = state_spec(functools.partial(XLM, cfg), optimizer, mesh, "data")
    identity = Identity(dataclasses.asdict(cfg), "none", "adamw")
    with jax.set_mesh(mesh):
        state = jax.block_until_ready(with_moments(spec.create(jax.random.key(0))))
        checkpoints = Checkpoints(folder / size, CheckpointConfig(keep=1), identity)
        start = time.perf_counter()
        checkpoints.save(state)
        blocked = time.perf_counter() - start
        checkpoints.wait()
        saved = time.perf_counter() - start
        start = time.perf_counter()
        jax.block_until_ready(checkpoints.restore(spec))
        restored = time.perf_counter() - start
        checkpoints.close()
    written = sum(path.stat().st_size for path in (folder / size).rglob("*") if path.is_file())
    shutil.rmtree(folder / size)
    raw = raw_write_seconds(folder, written)
    parameters = cfg.num_parameters()
    return (
        f"| {size}, {vocabulary:,} | {parameters / 1e6:,.1f} | {written / 1e9:.3f} "
        f"| {written / parameters:.1f} | {blocked:.2f} | {saved:.2f} | {restored:.2f} | {raw:.2f} |"
    )


def main() -> None:
    """Measure every model and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", default=None, help="where to write; default: a temporary one")
    args = parser.parse_args()
    print(
        "| size, vocabulary | parameters, M | written, GB | bytes a parameter | blocks, s "
        "| save, s | restore, s | raw write, s |\n|" + " --- |" * 8
    )
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for size, vocabulary in MODELS:
            print(measure(pathlib.Path(folder), size, vocabulary), flush=True)


if __name__ == "__main__":
    main()
