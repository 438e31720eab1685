"""Translation between German and English on generated text, with pairs and without.

  xlmjax train --config=demo_mt:init=runs/demo/mlm_tlm --workdir=runs/demo/mt
  xlmjax train --config=demo_mt:mode=unsupervised,init=runs/demo/mlm_tlm --workdir=runs/demo/unmt

The encoders are those of configs/demo.py, pretrained by `xlmjax demo`; both halves start from one.
Text alone teaches translation from that of mlm_tlm only, which has seen pairs: from that of mlm,
3.3 and 3.0 BLEU (docs/results.md).
"""

from ml_collections import ConfigDict

from xlmjax.configs import base, demo, mt_unsupervised

PAIR = ("de", "en")


def get_config(arg: str = "") -> ConfigDict:
    """Return the experiment; `arg`: mode=supervised|unsupervised, init=WORKDIR of pretraining."""
    choice = base.parse(arg, mode="supervised", init="")
    config = demo.get_config()
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
        mt_unsupervised.back_translation(config, PAIR)
        back = config.objectives.back_translation
        back.mixture = text
        back.sentences, back.sentence_length = 4, 32
        # Translations are of use once the decoder can write; then rebuilding sentences is not.
        config.objectives.denoising.weight = ((100, 1.0), (160, 0.0))
        back.weight = ((80, 0.0), (81, 1.0))
        config.train.num_steps = 250
        config.optimizer.learning_rate = 3e-3
    else:
        raise ValueError(f"mode={choice.mode!r} is unknown; known: supervised, unsupervised")
    config.checkpoint.every = 100
    config.evals.translation = base.translation(ways, every=100, max_lines=200)
    return config
