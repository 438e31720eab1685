"""Whether the words of the demo's languages lie together in the embedding table, or only alike.

  python benchmarks/demo_words.py runs/demo/mlm_tlm

Nouns and verbs of the demo's lexicon that are one piece in both languages. For every two languages:
how many nearest neighbours, of one in the other, are the translation (precision@1, by cosine, both
ways), as the table is and after the rotation that maps one language best onto the other (orthogonal
Procrustes, learned on every other word and scored on the rest). Means are taken away before. Where
the second is much higher than the first, the languages are alike but lie apart.
"""

import argparse
import itertools

import numpy as np

import xlmjax
from xlmjax.configs.demo import LANGUAGES
from xlmjax.preparation import demo_lexicon as lexicon


def words() -> list[dict[str, str]]:
    """Return {code: word} of the nouns (singular) and the verbs (as in the lexicon)."""
    found = []
    for english, noun in lexicon.NOUNS.items():
        found.append({"en": english} | {code: noun.cells[code][1] for code in lexicon.COLUMNS})
    for english, verb in lexicon.VERBS.items():
        found.append({"en": english} | {code: verb[code] for code in lexicon.COLUMNS})
    return found


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def precision(a: np.ndarray, b: np.ndarray) -> float:
    """Return the share of rows whose nearest row on the other side is their own, both ways."""
    scores = unit(a) @ unit(b).T
    own = np.arange(len(a))
    return float(np.mean([scores.argmax(1) == own, scores.argmax(0) == own]))


def rotation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the orthogonal map that brings a nearest to b."""
    u, _, v = np.linalg.svd(a.T @ b)
    return u @ v


def main() -> None:
    """Print a line for every two languages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", help="of a run of configs/demo.py")
    args = parser.parse_args()
    trained = xlmjax.load(args.workdir)
    table = np.asarray(trained.model.embeddings.tokens[...], np.float32)

    def piece(word: str) -> int | None:
        pieces = trained.experiment.vocabulary.encode(word.replace("_", " "))
        return pieces[0] if len(pieces) == 1 else None

    rows = [{code: piece(word) for code, word in row.items()} for row in words()]
    print("pair   words  as they lie   half   rotated half")
    for one, other in itertools.combinations(LANGUAGES, 2):
        pairs = [
            (row[one], row[other])
            for row in rows
            if None not in (row[one], row[other]) and row[one] != row[other]
        ]
        a, b = (table[list(side)] for side in zip(*pairs, strict=True))
        a, b = a - a.mean(0), b - b.mean(0)
        turned = a[1::2] @ rotation(a[::2], b[::2])
        print(
            f"{one}-{other}  {len(pairs):>5}  {precision(a, b):>11.1%}  "
            f"{precision(a[1::2], b[1::2]):>5.1%}  {precision(turned, b[1::2]):>13.1%}"
        )


if __name__ == "__main__":
    main()
