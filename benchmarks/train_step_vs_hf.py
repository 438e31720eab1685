"""Train step on the CPU: xlmjax beside Hugging Face XLM and XLM-R, taking turns, in float32.

    python benchmarks/train_step_vs_hf.py --model A --rounds 9
    python benchmarks/train_step_vs_hf.py --model B --ours-python .venv-312/bin/python

A step is masking (ours) or ready-made masks (theirs), forward, backward, clipping at norm 5 and
Adam, with dropout 0.1 everywhere, attention weights included, on full rows of random tokens. Each
side lives in a process of its own, so that a jax on another Python than torch's can be measured;
only one of them works at a time. In every round each contender runs a few steps; the ratio of a
round is its speed over that of the reference contender in the same round, so that a noisy machine
hurts all alike. The table gives the median and the range of these ratios.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

DROPOUT = 0.1
RATE = 0.15
CLIP = 5.0
LEARNING_RATE = 1e-4
PAD, EOS, MASK = 2, 1, 5


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of one benchmark model and its batch."""

    embed_dim: int
    vocab_size: int
    rows: int
    length: int
    num_layers: int = 6
    num_heads: int = 8

    @property
    def tokens(self) -> int:
        """Tokens a step."""
        return self.rows * self.length


SIZES = {"A": Size(256, 8_192, 32, 128), "B": Size(512, 32_000, 16, 256)}
HF = {
    "hf-xlm": "HF XLM, as shipped",
    "hf-xlmr": "HF XLM-R, as shipped",
    "hf-xlmr-gathered": "HF XLM-R, gathered masked head",
}
OURS = {"xlmjax": "xlmjax"}
REFERENCE = "hf-xlmr-gathered"

Step = Callable[[], float]


def hf_steps(size: Size, names: list[str], threads: int) -> dict[str, Step]:
    """Return a train step of each Hugging Face contender."""
    import numpy as np
    import torch
    from transformers import XLMConfig, XLMRobertaConfig, XLMRobertaForMaskedLM, XLMWithLMHeadModel

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    shape = (size.rows, size.length)
    tokens = generator.integers(6, size.vocab_size, shape)
    slots = -(-size.length * 15 // 100)
    picks = np.stack([generator.permutation(size.length)[:slots] for _ in range(size.rows)])
    flat = torch.tensor((np.arange(size.rows)[:, None] * size.length + picks).reshape(-1))
    labels = torch.full(shape, -100)
    labels.view(-1)[flat] = torch.tensor(tokens).view(-1)[flat]
    inputs = torch.tensor(tokens)
    inputs.view(-1)[flat] = MASK

    def model_of(name: str):
        if name == "hf-xlm":
            config = XLMConfig(
                vocab_size=size.vocab_size,
                emb_dim=size.embed_dim,
                n_layers=size.num_layers,
                n_heads=size.num_heads,
                dropout=DROPOUT,
                attention_dropout=DROPOUT,
                gelu_activation=True,
                pad_index=PAD,
                eos_index=EOS,
                mask_index=MASK,
            )
            return XLMWithLMHeadModel(config)
        config = XLMRobertaConfig(
            vocab_size=size.vocab_size,
            hidden_size=size.embed_dim,
            num_hidden_layers=size.num_layers,
            num_attention_heads=size.num_heads,
            intermediate_size=4 * size.embed_dim,
            hidden_dropout_prob=DROPOUT,
            attention_probs_dropout_prob=DROPOUT,
            max_position_embeddings=514,
            type_vocab_size=1,
            pad_token_id=PAD,
            bos_token_id=0,
            eos_token_id=EOS,
        )
        return XLMRobertaForMaskedLM(config)

    def step_of(name: str) -> Step:
        model = model_of(name).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)

        def loss() -> torch.Tensor:
            if name != "hf-xlmr-gathered":
                return model(input_ids=inputs, labels=labels).loss
            hidden = model.roberta(input_ids=inputs)[0].reshape(-1, size.embed_dim)[flat]
            return torch.nn.functional.cross_entropy(model.lm_head(hidden), labels.view(-1)[flat])

        def step() -> float:
            optimizer.zero_grad(set_to_none=True)
            value = loss()
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            return value.item()

        return step

    return {name: step_of(name) for name in names}


