"""XNLI with XLM-15: fine-tuned on MultiNLI, scored in 15 languages, both from TFDS.

  FILES="--config.data.vocabulary=$DATA/xlm15.model --config.data.stores=$DATA/stores"
  RUN=xlm15_xnli:init=$BUCKET/xlm15
  xlmjax train --config=$RUN $FILES --workdir=$BUCKET/xnli
  xlmjax eval  --config=$RUN $FILES --workdir=$BUCKET/xnli

The encoder is that of configs/xlm15.py. From the paper: 71.5 on average over the 15 languages with
MLM, 75.1 with MLM+TLM. Not reproduced here yet: it takes a pod.

As the paper: first state, dropout 0.1, Adam at a constant rate for encoder and classifier alike,
swept over 5e-6, 2.5e-5 and 1.25e-4, no clipping. Not as the paper: pairs are packed, 16 rows hold
about a hundred of them where the paper's batches have 8, and 15,000 steps are four times the
training set where it stops at 5 million examples; three seeds a rate.
"""

from ml_collections import ConfigDict

from xlmjax.configs import base, xlm15, xnli


def get_config(arg: str = "") -> ConfigDict:
    """Return the sweep; `arg`: init=WORKDIR of pretraining, train=MIXTURE."""
    choice = base.parse(arg, init="", train="multi_nli.en")
    config = xlm15.get_config()
    config.data.pairs = ()
    config.data.mixture = (choice.train,)
    for split in ("train", "validation"):
        config.data[split].text = config.data[split].parallel = ()
    xnli.fine_tune(config, choice.init, ("xnli",), every=2_500)
    config.evals.test = base.classification(("xnli",), split="test", every=2_500)
    config.model.classifier_dropout = 0.1
    config.optimizer.learning_rate = 2.5e-5
    config.optimizer.schedule = "constant"
    config.optimizer.clip_norm = 0.0
    config.train.rows = 16
    config.train.num_steps = 15_000
    config.checkpoint.every = 2_500
    config.sweep.seeds = (0, 1, 2)
    rates = ("5e-6", "2.5e-5", "1.25e-4")
    config.sweep.points = tuple(f"optimizer.learning_rate={rate}" for rate in rates)
    config.sweep.report = "test"
    return config
