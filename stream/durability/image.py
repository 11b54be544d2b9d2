"""What the store holds of a state: which piece has each block, and a hash of it, so that only changes are written.

Pieces are applied in the order of their numbers, and the newest one that has a block counts. When too much of what is
stored is out of date, or there are too many pieces, the live blocks of the poorest pieces are written once more.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.format import descr_to_dtype, dtype_to_descr

from stream.durability.blocks import as_bytes, copy_blocks, hash_blocks, paste_blocks, rows_of_block
from stream.durability.piece import Blocks, Piece
from stream.engine.rows import Rows

Array = npt.NDArray[Any]
UNSAVED = -1


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is copied, written and kept at once."""

    piece_bytes: int = 16 << 20  # blocks of one object
    round_bytes: int = 64 << 20  # blocks copied in one pause, doubled from round to round of a snapshot
    spare_bytes: int = 64 << 20  # out of date, beside as much as is live
    pieces: int = 64  # beside two for every `piece_bytes` of the state


@dataclass(frozen=True, slots=True)
class Shape:
    """How a table's rows look in pieces, and which rows there are: (number of the first, count) by part."""

    name: str
    dtype: Any  # as numpy's .npy format describes it
    tail: tuple[int, ...]  # shape of a row
    parts: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, name: str, rows: Rows) -> "Shape":
        """That of a table of an export."""
        array = rows.parts[0][1]
        parts = tuple((first, len(part)) for first, part in rows.parts)
        return cls(name, dtype_to_descr(array.dtype), array.shape[1:], parts)

    def is_like(self, other: "Shape") -> bool:
        """Rows of both look the same."""
        return dtype_of(self.dtype) == dtype_of(other.dtype) and self.tail == other.tail

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return dtype_of(self.dtype).itemsize * int(np.prod(self.tail, dtype=np.int64))

    @property
    def block_rows(self) -> int:
        """Rows of a block."""
        return rows_of_block(self.row_bytes)

    @property
    def block_bytes(self) -> int:
        """Bytes of a whole block."""
        return self.row_bytes * self.block_rows

    def empty(self) -> Rows:
        """Such rows, to be filled."""
        dtype = dtype_of(self.dtype)
        return Rows(tuple((first, np.zeros((count, *self.tail), dtype)) for first, count in self.parts))


@dataclass(slots=True, eq=False)
class Span:
    """Consecutive blocks from number `first` on: the hash of each and the number of the piece that has it."""

    first: int
    hashes: npt.NDArray[np.uint64]
    owners: npt.NDArray[np.int32]


@dataclass(slots=True, eq=False)
class _Table:
    shape: Shape
    spans: list[Span]


