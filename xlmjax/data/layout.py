"""Examples -> rows of one length: `stream` (concatenate, cut), `pack` (best fit) or `pad` (one)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from xlmjax import languages
from xlmjax.data import features
from xlmjax.data.permutation import derive_key
from xlmjax.data.store import TokenStore
from xlmjax.data.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Delimiters:
    """Ids that layouts add to tokens: sentence boundary and filler.

    A segment begins with `start`: the end symbol itself, as in XLM, or another, as in XLM-R.
    """

    eos: int
    pad: int
    bos: int | None = None

    @classmethod
    def of(cls, data: Any, vocabulary: Vocabulary) -> "Delimiters":
        """Return those of a vocabulary; `data.bos` says what a segment begins with."""
        return cls(vocabulary.eos, vocabulary.pad, vocabulary.bos if data.bos else None)

    @property
    def start(self) -> int:
        """What a segment begins with."""
        return self.eos if self.bos is None else self.bos


_SIDES = (features.TOKENS, features.TARGET_TOKENS)


class Layout(Protocol):
    """Rows of one task."""

    num_rows: int
    length: int  # of a row
    places: int  # for tokens in a row: its length, twice that where its target stands apart
    num_tokens: int  # real tokens of an epoch, delimiters included
    longest: int  # tokens of the longest example that is never cut, dropped ones included
    dropped: dict[str, int]  # examples that no row holds, by reason
    truncated: int  # examples that are cut at their end

    def fill(self, rows: np.ndarray, epochs: np.ndarray, batch: Mapping[str, np.ndarray]) -> None:
        """Write rows [n] of epochs [n] into the per-token arrays [n, length] of `batch`."""


def make_layout(
    kind: str, store: TokenStore, length: int, delimiters: Delimiters, field: str = ""
) -> Layout:
    """Return the layout `kind` of a store in rows of `length` tokens.

    Raises `ValueError` naming `field`, where the config asks for it, if the store has no such.
    """
    holds = layout_field(store)
    if kind == "stream" and holds == "text":
        return StreamLayout(store, length, delimiters)
    if kind not in ("pack", "pad"):
        raise ValueError(
            f"{field or f'data.layout.{holds}'}={kind!r} is no layout of {store.manifest.task} "
            f"({holds}); known: {'stream, ' if holds == 'text' else ''}pack, pad"
        )
    segments = {"labelled": LabelledLayout, "translation": TranslationLayout}
    return segments.get(holds, PackLayout)(store, length, delimiters, alone=kind == "pad")


def layout_field(store: TokenStore) -> str:
    """Return the field of `data.layout` that says how examples of a store become rows."""
    return "labelled" if store.manifest.labels else store.manifest.kind


class StreamLayout:
    """Each example and an end-of-sentence symbol, concatenated and cut into rows without overlap.

    Rows begin wherever the cut falls, as in XLM (specification section 1.6); nothing is dropped:
    the last row ends in padding where the original fills its first one.
    """

    def __init__(self, store: TokenStore, length: int, delimiters: Delimiters):
        self.length = self.places = length
        self.longest = 0
        self.truncated = 0
        self.dropped: dict[str, int] = {}
        self._store = store
        self._delimiters = delimiters
        self._language = languages.get(store.language("tokens")).id
        offsets = store.offsets("tokens")
        self._ends = offsets[1:] + np.arange(len(offsets) - 1)  # where each end symbol stands
        self.num_tokens = int(self._ends[-1]) + 1 if len(self._ends) else 0
        self.num_rows = -(-self.num_tokens // length)

    def fill(self, rows: np.ndarray, epochs: np.ndarray, batch: Mapping[str, np.ndarray]) -> None:
        """Write rows [n] into `batch`; a stream is the same in every epoch."""
        place = np.asarray(rows, dtype=np.int64)[:, None] * self.length + np.arange(self.length)
        real = place < self.num_tokens
        clipped = np.minimum(place, self.num_tokens - 1)
        ends_before = np.searchsorted(self._ends, clipped)
        is_end = self._ends[ends_before] == clipped
        tokens = np.full(place.shape, self._delimiters.eos, dtype=np.int32)
        inside = ~is_end
        tokens[inside] = self._store.take("tokens", (clipped - ends_before)[inside])
        batch[features.TOKENS][...] = np.where(real, tokens, self._delimiters.pad)
        batch[features.POSITIONS][...] = np.arange(self.length, dtype=np.int32)
        batch[features.SEGMENT_IDS][...] = real
        batch[features.LANGUAGE_IDS][...] = self._language


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Delimited sentences to place: arrays [n]; a pair is two parts of one segment."""

    feature: np.ndarray  # 0 = tokens, 1 = target_tokens
    start: np.ndarray  # flat place of the first token in the store
    count: np.ndarray  # tokens without delimiters
    span: np.ndarray  # tokens with them
    position: np.ndarray  # of the first one
    target: np.ndarray  # flat place in the batch, row * length + column
    segment: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """The examples of some rows, row by row: arrays [n]; `per_row` is [rows]."""

    items: np.ndarray
    row: np.ndarray  # which of the rows, from 0
    nth: np.ndarray  # place in the row, from 0
    per_row: np.ndarray


