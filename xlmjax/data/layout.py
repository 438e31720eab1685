"""Examples -> rows of one length: `stream` (concatenate, cut), `pack` (best fit) or `pad` (one)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from xlmjax import languages
from xlmjax.data import features
from xlmjax.data.packing import compact, pack
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


@dataclasses.dataclass(frozen=True)
class Whole:
    """Texts of at most `longest` tokens, delimiters included, at most `most` of them in a row.

    Longer ones are dropped and counted, none is cut.
    """

    most: int
    longest: int

    @classmethod
    def of(cls, group: Any, where: str, layout: str, length: int) -> "Whole | None":
        """Return what an entry `where` of config.objectives asks for; None where texts may be cut.

        `layout` is that of its texts, in rows of `length`. Raises `ValueError` naming the field.
        """
        most, longest = group.sentences, group.sentence_length
        if not (most or longest):
            return None
        if layout != "pack":
            raise ValueError(
                f"{where}: sentences={most} and sentence_length={longest} are of packed rows, and "
                f"its layout is {layout!r}: set {where}.layout=pack, or leave them 0"
            )
        if most < 1:
            raise ValueError(f"{where}.sentences={most}: say how many a row holds at most")
        if not 3 <= longest <= length:
            raise ValueError(
                f"{where}.sentence_length={longest}: give the tokens of the longest sentence, 3 to "
                f"{length} (the row); longer ones are dropped and counted"
            )
        return cls(most, longest)


def make_layout(
    kind: str,
    store: TokenStore,
    length: int,
    delimiters: Delimiters,
    field: str = "",
    whole: Whole | None = None,
) -> Layout:
    """Return the layout `kind` of a store in rows of `length` tokens; `whole` is of packed text.

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
    if whole and holds != "text":
        raise ValueError(
            f"sentences={whole.most} and sentence_length={whole.longest} of an objective are of "
            f"text, and {store.manifest.task} holds {holds}: leave them 0"
        )
    alone = kind == "pad"
    if holds == "labelled":
        return LabelledLayout(store, length, delimiters, alone)
    if holds == "translation":
        return TranslationLayout(store, length, delimiters, alone)
    return PackLayout(store, length, delimiters, Whole(1, length) if alone else whole)


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
        self.num_tokens = store.manifest.tokens["tokens"] + len(store)
        self.num_rows = -(-self.num_tokens // length)

    def fill(self, rows: np.ndarray, epochs: np.ndarray, batch: Mapping[str, np.ndarray]) -> None:
        """Write rows [n] into `batch`; a stream is the same in every epoch.

        The offsets of the store are searched in its files: a stream has no memory of its own.
        """
        first = np.asarray(rows, dtype=np.int64)[:, None] * self.length
        column = np.arange(self.length)
        # The example that each row begins in, and as many after it as could end in the row.
        begun_in = [self._store.example_at("tokens", place, 1) for place in first[:, 0].tolist()]
        opening = np.array(begun_in, dtype=np.int64)[:, None]
        examples = opening + column
        following = np.minimum(examples + 1, len(self._store))
        ends = self._store.starts("tokens", following) + examples - first  # of each, its column
        in_row = (ends < self.length) & (examples < len(self._store))
        is_end = np.zeros(in_row.shape, dtype=bool)
        is_end[np.nonzero(in_row)[0], ends[in_row]] = True
        place = first + column
        real = place < self.num_tokens
        inside = real & ~is_end
        ends_before = opening + np.cumsum(is_end, axis=1) - is_end
        tokens = np.full(place.shape, self._delimiters.eos, dtype=np.int32)
        tokens[inside] = self._store.take("tokens", (place - ends_before)[inside])
        batch[features.TOKENS][...] = np.where(real, tokens, self._delimiters.pad)
        batch[features.POSITIONS][...] = column.astype(np.int32)
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

    def _arrange(
        self,
        sizes: np.ndarray,
        delimiters: Sequence[int],
        restart: bool,
        most: int = 0,
        longest: int = 0,
        tokens: np.ndarray | None = None,
    ) -> None:
        """Assign examples to rows, as many a row as fit, or at most `most` unless that is 0.

        `sizes` [n] are the places that examples take of a row, and their `tokens` [n] if these are
        more; those that take more than `longest`, unless that is 0, are left out and counted. Side
        k of an example gets `delimiters[k]` delimiters; positions begin again at each side if
        `restart`.
        """
        tokens = sizes if tokens is None else tokens
        self._extra, self._restart = np.array(delimiters), restart
        kept = None
        if longest:
            self.longest = int(sizes.max(initial=0))
            fits = sizes <= longest
            if not fits.all():
                kept = compact(np.flatnonzero(fits))
                reason = "a row" if longest == self.length else f"{longest} tokens"
                self.dropped[f"longer than {reason}"] = len(sizes) - len(kept)
                sizes, tokens = sizes[fits], tokens[fits]
        if most == 1:
            first, items = np.arange(len(sizes) + 1), np.arange(len(sizes))
        else:
            first, items = pack(sizes, self.length, most)
        self._first = compact(first)
        self._items = compact(items) if kept is None else kept[items]
        self.num_rows = len(first) - 1
        self.num_tokens = int(tokens.sum(dtype=np.int64))

    def _lengths(self) -> np.ndarray:
        """Return the tokens of the sides of every example, int32 [examples, sides]."""
        return np.stack([self._store.lengths(name) for name in self._names], axis=1)

    def _words(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the sides of examples start in the store, and their tokens: [n, sides]."""
        starts = np.stack([self._store.starts(name, items) for name in self._names], axis=1)
        ends = np.stack([self._store.starts(name, items + 1) for name in self._names], axis=1)
        return starts, ends - starts

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
        items = self._items[np.repeat(self._first[rows], per_row) + nth].astype(np.int64)
        return _Chosen(items, np.repeat(np.arange(len(rows)), per_row), nth, per_row)

    def _order(self, items: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        """Return which side comes first, second, ...: [n, sides]."""
        return np.broadcast_to(np.arange(len(self._names)), (len(items), len(self._names)))

    def _finish(self, items: np.ndarray, parts: _Parts, batch: Mapping[str, np.ndarray]) -> None:
        """Write what else a subclass has to say of the examples in the rows."""

    def _parts(self, chosen: "_Chosen", order: np.ndarray) -> _Parts:
        """Return the sides `order` [n, sides] of examples, as they stand in their rows."""
        starts, counts = (
            np.take_along_axis(of_sides, order, axis=1) for of_sides in self._words(chosen.items)
        )
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

    Of texts that stay `whole` a row holds as many as that allows.
    """

    def __init__(
        self, store: TokenStore, length: int, delimiters: Delimiters, whole: Whole | None = None
    ):
        super().__init__(store, length, delimiters)
        counts = self._lengths()
        sides = len(self._names)
        self._pieces = None
        if sides == 1 and whole is None:
            self._pieces = _Pieces(counts[:, 0], length - 2)
            counts = self._pieces.counts(counts[:, 0])[:, None]
        sizes = counts.sum(axis=1, dtype=np.int32) + 2 * sides
        if whole is None:
            whole = Whole(0, 0 if self._pieces is not None else length)
        self._arrange(sizes, [2] * sides, True, whole.most, whole.longest)

    def _words(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._pieces is None:
            return super()._words(items)
        examples, skipped = self._pieces.locate(items)
        starts, counts = super()._words(examples)
        left = counts - skipped[:, None]
        return starts + skipped[:, None], np.minimum(left, self._pieces.longest)

    def _order(self, items: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        if len(self._names) == 1:
            return super()._order(items, epochs)
        coin = (derive_key(7, items) & np.uint64(1)).astype(np.int64)
        swap = (coin + epochs) % 2
        return np.stack([swap, 1 - swap], axis=1)


class _Pieces:
    """Examples cut into pieces of at most `longest` tokens; memory grows with those cut alone."""

    def __init__(self, counts: np.ndarray, longest: int):
        """Counts are the tokens of every example, [n]."""
        self.longest = longest
        self._cut = np.flatnonzero(counts > longest)
        more = -(-counts[self._cut] // longest) - 1
        self._more_before = np.concatenate([[0], np.cumsum(more, dtype=np.int64)])
        self._first = self._cut + self._more_before[:-1]  # piece of each example that is cut

    def counts(self, counts: np.ndarray) -> np.ndarray:
        """Return the tokens of every piece, [pieces], from those of every example, [n]."""
        times = np.diff(self._more_before) + 1
        nth = _ranges(times)
        all_times = np.ones(len(counts), dtype=np.int32)
        all_times[self._cut] = times
        pieces = np.repeat(counts, all_times)
        pieces[np.repeat(self._first, times) + nth] -= (nth * self.longest).astype(pieces.dtype)
        return np.minimum(pieces, self.longest)

    def locate(self, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the example of each piece, and its tokens before the piece: [n] each."""
        begun = np.searchsorted(self._first, pieces, side="right")  # of the examples that are cut
        latest = np.concatenate([[0], self._cut])[begun]
        examples = np.maximum(pieces - self._more_before[begun], latest)
        before = self._more_before[np.searchsorted(self._cut, examples)]
        return examples, (pieces - examples - before) * self.longest


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
        counts = self._lengths()
        sides = len(self._names)
        self._room = length - sides - 1  # for tokens
        whole = counts.sum(axis=1)
        self.longest = int(whole.max(initial=0)) + sides + 1
        self.truncated = int(np.count_nonzero(whole > self._room))
        sizes = self._trim(counts).sum(axis=1, dtype=np.int32) + sides + 1
        self._arrange(sizes, [1] * (sides - 1) + [2], restart=False, most=int(alone))

    def _words(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        starts, counts = super()._words(items)
        return starts, self._trim(counts)

    def _trim(self, counts: np.ndarray) -> np.ndarray:
        """Return the tokens [n, sides] that are left of examples: the longer side is cut."""
        if counts.shape[1] == 1:
            return np.minimum(counts, self._room)
        first, second = counts.T
        first = np.minimum(first, np.maximum(self._room - second, (self._room + 1) // 2))
        return np.stack([first, np.minimum(second, self._room - first)], axis=1)

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
        spans = self._lengths() + 2
        both = spans.sum(axis=1, dtype=np.int32)
        self._arrange(spans.max(axis=1), [2, 2], True, int(alone), length, tokens=both)

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
