"""Files of `torch.save`, read without torch and without running what is pickled in them.

A pickle may call any function when it is loaded. This reader admits what checkpoints consist of
(tensors, dicts, lists, numbers, strings) and refuses a file that asks for anything else, by the
name of what it asks for, before anything has run. Both layouts are read: the zip archive of torch
1.6 and later, and the one before, in which the published checkpoints of XLM and XLM-R are.
"""

import collections
import io
import pathlib
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from xlmjax.interop.stored import StoredArray

_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_MAGIC = 0x1950A86A20F9469CFC6C  # at the head of the older layout
_LOCAL_HEADER = 30  # bytes of a zip entry before its name


class _RefusedError(ValueError):
    """What the reader itself has to say about a file."""


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int  # elements


class _Admitted(NamedTuple):
    """A value that a pickle may name; a tuple, so that it cannot set attributes of it."""

    value: Any

    def __call__(self, *arguments: Any) -> Any:
        """Do what a function of torch or numpy is called for."""
        return self.value(*arguments)


class _Tensor(NamedTuple):
    """A tensor of which only the place is known: elements of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Attributes(dict):
    """Attributes of an object that was pickled, as a dict; none of its code is there."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state)


class _NumpyDtype:
    """What pickles of numpy scalars call for their dtype."""

    def __init__(self, code: str, *_: Any):
        self.dtype = np.dtype(str(code))
        if self.dtype.hasobject:
            raise TypeError("an array of objects")

    def __setstate__(self, state: Any) -> None:
        """Take nothing: the code says it all for numbers of this machine's byte order."""


class _NumpyArray:
    """An array of numpy, of which nothing is kept: XLM has one among its options."""

    def __setstate__(self, state: Any) -> None:
        """Take nothing."""


def _numpy_array(*_: Any) -> _NumpyArray:
    return _NumpyArray()


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


def _scalar(kind: _NumpyDtype, data: bytes) -> Any:
    return np.frombuffer(data, kind.dtype, 1)[0].item()


def _text_bytes(text: str, encoding: str) -> bytes:
    """Return bytes, which pickles of protocol 2 write as text."""
    if encoding != "latin1":
        raise TypeError(f"bytes written as {encoding!r}")
    return str(text).encode("latin-1")


