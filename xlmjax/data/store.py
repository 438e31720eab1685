"""Token stores: ragged token arrays on disk, memory-mapped, with a manifest and checksums.

A store is a directory of shards. Shard i of n holds, for every feature, a flat array of tokens
`FEATURE-0000i-of-0000n.tokens.npy` and int64 offsets `FEATURE-0000i-of-0000n.offsets.npy`
(examples + 1 of them, the first 0), and where examples are labelled, the int32 label of each in
`label-0000i-of-0000n.npy`. `manifest.json` is written last: a store without it is not finished.
Tokens carry no special ids; layouts add them. Held-out translations have their text besides, as
UTF-8 bytes in features of the same kind.
"""

import bisect
import dataclasses
import functools
import json
import os
import pathlib
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Int64

from xlmjax.data.features import LABEL, RAW_OF

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_CHUNK = 1 << 22


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """One ragged feature: the dtype of its elements and the language of its text."""

    dtype: str
    language: str


@dataclasses.dataclass(frozen=True)
class Shard:
    """What one shard holds; `files` maps a file name to its size in bytes and its CRC-32."""

    examples: int
    tokens: dict[str, int]
    characters: dict[str, int]
    bytes: dict[str, int]
    dropped: dict[str, int]
    files: dict[str, tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a store holds and what it was made from; totals are sums over its shards.

    `kind` is "text" (one feature, `tokens`), "pair" (`tokens` and `target_tokens`) or "translation"
    (a pair from source to target; held-out ones with `source_text` and `reference`, raw UTF-8),
    `vocabulary` the fingerprint of the vocabulary, `source_fingerprint` that of the text and its
    preprocessing, `characters` and `bytes` the size of the text kept, before tokenisation. `labels`
    are the names behind the label ids, none where examples carry no label.
    """

    task: str
    split: str
    kind: str
    features: dict[str, FeatureSpec]
    vocabulary: str
    source_fingerprint: str
    shards: tuple[Shard, ...]
    labels: tuple[str, ...] = ()
    format_version: int = FORMAT_VERSION

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of the features of tokens: all but raw text."""
        return tuple(name for name in self.features if name not in RAW_OF)

    @property
    def examples(self) -> int:
        """Number of examples."""
        return sum(shard.examples for shard in self.shards)

    @property
    def tokens(self) -> dict[str, int]:
        """Number of tokens of every feature."""
        return _total(shard.tokens for shard in self.shards)

    @property
    def characters(self) -> dict[str, int]:
        """Number of characters of the text of every feature."""
        return _total(shard.characters for shard in self.shards)

    @property
    def bytes(self) -> dict[str, int]:
        """Number of UTF-8 bytes of the text of every feature."""
        return _total(shard.bytes for shard in self.shards)

    @property
    def dropped(self) -> dict[str, int]:
        """Number of examples that preparation dropped, by reason."""
        return _total(shard.dropped for shard in self.shards)

    def to_json(self) -> dict[str, Any]:
        """Return the content of `manifest.json`: the fields, and the totals for a human reader."""
        totals = {
            name: getattr(self, name)
            for name in ("examples", "tokens", "characters", "bytes", "dropped")
        }
        fields = dataclasses.asdict(self)
        return {**fields, **totals, "shards": fields["shards"]}

    @classmethod
    def load(cls, directory: pathlib.Path) -> "Manifest":
        """Read the manifest of a store; raises `ValueError` where it is missing or of no use."""
        path = directory / MANIFEST
        if not path.is_file():
            raise ValueError(
                f"{directory}: no finished token store here ({MANIFEST} is missing); "
                "run `xlmjax prepare` with the same --config"
            )
        try:
            raw = json.loads(path.read_text("utf-8"))
            version = raw["format_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not a manifest ({error}); {_REBUILD}") from error
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{path}: format version {version}, this xlmjax reads {FORMAT_VERSION}; {_REBUILD}"
            )
        try:
            raw.setdefault("labels", ())  # stores from before there were labels
            fields = {field.name: raw[field.name] for field in dataclasses.fields(cls)}
            fields["labels"] = tuple(raw["labels"])
            fields["features"] = {
                name: FeatureSpec(**feature) for name, feature in raw["features"].items()
            }
            fields["shards"] = tuple(shard_from_json(shard) for shard in raw["shards"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: damaged manifest ({error!r}); {_REBUILD}") from error
        return cls(**fields)


_REBUILD = "delete the directory and run `xlmjax prepare`"


def _total(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return total


def shard_from_json(raw: dict[str, Any]) -> Shard:
    """Return a shard from its part of a manifest; raises `KeyError` or `TypeError`."""
    return Shard(**{**raw, "files": {name: tuple(size) for name, size in raw["files"].items()}})


class TokenStore:
    """Read access to a finished store; every array it returns is read-only or a fresh copy."""

    def __init__(self, directory: pathlib.Path, manifest: Manifest):
        self.directory = directory
        self.manifest = manifest
        self._first_example = _starts(shard.examples for shard in manifest.shards)
        self._features = {name: self._map(name) for name in manifest.features}

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        vocabulary_fingerprint: str | None = None,
        verify: bool = True,
    ) -> "TokenStore":
        """Open a store.

        Raises `ValueError` when the store is missing, of another format version, of another
        vocabulary than `vocabulary_fingerprint`, or when a file is missing, truncated or (with
        `verify`, which reads everything once) altered.
        """
        directory = pathlib.Path(directory)
        manifest = Manifest.load(directory)
        if vocabulary_fingerprint not in (None, manifest.vocabulary):
            raise ValueError(
                f"{directory}: made with vocabulary {manifest.vocabulary}, this run has "
                f"{vocabulary_fingerprint}; set data.vocabulary to the one it was made with, or "
                "data.stores to another directory, or run `xlmjax prepare` to make it again"
            )
        for shard in manifest.shards:
            check_files(directory, shard, checksums=verify)
        return cls(directory, manifest)

    @staticmethod
    def is_finished(directory: str | os.PathLike[str]) -> bool:
        """Say whether a store was written to its end; it may still be of another vocabulary."""
        return (pathlib.Path(directory) / MANIFEST).is_file()

    def __len__(self) -> int:
        return self.manifest.examples

    def lengths(self, feature: str) -> Int32[np.ndarray, "examples"]:
        """Return the number of tokens of every example."""
        parts = [np.diff(offsets) for _, offsets in self._shards(feature).arrays]
        return np.concatenate(parts).astype(np.int32)

    def starts(self, feature: str, examples: Int64[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
        """Return where examples start in the flat tokens of all shards; `len(store)` is their end.

        Read from the mapped files, so that memory does not grow with the store.
        """
        shards = self._shards(feature)
        if len(shards.arrays) == 1:
            return shards.arrays[0][1][examples]
        shard_of = np.searchsorted(self._first_example[1:-1], examples, side="right")
        found = np.empty(np.shape(examples), dtype=np.int64)
        for index in np.unique(shard_of):
            chosen = shard_of == index
            local = examples[chosen] - self._first_example[index]
            found[chosen] = shards.arrays[index][1][local] + shards.first_token[index]
        return found

    def example_at(self, feature: str, place: int, delimiters: int) -> int:
        """Return which example holds a place of all of them, so many `delimiters` after each.

        A search in the mapped offsets: some 30 numbers of a billion are read. Raises `IndexError`
        outside.
        """
        shards = self._shards(feature)

        def shard_start(index: int) -> int:
            return shards.first_token[index] + delimiters * self._first_example[index]

        count = len(shards.arrays)
        if not 0 <= place < shard_start(count):
            raise IndexError(f"{self.directory}: no place {place} of {shard_start(count)}")
        shard = bisect.bisect_right(range(count), place, key=shard_start) - 1
        offsets = shards.arrays[shard][1]
        local = bisect.bisect_right(
            range(len(offsets) - 1),
            place - shard_start(shard),
            key=lambda index: offsets[index] + delimiters * index,
        )
        return self._first_example[shard] + local - 1

    def flat(self, feature: str) -> list[Int[np.ndarray, "_"]]:
        """Return the flat tokens of every shard, in order, as memory maps."""
        return [tokens for tokens, _ in self._shards(feature).arrays]

    def read(self, feature: str, index: int) -> Int[np.ndarray, "_"]:
        """Return the tokens of one example: a view of the memory map."""
        if not 0 <= index < self._first_example[-1]:
            raise IndexError(f"{self.directory}: no example {index} of {self._first_example[-1]}")
        shard = bisect.bisect_right(self._first_example, index) - 1
        tokens, offsets = self._shards(feature).arrays[shard]
        local = index - self._first_example[shard]
        return tokens[offsets[local] : offsets[local + 1]]

    def read_range(self, feature: str, start: int, stop: int) -> list[Int[np.ndarray, "_"]]:
        """Return examples `start` to `stop` as `read` gives them; raises `IndexError` outside."""
        return [self.read(feature, index) for index in range(start, stop)]

    def text(self, feature: str, index: int) -> str:
        """Return the raw text of one example, as it stood in the file.

        Raises `ValueError` where the feature holds tokens or is not there.
        """
        if feature not in RAW_OF or feature not in self._features:
            known = ", ".join(name for name in self._features if name in RAW_OF) or "none"
            raise ValueError(
                f"{self.directory}: {feature!r} is no raw text of this store, which has {known}; "
                "translation tasks (mt.SRC_TGT) have source_text and reference on every split but "
                "train"
            )
        return self.read(feature, index).tobytes().decode()

    def gather(self, feature: str, start: int, stop: int) -> Int[np.ndarray, "_"]:
        """Return tokens `start` to `stop` of the concatenation of all examples of all shards."""
        shards = self._shards(feature)
        total = shards.first_token[-1]
        if not 0 <= start <= stop <= total:
            raise IndexError(f"{self.directory}: no tokens {start} to {stop} of {total}")
        index = min(bisect.bisect_right(shards.first_token, start), len(shards.arrays)) - 1
        parts = []
        while True:
            first = shards.first_token[index]
            parts.append(shards.arrays[index][0][start - first : stop - first])
            start = shards.first_token[index + 1]
            if start >= stop:
                return parts[0] if len(parts) == 1 else np.concatenate(parts)
            index += 1

    def take(self, feature: str, places: Int64[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """Return the tokens at some places of the concatenation of all examples of all shards."""
        shards = self._shards(feature)
        if len(shards.arrays) == 1:
            return shards.arrays[0][0][places]
        shard_of = np.searchsorted(shards.first_token, places, side="right") - 1
        taken = np.empty(len(places), self.manifest.features[feature].dtype)
        for index in np.unique(shard_of):
            chosen = shard_of == index
            taken[chosen] = shards.arrays[index][0][places[chosen] - shards.first_token[index]]
        return taken

    @functools.cached_property
    def labels(self) -> Int32[np.ndarray, "examples"]:
        """The label of every example, an index into `manifest.labels`.

        Raises `ValueError` where examples carry no labels.
        """
        if not self.manifest.labels:
            raise ValueError(
                f"{self.directory}: its examples carry no labels; a task of labelled examples is "
                "registered with xlmjax.tasks.add_classification"
            )
        count = len(self.manifest.shards)
        parts = [
            _load(self.directory / label_file(index, count), np.dtype(np.int32), shard.examples)
            for index, shard in enumerate(self.manifest.shards)
        ]
        return np.concatenate(parts)

    def language(self, feature: str) -> str:
        """Return the language code of a feature."""
        return self.manifest.features[feature].language

    def _shards(self, feature: str) -> "_Mapped":
        try:
            return self._features[feature]
        except KeyError:
            known = ", ".join(self._features)
            raise KeyError(f"{self.directory}: no feature {feature!r}; known: {known}") from None

    def _map(self, feature: str) -> "_Mapped":
        dtype = np.dtype(self.manifest.features[feature].dtype)
        count = len(self.manifest.shards)
        arrays = []
        for index, shard in enumerate(self.manifest.shards):
            tokens_path, offsets_path = (
                self.directory / name for name in file_names(feature, index, count)
            )
            tokens = _load(tokens_path, dtype, shard.tokens[feature])
            offsets = _load(offsets_path, np.dtype(np.int64), shard.examples + 1)
            arrays.append((tokens, offsets))
        return _Mapped(arrays, _starts(shard.tokens[feature] for shard in self.manifest.shards))


@dataclasses.dataclass(frozen=True)
class _Mapped:
    """The (tokens, offsets) of every shard of a feature, and the flat start of each shard."""

    arrays: list[tuple[np.ndarray, np.ndarray]]
    first_token: list[int]


def _starts(sizes: Iterable[int]) -> list[int]:
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    return starts


def _load(path: pathlib.Path, dtype: np.dtype, size: int) -> np.ndarray:
    try:
        # A plain view of the map: np.memmap's own slicing costs several microseconds a call.
        array = np.load(path, mmap_mode="r").view(np.ndarray)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable ({error}); {_REBUILD}") from error
    if array.dtype != dtype or array.shape != (size,):
        raise ValueError(
            f"{path}: holds {array.dtype} {array.shape}, its manifest says {dtype} ({size},); "
            f"{_REBUILD}"
        )
    return array


def file_names(feature: str, index: int, count: int) -> tuple[str, str]:
    """Return the names of the token and the offset file of one shard of a feature."""
    stem = f"{feature}-{index:05d}-of-{count:05d}"
    return f"{stem}.tokens.npy", f"{stem}.offsets.npy"


def label_file(index: int, count: int) -> str:
    """Return the name of the file of labels of one shard."""
    return f"{LABEL}-{index:05d}-of-{count:05d}.npy"


def check_files(directory: pathlib.Path, shard: Shard, checksums: bool) -> None:
    """Raise `ValueError` where a file of the shard is missing, truncated or altered."""
    for name, (size, expected) in shard.files.items():
        path = directory / name
        if not path.is_file():
            raise ValueError(f"{path}: shard file is missing; {_REBUILD}")
        if path.stat().st_size != size:
            raise ValueError(
                f"{path}: {path.stat().st_size} bytes, its manifest says {size}: truncated or "
                f"overwritten; {_REBUILD}"
            )
        if checksums and (actual := checksum(path)) != expected:
            raise ValueError(
                f"{path}: CRC-32 {actual:08x}, its manifest says {expected:08x}: altered; "
                f"{_REBUILD}"
            )


def checksum(path: pathlib.Path) -> int:
    """Return the CRC-32 of a file."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value
