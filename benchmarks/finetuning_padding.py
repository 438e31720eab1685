"""Fine-tuning examples/s on real XNLI pairs: packed rows beside rows of one padded example each.

    uv run xlmjax prepare --config=xnli:root=DATA
    uv run python benchmarks/finetuning_padding.py --config=xnli:root=DATA

Both sides are the step that `xlmjax train` runs (forward, backward, clipping, AdamW, dropout), on
the same store, in turns within one process. A padded batch has as many rows as a packed one has
examples on average, rounded to a multiple of 8, each of `--length` tokens, which is what padding to
the maximum of the model costs. Counted are examples.
"""

import argparse

import jax
import turns

from xlmjax.configuration import load_config
from xlmjax.data.batches import Batches
from xlmjax.data.mixture import open_groups
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.experiment import build_experiment, make_groups, make_train_step, start_jax
from xlmjax.parallel.partition import batch_sharding

TITLES = {"pad": "a row an example, padded", "pack": "packed"}


def make_step(name: str, layout: str, rows: int, length: int) -> turns.Step:
    """Return a training step on rows of `length` that counts examples."""
    config = load_config(name)
    config.data.layout.labelled = layout
    config.train.rows, config.train.length = rows, length
    config.optimizer.warmup_steps = 0
    start_jax(config)
    experiment = build_experiment(config)
    with jax.set_mesh(experiment.mesh):
        data = open_groups(config, Vocabulary.load(config.data.vocabulary))
        train_step = make_train_step(experiment, make_groups(experiment, data))
        source = Batches(data[0].mixture, rows, batch_sharding(experiment.mesh))
        held = {"state": experiment.spec.create(jax.random.key(0)), "step": 0}

    def step() -> float:
        with jax.set_mesh(experiment.mesh):
            batches = {data[0].name: source.at(held["step"])}
            held["state"], metrics = train_step(held["state"], held["step"], batches)
            held["step"] += 1
            return float(metrics.predicted_tokens)  # labels

    return step


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="xnli")
    parser.add_argument("--rows", type=int, default=16, help="of a packed batch")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()
    packed = make_step(arguments.config, "pack", arguments.rows, arguments.length)
    examples = sum(packed() for _ in range(4)) / 4
    padded_rows = max(8, round(examples / 8) * 8)
    steps = {
        "pad": make_step(arguments.config, "pad", padded_rows, arguments.length),
        "pack": packed,
    }
    print(f"{examples:.0f} examples in {arguments.rows} packed rows; {padded_rows} padded rows")
    speeds = turns.measure_here(steps, arguments.rounds, arguments.steps)
    print(turns.table(speeds, TITLES, "pad", "examples/s"))


if __name__ == "__main__":
    main()
