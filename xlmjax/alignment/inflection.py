"""Forms of one word: text tells little of each, and much of all of them together."""

import collections
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int

BEGINNING = 3  # letters, at least, that two forms begin with
ENDING = 3  # letters, at most, that follow; fewer than those before
SHARE = 0.5  # of the vector of a form of the same direction that a word is given
Pairs = Int[np.ndarray, "p 2"]
_WORD = "▁"  # what a piece begins with that begins a word


def forms(pieces: Sequence[str]) -> Pairs:
    """Return the places of each two pieces, both ways, that may be forms of one word.

    They begin a word, and alike, and differ in their endings: noir, noire and noirs do, and so do
    porte and porche, which what stands around them has to tell apart.
    """
    by_beginning: dict[str, list[int]] = collections.defaultdict(list)
    for place, piece in enumerate(pieces):
        if piece.startswith(_WORD) and len(piece) > BEGINNING:
            by_beginning[piece[: BEGINNING + 1]].append(place)
    found = [
        (a, b)
        for places in by_beginning.values()
        for a in places
        for b in places
        if a != b and _alike(pieces[a], pieces[b])
    ]
    return np.array(found, np.int64).reshape(-1, 2)


def _alike(first: str, second: str) -> bool:
    same = 0
    while same < min(len(first), len(second)) and first[same] == second[same]:
        same += 1
    longer = max(len(first), len(second)) - same
    return longer <= ENDING and longer < same


def pooled(x: Float32[np.ndarray, "n e"], pairs: Pairs) -> Float32[np.ndarray, "n e"]:
    """Return vectors to which those of their forms are added, `SHARE` times the cosine of each.

    Rows of `x` are of unit length; the result is not. What points away from a word adds nothing.
    """
    to, of = pairs.T
    alike = np.maximum((x[to] * x[of]).sum(axis=1), 0)
    y = x.copy()
    np.add.at(y, to, SHARE * alike[:, None] * x[of])
    return y
