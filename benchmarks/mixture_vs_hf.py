"""Real tokens/s on a real MLM+TLM mixture: packed rows beside padded Hugging Face XLM-R, in turns.

    uv run xlmjax prepare --config=wiki15:root=DATA
    UV_FIND_LINKS=... uv run --group parity python benchmarks/mixture_vs_hf.py \\
        --config=wiki15:root=DATA --rounds 7
    python benchmarks/mixture_vs_hf.py --config=wiki15:root=DATA --model body --dtype bfloat16 \\
        --config.data.vocabulary=runs/50k.model --config.data.stores=runs/50k      # on a GPU

Every step trains on the same sentences and pairs on all sides: those of one global batch of the
mixture. Ours reads them as packed, isolated rows; Hugging Face as one example a row, padded to the
longest of the batch, in the order of the data or grouped by length over several batches (the
Trainer's `group_by_length`), or as our rows under a mask of blocks, with the masked head gathered.
Both are XLM's recipe, whatever that of the config: 15 % targets, dropout 0.1 everywhere, Adam, the
gradient clipped at norm 5; in bfloat16 theirs is torch's autocast. Counted are real tokens,
delimiters included. The table of words is as large as the config's vocabulary, not as that of the
size named; how large is printed.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Iterator

import numpy as np
import turns
from train_step_vs_hf import DROPOUT, RATE, SIZES, our_config, xlm_r

from xlmjax.cli import with_kept_memory
from xlmjax.configuration import load_config
from xlmjax.data.mixture import Group, open_groups
from xlmjax.data.vocabulary import Vocabulary

TITLES = {
    "padded": "HF XLM-R, gathered head, padded",
    "grouped": "HF XLM-R, gathered head, padded, grouped by length",
    "blocks": "HF XLM-R, gathered head, packed, masked by blocks",
    "packed": "xlmjax, packed",
}
SIDES = {"hf": ("padded", "grouped", "blocks"), "ours": ("packed",)}
GROUPED_BATCHES = 8


def configure(arguments: argparse.Namespace):
    """Return the data of a config with the model, targets and rows of the benchmark."""
    size = SIZES[arguments.model]
    config = load_config(arguments.config, arguments.overrides)
    config.model = our_config(arguments).model  # whatever recipe the config itself has
    config.model.language_embeddings = False  # as theirs
    config.objectives.mlm.rate = ((0, RATE),)
    config.train.z_loss = 0.0
    config.train.rows, config.train.length = size.rows, size.length
    config.optimizer.name = "adamw"
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


Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # tokens, positions, segments [n, length]


def padded_batches(group: Group, grouped: bool, pad: int) -> Iterator[Rows]:
    """Yield an example a row, as long as the longest: about as many examples as ours each."""
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
            real = np.zeros(shape, int)
            for row, (words, places) in enumerate(part):
                tokens[row, : len(words)] = words
                positions[row, : len(words)] = places
                real[row, : len(words)] = 1
            yield tokens, positions, real


def packed_batches(group: Group) -> Iterator[Rows]:
    """Yield our own rows."""
    for first in itertools.count(0, group.rows):
        batch = group.mixture.fill(np.arange(first, first + group.rows))
        yield batch["tokens"].astype(int), batch["positions"].astype(int), batch["segment_ids"]


def hf_steps(arguments: argparse.Namespace) -> dict[str, turns.Step]:
    """Return a training step for each way of batching."""
    import torch

    size = SIZES[arguments.model]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    autocast = torch.autocast(device.type, torch.bfloat16, arguments.dtype == "bfloat16")
    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_float32_matmul_precision("high")  # as JAX does on GPUs
    vocabulary, group = open_data(configure(arguments))

    def step_of(name: str) -> turns.Step:
        model = xlm_r(size, vocabulary.size, vocabulary.pad, arguments.attention_dropout)
        model.train().to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=device.type == "cuda")
        batches = (
            packed_batches(group)
            if name == "blocks"
            else padded_batches(group, name == "grouped", vocabulary.pad)
        )
        random = np.random.default_rng(0)

        def step() -> float:
            tokens, positions, owners = next(batches)
            real = owners > 0
            targets = np.flatnonzero(real & (random.random(real.shape) < RATE))
            inputs = tokens.copy()
            inputs.reshape(-1)[targets] = vocabulary.mask
            mask = torch.tensor(owners, device=device)
            if name == "blocks":  # [rows, 1, queries, keys]
                mask = mask[:, None, :, None] == mask[:, None, None, :]
            optimizer.zero_grad(set_to_none=True)
            with autocast:
                hidden = model.roberta(
                    input_ids=torch.tensor(inputs, device=device),
                    attention_mask=mask,
                    position_ids=torch.tensor(positions, device=device),
                )[0]
                chosen = torch.tensor(targets, device=device)
                logits = model.lm_head(hidden.reshape(-1, size.embed_dim)[chosen])
                labels = torch.tensor(tokens.reshape(-1)[targets], device=device)
                loss = torch.nn.functional.cross_entropy(logits, labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            loss.item()  # waits for the step
            return float(real.sum())

        return step

    return {name: step_of(name) for name in arguments.contenders}


def our_steps(arguments: argparse.Namespace) -> dict[str, turns.Step]:
    """Return the training step that `xlmjax train` runs, on batches made as it goes."""
    import jax

    from xlmjax.data.batches import Batches
    from xlmjax.experiment import build_experiment, make_groups, make_train_step, start_jax
    from xlmjax.parallel.partition import batch_sharding

    config = configure(arguments)
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
    parser.add_argument("--model", choices=sorted(SIZES), default="A")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--attention-dropout", type=float, default=DROPOUT)
    default = ["padded", "grouped", "packed"]
    parser.add_argument("--contenders", nargs="+", choices=[*TITLES], default=default)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps a contender and round")
    parser.add_argument("--hf-python", default=sys.executable)
    parser.add_argument("--ours-python", default=sys.executable)
    parser.add_argument("--serve", choices=sorted(SIDES), help=argparse.SUPPRESS)
    arguments, arguments.overrides = parser.parse_known_args()
    if arguments.serve:
        turns.serve((hf_steps if arguments.serve == "hf" else our_steps)(arguments))
        return
    config = configure(arguments)  # what it does not know is told before anything is started
    print(f"{Vocabulary.load(config.data.vocabulary).size:,} words", flush=True)
    pythons = {"hf": arguments.hf_python, "ours": arguments.ours_python}
    workers = {}
    for side, names in SIDES.items():
        names = [name for name in names if name in arguments.contenders]
        if not names:
            continue
        command = [pythons[side], os.path.abspath(__file__), f"--config={arguments.config}"]
        command += [f"--model={arguments.model}", f"--dtype={arguments.dtype}"]
        command += [f"--attention-dropout={arguments.attention_dropout}"]
        command += [*arguments.overrides, "--serve", side, "--contenders", *names]
        # As each is used: Hugging Face as it is, ours as the `xlmjax` command starts itself.
        environment = with_kept_memory(os.environ) if side == "ours" else dict(os.environ)
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # a GPU's memory is shared
        worker = turns.Worker(command, environment)
        workers.update(dict.fromkeys(names, worker))
    speeds = turns.measure(workers, arguments.rounds, arguments.steps)
    reference = "grouped" if "grouped" in workers else arguments.contenders[0]
    print(turns.table(speeds, TITLES, reference, "real tokens/s"))


if __name__ == "__main__":
    main()
