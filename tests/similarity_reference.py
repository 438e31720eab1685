"""Similarity of sets of vectors in plain NumPy, by the definitions, for tests."""

import numpy as np


def cosines(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return (x @ y.T) / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1))


def scores(x, y, measure, k):
    """The definitions of Conneau et al. (2018) and Artetxe & Schwenk (2019), one pair at a time."""
    cosine = cosines(x, y)
    if measure == "cosine":
        return cosine
    found = np.empty_like(cosine)
    for i, j in np.ndindex(cosine.shape):
        of_x = np.sort(cosine[i])[-k:]
        of_y = np.sort(cosine[:, j])[-k:]
        if measure == "csls":
            found[i, j] = 2 * cosine[i, j] - of_x.mean() - of_y.mean()
        else:
            found[i, j] = cosine[i, j] / (
                of_x.sum() / (2 * len(of_x)) + of_y.sum() / (2 * len(of_y))
            )
    return found


def matched(table):
    return int((table.argmax(axis=1) == np.arange(len(table))).sum())
