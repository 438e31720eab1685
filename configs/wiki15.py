"""The XNLI languages at laptop size: MLM against MLM+TLM on a few megabytes of text a language.

  xlmjax vocab   --config=wiki15:root=DATA
  xlmjax prepare --config=wiki15:root=DATA
  xlmjax plan    --config=wiki15:root=DATA
  xlmjax train   --config=wiki15:root=DATA,objective=mlm_tlm --workdir=runs/wiki15_mlm_tlm

DATA holds `wiki/LANG.txt.gz`, the pair collections below and `ntrex128/LANG.txt.gz` for validation.
`pairs=every` takes besides pairs with English those of every two languages that one collection has,
so that the words of English lie with those of the others (docs/sampling.md). Measured results:
docs/results.md.
"""

import itertools

from ml_collections import ConfigDict

from xlmjax.configs import base, sizes, xlm15

BIBLE = ("de", "el", "en", "es", "fr", "ru", "sw", "vi", "zh")
QURAN = ("ar", "en", "es", "fr", "ru", "tr", "ur", "zh")
PAIRS = {
    "english": xlm15.PAIRS,
    "every": xlm15.PAIRS
    + tuple(
        "-".join(pair)
        for pair in itertools.combinations(xlm15.LANGUAGES, 2)
        if "en" not in pair and any({*pair} <= {*codes} for codes in (BIBLE, QURAN))
    ),
}


def get_config(arg: str = "") -> ConfigDict:
    """Return the experiment; `arg`: objective=mlm|mlm_tlm, root=FOLDER, size, recipe,
    pairs=english|every.
    """
    choice = base.parse(
        arg,
        objective="mlm_tlm",
        root="data",
        size="small",
        recipe="modern",
        pairs="english",
    )
    if choice.pairs not in PAIRS:
        raise ValueError(f"pairs={choice.pairs!r} is unknown; known: {', '.join(PAIRS)}")
    config = base.get_config()
    root, data = choice.root, config.data
    data.languages = xlm15.LANGUAGES
    data.pairs = PAIRS[choice.pairs]
    data.mixture = xlm15.mixture(choice.objective)
    data.train.text = (f"text:{root}/wiki/{{lang}}.txt.gz",)
    data.train.parallel = (
        f"keyed:{root}/bible/{{lang}}.tsv.gz",
        f"keyed:{root}/quran/{{lang}}.tsv.gz",
        f"tsv:{root}/tatoeba/{{a}}-{{b}}.tsv.gz",
        f"aligned:{root}/newstest/newstest20*.{{lang}}.gz",
    )
    data.validation.text = (f"text:{root}/ntrex128/{{lang}}.txt.gz",)
    data.validation.parallel = (f"aligned:{root}/ntrex128/{{lang}}.txt.gz",)
    data.vocabulary = "runs/wiki15/vocabulary.model"
    data.stores = f"runs/wiki15/{'stores' if choice.pairs == 'english' else choice.pairs}"
    sizes.set_size(config, choice.size)
    sizes.set_recipe(config, choice.recipe)
    config.model.dtype = "float32"
    # What aligned the languages of configs/demo.py sooner: nothing that tells them apart, each
    # sentence alone, many pairs, many targets. No sentence is seen twice, so no dropout.
    config.model.language_embeddings = False
    data.layout.text = "pack"
    data.mixing.pair_share = 0.8
    config.objectives.mlm.rate = ((0, 0.3),)
    config.model.dropout = config.model.attention_dropout = 0.0
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 5e-3
    config.optimizer.warmup_steps = 50
    config.optimizer.schedule = "linear"
    config.train.rows = 48
    config.train.length = 128
    config.train.num_steps = 500
    config.checkpoint.every = 100
    config.log.every = 10
    config.evals.perplexity = base.perplexity(tasks=("mlm", "tlm"), every=250, max_rows=96)
    config.evals.retrieval = base.retrieval(tasks=("tlm",), every=250, max_pairs=200)
    return config
