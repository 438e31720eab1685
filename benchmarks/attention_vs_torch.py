"""Attention on a GPU, forward and backward: ours, cuDNN's, and torch's.

    python benchmarks/attention_vs_torch.py --stores runs/wiki15/stores --lengths 512 2048

On rows that are one segment each (streams) and on rows of real pairs, packed (from --stores), in
bfloat16, 32,768 tokens a call and, but where it is said, nothing dropped. Torch's is its
`scaled_dot_product_attention`. TFLOP/s count 12 * sum(segment length^2) * width, without what a
kernel computes twice or in vain. `triton, all tiles` is our kernel told to compute every tile.
Torch and JAX live in one process and take turns; a turn is some calls, awaited at once. Before it
is timed, each is compared with float32 products; the error is of value and gradients the worst.
"""

import argparse
import fcntl
import functools
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch needs memory too

import jax
import jax.numpy as jnp
import numpy as np
import torch
import turns
from attention_blocks import segment_ids
from jax._src.cudnn.fused_attention_stablehlo import MaskType
from jax._src.cudnn.fused_attention_stablehlo import dot_product_attention as cudnn_attention

from xlmjax.data.store import TokenStore
from xlmjax.ops import attention_triton
from xlmjax.ops.attention import attention
from xlmjax.ops.dropout import Dropout, row_seeds

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # of a CPU only that this runs can be told
Arrays = tuple[np.ndarray, ...]
Run = Callable[[], Any]


