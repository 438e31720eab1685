"""How much alike pieces are spelt: related languages write many a word nearly the same."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

WORTH = 0.3  # what it adds to the CSLS of two pieces that they are spelt the same
LENGTHS = (2, 3)  # characters of the parts that are compared


def spelt_alike(first: Sequence[str], second: Sequence[str]) -> Float32[np.ndarray, "n k"]:
    """Return the cosine of the parts of each two pieces, 1 where they are one and the same.

    Parts are of two and of three characters, the end of a piece being one, and count by
    log(1 + pieces / pieces that have the part).
    """
    parts = [_parts(piece) for piece in (*first, *second)]
    number = {part: n for n, part in enumerate(sorted(set().union(*parts)))}
    table = np.zeros((len(parts), len(number)), np.float32)
    for row, own in zip(table, parts, strict=True):
        row[[number[part] for part in own]] = 1
    table *= np.log1p(len(parts) / table.sum(axis=0))
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    return table[: len(first)] @ table[len(first) :].T


def _parts(piece: str) -> set[str]:
    text = f"{piece}$"
    return {text[i : i + n] for n in LENGTHS for i in range(len(text) - n + 1)}
