"""Translation between German and English on generated text, with pairs and without.

  xlmjax train --config=demo_mt:init=runs/demo/mlm_tlm --workdir=runs/demo/mt
  xlmjax train --config=demo_mt:mode=unsupervised,init=runs/demo/mlm_tlm --workdir=runs/demo/unmt

The encoders are those of configs/demo.py, pretrained by `xlmjax demo`; both halves start from one.
Text alone teaches translation from that of mlm_tlm only, which has seen pairs: from that of mlm,
2.5 and 1.3 BLEU (docs/results.md).
"""

from ml_collections import ConfigDict

from xlmjax.configs import base, demo, mt_unsupervised

PAIR = ("de", "en")


def get_config(arg: str = "") -> ConfigDict:
    """Return the experiment; `arg`: mode=supervised|unsupervised, init=WORKDIR of pretraining."""
    choice = base.parse(arg, mode="supervised", init="")
    config = demo.get_config()
    # The encoders were trained without, but a decoder has to know which language to write.
    config.model.language_embeddings = True
    config.model.decoder_layers = config.model.num_layers
    config.checkpoint.init_from = choice.init
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.scales = ((".*", 1.0),)
    config.train.z_loss = 0.0
    config.objectives = ConfigDict()
    config.evals = ConfigDict()
    ways = tuple(f"demo.mt.{a}_{b}" for a, b in (PAIR, PAIR[::-1]))
    if choice.mode == "supervised":
        config.data.mixture = ways
        config.objectives.mt = base.objective("translation")
        config.train.num_steps = 200
    elif choice.mode == "unsupervised":
        text = tuple(f"demo.ae.{code}" for code in PAIR)
        config.data.mixture = text
        config.objectives.denoising = base.objective("denoising", layout="pack")
        config.objectives.denoising.weight = ((0, 1.0), (400, 0.1))
        mt_unsupervised.back_translation(config, PAIR)
        back = config.objectives.back_translation
        back.mixture = text
        back.sentences, back.sentence_length = 4, 32
        config.train.rows = 16
        config.train.num_steps = 400
    else:
        raise ValueError(f"mode={choice.mode!r} is unknown; known: supervised, unsupervised")
    config.checkpoint.every = 100
    config.evals.translation = base.translation(ways, every=100, max_lines=200)
    return config
