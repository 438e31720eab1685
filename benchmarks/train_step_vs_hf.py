"""Train step on the CPU: xlmjax beside Hugging Face XLM and XLM-R, taking turns, in float32.

    uv run --group parity python benchmarks/train_step_vs_hf.py --model A --rounds 9
    uv run --group parity python benchmarks/train_step_vs_hf.py --ours-python .venv-312/bin/python

A step is masking (ours) or ready-made masks (theirs), forward, backward, clipping at norm 5 and
Adam, with dropout 0.1 everywhere, attention weights included, on full rows of random tokens. How
the contenders take turns: turns.py.
"""

import argparse
import dataclasses
import os
import sys

import turns

from xlmjax.cli import with_kept_memory

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


def hf_steps(size: Size, names: list[str], threads: int) -> dict[str, turns.Step]:
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

    def step_of(name: str) -> turns.Step:
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
            value.item()  # waits for the step
            return size.tokens

        return step

    return {name: step_of(name) for name in names}


def our_steps(size: Size, names: list[str], threads: int) -> dict[str, turns.Step]:
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

    def step_of(name: str) -> turns.Step:
        del name
        cfg = ModelConfig.from_config(
            config.model, vocab_size=size.vocab_size, language_ids=(0,), pad_id=PAD
        )
        model = jax.jit(lambda key: XLM(cfg, key))(jax.random.key(0))
        held = [model, jax.jit(optimizer.init)(model), 0]

        def step() -> float:
            held[0], held[1], loss = update(*held[:2], batch, jax.random.key(1), held[2])
            held[2] += 1
            jax.block_until_ready(loss)
            return size.tokens

        return step

    return {name: step_of(name) for name in names}


def measure(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Return tokens a second of every contender in every round."""
    sides = {"hf": (arguments.hf_python, HF), "ours": (arguments.ours_python, OURS)}
    workers = {}
    for side, (python, known) in sides.items():
        names = [name for name in arguments.contenders if name in known]
        if names:
            command = [python, os.path.abspath(__file__), "--serve", side, "--contenders", *names]
            command += ["--model", arguments.model, "--threads", str(arguments.threads)]
            # As each is used: Hugging Face as it is, ours as the `xlmjax` command starts itself.
            environment = with_kept_memory(os.environ) if side == "ours" else os.environ
            workers.update(dict.fromkeys(names, turns.Worker(command, environment)))
    return turns.measure(workers, arguments.rounds, arguments.steps)


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
        make = hf_steps if arguments.serve == "hf" else our_steps
        turns.serve(make(SIZES[arguments.model], arguments.contenders, arguments.threads))
        return
    reference = REFERENCE if REFERENCE in arguments.contenders else arguments.contenders[0]
    print(turns.table(measure(arguments), HF | OURS, reference, "tokens/s"))


if __name__ == "__main__":
    main()
