"""Decoded records of one topic-partition that wait for a step."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stream.contracts.topics import FIELDS, Topic
from stream.durability.machine import Reading
from stream.durability.planner import NEVER, Head
from stream.engine.batch import I64, Batch

_AT = FIELDS[Topic.IMPRESSIONS].index("at")  # the same in every topic


@dataclass(frozen=True, slots=True)
class Piece:
    """Records that were offered together. reached: as in Head."""

    batch: Batch
    reached: I64
    reading: Reading

    def rows(self, start: int, stop: int) -> "Piece":
        """The rows start <= i < stop, as views."""
        return Piece(self.batch.rows(start, stop), self.reached[start:stop], self.reading)


class Queue:
    """Contiguous from the state's offset on: whatever Kafka holds between `first` and `next` is here."""

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self._newest_ms = NEVER
        self.first = 0  # where the next step starts
        self.next = 0  # where the next batch starts
        self.rows = 0
        self.nbytes = 0  # of the batches' buffers
        self.end: int | None = None  # the topic's end when last heard of
        self._is_end_recent = False

    def restart(self, offset: int, newest_ms: int) -> None:
        """Forget everything and go on at an offset, in a state whose newest event time is known."""
        self._pieces.clear()
        self._newest_ms = newest_ms
        self.first = self.next = offset
        self.rows = self.nbytes = 0
        self.end = None
        self._is_end_recent = False

    def hear_end(self, end: int | None) -> None:
        """Note where the topic ends; None: nobody has said so lately."""
        self._is_end_recent = end is not None
        if end is not None:
            self.end = end

    def offer(self, batch: Batch, next_offset: int, reading: Reading) -> None:
        """Append what was fetched from `next` on; `next_offset` is where the next fetch starts.

        reading: what the batch was decoded with.
        """
        if next_offset < self.next or (len(batch) and int(batch.offset[0]) < self.next):
            raise ValueError(f"a batch at {batch.offset[:1]} does not continue the queue at {self.next}")
        if len(batch):
            at_ms = np.where(batch.status == 0, batch.fields[:, _AT], NEVER)
            reached = np.maximum(np.maximum.accumulate(at_ms), self._newest_ms)
            self._newest_ms = int(reached[-1])
            self._pieces.append(Piece(batch, reached, reading))
            self.rows += len(batch)
            self.nbytes += batch.buf.nbytes
        self.next = next_offset

    @property
    def is_at_end(self) -> bool:
        """Everything that the topic holds is queued or executed."""
        return self.is_end(self.next)

    def is_end(self, offset: int) -> bool:
        """Is it known that the topic holds nothing from this offset on?"""
        return self._is_end_recent and self.end is not None and offset >= self.end

    def head(self, max_rows: int) -> Head:
        """What the planner looks at: the first `max_rows` records."""
        front, rows = [], 0
        for piece in self._pieces:
            if rows >= max_rows:
                break
            front.append(piece.reached[: max_rows - rows])
            rows += len(front[-1])
        times = np.concatenate(front) if front else np.empty(0, np.int64)
        return Head(times, self._newest_ms, self.is_at_end)

    def offset_after(self, rows: int) -> int:
        """The end of a range of the first `rows` records; with all of them it includes a gap behind them."""
        if rows == self.rows:
            return self.next
        if rows == 0:
            return self.first
        for piece in self._pieces:
            if rows < len(piece.batch):
                return int(piece.batch.offset[rows])
            rows -= len(piece.batch)
        return self.next

    def upto(self, offset: int) -> list[Piece]:
        """The records before an offset, as views."""
        return [piece.rows(0, stop) for piece, stop in self._before(offset)]

    def reading_of(self, rows: int) -> Reading | None:
        """What the last of the first `rows` records was decoded with; None without any."""
        reading = None
        for piece in self._pieces:
            if rows <= 0:
                break
            reading = piece.reading
            rows -= len(piece.batch)
        return reading

    def drop(self, offset: int) -> None:
        """Forget the records before an offset: a step has taken them."""
        for piece, stop in list(self._before(offset)):
            self._pieces.popleft()
            self.rows -= stop
            self.nbytes -= piece.batch.buf.nbytes
            if stop < len(piece.batch):
                self.nbytes += piece.batch.buf.nbytes
                self._pieces.appendleft(piece.rows(stop, len(piece.batch)))
        self.first = offset

    def _before(self, offset: int) -> Iterator[tuple[Piece, int]]:
        """The pieces that start before an offset, and how many of their records do."""
        for piece in self._pieces:
            stop = int(np.searchsorted(piece.batch.offset, offset))
            if stop == 0:
                return
            yield piece, stop
