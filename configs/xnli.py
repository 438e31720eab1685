"""XNLI: fine-tune a pretrained encoder on English, score it in 15 languages (zero-shot).

  xlmjax prepare --config=xnli:root=DATA,init=runs/wiki15_mlm_tlm
  xlmjax train   --config=xnli:root=DATA,init=runs/wiki15_mlm_tlm --workdir=runs/xnli_mlm_tlm
  xlmjax eval    --config=xnli:root=DATA,init=runs/wiki15_mlm_tlm --workdir=runs/xnli_mlm_tlm

The encoder is that of configs/wiki15.py, or with `encoder=wiki4` that of configs/wiki4.py, scored
in its four languages. DATA holds `nli/train/*-LANG*.tsv.gz` and `nli/xnli/dev-LANG.tsv.gz`.
`train=xnli` trains on every language that has training files (translate-train-all). From the paper,
with XLM-15: 71.5 % on average for MLM, 75.1 % for MLM+TLM.
"""

from ml_collections import ConfigDict

from xlmjax.configs import base, wiki4, wiki15

ENCODERS = {"wiki15": wiki15, "wiki4": wiki4}
LABELS = ("entailment", "neutral", "contradiction")
# What is learned of words of one language in a table of several leaves the others behind.
TABLE_FROZEN = (("embeddings/.*", 0.0), (".*", 1.0))


def get_config(arg: str = "") -> ConfigDict:
    """Return the experiment; `arg`: root=FOLDER, init=WORKDIR of pretraining, train=MIXTURE,
    encoder=wiki15|wiki4, its size and recipe.
    """
    choice = base.parse(
        arg, root="data", init="", train="xnli.en", encoder="wiki15", size="", recipe="modern"
    )
    if choice.encoder not in ENCODERS:
        raise ValueError(f"encoder={choice.encoder!r} is unknown; known: {', '.join(ENCODERS)}")
    size = f",size={choice.size}" if choice.size else ""
    config = ENCODERS[choice.encoder].get_config(f"root={choice.root},recipe={choice.recipe}{size}")
    config.data.train.xnli = (f"tsv:{choice.root}/nli/train/*-{{lang}}*.tsv.gz",)
    config.data.validation.xnli = (f"tsv:{choice.root}/nli/xnli/dev-{{lang}}.tsv.gz",)
    config.data.mixture = (choice.train,)
    fine_tune(config, choice.init, ("xnli",), every=800)
    # From the first state or the mean a tiny encoder hardly leaves chance (docs/results.md).
    config.model.pooling = "difference"
    config.optimizer.learning_rate = 1e-3
    if choice.init:
        config.optimizer.scales = TABLE_FROZEN
    config.train.rows = 32
    config.train.num_steps = 2_400
    config.checkpoint.every = 800
    return config


def fine_tune(config: ConfigDict, init: str, tasks: tuple[str, ...], every: int) -> None:
    """Make the config of an encoder one that fine-tunes it for inference, scored on `tasks`."""
    config.checkpoint.init_from = init
    config.objectives = ConfigDict()
    config.objectives.xnli = base.objective("classification", labels=LABELS)
    config.train.z_loss = 0.0
    config.optimizer.name = "adamw"
    config.optimizer.b2 = 0.999
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_steps = 50
    config.optimizer.scales = ((".*", 1.0),)
    config.evals = ConfigDict()
    config.evals.xnli = base.classification(tasks, every=every)