# (module, name) that a pickle may ask for -> what it gets: what only rearranges.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("argparse", "Namespace"): Attributes,
    ("torch._utils", "_rebuild_tensor_v2"): _Admitted(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor"): _Admitted(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Admitted(_rebuild_parameter),
    ("torch", "Size"): tuple,
    ("numpy", "dtype"): _NumpyDtype,
    ("numpy", "ndarray"): _NumpyArray,
    ("numpy.core.multiarray", "_reconstruct"): _Admitted(_numpy_array),
    ("numpy._core.multiarray", "_reconstruct"): _Admitted(_numpy_array),
    ("numpy.core.multiarray", "scalar"): _Admitted(_scalar),
    ("numpy._core.multiarray", "scalar"): _Admitted(_scalar),
    ("_codecs", "encode"): _Admitted(_text_bytes),
    **{("torch", name): _Admitted(dtype) for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """Unpickles data alone; raises `_RefusedError` on the name of anything else.

    The one in Python: that in C makes a table of 2^33 entries where a damaged file says so.
    """

    def __init__(
        self, file: BinaryIO | io.BytesIO, path: pathlib.Path, storages: dict[str, _Storage]
    ):
        super().__init__(file, encoding="utf-8")
        self._path, self._storages = path, storages

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a global; nothing is imported."""
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _RefusedError(
                f"{self._path}: refused, nothing of it was run: its pickle asks for "
                f"{module}.{name}, and a file of weights needs tensors, dicts, lists, numbers and "
                "strings only. If you trust it, load it with torch and save a state_dict anew"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage that a pickle names, as a place to be found later."""
        kind, dtype, key, _, size, *_ = pid
        if kind != "storage" or getattr(dtype, "value", None) not in _STORAGES.values():
            raise _RefusedError(f"{self._path}: names {kind!r}, where torch writes storages only")
        return self._storages.setdefault(str(key), _Storage(str(key), dtype.value, int(size)))


def read_torch(path: pathlib.Path) -> Any:
    """Return what `torch.save` wrote, with a `StoredArray` in place of every tensor.

    Raises `ValueError` where the pickle asks for code, or where the file is no such file.
    """
    storages: dict[str, _Storage] = {}
    read = _read_zip if zipfile.is_zipfile(path) else _read_old
    try:
        content, place = read(path, storages)
        return _placed(content, path, place)
    except _RefusedError:
        raise
    except Exception as error:  # of any kind, where bytes are not what they were
        raise ValueError(f"{path}: not a file of torch.save, or damaged ({error})") from error


def _read_zip(
    path: pathlib.Path, storages: dict[str, _Storage]
) -> tuple[Any, Callable[[_Storage], int]]:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _RefusedError(f"{path}: a zip file without data.pkl, so not one of torch.save")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist():
            _check_order(path, archive.read(f"{root}byteorder").decode() == "little")
        content = _Unpickler(io.BytesIO(archive.read(pickles[0])), path, storages).load()
        places = {}
        with path.open("rb") as file:
            for key, storage in storages.items():
                entry = archive.getinfo(f"{root}data/{key}")
                needed = storage.size * storage.dtype.itemsize
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size < needed:
                    raise _RefusedError(f"{path}: storage {key} is compressed or cut off")
                file.seek(entry.header_offset)
                name, extra = struct.unpack("<26xHH", file.read(_LOCAL_HEADER))
                places[key] = entry.header_offset + _LOCAL_HEADER + name + extra
    return content, lambda storage: places[storage.key]


def _read_old(
    path: pathlib.Path, storages: dict[str, _Storage]
) -> tuple[Any, Callable[[_Storage], int]]:
    places: dict[str, int] = {}
    with path.open("rb") as file:
        # Magic number, protocol, facts of the machine, content, keys of the storages: five pickles.
        if _Unpickler(file, path, {}).load() != _MAGIC:
            raise _RefusedError(f"{path}: not a file of torch.save")
        _Unpickler(file, path, {}).load()
        _check_order(path, _Unpickler(file, path, {}).load()["little_endian"])
        content = _Unpickler(file, path, storages).load()
        for key in map(str, _Unpickler(file, path, {}).load()):
            size = int.from_bytes(file.read(8), "little")
            places[key] = file.tell()
            file.seek(size * storages[key].dtype.itemsize, io.SEEK_CUR)
        if file.tell() > path.stat().st_size:
            raise _RefusedError(f"{path}: cut off: fetch it again")
    return content, lambda storage: places[storage.key]


def _check_order(path: pathlib.Path, little: bool) -> None:
    if not little or sys.byteorder != "little":
        raise _RefusedError(f"{path}: written on, or read on, a big-endian machine")


def _placed(content: Any, path: pathlib.Path, place: Callable[[_Storage], int]) -> Any:
    """Return the content with the place of every tensor in the file."""
    if isinstance(content, _Tensor):
        storage = content.storage
        last = sum((n - 1) * s for n, s in zip(content.shape, content.strides, strict=True))
        backwards = min(content.offset, *content.shape, *content.strides, 0) < 0
        if backwards or (0 not in content.shape and content.offset + last >= storage.size):
            raise _RefusedError(f"{path}: a tensor of shape {content.shape} is beyond its storage")
        start = place(storage) + content.offset * storage.dtype.itemsize
        return StoredArray(path, start, storage.dtype, content.shape, content.strides)
    if isinstance(content, dict):
        return {key: _placed(value, path, place) for key, value in content.items()}
    if isinstance(content, list):
        return [_placed(value, path, place) for value in content]
    if isinstance(content, tuple):
        return tuple(_placed(value, path, place) for value in content)
    return content
