"""Train step: xlmjax beside Hugging Face XLM and XLM-R, taking turns, on the CPU or a GPU.

    uv run --group parity python benchmarks/train_step_vs_hf.py --model A --rounds 9
    uv run --group parity python benchmarks/train_step_vs_hf.py --ours-python .venv-312/bin/python
    python benchmarks/train_step_vs_hf.py --model body --dtype bfloat16 --attention-dropout 0 \
        --contenders hf-xlmr-gathered xlmjax --stores runs/wiki15/stores          # on a GPU

A step is masking (ours) or ready-made masks (theirs), forward, backward, clipping at norm 5 and
Adam, with dropout 0.1, on full rows, of random tokens or of text (--stores). In bfloat16 theirs is
torch's autocast. FLOPs are those of `ModelConfig.flops_per_token`, the same for all. Each side has
a process of its own (--apart: each contender). How they take turns: turns.py.
"""

import argparse
import dataclasses
import os
import pathlib
import sys

import numpy as np
import turns

from xlmjax.cli import with_kept_memory
from xlmjax.throughput.timing import utilization

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


SIZES = {
    "A": Size(256, 8_192, 32, 128),
    "B": Size(512, 32_000, 16, 256),
    # For a GPU: 113M parameters in the body, with two vocabularies; XLM-15.
    "body": Size(768, 50_000, 16, 1024, num_layers=16, num_heads=12),
    "wide": Size(768, 256_000, 16, 1024, num_layers=16, num_heads=12),
    "xlm15": Size(1024, 95_000, 64, 256, num_layers=12, num_heads=8),
}
HF = {
    "hf-xlm": "HF XLM, as shipped",
    "hf-xlmr": "HF XLM-R, as shipped",
    "hf-xlmr-gathered": "HF XLM-R, gathered masked head",
    "hf-xlmr-compiled": "HF XLM-R, gathered masked head, torch.compile",
}
OURS = {  # behind the dash: model.attention
    "xlmjax": "xlmjax",
    "xlmjax-cudnn": "xlmjax, attention of cuDNN",
    "xlmjax-triton": "xlmjax, our attention",
    "xlmjax-xla": "xlmjax, plain attention",
}
REFERENCE = "hf-xlmr-gathered"


