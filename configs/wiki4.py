"""Four languages of Western Europe, every pair of them: where a day's laptop text aligns.

  xlmjax train --config=wiki4:root=DATA,objective=mlm_tlm --workdir=runs/wiki4_mlm_tlm

As configs/wiki15.py, with other rates, and `multi30k/train.LANG.gz` beside its folders. Four
languages share the budget instead of fifteen, and pairs are of every two of them, which makes the
words of all lie together (docs/sampling.md). Measured results: docs/results.md.
"""

import itertools

from ml_collections import ConfigDict

from xlmjax.configs import base, wiki15

LANGUAGES = ("de", "en", "es", "fr")


def get_config(arg: str = "") -> ConfigDict:
    """Return the experiment; `arg`: objective=mlm|mlm_tlm, root=FOLDER, size, recipe."""
    choice = base.parse(arg, objective="mlm_tlm", root="data", size="tiny", recipe="modern")
    config = wiki15.get_config(",".join(f"{name}={value}" for name, value in choice.items()))
    data = config.data
    data.languages = LANGUAGES
    data.pairs = tuple("-".join(pair) for pair in itertools.combinations(LANGUAGES, 2))
    captions = f"{choice.root}/multi30k/train.{{lang}}.gz"
    data.train.parallel += (f"aligned:{captions}",)
    # MLM alone reads these sides as text too.
    data.train.text += (f"text:{captions}", f"text:{choice.root}/newstest/newstest20*.{{lang}}.gz")
    data.vocabulary = "runs/wiki4/vocabulary.model"
    data.stores = "runs/wiki4/stores"
    config.vocab.size = 16_000
    config.vocab.max_lines = 300_000
    # As in configs/demo.py: tables that learn faster than the layers, many small updates.
    config.optimizer.learning_rate = 2e-3
    config.optimizer.scales = (("embeddings/tokens", 8.0), (".*", 1.0))
    config.train.rows = 16
    config.train.num_steps = 8_000
    config.checkpoint.every = 1_000
    config.log.every = 50
    config.evals.perplexity.every = 2_000
    config.evals.retrieval.every = 1_000
    return config
