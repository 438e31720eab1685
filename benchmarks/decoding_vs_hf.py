"""Sentences a second of decoding on the CPU: xlmjax beside Hugging Face's `generate`, in turns.

    uv run --group parity python benchmarks/decoding_vs_hf.py --rounds 7 --threads 1

Both have random parameters, the same shape (encoder and decoder of 4 layers, width 128, one table
of 10,000 words; Hugging Face: Marian), the same sources of 32 tokens and the same beam, and write
exactly as many words for each: Hugging Face forbids an earlier end, ours never wants one (checked).
How the contenders take turns: turns.py.
"""

import argparse
import os
import sys

import numpy as np
import turns

from xlmjax.cli import with_kept_memory

VOCAB, WIDTH, LAYERS, HEADS, MLP = 10_000, 128, 4, 4, 512
PAD, EOS = 0, 1
TITLES = {
    "hf_greedy": "HF Marian, greedy",
    "greedy": "xlmjax, greedy",
    "hf_beam": "HF Marian, beam",
    "beam": "xlmjax, beam",
}
SIDES = {"hf": ("hf_greedy", "hf_beam"), "ours": ("greedy", "beam")}
ORDER = ("hf_greedy", "greedy"), ("hf_beam", "beam")


def sources(arguments: argparse.Namespace) -> np.ndarray:
    """Return int [rows, length] of sentences that end in the end symbol."""
    tokens = np.random.default_rng(0).integers(5, VOCAB, (arguments.rows, arguments.length))
    tokens[:, -1] = EOS
    return tokens


def our_steps(arguments: argparse.Namespace) -> dict[str, turns.Step]:
    """Return one step of each way to decode, which translates all sentences."""
    import jax
    import jax.numpy as jnp

    from xlmjax.models.beam import beam_search
    from xlmjax.models.config import ModelConfig
    from xlmjax.models.generation import Source, generate
    from xlmjax.models.seq2seq import EncoderDecoder

    cfg = ModelConfig(
        vocab_size=VOCAB,
        language_ids=(2, 4),
        pad_id=PAD,
        embed_dim=WIDTH,
        num_layers=LAYERS,
        decoder_layers=LAYERS,
        share_embeddings=True,
        num_heads=HEADS,
        mlp_dim=MLP,
        mlp="relu",
        positions="sinusoidal",
        dtype="float32",
    )
    model = jax.jit(lambda key: EncoderDecoder(cfg, key))(jax.random.key(0))
    head = model.decoder.head
    head.bias[...] = head.bias[...].at[EOS].set(-100.0)  # never ends by itself
    tokens = jnp.asarray(sources(arguments), jnp.int32)
    source = Source(tokens, jnp.ones_like(tokens), jnp.full_like(tokens, 4))
    fixed = {"max_length": arguments.length, "eos": EOS, "pad": PAD}
    targets, limits = jnp.full(arguments.rows, 2), jnp.full(arguments.rows, arguments.length)
    found = {
        "greedy": jax.jit(lambda m: generate(m, source, targets, limits, **fixed)),
        "beam": jax.jit(
            lambda m: beam_search(m, source, targets, limits, beams=arguments.beams, **fixed)
        ),
    }

    def step_of(run) -> turns.Step:
        if not (run(model).lengths == arguments.length).all():
            raise ValueError("an output is shorter than the limit")

        def step() -> float:
            return len(jax.block_until_ready(run(model)).tokens)

        return step

    return {name: step_of(run) for name, run in found.items()}


def hf_steps(arguments: argparse.Namespace) -> dict[str, turns.Step]:
    """Return the same of Hugging Face."""
    import torch
    from transformers import MarianConfig, MarianMTModel

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = MarianMTModel(
        MarianConfig(
            vocab_size=VOCAB,
            d_model=WIDTH,
            encoder_layers=LAYERS,
            decoder_layers=LAYERS,
            encoder_attention_heads=HEADS,
            decoder_attention_heads=HEADS,
            encoder_ffn_dim=MLP,
            decoder_ffn_dim=MLP,
            activation_function="relu",
            pad_token_id=PAD,
            eos_token_id=EOS,
            decoder_start_token_id=EOS,
            forced_eos_token_id=EOS,
        )
    ).eval()
    tokens = torch.tensor(sources(arguments))
    length = arguments.length

    def step_of(beams: int) -> turns.Step:
        def step() -> float:
            with torch.inference_mode():
                found = model.generate(
                    tokens,
                    attention_mask=torch.ones_like(tokens),
                    num_beams=beams,
                    do_sample=False,
                    min_length=length,
                    max_length=length,
                )
            if found.shape[1] != length:
                raise ValueError(f"outputs of {found.shape[1]} tokens, not {length}")
            return len(found)

        return step

    return {"hf_greedy": step_of(1), "hf_beam": step_of(arguments.beams)}


def main() -> None:
    """Parse the command line and measure, or serve one side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=32, help="sentences a batch")
    parser.add_argument("--length", type=int, default=32, help="tokens of sources and outputs")
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="batches in a turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--hf-python", default=sys.executable)
    parser.add_argument("--ours-python", default=sys.executable)
    parser.add_argument("--serve", choices=sorted(SIDES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        turns.serve((hf_steps if arguments.serve == "hf" else our_steps)(arguments))
        return
    for names in ORDER:
        workers = {}
        for name in names:
            side = "hf" if name in SIDES["hf"] else "ours"
            python = arguments.hf_python if side == "hf" else arguments.ours_python
            command = [python, os.path.abspath(__file__), *sys.argv[1:], "--serve", side]
            environment = with_kept_memory(os.environ) if side == "ours" else os.environ
            workers[name] = turns.Worker(command, environment)
        speeds = turns.measure(workers, arguments.rounds, arguments.steps)
        print(turns.table(speeds, TITLES, names[0], "sentences/s"), "\n", flush=True)


if __name__ == "__main__":
    main()
