"""Unsupervised translation: denoising and online back-translation, no pair seen.

  CONFIG=mt_unsupervised:root=DATA,src=en,tgt=de
  xlmjax vocab --config=$CONFIG
  xlmjax train --config=$CONFIG,mode=mlm --workdir=runs/mlm
  xlmjax train --config=$CONFIG,init=runs/mlm --workdir=runs/unmt
  xlmjax eval  --config=$CONFIG --workdir=runs/unmt

DATA holds text `mono*.LANG` of either language, and line-aligned `valid.LANG` and `test.LANG` to
score with, each plain or .gz. Both halves start from the encoder of mode=mlm; without one hardly
anything is learned. Checkpoints are kept by round-trip BLEU, which needs no pairs.
"""

from ml_collections import ConfigDict

from xlmjax.configs import base
from xlmjax.configs.mt_supervised import on_test, translator


def get_config(arg: str = "") -> ConfigDict:
    """Return the experiment; `arg`: root, src, tgt, mode=mlm|translate, init, size, recipe."""
    choice = base.parse(
        arg, root="data", src="en", tgt="de", mode="translate", init="", size="nmt", recipe="xlm"
    )
    config = translator(choice.root, (choice.src, choice.tgt), choice.size, choice.recipe)
    config.data.train.parallel = ()
    config.data.train.text = (f"text:{choice.root}/mono*.{{lang}}*",)
    set_mode(config, choice.mode, (choice.src, choice.tgt), choice.init)
    return config


def of_paper(arg: str, pair: tuple[str, str]) -> ConfigDict:
    """Return the experiment of the paper for two languages; `arg`: root, mode, init."""
    choice = base.parse(arg, root="data", mode="translate", init="")
    more = f"src={pair[0]},tgt={pair[1]},size=nmt,recipe=xlm"
    config = get_config(f"root={choice.root},mode={choice.mode},init={choice.init},{more}")
    config.vocab.kind = "bpe"
    if choice.mode == "mlm":  # 64 GPUs of 32 rows; the stream is of lines of any length
        config.data.max_words = 0
        config.train.rows, config.train.length = 2_048, 256
        config.optimizer.b2, config.optimizer.schedule = 0.999, "constant"
        config.optimizer.warmup_steps = 0
    else:
        as_in_paper(config, "denoising")
    return config


def as_in_paper(config: ConfigDict, packed: str) -> None:
    """Give a translator with back-translation the batches and the scores of the paper.

    XLM goes through four steps in turn, two of either objective, each of some 2,000 tokens on each
    of 8 GPUs. Here one update sums them: 256 rows of 128 for `packed`, and as many for
    back-translation.
    """
    config.train.rows = 512
    config.objectives[packed].share = config.objectives.back_translation.share = 1.0
    for name in ("translation", "test"):
        config.evals[name].tokenised = True  # the paper's is multi-bleu on Moses tokens
    config.evals.test.decoding.method = "greedy"  # XLM's beam_size is 1


def set_mode(config: ConfigDict, mode: str, pair: tuple[str, str], init: str) -> None:
    """Make a translator's config one of pretraining the encoder, or of unsupervised translation."""
    modes = {"mlm": pretraining, "translate": unsupervised}
    if mode not in modes:
        raise ValueError(f"mode={mode!r} is unknown; known: {', '.join(modes)}")
    modes[mode](config, pair)
    config.checkpoint.init_from = init


def pretraining(config: ConfigDict, pair: tuple[str, str], every: int = 5_000) -> None:
    """Leave of a translator the encoder, and train that by masked language modelling."""
    del pair
    config.model.decoder_layers, config.model.share_embeddings = 0, False
    config.data.layout.text = "stream"
    config.data.mixture = ("mlm",)
    config.objectives.mlm = base.objective("masked_lm")
    config.evals.perplexity = base.perplexity(("mlm",), every=every)


def unsupervised(config: ConfigDict, pair: tuple[str, str], every: int = 5_000) -> None:
    """Give a translator the objectives and the evaluators of unsupervised translation.

    Denoising begins at full weight and fades, as in XLM (`0:1,100000:0.1,300000:0`).
    """
    steps = tuple(f"{a}-{b}-{a}" for a, b in (pair, pair[::-1]))
    ways = tuple(f"mt.{a}_{b}" for a, b in (pair, pair[::-1]))
    text = tuple(f"ae.{code}" for code in pair)
    config.data.mixture = text
    fading = ((0, 1.0), (100_000, 0.1), (300_000, 0.0))
    config.objectives.denoising = base.objective("denoising", mixture=text, weight=fading)
    back_translation(config, pair)
    config.evals.translation = base.translation(ways, every=every)
    config.evals.test = on_test(ways)
    config.evals.round_trip = base.round_trip(text, steps, every=every)
    config.checkpoint.best_metric = "eval/round_trip/average/bleu"


def back_translation(config: ConfigDict, pair: tuple[str, str]) -> None:
    """Add back-translation of the text of two languages, five sentences in a row of 128 tokens."""
    config.objectives.back_translation = base.objective(
        "back_translation",
        mixture=tuple(f"ae.{code}" for code in pair),
        steps=tuple(f"{a}-{b}-{a}" for a, b in (pair, pair[::-1])),
        layout="pack",
        sentences=5,
        sentence_length=config.train.length,
    )