@dataclass(slots=True)
class Image:
    """The stored blocks of one state; empty at first. `pieces` by number, in the order of writing."""

    sizes: Sizes = field(default_factory=Sizes)
    pieces: dict[int, Piece] = field(default_factory=dict)
    _tables: dict[str, _Table] = field(default_factory=dict)
    _last: int = 0

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The tables as they were compared last."""
        return tuple(table.shape for table in self._tables.values())

    # A state becomes the image

    def compare(self, export: Mapping[str, Rows]) -> None:
        """Take the state's blocks; those that no piece has as they are, or only a poor one, are unsaved."""
        self._tables = {name: self._compared(name, rows) for name, rows in export.items()}
        self._rewrite_poor_pieces()

    def copy_unsaved(self, export: Mapping[str, Rows], limit: int) -> Iterator[tuple[int, list[Blocks]]]:
        """Copies of unsaved blocks, at most about `limit` bytes, as contents of pieces with their numbers."""
        piece: list[Blocks] = []
        held = 0
        for table, span, part in self._spans_of(export):
            shape = table.shape
            unsaved = np.flatnonzero(span.owners == UNSAVED)
            while len(unsaved) and limit > 0:
                room = min(limit, self.sizes.piece_bytes - held)
                taken = unsaved[: max(1, room // shape.block_bytes)]
                unsaved = unsaved[len(taken) :]
                piece.append(_copied(shape, part, span.first + taken))
                span.owners[taken] = self._last + 1
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
    def unsaved_bytes(self) -> int:
        """Bytes of blocks that are in no piece."""
        return int(self._live_bytes()[-1])

    def drop_dead_pieces(self) -> None:
        """Forget pieces that have no live block, and count the others anew when many were dropped so far."""
        live = self._live_bytes()
        self.pieces = {number: piece for number, piece in self.pieces.items() if live[number]}
        if self._last > 1_000 + 4 * len(self.pieces):
            new = np.full(self._last + 2, UNSAVED, np.int32)
            new[list(self.pieces)] = np.arange(len(self.pieces))
            for span in self._all_spans():
                span.owners = new[span.owners]
            self.pieces = dict(enumerate(self.pieces.values()))
            self._last = len(self.pieces)

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

    def _compared(self, name: str, rows: Rows) -> _Table:
        shape = Shape.of(name, rows)
        old = self._tables.get(name)
        spans = [_hashed(shape, first, part) for first, part in rows.parts]
        if old is not None and old.shape.is_like(shape):
            for new in spans:
                for before in old.spans:
                    _keep_owners(new, before)
        return _Table(shape, spans)

    # Bounds

    def _rewrite_poor_pieces(self) -> None:
        live = self._live_bytes()
        total = int(live.sum())
        numbers = sorted(self.pieces, key=lambda number: int(live[number]))
        poor: set[int] = set()
        few = self.sizes.pieces + 2 * (total // self.sizes.piece_bytes)
        if len(numbers) > few:
            poor.update(numbers[: len(numbers) - few // 2])
        stored = int(live[-1])
        stored += sum(int(live[n]) if n in poor else self.pieces[n].bytes for n in numbers)
        for number in sorted(numbers, key=lambda number: live[number] / self.pieces[number].bytes):
            if stored <= 2 * total + self.sizes.spare_bytes:
                break
            if number not in poor:
                poor.add(number)
                stored -= self.pieces[number].bytes - int(live[number])
        self._unsave(poor)

    def _live_bytes(self) -> npt.NDArray[np.int64]:
        """By number of the piece; the last one counts what is unsaved."""
        live = np.zeros(self._last + 2, np.int64)
        for table in self._tables.values():
            for span in table.spans:
                owned = np.bincount(span.owners + 1, minlength=len(live))
                live += np.roll(owned, -1) * table.shape.block_bytes
        return live

    def _all_spans(self) -> Iterator[Span]:
        return (span for table in self._tables.values() for span in table.spans)

    def _spans_of(self, export: Mapping[str, Rows]) -> Iterator[tuple[_Table, Span, tuple[int, Array]]]:
        for name, table in self._tables.items():
            for span, part in zip(table.spans, export[name].parts, strict=True):
                yield table, span, part

    # An image becomes a state

    @classmethod
    def load(
        cls, sizes: Sizes, shapes: tuple[Shape, ...], pieces: Iterator[tuple[Piece, Iterator[Blocks]]]
    ) -> "tuple[Image, dict[str, Rows]]":
        """Put the pieces together, oldest first. Raises ValueError when a block is in none of them."""
        image = cls(sizes)
        state = {shape.name: shape.empty() for shape in shapes}
        for shape in shapes:
            spans = [_blank(shape, first, count) for first, count in shape.parts]
            image._tables[shape.name] = _Table(shape, spans)
        for piece, contents in pieces:
            image._last += 1
            image.pieces[image._last] = piece
            for blocks in contents:
                if blocks.table in state:
                    image._paste(blocks, state[blocks.table])
        if image.unsaved_bytes:
            raise ValueError("a block is missing")
        for table, span, (first, part) in image._spans_of(state):
            span.hashes = _hashed(table.shape, first, part).hashes
        image.drop_dead_pieces()
        return image, state

    def _paste(self, blocks: Blocks, rows: Rows) -> None:
        table = self._tables[blocks.table]
        shape = table.shape
        if blocks.contents.shape[1] != shape.block_bytes:
            raise ValueError("a block has another size than its table's")
        for span, (first, part) in zip(table.spans, rows.parts, strict=True):
            paste_blocks(
                as_bytes(part), shape.row_bytes, first, shape.block_rows, blocks.numbers, blocks.contents
            )
            places = blocks.numbers - span.first
            span.owners[places[(places >= 0) & (places < len(span.owners))]] = self._last


def _blank(shape: Shape, first: int, count: int) -> Span:
    lo = first // shape.block_rows
    n = (-(-(first + count) // shape.block_rows) - lo) if count else 0
    return Span(lo, np.zeros(n, np.uint64), np.full(n, UNSAVED, np.int32))


def _hashed(shape: Shape, first: int, part: Array) -> Span:
    span = _blank(shape, first, len(part))
    hash_blocks(as_bytes(part), shape.row_bytes, first, shape.block_rows, span.hashes)
    return span


def _keep_owners(new: Span, old: Span) -> None:
    """Blocks that are as they were stay where they are stored."""
    lo = max(new.first, old.first)
    hi = min(new.first + len(new.owners), old.first + len(old.owners))
    if lo >= hi:
        return
    here, there = slice(lo - new.first, hi - new.first), slice(lo - old.first, hi - old.first)
    same = new.hashes[here] == old.hashes[there]
    new.owners[here] = np.where(same, old.owners[there], UNSAVED)


def _copied(shape: Shape, part: tuple[int, Array], numbers: Array) -> Blocks:
    first, rows = part
    contents = np.zeros((len(numbers), shape.block_bytes), np.uint8)
    copy_blocks(as_bytes(rows), shape.row_bytes, first, shape.block_rows, numbers, contents)
    return Blocks(shape.name, numbers, contents)


def dtype_of(described: Any) -> np.dtype[Any]:
    """JSON has no tuples, numpy insists on them."""
    if isinstance(described, str):
        return np.dtype(described)
    fields = [(name, given, *map(tuple, shape)) for name, given, *shape in described]
    return descr_to_dtype(fields)
