"""Arrays that lie in files: known by place, dtype and shape, mapped only while they are read."""

import dataclasses
import math
import pathlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array in a file, of which nothing is in memory until `open`."""

    path: pathlib.Path
    offset: int  # of its first byte
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None  # in elements; None: the last axis runs fastest

    def open(self) -> np.ndarray:
        """Return a read-only map of the array; its pages are given back when it is forgotten."""
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        if self.strides is None:
            return np.memmap(self.path, self.dtype, "r", self.offset, self.shape or (1,)).reshape(
                self.shape
            )
        span = 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        flat = np.memmap(self.path, self.dtype, "r", self.offset, (span,))
        strides = tuple(stride * self.dtype.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(flat, self.shape, strides, writeable=False)

    @property
    def num_bytes(self) -> int:
        """Size of its elements."""
        return math.prod(self.shape) * self.dtype.itemsize
