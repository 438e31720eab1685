"""Pairs of translations from local files, `wmt*` and `opus` ones from TFDS.

`tlm.A_B` has A before B in the alphabet, `mt.SRC_TGT` translates from the first to the second.
`wmt16.ro_en.ae.ro` is one side of TFDS's pairs, as text.
"""

import functools

import seqio
import tensorflow_datasets as tfds
from ml_collections import ConfigDict
from tensorflow_datasets.datasets.opus import opus_dataset_builder as opus

from xlmjax import languages
from xlmjax.preparation import corpora
from xlmjax.preparation.preprocessors import TARGET_TEXT, TEXT, Rename
from xlmjax.preparation.sources import CorpusSource
from xlmjax.tasks.registration import add_mixture, add_pair, add_text, add_translation

_WMT = ("14", "15", "16", "17", "18", "19")
_WITHOUT_TEST = ("19",)
_OPUS = ("OpenSubtitles", "Tanzil")  # what XLM-15 takes from OPUS, as far as TFDS has it
_OPUS_VALIDATION = 2_000  # first pairs; OPUS has no splits of its own


def register(data: ConfigDict) -> None:
    """Register the pairs of a config, and those of TFDS whose languages we know."""
    pairs = corpora.pairs_of(data)
    splits = [split for split in corpora.SPLITS if corpora.specs(data, split, "parallel")]
    if pairs and splits:
        for pair in pairs:
            add_pair(f"tlm.{'_'.join(pair)}", _source(data, splits, pair), pair, data)
        add_mixture("tlm", [f"tlm.{'_'.join(pair)}" for pair in pairs], data)
        ways = [way for pair in pairs for way in (pair, pair[::-1])]
        for way in ways:
            add_translation(f"mt.{'_'.join(way)}", _source(data, splits, way), way, data)
        add_mixture("mt", [f"mt.{'_'.join(way)}" for way in ways], data)
    _register_wmt(data)
    _register_opus(data)


def _source(data: ConfigDict, splits: list[str], way: tuple[str, str]) -> CorpusSource:
    make = functools.partial(corpora.translation_corpus, data, way=way)
    return CorpusSource({split: functools.partial(make, split) for split in splits})


def _register_wmt(data: ConfigDict) -> None:
    for year in _WMT:
        builder = getattr(tfds.translate, f"Wmt{year}Translate")
        for config in builder.BUILDER_CONFIGS:
            name = f"wmt{year}_translate/{config.name}:{config.version}"
            splits = {split: split for split in ("train", "validation")}
            source = seqio.TfdsDataSource(name, splits=splits)
            _add_pair(f"wmt{year}", source, config.language_pair, data)
            if year not in _WITHOUT_TEST:
                source = seqio.TfdsDataSource(name, splits={**splits, "test": "test"})
            pair = "_".join(_code(side) for side in config.language_pair)
            for side in config.language_pair:
                task = f"wmt{year}.{pair}.ae.{_code(side)}"
                add_text(task, source, _code(side), data, before=[Rename(((TEXT, side),))])
            for way in (config.language_pair, config.language_pair[::-1]):
                codes = (_code(way[0]), _code(way[1]))
                rename = Rename(((TEXT, way[0]), (TARGET_TEXT, way[1])))
                task = f"wmt{year}.mt.{'_'.join(codes)}"
                add_translation(task, source, codes, data, before=[rename])


def _register_opus(data: ConfigDict) -> None:
    known = {language.code for language in languages.LANGUAGES}
    for subset in _OPUS:
        for pair in opus.DATASET_MAP[subset].language_pairs:
            if "en" not in pair or not {_code(name) for name in pair} <= known:
                continue
            source = seqio.TfdsDataSource(
                f"opus/{_opus_config(subset, pair)}:0.1.0",
                splits={
                    "train": f"train[{_OPUS_VALIDATION}:]",
                    "validation": f"train[:{_OPUS_VALIDATION}]",
                },
            )
            _add_pair(f"opus.{subset.lower()}", source, pair, data)


def _opus_config(subset: str, pair: tuple[str, str]) -> str:
    """Enter a pair in the builder's list; seqio tells datasets apart by their names only."""
    name = f"{subset}.{'-'.join(pair)}"
    if name not in {config.name for config in opus.Builder.BUILDER_CONFIGS}:
        config = opus.OpusConfig(
            name=name, version=tfds.core.Version("0.1.0"), language_pair=pair, subsets=[subset]
        )
        opus.Builder.BUILDER_CONFIGS.append(config)
    return name


def _add_pair(
    prefix: str, source: seqio.DataSource, names: tuple[str, str], data: ConfigDict
) -> None:
    first, second = sorted(names, key=_code)
    codes = (_code(first), _code(second))
    rename = Rename(((TEXT, first), (TARGET_TEXT, second)))
    add_pair(f"{prefix}.tlm.{'_'.join(codes)}", source, codes, data, before=[rename])


def _code(name: str) -> str:
    """Return our code of a language of TFDS: OpenSubtitles writes Chinese as zh_cn and zh_tw."""
    return "zh" if name == "zh_cn" else name
