"""The whole method on generated text, in minutes on two cores; `xlmjax demo` runs it.

  xlmjax train --config=demo:objective=mlm_tlm --workdir=runs/demo/mlm_tlm

The text comes from a small grammar of five languages (xlmjax/preparation/demo_text.py), so nothing
is downloaded. Measured results: docs/results.md.
"""

import itertools

from ml_collections import ConfigDict

from xlmjax.configs import base, sizes, xlm15

LANGUAGES = ("de", "en", "es", "fr", "sw")


def get_config(arg: str = "") -> ConfigDict:
    """Return the experiment; `arg`: objective=mlm|mlm_tlm, size, recipe."""
    choice = base.parse(arg, objective="mlm_tlm", size="tiny", recipe="modern")
    config = base.get_config()
    config.data.languages = LANGUAGES
    # Every language with every other: where all pairs hold English, the words of the others come to
    # lie together and those of English apart (docs/sampling.md).
    config.data.pairs = tuple("-".join(pair) for pair in itertools.combinations(LANGUAGES, 2))
    config.data.mixture = xlm15.mixture(choice.objective)
    config.data.vocabulary = "runs/demo/vocabulary.model"
    config.data.stores = "runs/demo/stores"
    config.data.doctor.examine = False  # the grammar makes no faults
    config.vocab.size = 6_000  # most words whole: these align sooner than pieces of them
    config.vocab.max_lines = 50_000
    sizes.set_size(config, choice.size)
    sizes.set_recipe(config, choice.recipe)
    config.model.max_positions = 128
    config.model.dtype = "float32"
    # Together these align the languages sooner (docs/results.md; not measured one by one): nothing
    # that tells them apart, many pairs, many targets, many small updates.
    config.model.language_embeddings = False
    config.data.mixing.pair_share = 0.8
    config.objectives.mlm.rate = ((0, 0.3),)
    config.model.dropout = config.model.attention_dropout = 0.0  # no sentence is seen twice
    # Of AdamW and Muon, post-norm and pre-norm, this pair fell fastest in the first 300 steps.
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 2e-3
    # Where the layers learn faster than the table, they translate words that are not alike.
    config.optimizer.scales = (("embeddings/tokens", 8.0), (".*", 1.0))
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
