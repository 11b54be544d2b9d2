"""Notices when a deploy went bad: most of a partition's newest events are rejected."""

import logging
from collections import deque
from dataclasses import dataclass

from stream.errors import LiftstreamError

log = logging.getLogger(__name__)


class MostlyRejected(LiftstreamError):
    """Most of a partition's newest events were rejected."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Of the newest `rows` events of a partition more than `share` rejected; `stops`: end the worker then."""

    rows: int
    share: float
    stops: bool = False


class Breaker:
    """Watches the newest steps of one partition that hold at least a rule's rows together.

    It trips above the share and resets itself when the share is back at it or below.
    """

    def __init__(self, partition: int, rule: Rule) -> None:
        self._partition = partition
        self._rule = rule
        self._steps: deque[tuple[int, int]] = deque()
        self._rows = 0
        self._rejected = 0
        self.trouble: str | None = None  # a sentence while it is tripped

    @property
    def share(self) -> float:
        """Of the events looked at, how many were rejected; 0 before the first."""
        return self._rejected / self._rows if self._rows else 0.0

    def see(self, rows: int, rejected: int, reason: str) -> None:
        """Take a step's counts and the reason of a rejected one. Raises MostlyRejected where it is to stop."""
        self._steps.append((rows, rejected))
        self._rows += rows
        self._rejected += rejected
        while self._rows - self._steps[0][0] >= self._rule.rows:
            old_rows, old_rejected = self._steps.popleft()
            self._rows -= old_rows
            self._rejected -= old_rejected
        if self._rows < self._rule.rows:
            return
        if self._rejected <= self._rule.share * self._rows:
            self._reset()
            return
        was_tripped = self.trouble is not None
        self.trouble = (
            f"{self._rejected:,} of the last {self._rows:,} events of partition {self._partition} were rejected "
            f"(such as: {reason or 'no reason'}), more than breaker_share = {self._rule.share:g} allows: see "
            "`liftstream sql 'SELECT * FROM dead_letters'` and repair the producer."
        )
        if self._rule.stops:
            raise MostlyRejected(
                f"{self.trouble} breaker_action = stop ended the worker; start it again, with breaker_action = report "
                "to count on regardless."
            )
        if not was_tripped:
            log.warning("%s Counting goes on.", self.trouble)

    def _reset(self) -> None:
        if self.trouble is None:
            return
        self.trouble = None
        log.warning(
            "Partition %d: no longer most events are rejected (%.1f %% of the last %s).",
            self._partition, 100 * self.share, f"{self._rows:,}",
        )  # fmt: skip
