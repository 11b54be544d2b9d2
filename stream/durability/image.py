"""What the store holds of a state: which piece has each block, and a hash of it, so that only changes are written.

Only blocks that may have changed are compared, and only so many at once: the engine marks them. Pieces are applied in
the order of their numbers, and the newest one that has a block counts. When too much of what is stored is out of date,
or there are too many pieces, the live blocks of the poorest pieces are written once more.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.durability.blocks import (
    as_bytes,
    copy_blocks,
    first_stale,
    first_unsaved,
    hash_blocks,
    hash_some_blocks,
    paste_blocks,
)
from stream.durability.piece import Blocks, Piece
from stream.durability.shape import Array, Shape
from stream.durability.span import UNSAVED, Span
from stream.engine.rows import Rows

NEW_BLOCK_BYTES = 64  # to have a new block takes about as long as to compare so many bytes
COMPARED = 4  # times as many bytes as are copied are compared in one pause: it is so much faster


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is copied, written and kept at once."""

    piece_bytes: int = 12 << 20  # blocks of one object; packing it is a pause
    round_bytes: int = 32 << 20  # blocks copied in one pause, doubled from round to round of a snapshot
    spare_bytes: int = 64 << 20  # out of date, beside as much as is live
    pieces: int = 64  # beside two for every `piece_bytes` of the state
    is_checked: bool = False  # for tests: compare all blocks, and fail when one has changed without a mark


@dataclass(slots=True, eq=False)
class _Table:
    shape: Shape
    spans: list[Span]


