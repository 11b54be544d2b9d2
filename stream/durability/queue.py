"""Decoded records of one topic-partition that wait for a step."""

from collections import deque
from collections.abc import Iterator

import numpy as np

from stream.contracts.topics import FIELDS, Topic
from stream.durability.planner import NEVER, Head
from stream.engine.batch import I64, Batch

_AT = FIELDS[Topic.IMPRESSIONS].index("at")  # the same in every topic


class Queue:
    """Contiguous from the state's offset on: whatever Kafka holds between `first` and `next` is here."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._reached: deque[I64] = deque()  # as in Head, by batch
        self._newest_ms = NEVER
        self.first = 0  # where the next step starts
        self.next = 0  # where the next batch starts
        self.rows = 0
        self.end: int | None = None  # the topic's end when last heard of
        self._is_end_recent = False

    def restart(self, offset: int, newest_ms: int) -> None:
        """Forget everything and go on at an offset, in a state whose newest event time is known."""
        self._batches.clear()
        self._reached.clear()
        self._newest_ms = newest_ms
        self.first = self.next = offset
        self.rows = 0
        self.end = None
        self._is_end_recent = False

    def hear_end(self, end: int | None) -> None:
        """Note where the topic ends; None: nobody has said so lately."""
        self._is_end_recent = end is not None
        if end is not None:
            self.end = end

    def offer(self, batch: Batch, next_offset: int) -> None:
        """Append what was fetched from `next` on; `next_offset` is where the next fetch starts."""
        if next_offset < self.next or (len(batch) and int(batch.offset[0]) < self.next):
            raise ValueError(f"a batch at {batch.offset[:1]} does not continue the queue at {self.next}")
        if len(batch):
            at_ms = np.where(batch.status == 0, batch.fields[:, _AT], NEVER)
            reached = np.maximum(np.maximum.accumulate(at_ms), self._newest_ms)
            self._newest_ms = int(reached[-1])
            self._batches.append(batch)
            self._reached.append(reached)
            self.rows += len(batch)
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
        for reached in self._reached:
            if rows >= max_rows:
                break
            front.append(reached[: max_rows - rows])
            rows += len(front[-1])
        times = np.concatenate(front) if front else np.empty(0, np.int64)
        return Head(times, self._newest_ms, self.is_at_end)

    def offset_after(self, rows: int) -> int:
        """The end of a range of the first `rows` records; with all of them it includes a gap behind them."""
        if rows == self.rows:
            return self.next
        if rows == 0:
            return self.first
        for batch in self._batches:
            if rows < len(batch):
                return int(batch.offset[rows])
            rows -= len(batch)
        return self.next

    def upto(self, offset: int) -> list[Batch]:
        """The records before an offset, as views."""
        return [batch.rows(0, stop) for batch, stop in self._before(offset)]

    def drop(self, offset: int) -> None:
        """Forget the records before an offset: a step has taken them."""
        for batch, stop in list(self._before(offset)):
            reached = self._reached.popleft()
            self._batches.popleft()
            self.rows -= stop
            if stop < len(batch):
                self._batches.appendleft(batch.rows(stop, len(batch)))
                self._reached.appendleft(reached[stop:])
        self.first = offset

    def _before(self, offset: int) -> Iterator[tuple[Batch, int]]:
        """The batches that start before an offset, and how many of their records do."""
        for batch in self._batches:
            stop = int(np.searchsorted(batch.offset, offset))
            if stop == 0:
                return
            yield batch, stop
