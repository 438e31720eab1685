"""Inference on generated text: fine-tuned in English, scored in five languages.

  xlmjax train --config=demo_xnli:init=runs/demo/mlm_tlm --workdir=runs/demo/xnli_mlm_tlm

The encoder is that of configs/demo.py, pretrained by `xlmjax demo`, which does this too. Texts and
labels come from the same grammar (xlmjax/preparation/demo_inference.py). Measured results:
docs/results.md.
"""

from ml_collections import ConfigDict

from xlmjax.configs import base, demo, xnli


def get_config(arg: str = "") -> ConfigDict:
    """Return the experiment; `arg`: init=WORKDIR of pretraining, its size and recipe."""
    choice = base.parse(arg, init="", size="tiny", recipe="modern")
    config = demo.get_config(f"size={choice.size},recipe={choice.recipe}")
    config.data.mixture = ("demo.xnli.en",)
    tasks = tuple(f"demo.xnli.{code}" for code in demo.LANGUAGES)
    xnli.fine_tune(config, choice.init, tasks, every=100)
    # Measured: from the first state or the mean, and with Muon, less is left in other languages.
    config.model.pooling = "difference"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 20
    if choice.init:
        config.optimizer.scales = xnli.TABLE_FROZEN
    config.train.num_steps = 200
    config.checkpoint.every = 100
    return config
