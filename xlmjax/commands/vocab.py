"""`xlmjax vocab`: the SentencePiece vocabulary of a run."""

import argparse
import pathlib
import time

from ml_collections import ConfigDict

from xlmjax.preparation import train_vocabulary

HELP = """Train the SentencePiece vocabulary that config.vocab describes, on the training text of
all languages and both sides of all pairs, sampled with q ~ p^vocab.alpha; writes
data.vocabulary."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace an existing vocabulary; what was made with it is then of no use",
    )


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Train and save; prints lines and share a language."""
    path = pathlib.Path(config.data.vocabulary)
    if path.exists() and not getattr(args, "force", False):
        raise ValueError(
            f"data.vocabulary={path} exists, and stores and checkpoints depend on it; name another "
            "file or pass --force"
        )
    started = time.monotonic()
    vocabulary, sample = train_vocabulary.train(config)
    train_vocabulary.save(vocabulary, path)
    print(train_vocabulary.format_sample(sample))
    print(
        f"{path}: {vocabulary.size:,} pieces ({config.vocab.kind}), fingerprint "
        f"{vocabulary.fingerprint}, {time.monotonic() - started:.0f} s"
    )