def rows_of_tokens(size: Size, stores: pathlib.Path | None) -> np.ndarray:
    """Return tokens [rows, length]: of streams of the text of all languages, or random ones."""
    shape = (size.rows, size.length)
    if stores is None:
        return np.random.default_rng(0).integers(6, size.vocab_size, shape)
    from xlmjax.data.features import TEXT, TOKENS
    from xlmjax.data.layout import Delimiters, make_layout
    from xlmjax.data.mixture import empty_batch
    from xlmjax.data.store import TokenStore

    found = [TokenStore.open(path) for path in sorted(stores.glob("mlm.*/train"))]
    layouts = [make_layout("stream", store, size.length, Delimiters(EOS, PAD)) for store in found]
    batch = empty_batch(size.rows, size.length, TEXT)
    for row in range(size.rows):
        layout, numbers = layouts[row % len(layouts)], np.array([row // len(layouts)])
        layout.fill(
            numbers, np.zeros_like(numbers), {k: v[row : row + 1] for k, v in batch.items()}
        )
    return batch[TOKENS].astype(np.int64)


def xlm_r(size: Size, vocab_size: int, pad: int, attention_dropout: float = DROPOUT):
    """Return Hugging Face's XLM-R of a size, with random parameters."""
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    config = XLMRobertaConfig(
        vocab_size=vocab_size,
        hidden_size=size.embed_dim,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        intermediate_size=4 * size.embed_dim,
        hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=attention_dropout,
        max_position_embeddings=size.length + pad + 1,  # its positions begin behind that
        type_vocab_size=1,
        pad_token_id=pad,
    )
    return XLMRobertaForMaskedLM(config)


def hf_steps(arguments: argparse.Namespace, names: list[str]) -> dict[str, turns.Step]:
    """Return a train step of each Hugging Face contender."""
    import torch
    from transformers import XLMConfig, XLMWithLMHeadModel

    size = SIZES[arguments.model]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    autocast = torch.autocast(device.type, torch.bfloat16, arguments.dtype == "bfloat16")
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("high")  # as JAX does on GPUs
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    tokens = rows_of_tokens(size, arguments.stores)
    shape = tokens.shape
    slots = -(-size.length * 15 // 100)
    picks = np.stack([generator.permutation(size.length)[:slots] for _ in range(size.rows)])
    flat = torch.tensor((np.arange(size.rows)[:, None] * size.length + picks).reshape(-1))
    labels = torch.full(shape, -100)
    labels.view(-1)[flat] = torch.tensor(tokens).view(-1)[flat]
    inputs = torch.tensor(tokens)
    inputs.view(-1)[flat] = MASK
    flat, labels, inputs = flat.to(device), labels.to(device), inputs.to(device)

    def model_of(name: str):
        if name == "hf-xlm":
            config = XLMConfig(
                vocab_size=size.vocab_size,
                emb_dim=size.embed_dim,
                n_layers=size.num_layers,
                n_heads=size.num_heads,
                dropout=DROPOUT,
                attention_dropout=arguments.attention_dropout,
                gelu_activation=True,
                pad_index=PAD,
                eos_index=EOS,
                mask_index=MASK,
            )
            return XLMWithLMHeadModel(config)
        return xlm_r(size, size.vocab_size, PAD, arguments.attention_dropout)

    def step_of(name: str) -> turns.Step:
        model = model_of(name).train().to(device)
        optimizer = torch.optim.Adam(
            model.parameters(), lr=LEARNING_RATE, fused=device.type == "cuda"
        )

        def gathered() -> torch.Tensor:
            hidden = model.roberta(input_ids=inputs)[0].reshape(-1, size.embed_dim)[flat]
            return torch.nn.functional.cross_entropy(model.lm_head(hidden), labels.view(-1)[flat])

        def loss() -> torch.Tensor:
            if name in ("hf-xlm", "hf-xlmr"):
                return model(input_ids=inputs, labels=labels).loss
            return gathered()

        if name == "hf-xlmr-compiled":
            loss = torch.compile(loss)

        def step() -> float:
            optimizer.zero_grad(set_to_none=True)
            with autocast:
                value = loss()
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            value.item()  # waits for the step
            return size.tokens

        return step

    return {name: step_of(name) for name in names}


def our_steps(arguments: argparse.Namespace, names: list[str]) -> dict[str, turns.Step]:
    """Return our train steps. XLA takes the cores that the process is bound to."""
    import functools

    import jax
    import jax.numpy as jnp
    import optax

    from xlmjax.models.xlm import XLM
    from xlmjax.objectives import MaskedLanguageModel, Specials

    size = SIZES[arguments.model]
    config = our_config(arguments)
    shape = (size.rows, size.length)
    batch = {
        "tokens": rows_of_tokens(size, arguments.stores),
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
        cfg = our_model(config, size, name.partition("-")[2] or "auto")
        model = jax.jit(lambda key: XLM(cfg, key))(jax.random.key(0))
        held = [model, jax.jit(optimizer.init)(model), 0]

        def step() -> float:
            held[0], held[1], loss = update(*held[:2], batch, jax.random.key(1), held[2])
            held[2] += 1
            jax.block_until_ready(loss)
            return size.tokens

        return step

    return {name: step_of(name) for name in names}


def our_config(arguments: argparse.Namespace):
    """Return the experiment's config, of XLM's recipe."""
    from xlmjax.configs import base

    size, config = SIZES[arguments.model], base.get_config()
    config.model.update(
        embed_dim=size.embed_dim,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        max_positions=max(size.length, 512),
        dropout=DROPOUT,
        attention_dropout=arguments.attention_dropout,
        dtype=arguments.dtype,
    )
    return config


def our_model(config, size: Size, attention: str = "auto"):
    """Return the `ModelConfig` of a size."""
    from xlmjax.models.config import ModelConfig

    model = config.model.copy_and_resolve_references()
    model.attention = attention
    return ModelConfig.from_config(model, vocab_size=size.vocab_size, language_ids=(0,), pad_id=PAD)


def measure(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Return tokens a second of every contender in every round."""
    sides = {"hf": (arguments.hf_python, HF), "ours": (arguments.ours_python, OURS)}
    workers = {}
    for side, (python, known) in sides.items():
        names = [name for name in arguments.contenders if name in known]
        command = [python, os.path.abspath(__file__), "--serve", side, "--model", arguments.model]
        command += ["--threads", str(arguments.threads), "--dtype", arguments.dtype]
        command += ["--attention-dropout", str(arguments.attention_dropout)]
        command += ["--stores", str(arguments.stores)] if arguments.stores else []
        # As each is used: Hugging Face as it is, ours as the `xlmjax` command starts itself.
        environment = with_kept_memory(os.environ) if side == "ours" else dict(os.environ)
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # a GPU's memory is shared
        groups = [[name] for name in names] if arguments.apart else [names]
        for group in filter(None, groups):
            worker = turns.Worker([*command, "--contenders", *group], environment)
            workers.update(dict.fromkeys(group, worker))
    return turns.measure(workers, arguments.rounds, arguments.steps)


def amounts(arguments: argparse.Namespace, speeds: dict[str, list[float]]) -> list[str]:
    """Return a line a contender of what its speed amounts to."""
    size = SIZES[arguments.model]
    cfg = our_model(our_config(arguments), size)
    flops = cfg.flops_per_token(size.length, -(-size.length * 15 // 100) / size.length)
    lines = [f"{cfg.num_parameters() / 1e6:,.1f}M parameters, {flops / 1e6:,.1f} MFLOP a token"]
    for name, values in speeds.items():
        rate = float(np.median(values)) * flops
        share = utilization(rate)
        peak = "" if share is None else f", {share:.1%} of the peak"
        lines.append(f"{(HF | OURS)[name]}: {rate / 1e12:,.3g} TFLOP/s{peak}")
    return lines


def main() -> None:
    """Parse the command line and measure, or serve one side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [*HF, *OURS]
    parser.add_argument("--model", choices=sorted(SIZES), default="A")
    default = ["hf-xlm", "hf-xlmr", "hf-xlmr-gathered", "xlmjax"]
    parser.add_argument("--contenders", nargs="+", choices=known, default=default)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--attention-dropout", type=float, default=DROPOUT)
    parser.add_argument("--stores", type=pathlib.Path, help="of prepared text, tasks mlm.*")
    parser.add_argument("--apart", action="store_true", help="a process for each contender")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps a contender and round")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--hf-python", default=sys.executable)
    parser.add_argument("--ours-python", default=sys.executable)
    parser.add_argument("--serve", choices=("hf", "ours"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        make = hf_steps if arguments.serve == "hf" else our_steps
        turns.serve(make(arguments, arguments.contenders))
        return
    reference = REFERENCE if REFERENCE in arguments.contenders else arguments.contenders[0]
    speeds = measure(arguments)
    print(turns.table(speeds, HF | OURS, reference, "tokens/s"))
    for line in amounts(arguments, speeds):
        print(line)


if __name__ == "__main__":
    main()
