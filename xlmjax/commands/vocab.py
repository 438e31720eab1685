"""`xlmjax vocab`: the SentencePiece vocabulary of a run."""

import argparse
import pathlib
import time

from ml_collections import ConfigDict

from xlmjax.preparation import train_vocabulary, vocabulary_subset
from xlmjax.preparation.vocabulary_text import format_sample

HELP = """Train the SentencePiece vocabulary that config.vocab describes, on the training text of
all languages and both sides of all pairs, sampled with q ~ p^vocab.alpha, or take the pieces of
vocab.subset_of that this text needs most; writes data.vocabulary."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace an existing vocabulary; what was made with it is then of no use",
    )


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Make and save; prints lines and share a language."""
    path = pathlib.Path(config.data.vocabulary)
    if path.exists() and not getattr(args, "force", False):
        raise ValueError(
            f"data.vocabulary={path} exists, and stores and checkpoints depend on it; name another "
            "file or pass --force"
        )
    started = time.monotonic()
    if config.vocab.subset_of:
        vocabulary, sample, kept = vocabulary_subset.take_subset(config)
        origin = str(kept)
    else:
        vocabulary, sample = train_vocabulary.train(config)
        origin = f"({config.vocab.kind})"
    train_vocabulary.save(vocabulary, path)
    print(format_sample(sample))
    print(
        f"{path}: {vocabulary.size:,} pieces {origin}, fingerprint {vocabulary.fingerprint}, "
        f"{time.monotonic() - started:.0f} s"
    )
