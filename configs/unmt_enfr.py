"""The paper's unsupervised translation en-fr: 33.4 BLEU en-fr, 33.3 fr-en (tokenised, multi-bleu).

Run it as configs/mt_unsupervised.py says, with this config's name and DATA of 5 million lines of
News Crawl a language as `mono.LANG`, and newstest2013 and newstest2014 as `valid.LANG` and
`test.LANG`. Not reproduced here yet: it takes a pod.
"""

from ml_collections import ConfigDict

from xlmjax.configs import mt_unsupervised


def get_config(arg: str = "") -> ConfigDict:
    """Return the experiment; `arg`: root=FOLDER, mode=mlm|translate, init=WORKDIR of mode=mlm."""
    return mt_unsupervised.of_paper(arg, ("en", "fr"))
