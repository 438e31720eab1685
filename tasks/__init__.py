"""Seqio tasks and mixtures: `xlmjax.tasks.register(config)` enters all of them.

- from the text that config.data names: `mlm.LANG`, `clm.LANG`, `ae.LANG`, `tlm.A_B`, `mt.SRC_TGT`
  in both directions, and the mixtures of each, `mlm`, `clm`, `ae`, `tlm`, `mt`;
- labelled examples that config.data names: `xnli.LANG` and the mixture of them all, `xnli`;
- built-in text: `demo.mlm.LANG`, `demo.clm.LANG`, `demo.ae.LANG`, `demo.tlm.A_B`,
  `demo.mt.SRC_TGT`, `demo.xnli.LANG`;
- from TFDS: `wiki40b.mlm.LANG`, `wmt19.tlm.A_B`, `wmt19.mt.SRC_TGT`, `opus.SUBSET.tlm.A_B`,
  `multi_nli.en`, and `xnli.LANG` where the config names no files for it.

Nothing is read or downloaded before a dataset is asked for. A module named in `data.modules` adds
its own tasks when it is imported, or in its `register(config)` if it has one; `add_text`,
`add_pair`, `add_translation` and `add_classification` help to write it.
"""

if __name__ != "xlmjax.tasks":
    raise ImportError(f"import this package as 'xlmjax.tasks', not as {__name__!r}")

import importlib
import os
import sys

from ml_collections import ConfigDict

from xlmjax.preparation import comparison
from xlmjax.tasks import demo, monolingual, parallel, registration, xnli
from xlmjax.tasks.registration import (
    add_classification,
    add_mixture,
    add_pair,
    add_text,
    add_translation,
)

__all__ = [
    "add_classification",
    "add_mixture",
    "add_pair",
    "add_text",
    "add_translation",
    "register",
]


def register(config: ConfigDict) -> None:
    """Register every task of a config; those of an earlier config are forgotten first."""
    registration.forget()
    comparison.use(config.to_dict())
    with registration.remembering():
        for module in (monolingual, parallel, xnli, demo):
            module.register(config.data)
    for name in config.data.modules:
        _register_module(name, config)


def _register_module(name: str, config: ConfigDict) -> None:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a module beside the user's own config
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"data.modules: cannot import {name!r} ({error}); name a module on the Python path or "
            "in the current directory"
        ) from error
    if hasattr(module, "register"):
        with registration.remembering():
            module.register(config)
