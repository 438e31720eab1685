"""XLM in JAX: cross-lingual language model pretraining, from a laptop to TPU pods."""

import importlib.metadata
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xlmjax.trained import Trained


def _avoid_wrong_sums() -> None:
    """Turn off the library that sums wrongly on the CPU in jaxlib 0.10.2 and 0.11.

    XLA hands some fused sums to YNNPACK, which in these versions returns wrong numbers for some
    shapes without a word (jax issue 39103; a vmapped gradient of a layer norm in a scan is one).
    It costs 3 % of a train step. XLA reads its flags when the first computation starts.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_experimental_ynn_fusion_type" in flags:
        return
    if importlib.metadata.version("jaxlib").startswith(("0.10.", "0.11.")):
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_experimental_ynn_fusion_type=".strip()


_avoid_wrong_sums()


def load(
    workdir: str | os.PathLike[str], step: int = -1, overrides: Sequence[str] = ()
) -> "Trained":
    """Return what a run has made, with `.embed`, `.translate` and `.fill_mask`; see `trained`."""
    from xlmjax.trained import Trained

    return Trained(workdir, step, overrides)
