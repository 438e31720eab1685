"""`xlmjax vectors`: vectors of the pieces of two languages in one space, to start from."""

import argparse
import functools
import pathlib
import time
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from xlmjax.alignment import spelling, translations
from xlmjax.alignment.common_space import CommonSpace, find_common_space
from xlmjax.alignment.contexts import Contexts
from xlmjax.alignment.inflection import forms
from xlmjax.auto_prepare import ensure_stores
from xlmjax.data.mixture import open_groups
from xlmjax.data.store import TokenStore
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.data.word_vectors import write_word_vectors

HELP = """Learn vectors of the pieces of two languages in one space from the prepared text of each,
without any pair of sentences or dictionary, and write them as word2vec's text format has it:
checkpoint.init_vectors starts a run from them. Takes the text of all objectives of the config;
text about the same things in both languages does best. Prints the most frequent translations
found, so that one sees whether it went well."""
SHOWN = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--out", required=True, metavar="FILE", help="the vectors, e.g. en_fr.vec")
    parser.add_argument(
        "--languages", metavar="A,B", help="which two (default: the languages of the text, if two)"
    )
    parser.add_argument(
        "--refine-on",
        metavar="FOLDER",
        help="stores of more text, prepared with another config: at last the same pieces are "
        "counted there",
    )
    parser.add_argument(
        "--translations",
        metavar="FOLDER",
        help="stores of pairs (mt.A_B or mt.B_A), for instance what a translator that began from "
        "such vectors made of the text of either side: pieces that translate each other there are "
        "sooner taken for translations",
    )
    parser.add_argument(
        "--min-count", type=int, default=3, help="of a piece (default: %(default)s)"
    )
    parser.add_argument(
        "--max-pieces", type=int, default=20_000, help="of a language (default: %(default)s)"
    )
    parser.add_argument(
        "--max-contexts",
        type=int,
        default=2_500,
        help="most frequent pieces that are counted near the others, and of which translations "
        "are sought to share (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, help="of self-learning (default: the config's)")


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Count, align, write; progress and the translations found are printed."""
    started = time.monotonic()
    path = pathlib.Path(args.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    vocabulary = Vocabulary.load(config.data.vocabulary)
    ensure_stores(config)
    texts = _texts(config, vocabulary)
    first, second = _two(args.languages, texts)
    # What is missing is said before minutes of counting.
    more = [_store(args.refine_on, code, vocabulary) for code in (first, second) if args.refine_on]
    pairs = _pairs(args.translations, (first, second), vocabulary) if args.translations else None
    sides = [
        Contexts.of(
            texts[code],
            vocabulary,
            min_count=args.min_count,
            max_pieces=args.max_pieces,
            max_contexts=args.max_contexts,
        )
        for code in (first, second)
    ]
    for code, side in zip((first, second), sides, strict=True):
        print(f"{code}: {side.counts.sum():,} pieces of {len(side.pieces):,} kinds")
    wider = []
    if more:
        wider = [
            side.counted_in([store], vocabulary) for side, store in zip(sides, more, strict=True)
        ]
    seed = config.seed if args.seed is None else args.seed
    space = find_common_space(
        sides[0],
        sides[1],
        config.model.embed_dim,
        jax.random.key(seed),
        functools.partial(print, flush=True),
        wider,
        _clues(sides, vocabulary, pairs),
        [forms([vocabulary.pieces[i] for i in side.pieces]) for side in sides],
    )
    pieces, vectors = _merged(sides, space)
    write_word_vectors(path, [vocabulary.pieces[piece] for piece in pieces], vectors)
    shown = _translations(sides, space, vocabulary)
    print(f"{first} = {second}: {', '.join(shown)}")
    print(
        f"{path}: {len(pieces):,} of {vocabulary.size:,} pieces, {vectors.shape[1]} dimensions, "
        f"{time.monotonic() - started:.0f} s"
    )


def _texts(config: ConfigDict, vocabulary: Vocabulary) -> dict[str, list[TokenStore]]:
    """Return the stores of single texts by language, each once."""
    found: dict[str, dict[pathlib.Path, TokenStore]] = {}
    for group in open_groups(config, vocabulary):
        for task in group.mixture.tasks:
            if not task.is_pair:
                own = found.setdefault(task.languages[0], {})
                own[task.store.directory] = task.store
    return {code: list(stores.values()) for code, stores in found.items()}


def _store(folder: str, code: str, vocabulary: Vocabulary) -> TokenStore:
    """Return the training text of a language in a folder of stores."""
    places = [pathlib.Path(folder) / f"{kind}.{code}" / "train" for kind in ("mlm", "ae", "clm")]
    for place in places:
        if TokenStore.is_finished(place):
            return TokenStore.open(place, vocabulary.fingerprint)
    raise ValueError(
        f"--refine-on={folder}: there is no {', '.join(map(str, places))}: run `xlmjax prepare` "
        f"with a config whose data.stores that is and which has text of {code}"
    )


def _pairs(folder: str, codes: tuple[str, str], vocabulary: Vocabulary) -> tuple[TokenStore, bool]:
    """Return the training pairs of two languages in a folder, and whether the first is the source.

    Either way round will do.
    """
    for forward in (True, False):
        way = codes if forward else codes[::-1]
        place = pathlib.Path(folder) / f"mt.{'_'.join(way)}" / "train"
        if TokenStore.is_finished(place):
            return TokenStore.open(place, vocabulary.fingerprint), forward
    raise ValueError(
        f"--translations={folder}: there is no {place} nor the other way round: run `xlmjax "
        "prepare` with a config whose data.stores that is and whose mixture is of such pairs"
    )


def _clues(
    sides: Sequence[Contexts], vocabulary: Vocabulary, pairs: tuple[TokenStore, bool] | None
) -> np.ndarray:
    """Return what speaks for two contexts being translations: spelling, and pairs."""
    pieces = [side.contexts for side in sides]
    clues = spelling.WORTH * spelling.spelt_alike(
        *([vocabulary.pieces[i] for i in own] for own in pieces)
    )
    if pairs is not None:
        store, forward = pairs
        found = translations.translated(store, vocabulary, *pieces[:: 1 if forward else -1])
        clues = clues + translations.WORTH * (found if forward else found.T)
    return clues


def _two(chosen: str | None, texts: dict[str, list[TokenStore]]) -> tuple[str, str]:
    """Return the two languages to align, or raise `ValueError` with those that there are."""
    codes = sorted(texts) if chosen is None else chosen.split(",")
    if len(set(codes)) != 2 or len(codes) != 2 or not {*codes} <= {*texts}:
        raise ValueError(
            f"--languages={','.join(codes)}: name two that the objectives of the config have text "
            f"of: {', '.join(sorted(texts)) or 'there is none'}"
        )
    return codes[0], codes[1]


def _merged(sides: Sequence[Contexts], space: CommonSpace) -> tuple[np.ndarray, np.ndarray]:
    """Return pieces and vectors; a piece of both sides has the mean, by how often each has it."""
    pieces = np.concatenate([side.pieces for side in sides])
    counts = np.concatenate([side.counts for side in sides])[:, None]
    weighted = np.concatenate([space.first, space.second]) * counts
    kinds, place = np.unique(pieces, return_inverse=True)
    sums, total = np.zeros((len(kinds), weighted.shape[1])), np.zeros((len(kinds), 1))
    np.add.at(sums, place, weighted)
    np.add.at(total, place, counts)
    return kinds, sums / total


def _translations(
    sides: Sequence[Contexts], space: CommonSpace, vocabulary: Vocabulary
) -> list[str]:
    """Return the most frequent translations of which both sides have their own spelling."""
    shown: list[str] = []
    for pair in space.pairs.tolist():
        piece, other = (int(side.pieces[rank]) for side, rank in zip(sides, pair, strict=True))
        if piece != other and len(shown) < SHOWN:
            shown.append(f"{vocabulary.pieces[piece]} {vocabulary.pieces[other]}".replace("▁", ""))
    return shown
