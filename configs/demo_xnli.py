"""Inference on generated text: fine-tuned in English, scored in five languages, in two minutes.

  xlmjax train --config=demo_xnli:init=runs/demo/mlm_tlm --workdir=runs/demo/xnli_mlm_tlm

The encoder is that of configs/demo.py, pretrained by `xlmjax demo`, which goes on to this. Texts
and labels come from the same grammar (xlmjax/preparation/demo_text.py). The pretraining of the
demo does not align the languages enough for zero-shot transfer yet (docs/results.md).
"""

from ml_collections import ConfigDict

from xlmjax.configs import base, demo, xnli


def get_config(arg: str = "") -> ConfigDict:
    """Return the experiment; `arg`: init=WORKDIR of pretraining, its size and recipe."""
    choice = base.parse(arg, init="", size="tiny", recipe="modern")
    config = demo.get_config(f"size={choice.size},recipe={choice.recipe}")
    config.data.mixture = ("demo.xnli.en",)
    tasks = tuple(f"demo.xnli.{code}" for code in demo.LANGUAGES)
    xnli.fine_tune(config, choice.init, tasks, every=150)
    config.model.pooling = "mean"
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 20
    config.optimizer.scales = (("embeddings/.*", 0.0), (".*", 1.0))
    config.train.num_steps = 300
    config.checkpoint.every = 150
    return config
