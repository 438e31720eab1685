"""Writing token stores: shard by shard, under temporary names, continuing where a kill left off."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import uuid
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int

from xlmjax.data import features as names
from xlmjax.data.store import (
    MANIFEST,
    FeatureSpec,
    Manifest,
    Shard,
    check_files,
    checksum,
    file_names,
    label_file,
    shard_from_json,
)


class ShardWriter:
    """Writes one shard, batch by batch, under temporary names; `finish` renames and returns it.

    As a context manager it removes the temporary files of a shard that was not finished.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        features: Mapping[str, FeatureSpec],
        index: int,
        count: int,
        labelled: bool = False,
    ):
        self._directory = pathlib.Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, tuple[GrowingArray, GrowingArray]] = {}
        for feature, spec in features.items():
            paths = (self._directory / name for name in file_names(feature, index, count))
            self._files[feature] = (
                GrowingArray(next(paths), np.dtype(spec.dtype)),
                GrowingArray(next(paths), np.dtype(np.int64)),
            )
        path = self._directory / label_file(index, count)
        self._labels = GrowingArray(path, np.dtype(np.int32)) if labelled else None
        self._characters = dict.fromkeys(features, 0)
        self._bytes = dict.fromkeys(features, 0)
        self._examples = 0
        for _, offsets in self._files.values():
            offsets.append(np.zeros(1))

    def append(
        self,
        lengths: Mapping[str, Int[np.ndarray, "examples"]],
        tokens: Mapping[str, Int[np.ndarray, "_"]],
        characters: Mapping[str, int],
        num_bytes: Mapping[str, int],
        labels: Int[np.ndarray, "examples"] | None = None,
    ) -> None:
        """Append examples, for every feature their lengths and their tokens end to end."""
        counts = {feature: len(lengths[feature]) for feature in self._files}
        if self._labels is not None and labels is not None:
            counts[names.LABEL] = len(labels)
            self._labels.append(labels)
        if len(set(counts.values())) != 1:
            raise ValueError(f"features of one batch have different numbers of examples: {counts}")
        for feature, (token_file, offset_file) in self._files.items():
            ends = np.cumsum(lengths[feature], dtype=np.int64)
            if (ends[-1] if len(ends) else 0) != len(tokens[feature]):
                raise ValueError(
                    f"{feature}: lengths add up to {ends[-1:]}, there are {len(tokens[feature])}"
                )
            offset_file.append(ends + token_file.size)
            token_file.append(tokens[feature])
            self._characters[feature] += characters[feature]
            self._bytes[feature] += num_bytes[feature]
        self._examples += next(iter(counts.values()))

    def finish(self, dropped: Mapping[str, int]) -> Shard:
        """Close and rename the files; `dropped` counts by reason what was left out."""
        arrays = self._arrays()
        return Shard(
            examples=self._examples,
            tokens={feature: tokens.size for feature, (tokens, _) in self._files.items()},
            characters=self._characters,
            bytes=self._bytes,
            dropped=dict(dropped),
            files={array.path.name: array.finish() for array in arrays},
        )

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        for array in self._arrays():
            array.discard()

    def _arrays(self) -> "list[GrowingArray]":
        arrays = [array for pair in self._files.values() for array in pair]
        return arrays if self._labels is None else [*arrays, self._labels]


