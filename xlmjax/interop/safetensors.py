"""Files of the safetensors format, by numpy alone: where arrays lie, and writing them one by one.

A file is the length of a header (8 bytes, little-endian), the header (JSON: name -> dtype, shape,
first and last byte), and the arrays (https://github.com/huggingface/safetensors, "Format").
"""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from xlmjax.interop.json_files import read_json
from xlmjax.interop.stored import StoredArray

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_METADATA = "__metadata__"
_LONGEST_HEADER = 100_000_000  # bytes: what the format allows

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def read_safetensors(path: pathlib.Path) -> dict[str, StoredArray]:
    """Return the arrays of a file by name; raises `ValueError` where it is damaged."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(_LONGEST_HEADER, size - 8):
            raise ValueError(f"{path}: not a safetensors file, or cut off: fetch it again")
        try:
            header: dict[str, Any] = dict(json.loads(file.read(length)))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: its header is no JSON object ({error}): fetch it again"
            ) from None
    found = {}
    for name, entry in header.items():
        if name == _METADATA:
            continue
        try:
            dtype, (start, stop) = str(entry["dtype"]), map(int, entry["data_offsets"])
            shape = tuple(map(int, entry["shape"]))
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"{path}: {name} has no dtype, shape and two data_offsets: fetch it again"
            ) from None
        if dtype not in _DTYPES:
            raise ValueError(f"{path}: {name} has dtype {dtype}; known: {', '.join(_DTYPES)}")
        array = StoredArray(path, 8 + length + start, _DTYPES[dtype], shape)
        if stop - start != array.num_bytes or start < 0 or 8 + length + stop > size:
            raise ValueError(
                f"{path}: {name} should be {array.num_bytes:,} bytes at {start:,}, but the file "
                f"says {stop - start:,} of {size:,}: damaged or cut off, fetch it again"
            )
        found[name] = array
    return found


def read_indexed(folder: pathlib.Path, index: str, read: Callable) -> dict[str, StoredArray]:
    """Return the arrays of the files that an index (`weight_map`: name -> file) names.

    Raises `ValueError` where a file is missing or lacks an array.
    """
    weight_map: Mapping[str, str] | None = read_json(folder / index).get("weight_map")
    if not weight_map:
        raise ValueError(f"{folder / index} has no 'weight_map' of tensors and files: fetch it")
    found: dict[str, StoredArray] = {}
    for name in sorted(set(weight_map.values())):
        if pathlib.Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"{folder / index} names {name!r}, which is not there: fetch it")
        arrays = read(folder / name)
        found |= {key: array for key, array in arrays.items() if weight_map.get(key) == name}
    if missing := sorted(set(weight_map) - set(found)):
        raise ValueError(f"{folder / index} names {missing[0]!r}, but {weight_map[missing[0]]} "
                         "lacks it: the files are of different models")  # fmt: skip
    return found


def write_safetensors(
    folder: pathlib.Path,
    shapes: Mapping[str, Sequence[int]],
    value: Callable[[str], np.ndarray],
    dtype: np.dtype,
    shard_bytes: int,
) -> list[pathlib.Path]:
    """Write arrays into a folder, one in memory at a time; returns the files.

    `value(name)` makes the array of a name when its turn comes. More than `shard_bytes` go into
    several files beside an index, as transformers splits them.
    """
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name, shape in shapes.items():
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if shards[-1] and size > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= size
    count = len(shards)
    files = [
        SINGLE if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
        for number in range(1, count + 1)
    ]
    for file, names in zip(files, shards, strict=True):
        _write_file(folder / file, {name: tuple(shapes[name]) for name in names}, value, dtype)
    written = [folder / file for file in files]
    if count > 1:
        weight_map = {
            name: file for file, names in zip(files, shards, strict=True) for name in names
        }
        total = sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes.values())
        content = {"metadata": {"total_size": total * dtype.itemsize}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        written.append(folder / INDEX)
    return written


def _write_file(
    path: pathlib.Path,
    shapes: Mapping[str, tuple[int, ...]],
    value: Callable[[str], np.ndarray],
    dtype: np.dtype,
) -> None:
    header: dict[str, Any] = {_METADATA: {"format": "pt"}}  # which transformers asks for
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays are aligned
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            array = np.ascontiguousarray(value(name), dtype)
            if array.shape != shape:
                raise ValueError(f"{path}: {name} has shape {array.shape}, not {shape}")
            file.write(array.view(np.uint8).data if array.size else b"")
