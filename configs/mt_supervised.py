"""Supervised translation between two languages, both halves started from a pretrained encoder.

  xlmjax vocab   --config=mt_supervised:root=DATA,src=en,tgt=de
  xlmjax prepare --config=mt_supervised:root=DATA,src=en,tgt=de
  xlmjax train   --config=mt_supervised:root=DATA,src=en,tgt=de,init=runs/mlm --workdir=runs/mt
  xlmjax eval    --config=mt_supervised:root=DATA,src=en,tgt=de --workdir=runs/mt

DATA holds line-aligned `train*.LANG`, `valid.LANG` and `test.LANG`, each plain or .gz. An encoder
given as `init` must be of the same vocabulary, size and recipe. `both=1` trains both directions.
"""

from ml_collections import ConfigDict

from xlmjax.configs import base, sizes


def get_config(arg: str = "") -> ConfigDict:
    """Return the experiment; `arg`: root, src, tgt, both, init=WORKDIR[,decoder], size, recipe."""
    choice = base.parse(
        arg, root="data", src="en", tgt="de", both=False, init="", size="nmt", recipe="xlm"
    )
    config = translator(choice.root, (choice.src, choice.tgt), choice.size, choice.recipe)
    ways = [f"mt.{choice.src}_{choice.tgt}"]
    ways += [f"mt.{choice.tgt}_{choice.src}"] if choice.both else []
    config.data.mixture = tuple(ways)
    config.objectives.mt = base.objective("translation", label_smoothing=0.1)
    config.checkpoint.init_from = choice.init
    config.evals.translation = base.translation(tuple(ways), every=5_000)
    config.evals.test = on_test(tuple(ways))
    config.checkpoint.best_metric = "eval/translation/average/bleu"
    return config


def translator(root: str, pair: tuple[str, str], size: str, recipe: str) -> ConfigDict:
    """Return an encoder-decoder for two languages, without objectives or evaluators.

    Optimised as in XLM: Adam 1e-4 with inverse square root decay, dropout 0.1, and in all rows
    about as many tokens as there (tokens_per_batch 2,000 on each of 8 GPUs).
    """
    config = base.get_config()
    config.data.languages = tuple(sorted(pair))
    config.data.pairs = ("-".join(sorted(pair)),)
    for split, stem in (("train", "train*"), ("validation", "valid"), ("test", "test")):
        config.data[split].parallel = (f"aligned:{root}/{stem}.{{lang}}*",)
        config.data[split].text = (f"text:{root}/{stem}.{{lang}}*",)
    config.data.vocabulary = f"{root}/{'_'.join(sorted(pair))}.model"
    config.data.stores = f"{root}/stores"
    config.data.max_words = 100
    config.data.layout.text = "pack"
    config.vocab.size = 60_000
    sizes.set_size(config, size)
    sizes.set_recipe(config, recipe)
    config.model.decoder_layers = config.model.num_layers
    config.train.rows = 128
    config.train.length = 128
    config.train.num_steps = 300_000
    config.optimizer.learning_rate = 1e-4
    config.checkpoint.every = 5_000
    config.objectives = ConfigDict()
    return config


def on_test(ways: tuple[str, ...]) -> ConfigDict:
    """Return the evaluator of the test set, by beam search, which runs at the end only."""
    evaluator = base.translation(ways, split="test", every=0)
    evaluator.decoding.method = "beam"
    evaluator.decoding.beams = 5
    return evaluator