def rows_of(kind: str, length: int, tokens: int, stores: pathlib.Path) -> np.ndarray:
    """Return segment ids [tokens / length, length]."""
    rows = tokens // length
    if kind == "streams":
        return np.ones((rows, length), np.int32)
    found = [TokenStore.open(path) for path in sorted(stores.glob("tlm.*/train"))]
    return segment_ids(found, "pack", length, -(-rows // len(found)))[:rows]


def ours(name: str, ids: np.ndarray, arrays: Arrays, rate: float = 0.0) -> Run:
    """Return value and gradients by an implementation of `ops.attention`."""
    drop = None
    if rate:
        drop = Dropout(row_seeds(jax.random.key(0), jnp.arange(len(ids))), rate)
    mix = functools.partial(attention, segment_ids=ids, implementation=name, dropout=drop)
    return _jax(mix, arrays)


def all_tiles(ids: np.ndarray, arrays: Arrays) -> Run:
    """Return our kernel with no tile skipped."""
    kept = attention_triton.shared_tiles

    def every(ids, kv_ids, causal, tile):
        return jnp.ones_like(kept(ids, kv_ids, causal, tile))

    attention_triton.shared_tiles = every
    try:
        run = ours("triton", ids, arrays)
        run()
    finally:
        attention_triton.shared_tiles = kept
    return run


def cudnn_without_mask(ids: np.ndarray, arrays: Arrays) -> Run:
    """Return cuDNN's kernel as JAX offers it, of whole rows."""
    del ids
    scale = arrays[0].shape[-1] ** -0.5
    return _jax(functools.partial(cudnn_attention, scale=scale), arrays)


def cudnn_of_segments(ids: np.ndarray, arrays: Arrays) -> Run:
    """Return cuDNN's kernel on packed segments, by JAX's private interface (Hopper only)."""
    most = int(ids.max()) + 2
    lengths = np.full((len(ids), most), -1, np.int32)
    offsets = np.full((len(ids), most + 1), -1, np.int32)
    for row, segments in enumerate(ids):
        present = np.unique(segments[segments > 0])
        starts = [int(np.argmax(segments == segment)) for segment in present]
        counts = [int((segments == segment).sum()) for segment in present]
        lengths[row, : len(counts)] = counts
        offsets[row, : len(starts)] = starts
        offsets[row, len(starts)] = starts[-1] + counts[-1]
    options = {
        "q_seqlen": lengths,
        "kv_seqlen": lengths,
        "q_offsets": offsets,
        "kv_offsets": offsets,
        "scale": arrays[0].shape[-1] ** -0.5,
    }
    mix = functools.partial(cudnn_attention, mask_type=MaskType.PADDING, **options)
    return _jax(mix, arrays)


def _jax(mix: Callable[..., jax.Array], arrays: Arrays) -> Run:
    q, k, v, direction = (jnp.asarray(x, jnp.bfloat16) for x in arrays)

    @jax.jit
    def run(q, k, v, direction):
        value, vjp = jax.vjp(mix, q, k, v)
        return value, *vjp(direction)

    return lambda: run(q, k, v, direction)


def torch_sdpa(ids: np.ndarray, arrays: Arrays) -> Run:
    """Return torch's: its flash kernel on streams, the one that takes masks on packed rows."""
    q, k, v, direction = (
        torch.tensor(x, device=DEVICE, dtype=torch.bfloat16).transpose(1, 2).contiguous()
        for x in arrays
    )
    for x in (q, k, v):
        x.requires_grad_()
    mask = None
    if (ids != ids[:, :1]).any():
        segments = torch.tensor(ids, device=DEVICE)
        mask = (segments[:, None, :, None] == segments[:, None, None, :]) & (
            segments[:, None, :, None] != 0
        )
        # A row without any key is NaN in torch: padding sees itself here.
        mask |= torch.eye(ids.shape[1], dtype=torch.bool, device=DEVICE)

    def run():
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out, *torch.autograd.grad(out, (q, k, v), direction)

    return run


def reference(ids: np.ndarray, arrays: Arrays) -> list[np.ndarray]:
    """Return value and gradients of the first row in float32."""
    q, k, v, direction = (jnp.asarray(x[:1], jnp.bfloat16).astype(jnp.float32) for x in arrays)
    mix = functools.partial(attention, segment_ids=ids[:1], implementation="xla")
    with jax.default_matmul_precision("highest"):
        value, vjp = jax.vjp(lambda q, k, v: mix(q, k, v), q, k, v)
        return [np.asarray(x) for x in (value, *vjp(direction))]


def error(found: Any, expected: list[np.ndarray], seen: np.ndarray) -> float:
    """Return the greatest norm of a difference over that of the reference, where a key is seen."""
    worst = 0.0
    for mine, right in zip(found, expected, strict=True):
        if isinstance(mine, torch.Tensor):
            mine = mine.detach()[:1].transpose(1, 2).float().cpu().numpy()
        difference = np.asarray(mine[:1], np.float32) - right
        worst = max(worst, float(np.linalg.norm(difference[:, seen]) / np.linalg.norm(right)))
    return worst


def seconds(run: Run, calls: int) -> float:
    """Return seconds a call."""
    start = time.perf_counter()
    for _ in range(calls):
        out = run()
    if isinstance(out[0], torch.Tensor):
        if DEVICE == "cuda":
            torch.cuda.synchronize()
    else:
        jax.block_until_ready(out)
    return (time.perf_counter() - start) / calls


def contenders(kind: str, length: int) -> dict[str, Callable[[np.ndarray, Arrays], Run]]:
    """Return who takes part: name -> what makes a run."""
    found: dict[str, Callable[[np.ndarray, Arrays], Run]] = {
        "torch": torch_sdpa,
        "cudnn": functools.partial(ours, "cudnn"),
        "triton": functools.partial(ours, "triton"),
        "triton, 0.1 dropped": functools.partial(ours, "triton", rate=0.1),
    }
    if kind == "streams":
        found |= {"triton, all tiles": all_tiles, "cudnn, no mask": cudnn_without_mask}
    else:
        found |= {"cudnn, packed": cudnn_of_segments}
    if length <= 2048:  # scores of all heads are in memory
        found |= {"xla": functools.partial(ours, "xla")}
        found |= {"xla, 0.1 dropped": functools.partial(ours, "xla", rate=0.1)}
    return found


def compare(kind: str, length: int, arguments: argparse.Namespace) -> None:
    """Measure one kind of rows of one length and print its lines of the table."""
    ids = rows_of(kind, length, arguments.tokens, arguments.stores)
    generator = np.random.default_rng(0)
    shape = (*ids.shape, arguments.heads, arguments.head_dim)
    arrays = tuple(generator.standard_normal(shape, np.float32) for _ in range(4))
    expected = reference(ids, arrays)
    seen = ids[0] != 0
    squares = sum(float((np.bincount(row)[1:].astype(float) ** 2).sum()) for row in ids)
    flops = 12 * squares * arguments.heads * arguments.head_dim
    runs, errors, speeds = {}, {}, {}
    for name, make in contenders(kind, length).items():
        try:
            run = make(ids, arrays)
            errors[name] = float("nan") if "dropped" in name else error(run(), expected, seen)
            seconds(run, 2)
        except Exception as fault:  # one that does not run here is a line of the table
            print(f"| {kind} {length} | {name} | {type(fault).__name__}: {str(fault)[:300]!r} |")
            continue
        runs[name], speeds[name] = run, []
    with turns.LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                speeds[name].append(seconds(run, arguments.calls))
    for name, found in speeds.items():
        ratios = [a / b for a, b in zip(speeds["torch"], found, strict=True)]
        print(
            f"| {kind} {length} | {name} | {statistics.median(found) * 1e3:.3f} "
            f"| {flops / statistics.median(found) / 1e12:.1f} "
            f"| {statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}] "
            f"| {errors[name]:.1e} |",
            flush=True,
        )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stores", type=pathlib.Path, default=pathlib.Path("runs/wiki15/stores"))
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096, 8192]
    )
    parser.add_argument("--kinds", nargs="+", default=["streams", "packed"])
    parser.add_argument("--tokens", type=int, default=32_768, help="a call")
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=5, help="a contender and round")
    arguments = parser.parse_args()
    device = jax.devices()[0].device_kind
    print(f"{device}, jax {jax.__version__}, torch {torch.__version__}")
    print("| rows | contender | ms | TFLOP/s | of torch | error |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind in arguments.kinds:
        for length in arguments.lengths:
            compare(kind, length, arguments)


if __name__ == "__main__":
    main()
