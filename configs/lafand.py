"""English and Swahili news of LAFAND-MT, both directions: from scratch, or from an encoder.

  xlmjax train --config=wiki15:root=DATA,size=tiny,pairs=every --workdir=runs/wiki15_mlm_tlm
  xlmjax vocab --config=lafand:root=DATA
  xlmjax train --config=lafand:root=DATA --workdir=runs/en_sw
  xlmjax train --config=lafand:root=DATA,init=runs/wiki15_mlm_tlm --workdir=runs/en_sw_pretrained
  xlmjax eval  --config=lafand:root=DATA --workdir=runs/en_sw

DATA holds `lafand_mt/train.en-swa.tsv.gz` and `lafand_mt/dev.en-swa.tsv.gz`: 30,782 pairs to learn
from, and 8,000 pieces of their own, to which the table of an encoder of configs/wiki15.py of the
same size is carried over (docs/results.md compares both starts). LAFAND's development set is what
is scored at the end; of the training pairs the last 782 choose nothing but tell how the run goes.
"""

from ml_collections import ConfigDict

from xlmjax.configs import base
from xlmjax.configs.mt_supervised import on_test, translator

PAIR = ("en", "sw")
HELD_OUT = 30_000  # pairs from here on are not trained on


def get_config(arg: str = "") -> ConfigDict:
    """Return the experiment; `arg`: root, init=WORKDIR of pretraining, size, recipe."""
    choice = base.parse(arg, root="data", init="", size="tiny", recipe="modern")
    config = translator(choice.root, PAIR, choice.size, choice.recipe)
    folder = f"{choice.root}/lafand_mt"
    for split, path in (
        ("train", f"train.{{a}}-{{b}}a.tsv.gz[:{HELD_OUT}]"),
        ("validation", f"train.{{a}}-{{b}}a.tsv.gz[{HELD_OUT}:]"),
        ("test", "dev.{a}-{b}a.tsv.gz"),
    ):
        config.data[split].text = ()
        config.data[split].parallel = (f"tsv:{folder}/{path}",)
    config.data.vocabulary = "runs/lafand/vocabulary.model"
    config.data.stores = "runs/lafand/stores"
    config.vocab.size = 8_000
    config.model.share_embeddings = True
    config.model.dropout, config.model.attention_dropout = 0.3, 0.0
    config.model.dtype = "float32"
    config.train.z_loss = 0.0
    ways = tuple(f"mt.{a}_{b}" for a, b in (PAIR, PAIR[::-1]))
    config.data.mixture = ways
    config.objectives.mt = base.objective("translation", label_smoothing=0.1)
    if choice.init:
        config.checkpoint.init_from = choice.init
        config.checkpoint.init_vocabulary = f"{choice.init}/vocabulary.model"
        # As large as one that was begun here: from a larger table words are sure and wrong.
        config.checkpoint.init_rms = (("embeddings/tokens", 0.1),)
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_steps = 100
    config.train.rows = 48
    config.train.length = 128
    config.train.num_steps = 2_400
    config.checkpoint.every = 400
    config.evals.translation = base.translation(ways, every=800)
    config.evals.test = on_test(ways)
    return config
