"""Multi30k, text only, with a tiny transformer: supervised or without any pair.

  xlmjax vocab   --config=multi30k_tiny:root=DATA,pair=en-de
  xlmjax train   --config=multi30k_tiny:root=DATA,pair=en-de --workdir=runs/multi30k_en_de
  xlmjax eval    --config=multi30k_tiny:root=DATA,pair=en-de --workdir=runs/multi30k_en_de

DATA holds `train.LANG.gz`, `val.LANG.gz` and `test_2016_flickr.LANG.gz`. Supervised, the model is
transformer-tiny, in both directions at once: 4 + 4 layers of width 128, one table of 10,000 pieces,
dropout 0.3, label smoothing 0.1, beam 5. Its recipe in the literature (41.0 BLEU en-de on
test_2016_flickr, lower-cased) is Adam with inverse square root decay from 5e-3 after 2,000 of some
8,000 steps and the mean of the last 10 checkpoints. Muon with linear decay to nothing, which is
what stands here, has 41.4 after a quarter of the tokens: docs/results.md.

`mode=mlm` and `mode=translate` are those of configs/mt_unsupervised.py, on lines 1, 2, 5, 6, ...
of one side and 3, 4, 7, 8, ... of the other, so that no pair is seen:

  CONFIG=multi30k_tiny:root=DATA,pair=en-de
  xlmjax vectors --config=$CONFIG,mode=translate --out=captions.vec
  xlmjax train   --config=$CONFIG,mode=mlm,vectors=captions.vec --workdir=runs/mlm
  xlmjax train   --config=$CONFIG,mode=translate,init=runs/mlm --workdir=runs/unmt

Captions of both languages tell of the same things, so words can be translated by what stands
around them. From a table of such vectors, which then moves a tenth as fast as the layers, the
encoder has its translations near each other; without, few of them.
"""

from ml_collections import ConfigDict

from xlmjax.configs import base
from xlmjax.configs.mt_supervised import on_test, translator
from xlmjax.configs.mt_unsupervised import set_mode


def get_config(arg: str = "") -> ConfigDict:
    """Return the experiment; `arg`: root, pair=SRC-TGT, mode, init=WORKDIR of mode=mlm, vectors."""
    choice = base.parse(arg, root="data", pair="en-de", mode="supervised", init="", vectors="")
    pair = _pair(choice.pair)
    config = translator(choice.root, pair, "tiny", "modern")
    _data(config, choice.root, pair)
    model = config.model
    model.num_layers = model.decoder_layers = 4
    model.dropout, model.attention_dropout = 0.3, 0.0
    model.dtype = "float32"
    model.share_embeddings = True
    config.train.rows = 64
    config.train.length = 128
    config.train.z_loss = 0.0
    config.optimizer.learning_rate = 5e-3
    config.optimizer.warmup_steps = 2_000
    modes = ("supervised", "mlm", "translate")
    if choice.mode not in modes:
        raise ValueError(f"mode={choice.mode!r} is unknown; known: {', '.join(modes)}")
    if choice.mode == "supervised":
        _supervised(config, pair)
        config.checkpoint.init_from = choice.init
    else:
        _halves(config, pair)
        config.model.language_embeddings = False  # of the encoder: they would keep words apart
        set_mode(config, choice.mode, pair, choice.init)
        if choice.mode == "mlm":
            _pretraining(config, bool(choice.vectors))
        else:
            _unsupervised(config)
    if choice.vectors:
        config.checkpoint.init_vectors = (choice.vectors,)
    for name in {*config.evals} & {"translation", "test", "round_trip"}:
        config.evals[name].lowercase = True
    return config


def _pair(text: str) -> tuple[str, str]:
    source, dash, target = text.partition("-")
    if not dash:
        raise ValueError(f"pair={text!r} is not like en-de")
    return source, target


def _data(config: ConfigDict, root: str, pair: tuple[str, str]) -> None:
    for split, stem in (
        ("train", "train"),
        ("validation", "val"),
        ("test", "test_2016_flickr"),
    ):
        config.data[split].parallel = (f"aligned:{root}/{stem}.{{lang}}.gz",)
        config.data[split].text = (f"text:{root}/{stem}.{{lang}}.gz",)
    folder = f"runs/multi30k/{'_'.join(sorted(pair))}"
    config.data.vocabulary = f"{folder}/vocabulary.model"
    config.data.stores = f"{folder}/stores"
    config.data.lowercase = True
    config.vocab.size = 10_000


def _supervised(config: ConfigDict, pair: tuple[str, str]) -> None:
    ways = (f"mt.{pair[0]}_{pair[1]}", f"mt.{pair[1]}_{pair[0]}")
    config.data.mixture = ways
    config.objectives.mt = base.objective("translation", label_smoothing=0.1)
    config.optimizer.name = "muon"
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_steps = 200
    config.train.rows = 32
    config.train.num_steps = 4_000
    config.checkpoint.every = 250
    config.checkpoint.keep = 10  # as many as the literature averages: checkpoint.average
    config.log.every = 50
    config.evals.translation = base.translation(ways, every=1_000)
    config.evals.test = on_test(ways)


def _pretraining(config: ConfigDict, from_vectors: bool) -> None:
    config.data.layout.text = "pack"
    config.model.dropout = 0.1
    config.objectives.mlm.rate = ((0, 0.3),)
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.schedule = "linear"
    # Fresh vectors have far to go; those of `xlmjax vectors` are where they should be.
    table = 0.1 if from_vectors else 4.0
    config.optimizer.scales = (("embeddings/tokens", table), (".*", 1.0))
    config.train.rows = 48
    config.train.num_steps = 2_000 if from_vectors else 3_500
    config.checkpoint.every = 500
    config.evals.perplexity.every = 500


def _unsupervised(config: ConfigDict) -> None:
    config.model.dropout = 0.1
    config.objectives.denoising.weight = ((0, 1.0), (1_300, 0.1), (4_000, 0.0))
    back = config.objectives.back_translation
    back.sentences, back.sentence_length = 8, 32
    back.min_count = 2  # or unknown words are copied, both ways
    back.weight = ((200, 0.0), (201, 1.0))  # there is nothing to learn from before it can write
    config.train.rows = 16
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_steps = 200
    config.train.num_steps = 3_000
    config.checkpoint.every = 500
    config.log.every = 50
    config.evals.translation.every = config.evals.round_trip.every = 500


def _halves(config: ConfigDict, pair: tuple[str, str]) -> None:
    """Take two lines of four of one side and the other two of the other.

    The file is ordered: its first half has three times as many dogs as its second, and every other
    line is long. So these are halves that tell of the same things at the same length.
    """
    root = config.data.train.text[0].removeprefix("text:").partition("/train.")[0]
    first, second = sorted(pair)
    config.data.train.parallel = ()
    config.data.train.text = tuple(
        f"text:{root}/train.{{lang={code}}}.gz[{start}::4]"
        for start, code in enumerate((first, first, second, second))
    )
    # A vocabulary of its own, which has seen no pair either.
    folder = config.data.stores.removesuffix("/stores")
    config.data.vocabulary = f"{folder}/unpaired.model"
    config.data.stores = f"{folder}/unpaired"
