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
    # Together these align the languages sooner (docs/results.md; not measured one by one): nothing
    # that tells them apart, each sentence alone, many pairs, many targets, many small updates.
    config.model.language_embeddings = False
    config.data.layout.text = "pack"
    config.data.mixing.pair_share = 0.8
    config.objectives.mlm.rate = ((0, 0.3),)
    config.model.dropout = config.model.attention_dropout = 0.0  # no sentence is seen twice
    # Of AdamW and Muon, post-norm and pre-norm, this pair fell fastest in the first 300 steps.
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 5e-3
    config.optimizer.warmup_steps = 50
    config.optimizer.schedule = "linear"
    config.train.rows = 32
    config.train.length = 64
    config.train.num_steps = 1_000
    config.checkpoint.every = 500
    config.log.every = 20
    config.evals.perplexity = base.perplexity(tasks=("mlm", "tlm"), every=1_000)
    config.evals.retrieval = base.retrieval(("tlm",), every=500, max_pairs=200)
    return config
