"""A whole run in miniature: vocabulary, stores of two languages and a pair, and a config."""

import functools
import io
import json
import pathlib

import numpy as np
import sentencepiece

from tests.stores import write_store
from xlmjax.configs import base
from xlmjax.data.vocabulary import Vocabulary

TASKS = {"mlm": ("mlm.en", "mlm.fr"), "tlm": ("tlm.en_fr",)}


@functools.lru_cache
def _vocabulary() -> bytes:
    words = [a + b + c for a in "bdgkln" for b in "aeiou" for c in ("", "n", "ra")]
    generator = np.random.default_rng(0)
    lines = (" ".join(generator.choice(words, size=6)) for _ in range(300))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=model,
        vocab_size=60,
        bos_id=0,
        eos_id=1,
        pad_id=2,
        unk_id=3,
        control_symbols=["<mask>"],
        minloglevel=2,
        num_threads=1,
    )
    return model.getvalue()


def write_data(folder: pathlib.Path) -> None:
    """Write a vocabulary and finished stores."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocabulary.model").write_bytes(_vocabulary())
    fingerprint = Vocabulary.load(folder / "vocabulary.model").fingerprint
    rng = np.random.default_rng(1)

    def sentences(count):
        return [rng.integers(5, 60, size=rng.integers(2, 9)).tolist() for _ in range(count)]

    for split, count in (("train", 90), ("validation", 17)):
        for code in ("en", "fr"):
            write_store(
                folder / "stores" / f"mlm.{code}" / split,
                {"tokens": sentences(count)},
                {"tokens": code},
                task=f"mlm.{code}",
                split=split,
                vocabulary=fingerprint,
            )
        write_store(
            folder / "stores" / "tlm.en_fr" / split,
            {"tokens": sentences(count), "target_tokens": sentences(count)},
            {"tokens": "en", "target_tokens": "fr"},
            task="tlm.en_fr",
            split=split,
            vocabulary=fingerprint,
        )
    mixtures = {name: {"tasks": list(tasks), "rates": None} for name, tasks in TASKS.items()}
    for task in (name for tasks in TASKS.values() for name in tasks):
        mixtures[task] = {"tasks": [task], "rates": None}
    (folder / "stores" / "mixture.json").write_text(json.dumps(mixtures))


def small_config(folder: pathlib.Path, **flat):
    """Return a config that reads `write_data(folder)`; `flat` has dots as double underscores."""
    config = base.get_config()
    config.data.languages = ("en", "fr")
    config.data.pairs = ("en-fr",)
    config.data.mixture = ("mlm", "tlm")
    config.data.vocabulary = str(folder / "vocabulary.model")
    config.data.stores = str(folder / "stores")
    config.data.auto_prepare = False
    config.model.embed_dim = 16
    config.model.num_layers = 2
    config.model.num_heads = 4
    config.model.mlp_dim = 24
    config.model.max_positions = 32
    config.model.dtype = "float32"
    config.optimizer.learning_rate = 1e-2
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 0
    config.train.num_steps = 6
    config.train.rows = 8
    config.train.length = 24
    config.checkpoint.every = 2
    config.log.every = 2
    config.log.progress = "none"
    config.log.tensorboard = False
    config.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in flat.items()}
    )
    return config
