"""Which items share a row: best fit on the histogram of their sizes."""

import numpy as np


def pack(sizes: np.ndarray, length: int, most: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Assign items to as few rows of `length` as best fit finds, longest items first.

    Works on the histogram of sizes (Krell et al. 2021, section 3.2), so its cost grows with the
    number of distinct sizes and not with the number of items. A row holds at most `most` items,
    any number if that is 0.

    sizes: integers [n], all at most `length`. Returns `first` int64 [rows + 1] and `items` integers
    [n]: row r holds items[first[r] : first[r + 1]], its longest first.
    """
    narrow = np.uint16 if length < 2**16 else np.int64  # numbers of 16 bits are sorted by radix
    order = compact(np.argsort((length - sizes).astype(narrow), kind="stable"))
    histogram = np.bincount(sizes, minlength=length + 1)
    # Shapes of rows by the room left in them: room -> [(sizes in the row, number of such rows)].
    open_rows: list[list[tuple[tuple[int, ...], int]]] = [[] for _ in range(length + 1)]
    most = most or length

    def put(shape: tuple[int, ...], count: int) -> None:
        """Keep rows of a shape by their room; one that is full of items has none."""
        open_rows[length - sum(shape) if len(shape) < most else 0].append((shape, count))

    for size in range(length, 0, -1):
        left = int(histogram[size])
        room = size
        while left and room < length:
            if not open_rows[room]:
                room += 1
                continue
            shape, count = open_rows[room].pop()
            used = min(count, left)
            left -= used
            if used < count:
                put(shape, count - used)
            put((*shape, size), used)
        while left:
            fit = min(length // size, left, most)
            rows = left // fit
            put((size,) * fit, rows)
            left -= rows * fit
    next_item = np.concatenate([[0], np.cumsum(histogram[::-1])])[::-1][1:].copy()
    firsts, blocks = [], []
    for shape, count in (row for rows in open_rows for row in rows):
        block = np.empty((count, len(shape)), dtype=np.int64)
        for column, size in enumerate(shape):
            block[:, column] = np.arange(next_item[size], next_item[size] + count)
            next_item[size] += count
        firsts.append(np.full(count, len(shape)))
        blocks.append(order[block.reshape(-1)])
    per_row = np.concatenate([*firsts, np.zeros(0, dtype=np.int64)])
    first = np.concatenate([[0], np.cumsum(per_row)]).astype(np.int64)
    return first, np.concatenate([*blocks, np.zeros(0, dtype=order.dtype)])


def compact(indices: np.ndarray) -> np.ndarray:
    """Return indices of 0 and more in 32 bits where they fit."""
    return indices.astype(np.int32 if indices.max(initial=0) < 2**31 else np.int64, copy=False)
