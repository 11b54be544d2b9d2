"""Stops the worker instead of draining a bad deploy into dead letters."""

from collections import deque

from stream.errors import LiftstreamError


class MostlyRejected(LiftstreamError):
    """Most of a partition's newest events were rejected."""


class Breaker:
    """Watches the newest steps of one partition that hold at least `rows` events together."""

    def __init__(self, partition: int, *, rows: int, share: float) -> None:
        """share: of rejected events, above which it trips."""
        self._partition = partition
        self._min_rows = rows
        self._max_share = share
        self._steps: deque[tuple[int, int]] = deque()
        self._rows = 0
        self._rejected = 0

    def see(self, rows: int, rejected: int, reason: str) -> None:
        """Take a step's counts and the reason of a rejected one. Raises MostlyRejected."""
        self._steps.append((rows, rejected))
        self._rows += rows
        self._rejected += rejected
        while self._rows - self._steps[0][0] >= self._min_rows:
            old_rows, old_rejected = self._steps.popleft()
            self._rows -= old_rows
            self._rejected -= old_rejected
        if self._rows >= self._min_rows and self._rejected > self._max_share * self._rows:
            raise MostlyRejected(
                f"{self._rejected:,} of the last {self._rows:,} events of partition {self._partition} were rejected "
                f"(such as: {reason}): see `liftstream sql 'SELECT * FROM dead_letters'`, repair the producer, and "
                "start the worker again (breaker_share = 1 makes it go on regardless)."
            )
