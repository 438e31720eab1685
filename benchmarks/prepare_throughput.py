"""MB of raw text a second that one core makes into token stores: `prepare` without its start-up.

    python benchmarks/prepare_throughput.py --text='../shared/data/wiki/{lang}.txt.gz'

Trains a vocabulary of `--vocab-size` pieces on the text (or takes `--vocabulary`), then writes one
shard a language in this process, bound to one core: reading, cleaning, tokenising, writing, fsync
and checksum. The column `tf.data` is the same task read with `get_dataset` in batches. Raw text is
counted before cleaning, uncompressed; each figure is the best of `--rounds`.
"""

import argparse
import os
import pathlib
import tempfile
import time
from collections.abc import Callable

from xlmjax.configs import base
from xlmjax.data.store_writer import StoreWriter
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.languages import XNLI
from xlmjax.preparation import shards, train_vocabulary


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--text", default="../shared/data/wiki/{lang}.txt.gz")
    parser.add_argument("--languages", default=",".join(XNLI))
    parser.add_argument("--vocabulary", default="", help="an existing SentencePiece model")
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(args, pathlib.Path(folder))


def measure(args: argparse.Namespace, folder: pathlib.Path) -> None:
    """Write one store a language into `folder` and print the speeds."""
    config = base.get_config()
    config.data.languages = tuple(args.languages.split(","))
    config.data.train.text = (f"text:{args.text}",)
    config.data.validation.text = ()
    config.data.vocabulary = args.vocabulary or str(folder / "vocabulary.model")
    config.vocab.size = args.vocab_size
    if not args.vocabulary:
        train_vocabulary.save(train_vocabulary.train(config)[0], config.data.vocabulary)
    vocabulary = Vocabulary.load(config.data.vocabulary)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"{vocabulary.size:,} pieces, one core, load {os.getloadavg()[0]:.1f}")
    print(f"{'language':<10}{'raw MB':>8}{'tokens':>12}{'prepare MB/s':>14}{'tf.data MB/s':>14}")
    totals = [0.0, 0.0, 0.0]
    for code in config.data.languages:
        settings = config.to_dict()
        plan = shards.describe(settings, f"mlm.{code}", "train")
        megabytes = sum(scan.text_bytes for scan in plan.scans) / 1e6
        writer = StoreWriter(
            folder / code,
            plan.task,
            plan.split,
            plan.kind,
            plan.features,
            plan.vocabulary,
            plan.source_fingerprint,
            num_shards=1,
        )
        writer.start()
        job = shards.ShardJob(settings, plan.scans, writer, index=0)
        direct = best(args.rounds, lambda job=job: shards.write_shard(job))
        through_seqio = best(args.rounds, lambda code=code: read(code))
        tokens = writer.finish().tokens["tokens"]
        totals = [totals[0] + megabytes, totals[1] + direct, totals[2] + through_seqio]
        print(
            f"{code:<10}{megabytes:>8.2f}{tokens:>12,}{megabytes / direct:>14.2f}"
            f"{megabytes / through_seqio:>14.2f}"
        )
    megabytes, direct, through_seqio = totals
    print(
        f"{'all':<10}{megabytes:>8.2f}{'':>12}{megabytes / direct:>14.2f}"
        f"{megabytes / through_seqio:>14.2f}"
    )


def best(rounds: int, run: Callable[[], object]) -> float:
    """Return the least seconds of some runs."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def read(code: str) -> None:
    """Read a task through seqio and tf.data."""
    import seqio

    task = seqio.get_mixture_or_task(f"mlm.{code}")
    dataset = task.get_dataset(split="train", shuffle=False, try_in_mem_cache=False)
    for batch in dataset.ragged_batch(512):
        batch["tokens"].flat_values.numpy()


if __name__ == "__main__":
    main()
