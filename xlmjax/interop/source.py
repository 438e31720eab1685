"""Reading what others wrote: a folder of transformers, or a file of the original XLM."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from xlmjax.interop import names
from xlmjax.interop.formats import FORMATS, XLM, Format
from xlmjax.interop.json_files import read_json
from xlmjax.interop.safetensors import INDEX, SINGLE, read_indexed, read_safetensors
from xlmjax.interop.stored import StoredArray
from xlmjax.interop.torch_files import read_torch

CONFIG = "config.json"
BIN, BIN_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
HALVES = ("encoder", "decoder")


@dataclasses.dataclass(frozen=True)
class Source:
    """A model of others: its options and where its tensors lie.

    halves: prefix of our parameters ("" or "encoder/" and "decoder/") -> tensors by their name, as
    `kind.table` spells it.
    """

    path: pathlib.Path
    kind: Format
    config: Mapping[str, Any]  # as Hugging Face names options
    halves: Mapping[str, Mapping[str, StoredArray]]
    dictionary: Mapping[int, str] | None = None  # of a file of the original

    @property
    def where(self) -> str:
        """What errors about options name."""
        return str(self.path / CONFIG if self.path.is_dir() else self.path)

    @property
    def languages(self) -> list[str]:
        """Codes of its languages in the order of their ids; none where it does not name them.

        Raises `ValueError` where the ids have gaps.
        """
        ids: Mapping[str, int] = self.config.get("lang2id") or {}
        codes = sorted(ids, key=ids.__getitem__)
        if [ids[code] for code in codes] != list(range(len(codes))):
            raise ValueError(f"{self.where}: the ids of lang2id are not 0, 1, 2, ...: {dict(ids)}")
        return codes

    @property
    def num_languages(self) -> int:
        """Rows of its table of languages, 0 where it has none."""
        if self.kind is not XLM or not self.config.get("use_lang_emb", True):
            return 0
        count = int(self.config.get("n_langs", 1))
        return count if count > 1 else 0

    @property
    def is_causal(self) -> bool:
        """Whether it was trained to predict the next word."""
        return bool(self.config.get("causal", False))

    def model_fields(self) -> dict[str, Any]:
        """Return the fields of ModelConfig that its options stand for."""
        fields = self.kind.model_fields(self.config, self.where)
        if self.kind is XLM:
            fields["mlp_dim"] = 4 * fields["embed_dim"]
        if "decoder/" in self.halves:
            fields["decoder_layers"] = fields["num_layers"]
        return fields


def open_source(path: pathlib.Path) -> Source:
    """Return what a path holds; raises `ValueError` naming what it lacks."""
    if path.is_file():
        return _original(path)
    if not (path / CONFIG).is_file():
        found = f"has no {CONFIG}" if path.is_dir() else "is not there"
        raise ValueError(
            f"--source={path} {found}: name a folder of transformers or a .pth file of XLM that "
            "has been downloaded"
        )
    config = read_json(path / CONFIG)
    model_type = config.get("model_type")
    if model_type not in FORMATS:
        known = ", ".join(FORMATS)
        raise ValueError(f"{path / CONFIG}: model_type={model_type!r} is not known; known: {known}")
    kind = FORMATS[model_type].with_ties(config.get("tie_word_embeddings", True))
    return Source(path, kind, config, {"": _with_prefix(kind, _tensors(path))})


def _tensors(folder: pathlib.Path) -> dict[str, StoredArray]:
    if (folder / SINGLE).is_file():
        return read_safetensors(folder / SINGLE)
    if (folder / INDEX).is_file():
        return read_indexed(folder, INDEX, read_safetensors)
    if (folder / BIN).is_file():
        return _state_dict(folder / BIN)
    if (folder / BIN_INDEX).is_file():
        return read_indexed(folder, BIN_INDEX, _state_dict)
    raise ValueError(
        f"{folder} has no weights: none of {SINGLE}, {INDEX}, {BIN}, {BIN_INDEX} is there"
    )


def _state_dict(path: pathlib.Path) -> dict[str, StoredArray]:
    content = read_torch(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds {type(content).__name__}, not tensors by name")
    return _arrays(content, path)


def _arrays(content: Mapping[str, Any], where: object) -> dict[str, StoredArray]:
    others = [name for name, value in content.items() if not isinstance(value, StoredArray)]
    if others:
        raise ValueError(f"{where}: {others[0]!r} is no tensor")
    return dict(content)


def _with_prefix(kind: Format, found: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    """Return tensors under their full names, also those of a body that was saved alone."""
    if any(name.startswith(kind.prefix) for name in found):
        return dict(found)
    heads = names.names_pattern(kind.heads)
    return {n if heads.fullmatch(n) else kind.prefix + n: array for n, array in found.items()}


def _original(path: pathlib.Path) -> Source:
    """Return what a checkpoint of XLM holds (specification 4.7)."""
    content = read_torch(path)
    if not isinstance(content, dict) or not isinstance(content.get("params"), dict):
        raise ValueError(f"{path}: no checkpoint of XLM, which has 'params' and 'model'")
    if "model" in content:
        found = {"": content["model"]}
    elif all(half in content for half in HALVES):
        found = {f"{half}/": content[half] for half in HALVES}
    else:
        raise ValueError(
            f"{path}: has neither 'model' nor 'encoder' and 'decoder', but {', '.join(content)}"
        )
    halves = {}
    for where, tensors in found.items():
        # A run on several GPUs puts `module.` before every name.
        plain = {re.sub(r"^module\.", "", name): array for name, array in tensors.items()}
        halves[where] = _with_prefix(XLM, _arrays(plain, path))
    positions = next(iter(halves.values())).get("transformer.position_embeddings.weight")
    config = {**content["params"], "model_type": XLM.model_type, "causal": _is_causal(content)}
    if positions is not None:
        config["max_position_embeddings"] = positions.shape[0]
    words = content.get("dico_id2word")
    return Source(path, XLM, config, halves, words)


def _is_causal(content: Mapping[str, Any]) -> bool:
    """Return whether a run predicted the next word and nothing else."""
    params = content["params"]
    return bool(params.get("clm_steps")) and not params.get("mlm_steps")
