"""The whole method on generated text, in minutes on two cores; `xlmjax demo` runs it.

  xlmjax train --config=demo:objective=mlm_tlm --workdir=runs/demo/mlm_tlm

The text comes from a small grammar of five languages (xlmjax/preparation/demo_text.py), so nothing
is downloaded. Measured results: docs/results.md.
"""

from ml_collections import ConfigDict

from xlmjax.configs import base, sizes, xlm15

LANGUAGES = ("de", "en", "es", "fr", "sw")


def get_config(arg: str = "") -> ConfigDict:
    """Return the experiment; `arg`: objective=mlm|mlm_tlm, size, recipe."""
    choice = base.parse(arg, objective="mlm_tlm", size="tiny", recipe="modern")
    config = base.get_config()
    config.data.languages = LANGUAGES
    config.data.pairs = tuple(f"en-{code}" for code in LANGUAGES if code != "en")
    config.data.mixture = xlm15.mixture(choice.objective)
    config.data.vocabulary = "runs/demo/vocabulary.model"
    config.data.stores = "runs/demo/stores"
    config.vocab.size = 2_000
    config.vocab.max_lines = 50_000
    sizes.set_size(config, choice.size)
    sizes.set_recipe(config, choice.recipe)
    config.model.max_positions = 128
    config.model.dtype = "float32"
    # Of AdamW and Muon, post-norm and pre-norm, this pair fell fastest in the first 300 steps.
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 5e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.schedule = "linear"
    config.train.rows = 64
    config.train.length = 64
    config.train.num_steps = 500
    config.checkpoint.every = 250
    config.log.every = 20
    config.evals.perplexity = base.perplexity(tasks=("mlm", "tlm"), every=500)
    return config