class _Segments:
    """Rows that hold several examples, each a segment of its own; subclasses say what one is."""

    def __init__(self, store: TokenStore, length: int, delimiters: Delimiters):
        self.length = self.places = length
        self.longest = 0
        self.truncated = 0
        self.dropped: dict[str, int] = {}
        self._store = store
        self._delimiters = delimiters
        self._names = [name for name in _SIDES if name in store.manifest.features]
        self._languages = np.array([languages.get(store.language(n)).id for n in self._names])

    def _whole(self, sizes: np.ndarray) -> np.ndarray:
        """Return the examples [n] that fit a row, of all their `sizes` with delimiters; count."""
        self.longest = int(sizes.max(initial=0))
        fits = sizes <= self.length
        if not fits.all():
            self.dropped["longer than a row"] = int(np.count_nonzero(~fits))
        return np.flatnonzero(fits)

    def _arrange(
        self,
        starts: Sequence[np.ndarray],
        counts: Sequence[np.ndarray],
        delimiters: Sequence[int],
        restart: bool,
        alone: bool = False,
        apart: bool = False,
    ) -> None:
        """Assign examples to rows, as many a row as fit, or each to a row of its own if `alone`.

        Side k of an example is `counts[k]` tokens from `starts[k]` on, with as many `delimiters`;
        positions begin again at each side if `restart`. Sides that stand `apart` have rows each.
        """
        self._starts, self._counts = np.stack(starts, axis=1), np.stack(counts, axis=1)
        self._extra, self._restart = np.array(delimiters), restart
        spans = self._counts + self._extra
        sizes = spans.max(axis=1, initial=0) if apart else spans.sum(axis=1)
        if alone:
            self._first, self._items = np.arange(len(sizes) + 1), np.arange(len(sizes))
        else:
            self._first, self._items = pack(sizes, self.length)
        self.num_rows = len(self._first) - 1
        self.num_tokens = int(spans.sum())

    def fill(self, rows: np.ndarray, epochs: np.ndarray, batch: Mapping[str, np.ndarray]) -> None:
        """Write rows [n] of epochs [n] into `batch`."""
        chosen = self._choose(np.asarray(rows))
        order = self._order(chosen.items, np.asarray(epochs)[chosen.row])
        parts = self._parts(chosen, order)
        self._place(parts, batch)
        self._finish(chosen.items, parts, batch)

    def _choose(self, rows: np.ndarray) -> "_Chosen":
        """Return the examples of some rows, row by row."""
        per_row = self._first[rows + 1] - self._first[rows]
        nth = _ranges(per_row)
        items = self._items[np.repeat(self._first[rows], per_row) + nth]
        return _Chosen(items, np.repeat(np.arange(len(rows)), per_row), nth, per_row)

    def _order(self, items: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        """Return which side comes first, second, ...: [n, sides]."""
        return np.broadcast_to(np.arange(len(self._names)), (len(items), len(self._names)))

    def _finish(self, items: np.ndarray, parts: _Parts, batch: Mapping[str, np.ndarray]) -> None:
        """Write what else a subclass has to say of the examples in the rows."""

    def _parts(self, chosen: "_Chosen", order: np.ndarray) -> _Parts:
        """Return the sides `order` [n, sides] of examples, as they stand in their rows."""
        starts = np.take_along_axis(self._starts[chosen.items], order, axis=1)
        counts = np.take_along_axis(self._counts[chosen.items], order, axis=1)
        spans = counts + self._extra[order]
        sizes = spans.sum(axis=1)
        before = np.cumsum(sizes) - sizes  # tokens before each item
        first_of_row = np.cumsum(chosen.per_row) - chosen.per_row
        column = before - before[np.repeat(first_of_row, chosen.per_row)]
        inside = np.cumsum(spans, axis=1) - spans
        target = (chosen.row * self.length + column)[:, None] + inside
        segment = np.broadcast_to((chosen.nth + 1)[:, None], order.shape)
        position = np.zeros_like(inside) if self._restart else inside
        arrays = (order, starts, counts, spans, position, target, segment)
        return _Parts(*(array.reshape(-1) for array in arrays))

    def _place(self, parts: _Parts, batch: Mapping[str, np.ndarray]) -> None:
        spans = parts.span
        within = _ranges(spans)
        target = np.repeat(parts.target, spans) + within
        tokens = np.full(len(target), self._delimiters.eos, dtype=np.int32)
        opens = np.arange(len(spans)) % len(self._names) == 0  # of the sides of a segment
        tokens[(within == 0) & np.repeat(opens, spans)] = self._delimiters.start
        source = np.repeat(parts.start, spans) + within - 1
        is_word = (within > 0) & (within <= np.repeat(parts.count, spans))
        feature = np.repeat(parts.feature, spans)
        for number, name in enumerate(self._names):
            chosen = is_word & (feature == number)
            tokens[chosen] = self._store.take(name, source[chosen])
        for name, values in (
            (features.TOKENS, tokens),
            (features.POSITIONS, within + np.repeat(parts.position, spans)),
            (features.SEGMENT_IDS, np.repeat(parts.segment, spans)),
            (features.LANGUAGE_IDS, self._languages[feature]),
        ):
            flat = np.zeros(batch[name].size, dtype=np.int32)
            flat[:] = self._delimiters.pad if name == features.TOKENS else 0
            flat[target] = values
            batch[name][...] = flat.reshape(batch[name].shape)


class PackLayout(_Segments):
    """Several delimited examples a row, each a segment of its own, chosen by best fit.

    A text is `</s> x </s>`; one too long for a row is cut into pieces. A pair is
    `</s> a </s> </s> b </s>` with positions restarted and the language switched at b, which makes
    masked language modelling on it TLM; one too long for a row is dropped and counted. Which side
    comes first alternates from epoch to epoch, starting at random for each pair.

    If `alone`, an example has a row of its own, and a text too long for it is dropped and counted.
    """

    def __init__(self, store: TokenStore, length: int, delimiters: Delimiters, alone: bool = False):
        super().__init__(store, length, delimiters)
        offsets = [store.offsets(name) for name in self._names]
        self._coin = None
        is_pair = len(offsets) == 2
        if is_pair or alone:
            sizes = np.sum([np.diff(ends) + 2 for ends in offsets], axis=0)
            examples = self._whole(sizes)
            starts = [ends[examples] for ends in offsets]
            counts = [np.diff(ends)[examples] for ends in offsets]
        else:
            start, count = _cut(offsets[0], length - 2)
            starts, counts = [start], [count]
        if is_pair:
            self._coin = (derive_key(7, examples) & np.uint64(1)).astype(np.int64)
        self._arrange(starts, counts, [2] * len(starts), restart=True, alone=alone)

    def _order(self, items: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        if self._coin is None:
            return super()._order(items, epochs)
        swap = (self._coin[items] + epochs) % 2
        return np.stack([swap, 1 - swap], axis=1)


class LabelledLayout(_Segments):
    """Labelled examples, several a row or, if `alone`, one a row.

    A text is `</s> x </s>`, a pair `</s> a </s> b </s>` with one separator and positions that run
    on, as XLM fine-tunes (specification 1.8 and 5.5). Of an example too long for a row the longer
    side is cut at its end until it fits; `truncated` counts them. The label of an example stands at
    its first token.
    """

    def __init__(self, store: TokenStore, length: int, delimiters: Delimiters, alone: bool):
        super().__init__(store, length, delimiters)
        self._labels = store.labels
        offsets = [store.offsets(name) for name in self._names]
        counts = [np.diff(ends) for ends in offsets]
        sides = len(counts)
        room = length - sides - 1
        whole = np.sum(counts, axis=0)
        self.longest = int(whole.max(initial=0)) + sides + 1
        self.truncated = int(np.count_nonzero(whole > room))
        if sides == 2:
            first, second = counts
            first = np.minimum(first, np.maximum(room - second, (room + 1) // 2))
            counts = [first, np.minimum(second, room - first)]
        else:
            counts = [np.minimum(counts[0], room)]
        delimiters_of = [1] * (sides - 1) + [2]
        starts = [ends[:-1] for ends in offsets]
        self._arrange(starts, counts, delimiters_of, restart=False, alone=alone)

    def _finish(self, items: np.ndarray, parts: _Parts, batch: Mapping[str, np.ndarray]) -> None:
        labels = batch[features.LABELS]
        labels[...] = features.NO_LABEL
        first = parts.target[:: len(self._names)]
        labels[first // self.length, first % self.length] = self._labels[items]


class TranslationLayout(_Segments):
    """Translations: rows of sources `</s> x </s>` and, as long, rows of targets `</s> y </s>`.

    Several a row, as many as both sides have room for, or one a row if `alone`. The k-th example of
    a row is segment k on either side, positions begin at 0 in each. One with a side too long for a
    row is dropped and counted.
    """

    def __init__(self, store: TokenStore, length: int, delimiters: Delimiters, alone: bool):
        super().__init__(store, length, delimiters)
        self.places = 2 * length
        offsets = [store.offsets(name) for name in self._names]
        counts = [np.diff(ends) for ends in offsets]
        examples = self._whole(np.maximum(*counts) + 2)
        self._arrange(
            [ends[examples] for ends in offsets],
            [count[examples] for count in counts],
            [2, 2],
            restart=True,
            alone=alone,
            apart=True,
        )

    def fill(self, rows: np.ndarray, epochs: np.ndarray, batch: Mapping[str, np.ndarray]) -> None:
        """Write rows [n] into `batch`; translations are the same in every epoch."""
        chosen = self._choose(np.asarray(rows))
        for side, names in enumerate((features.SIDE, features.TARGET_SIDE)):
            order = np.full((len(chosen.items), 1), side)
            arrays = (batch[name] for name in names)
            self._place(self._parts(chosen, order), dict(zip(features.SIDE, arrays, strict=True)))


def _ranges(counts: np.ndarray) -> np.ndarray:
    """Return 0..counts[0]-1, 0..counts[1]-1, ... in one array."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def _cut(offsets: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut examples into pieces of at most `longest` tokens: starts and counts [pieces]."""
    counts = np.diff(offsets)
    pieces = np.maximum(-(-counts // longest), 1)
    nth = _ranges(pieces)
    start = np.repeat(offsets[:-1], pieces) + nth * longest
    return start, np.minimum(np.repeat(offsets[1:], pieces) - start, longest)


def pack(sizes: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Assign items to as few rows of `length` as best fit finds, longest items first.

    Works on the histogram of sizes (Krell et al. 2021, section 3.2), so its cost grows with the
    number of distinct sizes and not with the number of items.

    sizes: integers [n], all at most `length`. Returns `first` int64 [rows + 1] and `items` int64
    [n]: row r holds items[first[r] : first[r + 1]], its longest first.
    """
    order = np.argsort(-sizes, kind="stable")
    histogram = np.bincount(sizes, minlength=length + 1)
    # Shapes of rows by the room left in them: room -> [(sizes in the row, number of such rows)].
    open_rows: list[list[tuple[tuple[int, ...], int]]] = [[] for _ in range(length + 1)]
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
                open_rows[room].append((shape, count - used))
            open_rows[room - size].append(((*shape, size), used))
        while left:
            fit = min(length // size, left)
            rows = left // fit
            open_rows[length - fit * size].append(((size,) * fit, rows))
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
    return first, np.concatenate([*blocks, np.zeros(0, dtype=np.int64)])