class GrowingArray:
    """A one-dimensional .npy file that is appended to; its header is rewritten at the end."""

    def __init__(self, path: pathlib.Path, dtype: np.dtype):
        self.path = path
        self.size = 0
        self._dtype = dtype
        self._temporary = _temporary(path)
        self._file: BinaryIO = self._temporary.open("wb")
        self._write_header()
        self._header_size = self._file.tell()

    def _write_header(self) -> None:
        # numpy pads the header so that a growing first axis never changes its length.
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.size,),
        }
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, values: np.ndarray) -> None:
        """Write values behind those that are there."""
        self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self.size += len(values)

    def finish(self) -> tuple[int, int]:
        """Close and rename the file; returns its size in bytes and its checksum."""
        self._file.seek(0)
        self._write_header()
        if self._file.tell() != self._header_size:
            raise RuntimeError(f"{self.path}: numpy changed the length of the .npy header")
        _close_and_rename(self._file, self._temporary, self.path)
        return self.path.stat().st_size, checksum(self.path)

    def discard(self) -> None:
        """Remove a file that is not finished."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def _temporary(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:8]}")


def _close_and_rename(file: BinaryIO, temporary: pathlib.Path, path: pathlib.Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
    temporary.replace(path)


def write_json(path: pathlib.Path, content: Any, indent: int | None = 1) -> None:
    """Write a JSON file under a temporary name and rename it."""
    temporary = _temporary(path)
    with contextlib.ExitStack() as stack:
        stack.callback(temporary.unlink, missing_ok=True)
        file = stack.enter_context(temporary.open("wb"))
        file.write(json.dumps(content, indent=indent, ensure_ascii=False).encode() + b"\n")
        _close_and_rename(file, temporary, path)


@dataclasses.dataclass(frozen=True)
class StoreWriter:
    """Writes a store shard by shard, in any order and from any process; continues an old attempt.

    A finished shard leaves a record, `shard-0000i-of-0000n.json`, with what it was made from, so
    that a preparation that was killed writes the missing shards only. `finish` puts the records
    together into the manifest.
    """

    directory: pathlib.Path
    task: str
    split: str
    kind: str
    features: dict[str, FeatureSpec]
    vocabulary: str
    source_fingerprint: str
    num_shards: int
    labels: tuple[str, ...] = ()

    def shard(self, index: int) -> ShardWriter:
        """Start to write a shard."""
        labelled = bool(self.labels)
        return ShardWriter(self.directory, self.features, index, self.num_shards, labelled)

    def record(self, index: int, shard: Shard) -> None:
        """Note that a shard is complete."""
        content = {"made_from": self._made_from, "shard": dataclasses.asdict(shard)}
        write_json(self._record_path(index), content)

    def start(self) -> None:
        """Make the directory; from here on an older store in it does not count as finished."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / MANIFEST).unlink(missing_ok=True)

    def finished_shard(self, index: int, checksums: bool = True) -> Shard | None:
        """Return a shard of an earlier attempt that is intact and made from the same text."""
        try:
            record = json.loads(self._record_path(index).read_text("utf-8"))
            if record["made_from"] != self._made_from:
                return None
            shard = shard_from_json(record["shard"])
            check_files(self.directory, shard, checksums)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return shard

    def finish(self) -> Manifest:
        """Write the manifest of a complete store; remove records and what killed attempts left."""
        shards = [self.finished_shard(index, checksums=False) for index in range(self.num_shards)]
        missing = [index for index, shard in enumerate(shards) if shard is None]
        if missing:
            raise ValueError(f"{self.directory}: shards {missing} of {self.num_shards} are missing")
        manifest = Manifest(
            task=self.task,
            split=self.split,
            kind=self.kind,
            features=self.features,
            vocabulary=self.vocabulary,
            source_fingerprint=self.source_fingerprint,
            shards=tuple(shard for shard in shards if shard is not None),
            labels=self.labels,
        )
        write_json(self.directory / MANIFEST, manifest.to_json())
        keep = {name for shard in manifest.shards for name in shard.files}
        for pattern in ("*.npy", "shard-*.json", "*.tmp-*"):
            for path in self.directory.glob(pattern):
                if path.name not in keep:
                    path.unlink()
        return manifest

    def _record_path(self, index: int) -> pathlib.Path:
        return self.directory / f"shard-{index:05d}-of-{self.num_shards:05d}.json"

    @functools.cached_property
    def _made_from(self) -> str:
        parts = dataclasses.asdict(self)
        del parts["directory"]
        return f"{zlib.crc32(json.dumps(parts, sort_keys=True).encode()):08x}"
