"""When the rows of a ring may leave it: by step, how many came and until when event time needs them."""

import numpy as np

from stream.engine.index import LINK_MASK, grown_ring
from stream.engine.rows import SMALL, Rows, of_ring, ring_of

SEGMENT = np.dtype([("rows", "i8"), ("newest_ms", "i8")])


class Segments:
    """The steps whose rows are still in a ring, oldest first."""

    def __init__(self, rows: Rows | None = None) -> None:
        """None, or those of an export."""
        self._ring = np.zeros(SMALL, SEGMENT) if rows is None else ring_of(rows)
        self._first = 0 if rows is None else rows.parts[0][0]
        self._count = 0 if rows is None else sum(len(array) for _, array in rows.parts)

    def add(self, rows: int, newest_ms: int) -> None:
        """A step has brought so many rows; no event so far is newer."""
        if self._count == len(self._ring):
            self._ring = grown_ring(self._ring, 2 * len(self._ring), self._first, self._count)
        self._ring[self._place(self._count)] = rows, newest_ms
        self._count += 1

    def leave_before(self, ms: int) -> int:
        """Drop the steps whose newest event is before a time; how many rows they brought."""
        leaving = 0
        while self._count and self._ring[self._place(0)]["newest_ms"] < ms:
            leaving += int(self._ring[self._place(0)]["rows"])
            self._first = (self._first + 1) & LINK_MASK
            self._count -= 1
        return leaving

    def clear(self) -> None:
        """Drop all."""
        self._first, self._count = (self._first + self._count) & LINK_MASK, 0

    def export(self) -> Rows:
        """For `__init__`."""
        return of_ring(self._ring, self._first, self._count)

    def _place(self, k: int) -> int:
        return (self._first + k) & (len(self._ring) - 1)