class Image:
    """The stored blocks of one state; empty at first. `pieces` by number, in the order of writing."""

    def __init__(self, sizes: Sizes | None = None) -> None:
        self.sizes = sizes or Sizes()
        self.pieces: dict[int, Piece] = {}
        self._tables: dict[str, _Table] = {}
        self._last = 0
        self._live = np.zeros(1, np.int64)  # bytes: what is unsaved, then by number of the piece
        self._token = object()  # who takes the marks

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The tables as they were compared last."""
        return tuple(table.shape for table in self._tables.values())

    # A state becomes the image

    def compare(self, export: Mapping[str, Rows], limit: int) -> None:
        """Compare blocks that may have changed, about `limit` bytes: those that no piece has as they are, or only a
        poor one, are unsaved.
        """
        limit -= NEW_BLOCK_BYTES * self._follow(export)
        if self.sizes.is_checked:
            self._check(export)
        self._rewrite_poor_pieces()
        for table, span, part in self._parts_of(export):
            if limit <= 0:
                return
            limit -= self._compare_stale(table.shape, span, part, limit)

    def copy_unsaved(self, export: Mapping[str, Rows], limit: int) -> Iterator[tuple[int, list[Blocks]]]:
        """Copies of unsaved blocks, at most about `limit` bytes, as contents of pieces with their numbers.

        Not of those that must be compared first: their hash would be that of another content.
        """
        piece: list[Blocks] = []
        held = 0
        for table, span, part in self._parts_of(export):
            shape = table.shape
            lo, hi = _places(shape, span, part)
            most = 1 + max(0, limit) // max(1, shape.block_bytes)
            unsaved = lo + first_unsaved(span.stale[lo:hi], span.owners[lo:hi], UNSAVED, most)
            while len(unsaved) and limit > 0:
                room = min(limit, self.sizes.piece_bytes - held)
                taken = unsaved[: max(1, room // shape.block_bytes)]
                unsaved = unsaved[len(taken) :]
                piece.append(_copied(shape, part, span.first + taken))
                self._own(shape, span, taken, self._last + 1)
                held += len(taken) * shape.block_bytes
                limit -= len(taken) * shape.block_bytes
                if held >= self.sizes.piece_bytes:
                    self._last += 1
                    yield self._last, piece
                    piece, held = [], 0
        if piece:
            self._last += 1
            yield self._last, piece

    @property
    def missing_bytes(self) -> int:
        """Bytes of blocks that are in no piece, or must be compared."""
        stale = sum(
            np.count_nonzero(span.stale) * table.shape.block_bytes
            for table in self._tables.values()
            for span in table.spans
        )
        return int(self._live[0] + stale)

    def drop_dead_pieces(self) -> None:
        """Forget pieces that have no live block, and count the others anew when many were dropped so far."""
        self.pieces = {number: piece for number, piece in self.pieces.items() if self._live_of(number)}
        if self._last > 1_000 + 4 * len(self.pieces):
            new = np.full(self._last + 2, UNSAVED, np.int32)
            new[list(self.pieces)] = np.arange(len(self.pieces))
            for span in self._all_spans():
                span.owners[:] = new[span.owners]
            self.pieces = dict(enumerate(self.pieces.values()))
            self._last = len(self.pieces)
            self._count_live()

    def forget(self, pieces: Collection[Piece]) -> None:
        """These pieces are not to be relied on: their blocks are unsaved."""
        numbers = [number for number, piece in self.pieces.items() if piece in pieces]
        self._unsave(numbers)
        for number in numbers:
            del self.pieces[number]

    def _unsave(self, numbers: Collection[int]) -> None:
        if not numbers:
            return
        is_left = np.zeros(self._last + 2, np.bool_)
        is_left[list(numbers)] = True
        for span in self._all_spans():
            span.owners[is_left[span.owners]] = UNSAVED
        self._count_live()

    def _follow(self, export: Mapping[str, Rows]) -> int:
        """Have the blocks that the state has now, and note which of them may have changed: how many are new."""
        before = self._blocks
        for name in self._tables.keys() - export.keys():
            self._drop(self._tables.pop(name))
        tables = {name: self._followed(name, rows) for name, rows in export.items()}
        self._tables = tables
        for name, rows in export.items():
            table = tables[name]
            taken = None if rows.marks is None else rows.marks.take(self._token)
            for part in rows.parts:
                for span in table.spans:
                    _set_stale(table.shape, span, part, taken)
        return max(0, self._blocks - before)

    def _followed(self, name: str, rows: Rows) -> _Table:
        shape, old = Shape.of(name, rows), self._tables.get(name)
        if old is not None and not old.shape.is_like(shape):
            self._drop(old)
            old = None
        left = old.spans if old else []
        spans = []
        for first, count in shape.runs:
            span = next((span for span in left if span.first <= first and span.common(first, count)), None)
            known = len(span) if span else 0
            if span is None:
                span = Span(first, count)
            else:
                left.remove(span)
                gone = span.move(first, count)
                known -= len(gone)
                self._count(gone, shape, -1)
            self._live[0] += (len(span) - known) * shape.block_bytes
            spans.append(span)
        for span in left:
            self._count(span.owners, shape, -1)
        return _Table(shape, spans)

    def _drop(self, table: _Table) -> None:
        for span in table.spans:
            self._count(span.owners, table.shape, -1)

    def _compare_stale(self, shape: Shape, span: Span, part: tuple[int, Array], limit: int) -> int:
        """Bytes compared of a part."""
        lo, hi = _places(shape, span, part)
        stale = lo + first_stale(span.stale[lo:hi], 1 + limit // max(1, shape.block_bytes))
        if not len(stale):
            return 0
        hashes = np.empty(len(stale), np.uint64)
        first, rows = part
        hash_some_blocks(as_bytes(rows), shape.row_bytes, first, shape.block_rows, span.first + stale, hashes)
        changed = stale[hashes != span.hashes[stale]]
        self._own(shape, span, changed, UNSAVED)
        span.hashes[stale] = hashes
        span.stale[stale] = False
        return len(stale) * shape.block_bytes

    def _check(self, export: Mapping[str, Rows]) -> None:
        for table, span, part in self._parts_of(export):
            lo, hi = _places(table.shape, span, part)
            wrong = (_hashed(table.shape, part, hi - lo) != span.hashes[lo:hi]) & ~span.stale[lo:hi]
            if wrong.any():
                numbers = (span.first + lo + np.flatnonzero(wrong)).tolist()
                raise AssertionError(f"blocks {numbers} of {table.shape.name} have changed without a mark")

    # Bounds

    def _rewrite_poor_pieces(self) -> None:
        live = {number: self._live_of(number) for number in self.pieces}
        total = int(self._live.sum())
        numbers = sorted(self.pieces, key=lambda number: live[number])
        poor: set[int] = set()
        few = self.sizes.pieces + 2 * (total // self.sizes.piece_bytes)
        if len(numbers) > few:
            poor.update(numbers[: len(numbers) - few // 2])
        stored = int(self._live[0])
        stored += sum(live[n] if n in poor else self.pieces[n].bytes for n in numbers)
        for number in sorted(numbers, key=lambda number: live[number] / self.pieces[number].bytes):
            if stored <= 2 * total + self.sizes.spare_bytes:
                break
            if number not in poor:
                poor.add(number)
                stored -= self.pieces[number].bytes - live[number]
        self._unsave(poor)

    # How many bytes of each piece are live

    def _live_of(self, number: int) -> int:
        return int(self._live[number + 1]) if number + 1 < len(self._live) else 0

    def _own(self, shape: Shape, span: Span, places: Array, owner: int) -> None:
        """Blocks have another owner from now on."""
        self._count(span.owners[places], shape, -1)
        span.owners[places] = owner
        self._count(span.owners[places], shape, 1)

    def _count(self, owners: Array, shape: Shape, sign: int) -> None:
        if not len(owners):
            return
        if len(self._live) < self._last + 3:
            self._live = np.append(self._live, np.zeros(self._last + 3, np.int64))
        self._live += np.bincount(owners + 1, minlength=len(self._live)) * (sign * shape.block_bytes)

    def _count_live(self) -> None:
        self._live[:] = 0
        for table in self._tables.values():
            for span in table.spans:
                self._count(span.owners, table.shape, 1)

    @property
    def _blocks(self) -> int:
        return sum(map(len, self._all_spans()))

    def _all_spans(self) -> Iterator[Span]:
        return (span for table in self._tables.values() for span in table.spans)

    def _parts_of(self, export: Mapping[str, Rows]) -> Iterator[tuple[_Table, Span, tuple[int, Array]]]:
        """Every part of a table with the span that has its blocks."""
        for name, table in self._tables.items():
            for part in export[name].parts:
                if len(part[1]):
                    first, count = table.shape.blocks_of(part[0], len(part[1]))
                    yield table, next(s for s in table.spans if s.common(first, count)), part

    # An image becomes a state

    @classmethod
    def load(
        cls, sizes: Sizes, shapes: tuple[Shape, ...], pieces: Iterator[tuple[Piece, Iterator[Blocks]]]
    ) -> "tuple[Image, dict[str, Rows]]":
        """Put the pieces together, oldest first. Raises ValueError when a block is in none of them."""
        image = cls(sizes)
        state = {shape.name: shape.empty() for shape in shapes}
        for shape in shapes:
            image._tables[shape.name] = _Table(shape, [Span(*run) for run in shape.runs])
        for piece, contents in pieces:
            image._last += 1
            image.pieces[image._last] = piece
            for blocks in contents:
                if blocks.table in state:
                    image._paste(blocks, state[blocks.table])
        image._count_live()
        if image._live[0]:
            raise ValueError("a block is missing")
        for table, span, part in image._parts_of(state):
            lo, hi = _places(table.shape, span, part)
            span.hashes[lo:hi] = _hashed(table.shape, part, hi - lo)
        image.drop_dead_pieces()
        return image, state

    def _paste(self, blocks: Blocks, rows: Rows) -> None:
        table = self._tables[blocks.table]
        shape = table.shape
        if blocks.contents.shape[1] != shape.block_bytes:
            raise ValueError("a block has another size than its table's")
        for first, part in rows.parts:
            paste_blocks(
                as_bytes(part), shape.row_bytes, first, shape.block_rows, blocks.numbers, blocks.contents
            )
        for span in table.spans:
            places = blocks.numbers - span.first
            span.owners[places[(places >= 0) & (places < len(span))]] = self._last


def _places(shape: Shape, span: Span, part: tuple[int, Array]) -> tuple[int, int]:
    """Where in the span the blocks of a part are."""
    first, count = shape.blocks_of(part[0], len(part[1]))
    return first - span.first, first - span.first + count


def _set_stale(shape: Shape, span: Span, part: tuple[int, Array], taken: Array | None) -> None:
    """taken: by block of the whole array; None: all. Blocks at the ends of a part have changed with the ends."""
    first, count = shape.blocks_of(part[0], len(part[1]))
    if not span.common(first, count):
        return
    stale = span.stale[first - span.first : first - span.first + count]
    if taken is None:
        stale[:] = True
        return
    place = first % len(taken)
    stale |= taken[place : place + count]
    stale[0] = stale[-1] = True


def _hashed(shape: Shape, part: tuple[int, Array], blocks: int) -> npt.NDArray[np.uint64]:
    first, rows = part
    hashes = np.empty(blocks, np.uint64)
    hash_blocks(as_bytes(rows), shape.row_bytes, first, shape.block_rows, hashes)
    return hashes


def _copied(shape: Shape, part: tuple[int, Array], numbers: Array) -> Blocks:
    first, rows = part
    contents = np.zeros((len(numbers), shape.block_bytes), np.uint8)
    copy_blocks(as_bytes(rows), shape.row_bytes, first, shape.block_rows, numbers, contents)
    return Blocks(shape.name, numbers, contents)
