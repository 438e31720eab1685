"""Real tokens/s on a real MLM+TLM mixture: packed rows beside padded Hugging Face XLM-R, in turns.

    uv run xlmjax prepare --config=wiki15:root=DATA
    UV_FIND_LINKS=... uv run --group parity python benchmarks/mixture_vs_hf.py \\
        --config=wiki15:root=DATA --rounds 7

Every step trains on the same sentences and pairs on both sides: those of one global batch of the
mixture. Ours reads them as packed, isolated rows; Hugging Face as one example a row, padded to the
longest of the batch, in the order of the data or grouped by length over several batches (the
Trainer's `group_by_length`), with the masked head gathered. Forward, backward, clipping at norm 5
and Adam in float32, dropout 0.1 everywhere. Counted are real tokens, delimiters included.
"""

import argparse
import os
import sys
from collections.abc import Iterator

import numpy as np
import turns

from xlmjax.cli import with_kept_memory
from xlmjax.configuration import load_config
from xlmjax.data.mixture import Group, open_groups
from xlmjax.data.vocabulary import Vocabulary

TITLES = {
    "padded": "HF XLM-R, gathered head, padded",
    "grouped": "HF XLM-R, gathered head, padded, grouped by length",
    "packed": "xlmjax, packed",
}
SIDES = {"hf": ("padded", "grouped"), "ours": ("packed",)}
WIDTH, LAYERS, HEADS, ROWS, LENGTH = 256, 6, 8, 32, 128  # model A of docs/performance.md
GROUPED_BATCHES = 8
RATE = 0.15


def configure(name: str):
    """Return the config with the model and the rows of the benchmark."""
    config = load_config(name)
    config.model.embed_dim, config.model.num_layers, config.model.num_heads = WIDTH, LAYERS, HEADS
    config.model.dtype, config.optimizer.name = "float32", "adamw"
    config.train.rows, config.train.length = ROWS, LENGTH
    config.data.layout.text = "pack"  # so that both sides see whole sentences
    return config


def open_data(config) -> tuple[Vocabulary, Group]:
    """Return the vocabulary and the data of the only objective."""
    vocabulary = Vocabulary.load(config.data.vocabulary)
    [group] = open_groups(config, vocabulary)
    return vocabulary, group


def segments(group: Group, step: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (tokens, positions) of every sentence or pair of the batch of a step."""
    batch = group.mixture.fill(np.arange(step * group.rows, (step + 1) * group.rows))
    found = []
    for row in range(group.rows):
        ids = batch["segment_ids"][row]
        for segment in range(1, ids.max() + 1):
            chosen = ids == segment
            found.append((batch["tokens"][row][chosen], batch["positions"][row][chosen]))
    return found


def padded_batches(
    group: Group, grouped: bool, pad: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield tokens, positions and mask [n, longest], of about as many examples as ours each."""
    step = 0
    while True:
        count = GROUPED_BATCHES if grouped else 1
        examples = [item for n in range(count) for item in segments(group, step + n)]
        step += count
        if grouped:
            examples.sort(key=lambda item: -len(item[0]))
        bounds = np.cumsum([len(tokens) for tokens, _ in examples])
        owner = (bounds - 1) * count // bounds[-1]  # equal shares of the real tokens
        order = np.random.default_rng(step).permutation(count)
        for number in order:
            part = [item for item, own in zip(examples, owner, strict=True) if own == number]
            shape = (len(part), max(len(tokens) for tokens, _ in part))
            tokens, positions = np.full(shape, pad), np.zeros(shape, int)
            real = np.zeros(shape, bool)
            for row, (words, places) in enumerate(part):
                tokens[row, : len(words)] = words
                positions[row, : len(words)] = places
                real[row, : len(words)] = True
            yield tokens, positions, real


def hf_steps(config) -> dict[str, turns.Step]:
    """Return a training step for each way of batching."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    torch.set_num_threads(os.cpu_count() or 1)
    vocabulary, group = open_data(config)

    def step_of(name: str) -> turns.Step:
        model = XLMRobertaForMaskedLM(
            XLMRobertaConfig(
                vocab_size=vocabulary.size,
                hidden_size=WIDTH,
                num_hidden_layers=LAYERS,
                num_attention_heads=HEADS,
                intermediate_size=4 * WIDTH,
                max_position_embeddings=LENGTH + 2,
                type_vocab_size=1,
                pad_token_id=vocabulary.pad,
            )
        ).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        batches = padded_batches(group, name == "grouped", vocabulary.pad)
        random = np.random.default_rng(0)

        def step() -> float:
            tokens, positions, real = next(batches)
            targets = np.flatnonzero(real & (random.random(real.shape) < RATE))
            inputs = tokens.copy()
            inputs.reshape(-1)[targets] = vocabulary.mask
            optimizer.zero_grad(set_to_none=True)
            hidden = model.roberta(
                input_ids=torch.tensor(inputs),
                attention_mask=torch.tensor(real.astype(int)),
                position_ids=torch.tensor(positions),
            )[0]
            logits = model.lm_head(hidden.reshape(-1, WIDTH)[torch.tensor(targets)])
            labels = torch.tensor(tokens.reshape(-1)[targets])
            torch.nn.functional.cross_entropy(logits, labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            return float(real.sum())

        return step

    return {name: step_of(name) for name in SIDES["hf"]}


def our_steps(config) -> dict[str, turns.Step]:
    """Return the training step that `xlmjax train` runs, on batches made as it goes."""
    import jax

    from xlmjax.data.batches import Batches
    from xlmjax.experiment import build_experiment, make_groups, make_train_step, start_jax
    from xlmjax.parallel.partition import batch_sharding

    start_jax(config)
    experiment = build_experiment(config)
    jax.set_mesh(experiment.mesh)
    _, group = open_data(config)
    train_step = make_train_step(experiment, make_groups(experiment, [group]))
    source = Batches(group.mixture, group.rows, batch_sharding(experiment.mesh))
    held = {"state": experiment.spec.create(jax.random.key(0)), "step": 0}

    def step() -> float:
        batches = {group.name: source.at(held["step"])}
        held["state"], metrics = train_step(held["state"], held["step"], batches)
        held["step"] += 1
        return float(metrics.real_tokens)

    return {"packed": step}


def main() -> None:
    """Measure, or serve one side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="wiki15")
    parser.add_argument("--contenders", nargs="+", choices=[*TITLES], default=[*TITLES])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps a contender and round")
    parser.add_argument("--hf-python", default=sys.executable)
    parser.add_argument("--ours-python", default=sys.executable)
    parser.add_argument("--serve", choices=sorted(SIDES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        config = configure(arguments.config)
        turns.serve((hf_steps if arguments.serve == "hf" else our_steps)(config))
        return
    pythons = {"hf": arguments.hf_python, "ours": arguments.ours_python}
    workers = {}
    for side, names in SIDES.items():
        names = [name for name in names if name in arguments.contenders]
        if not names:
            continue
        command = [pythons[side], os.path.abspath(__file__), f"--config={arguments.config}"]
        # As each is used: Hugging Face as it is, ours as the `xlmjax` command starts itself.
        environment = with_kept_memory(os.environ) if side == "ours" else os.environ
        worker = turns.Worker([*command, "--serve", side], environment)
        workers.update(dict.fromkeys(names, worker))
    speeds = turns.measure(workers, arguments.rounds, arguments.steps)
    reference = "grouped" if "grouped" in workers else arguments.contenders[0]
    print(turns.table(speeds, TITLES, reference, "real tokens/s"))


if __name__ == "__main__":
    main()
