"""The paper's supervised Romanian-English: 38.5 BLEU ro-en with back-translation (tokenised).

Both halves start from an MLM encoder of `unmt_enro:mode=mlm` and its vocabulary, and learn from
pairs and from back-translation of News Crawl text at the same time. DATA holds line-aligned
`train.LANG` (WMT16), `valid.LANG` (newsdev2016), `test.LANG` (newstest2016), and text `mono.LANG`.

  xlmjax train --config=unmt_enro:root=DATA,mode=mlm --workdir=runs/mlm_enro
  xlmjax train --config=wmt16_roen:root=DATA,init=runs/mlm_enro --workdir=runs/roen

Not reproduced here yet: it takes a pod.
"""

from ml_collections import ConfigDict

from xlmjax.configs import base, mt_supervised, mt_unsupervised

PAIR = ("en", "ro")


def get_config(arg: str = "") -> ConfigDict:
    """Return the experiment; `arg`: root=FOLDER, init=WORKDIR of unmt_enro:mode=mlm."""
    choice = base.parse(arg, root="data", init="")
    config = mt_supervised.get_config(
        f"root={choice.root},src=ro,tgt=en,both=1,init={choice.init},size=nmt,recipe=xlm"
    )
    config.data.train.text = (f"text:{choice.root}/mono*.{{lang}}*",)
    config.objectives.mt.label_smoothing = 0.0
    config.objectives.mt.mixture = config.data.mixture
    mt_unsupervised.back_translation(config, PAIR)
    mt_unsupervised.as_in_paper(config, "mt")
    config.vocab.kind = "bpe"
    return config
