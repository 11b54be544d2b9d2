"""When a partition's state becomes a snapshot, and what that makes superfluous."""

from dataclasses import replace

from stream.durability.journal import Journal
from stream.durability.machine import Machine
from stream.durability.snapshot import Mark, Snapshot, Snapshots
from stream.durability.surroundings import Pace, Surroundings


class Checkpoints:
    """Captures a state at its step and publishes it once the sink has acknowledged everything up to there."""

    def __init__(
        self, partition: int, journal: Journal, snapshots: Snapshots, around: Surroundings, pace: Pace
    ) -> None:
        self._partition = partition
        self._journal = journal
        self._snapshots = snapshots
        self._sink = around.sink
        self._clock = around.clock
        self._pace = pace
        self._captured: Snapshot | None = None
        self._may_be_published = False  # its manifest was sent, and no answer came yet
        self._last_step = 0  # captured or loaded
        self._due_ms = 0
        self._collect_due_ms = 0

    def restart(self, step: int) -> None:
        """Begin to wait for the next capture, with a state that stands where it was stored (or was kept)."""
        self._last_step = max(self._last_step, step)
        self._due_ms = self._clock.now_ms() + self._pace.snapshot_every_ms

    def is_due(self, step: int) -> bool:
        """Is it time for a capture, something new to capture, and none waiting?"""
        return self._captured is None and step > self._last_step and self._clock.now_ms() >= self._due_ms

    def capture(self, mark: Mark, machine: Machine, writer: str) -> None:
        """Write the state as it is; one that still waits for acknowledgement gives way to it."""
        if mark.step <= self._last_step:
            return
        self.discard()
        stamped = replace(mark, taken_at_ms=self._clock.now_ms(), writer=writer)
        self._captured = self._snapshots.capture(stamped, machine.export())
        self._last_step = mark.step

    def publish_when_acked(self) -> bool:
        """Publish what is captured if the sink has acknowledged all up to it; False while that waits."""
        if self._captured is None:
            return True
        if self._sink.acked(self._partition) < self._captured.step:
            return False
        self._may_be_published = True
        self._snapshots.publish(self._captured)
        self._captured, self._may_be_published = None, False
        self._due_ms = self._clock.now_ms() + self._pace.snapshot_every_ms
        self._collect()
        return True

    def discard(self) -> None:
        """Give up a capture that has not been published; one whose manifest may be there keeps its data."""
        captured, self._captured = self._captured, None
        if captured is not None and not self._may_be_published:
            self._snapshots.discard(captured)
        self._may_be_published = False

    def _collect(self) -> None:
        oldest = self._snapshots.collect()
        now_ms = self._clock.now_ms()
        if oldest and now_ms >= self._collect_due_ms:
            self._journal.collect(oldest, planned_before_ms=now_ms - self._pace.journal_kept_ms)
            self._collect_due_ms = now_ms + self._pace.collect_every_ms
