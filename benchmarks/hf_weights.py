"""Our parameters under the names of Hugging Face's XLM, for whatever compares the two."""

import numpy as np

from xlmjax.interop.formats import XLM
from xlmjax.interop.transfer import Outgoing
from xlmjax.models import xlm
from xlmjax.training.state import named_leaves, parameter_axes


def state_dict(model: xlm.XLM) -> dict[str, np.ndarray]:
    """Return the parameters of an encoder of the XLM recipe; torch keeps matrices as (out, in).

    Those of the labels are there where the model has a classifier, else those of the vocabulary.
    """
    head = "pred_layer." if model.classifier is not None else "sequence_summary."
    languages = range(len(model.cfg.language_ids))
    found = Outgoing(XLM, model.cfg, named_leaves(model), parameter_axes(model), languages)
    return {name: np.array(found.value(name)) for name in found.shapes if not name.startswith(head)}