def our_steps(size: Size, names: list[str], threads: int) -> dict[str, Step]:
    """Return our train step. XLA takes the cores that the process is bound to."""
    del threads
    import functools

    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from xlmjax.configs import base
    from xlmjax.models.config import ModelConfig
    from xlmjax.models.xlm import XLM
    from xlmjax.objectives import MaskedLanguageModel, Specials

    config = base.get_config()
    config.model.update(
        embed_dim=size.embed_dim,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        dropout=DROPOUT,
        attention_dropout=DROPOUT,
        dtype="float32",
    )
    config.model.update(json.loads(os.environ.get("MODEL", "{}")))
    generator = np.random.default_rng(0)
    shape = (size.rows, size.length)
    batch = {
        "tokens": generator.integers(6, size.vocab_size, shape),
        "positions": np.broadcast_to(np.arange(size.length), shape),
        "segment_ids": np.ones(shape),
        "language_ids": np.zeros(shape),
        "row_ids": np.arange(size.rows),
        "task_ids": np.zeros(size.rows),
    }
    batch = {name: jnp.asarray(value, jnp.int32) for name, value in batch.items()}
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(LEARNING_RATE))
    specials = Specials(pad=PAD, eos=EOS, mask=MASK, size=size.vocab_size)
    objective = MaskedLanguageModel.from_config(config.objectives.mlm, specials)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(model, state, batch, key, number):
        def loss_fn(model):
            out = objective.loss(model, batch, jax.random.fold_in(key, number), number)
            return out.sum / out.weight

        loss, gradient = jax.value_and_grad(loss_fn)(model)
        updates, state = optimizer.update(gradient, state, model)
        return optax.apply_updates(model, updates), state, loss

    def step_of(name: str) -> Step:
        del name
        cfg = ModelConfig.from_config(
            config.model, vocab_size=size.vocab_size, language_ids=(0,), pad_id=PAD
        )
        model = jax.jit(lambda key: XLM(cfg, key))(jax.random.key(0))
        held = [model, jax.jit(optimizer.init)(model), 0]

        def step() -> float:
            held[0], held[1], loss = update(*held[:2], batch, jax.random.key(1), held[2])
            held[2] += 1
            return float(loss)

        return step

    return {name: step_of(name) for name in names}


def serve(side: str, size: Size, names: list[str], threads: int) -> None:
    """Run steps as told, one JSON request a line: [contender, number of steps] -> seconds."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print; answers are the protocol
    steps = (hf_steps if side == "hf" else our_steps)(size, names, threads)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        name, count = json.loads(line)
        start = time.perf_counter()
        for _ in range(count):
            loss = steps[name]()
        print(json.dumps([time.perf_counter() - start, loss]), file=answers, flush=True)


class Worker:
    """A resident process that runs the steps of one side."""

    def __init__(self, python: str, side: str, arguments: argparse.Namespace, names: list[str]):
        command = [python, os.path.abspath(__file__), "--serve", side, "--contenders", *names]
        command += ["--model", arguments.model, "--threads", str(arguments.threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"the {side} side did not start; its message is above")

    def seconds(self, name: str, steps: int) -> float:
        """Run some steps of a contender and return how long they took."""
        self.process.stdin.write(json.dumps([name, steps]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())[0]

    def close(self) -> None:
        """Let the process end."""
        self.process.stdin.close()
        self.process.wait()


def measure(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Return tokens a second of every contender in every round."""
    size = SIZES[arguments.model]
    sides = {
        "hf": (arguments.hf_python, [name for name in arguments.contenders if name in HF]),
        "ours": (arguments.ours_python, [name for name in arguments.contenders if name in OURS]),
    }
    workers = {}
    for side, (python, names) in sides.items():
        if names:
            worker = Worker(python, side, arguments, names)
            workers.update(dict.fromkeys(names, worker))
    for name, worker in workers.items():
        worker.seconds(name, 2)  # compile and warm up
    speeds = {name: [] for name in arguments.contenders}
    for _ in range(arguments.rounds):
        for name, worker in workers.items():
            seconds = worker.seconds(name, arguments.steps)
            speeds[name].append(arguments.steps * size.tokens / seconds)
    for worker in set(workers.values()):
        worker.close()
    return speeds


def table(speeds: dict[str, list[float]], reference: str) -> str:
    """Return a markdown table of speeds and of ratios to the reference contender."""
    lines = [f"| contender | tokens/s | ratio to {reference} |", "| --- | --- | --- |"]
    for name, values in speeds.items():
        ratios = [a / b for a, b in zip(values, speeds[reference], strict=True)]
        lines.append(
            f"| {(HF | OURS)[name]} | {statistics.median(values):,.0f} "
            f"| {statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}] |"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse the command line and measure, or serve one side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [*HF, *OURS]
    parser.add_argument("--model", choices=sorted(SIZES), default="A")
    parser.add_argument("--contenders", nargs="+", choices=known, default=known)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps a contender and round")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--hf-python", default=sys.executable)
    parser.add_argument("--ours-python", default=sys.executable)
    parser.add_argument("--serve", choices=("hf", "ours"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, SIZES[arguments.model], arguments.contenders, arguments.threads)
        return
    reference = REFERENCE if REFERENCE in arguments.contenders else arguments.contenders[0]
    print(table(measure(arguments), reference))


if __name__ == "__main__":
    main()
