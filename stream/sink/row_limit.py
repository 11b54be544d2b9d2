"""How many rows may be sent to ClickHouse now: over any ten seconds at most so many a second."""

import math
import time
from collections import deque
from collections.abc import Callable

WINDOW_SECONDS = 10.0
_WORTHWHILE_SHARE = 0.25  # of a window's rows: a large flush is cut into pieces, but not into crumbs


class RowLimit:
    """Remembers what was sent within the window. Rows of a second may go at once, or of ten: flushes stay whole."""

    def __init__(
        self, rows_per_second: float = math.inf, *, uptime: Callable[[], float] = time.monotonic
    ) -> None:
        """uptime: seconds that never step back."""
        self.rows_per_second = rows_per_second
        self._most = rows_per_second * WINDOW_SECONDS
        self._uptime = uptime
        self._sent: deque[tuple[float, int]] = deque()  # until when they count, and how many
        self._sent_rows = 0

    def room(self) -> float:
        """Rows that may be sent now."""
        now = self._uptime()
        while self._sent and self._sent[0][0] <= now:
            self._sent_rows -= self._sent.popleft()[1]
        return self._most - self._sent_rows

    def seconds_until(self, rows: int) -> float:
        """Until a flush of so many rows may begin: all of them may go then, or as many as are worth an insert."""
        lacking = min(rows, self._most * _WORTHWHILE_SHARE) - self.room()
        if lacking <= 0:
            return 0.0
        for until, sent in self._sent:
            lacking -= sent
            if lacking <= 0:
                return max(0.0, until - self._uptime())
        return WINDOW_SECONDS

    def note(self, rows: int) -> None:
        """So many rows were sent just now."""
        self._sent.append((self._uptime() + WINDOW_SECONDS, rows))
        self._sent_rows += rows
