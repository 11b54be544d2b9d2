"""When the rows of a ring may leave it: by step, how many came and until when event time needs them."""

import numpy as np
import numpy.typing as npt

from stream.engine.index import LINK_MASK, grown_ring
from stream.engine.rows import SMALL, Rows, of_ring, ring_of

SEGMENT = np.dtype([("rows", "i8"), ("newest_ms", "i8"), ("oldest_ms", "i8")])
UNKNOWN_MS = -1  # of oldest_ms: there may be any


class Segments:
    """The steps whose rows are still in a ring, oldest first."""

    def __init__(self, rows: Rows | None = None) -> None:
        """None, or those of an export."""
        self._ring = np.zeros(SMALL, SEGMENT) if rows is None else ring_of(rows)
        self._first = 0 if rows is None else rows.parts[0][0]
        self._count = 0 if rows is None else sum(len(array) for _, array in rows.parts)

    def add(self, rows: int, newest_ms: int, oldest_ms: int) -> None:
        """A step has brought so many rows; no event so far is newer, none of the step or a later one older."""
        if self._count == len(self._ring):
            self._ring = grown_ring(self._ring, 2 * len(self._ring), self._first, self._count)
        self._ring[self._place(self._count)] = rows, newest_ms, oldest_ms
        self._count += 1

    def leave_before(self, ms: int) -> int:
        """Drop the steps whose newest event is before a time; how many rows they brought."""
        leaving = 0
        while self._count and self._ring[self._place(0)]["newest_ms"] < ms:
            leaving += int(self._ring[self._place(0)]["rows"])
            self._first = (self._first + 1) & LINK_MASK
            self._count -= 1
        return leaving

    def oldest_ms(self, default: int) -> int:
        """No row that is still there is older; the default when there is none."""
        return int(self._ring[self._place(0)]["oldest_ms"]) if self._count else default

    def rows_before(self, ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """For each time, how many of the first rows are surely before it."""
        steps = self.export().joined
        rows = np.concatenate([[0], np.cumsum(steps["rows"])])
        return rows[np.searchsorted(steps["newest_ms"], ms, side="left")]

    def clear(self) -> None:
        """Drop all."""
        self._first, self._count = (self._first + self._count) & LINK_MASK, 0

    def export(self) -> Rows:
        """For `__init__`."""
        return of_ring(self._ring, self._first, self._count)

    def _place(self, k: int) -> int:
        return (self._first + k) & (len(self._ring) - 1)
