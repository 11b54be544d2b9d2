"""Stops the worker instead of draining a bad deploy into dead letters."""

from collections import deque

from stream.errors import LiftstreamError

MIN_ROWS = 1_000
MAX_SHARE = 0.5


class MostlyRejected(LiftstreamError):
    """Most of a partition's newest events were rejected."""


class Breaker:
    """Watches the newest steps of one partition that hold at least MIN_ROWS events together."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._steps: deque[tuple[int, int]] = deque()
        self._rows = 0
        self._rejected = 0

    def see(self, rows: int, rejected: int, reason: str) -> None:
        """Take a step's counts and the reason of a rejected one. Raises MostlyRejected."""
        self._steps.append((rows, rejected))
        self._rows += rows
        self._rejected += rejected
        while self._rows - self._steps[0][0] >= MIN_ROWS:
            old_rows, old_rejected = self._steps.popleft()
            self._rows -= old_rows
            self._rejected -= old_rejected
        if self._rows >= MIN_ROWS and self._rejected > MAX_SHARE * self._rows:
            raise MostlyRejected(
                f"{self._rejected:,} of the last {self._rows:,} events of partition {self._partition} were rejected "
                f"(such as: {reason}): see `liftstream sql 'SELECT * FROM dead_letters'`, repair the producer, and "
                "start the worker again."
            )
