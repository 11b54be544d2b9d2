"""When a partition's state becomes a snapshot, how that is spread over steps, and what it makes superfluous."""

from dataclasses import replace

from stream.durability.journal import Journal
from stream.durability.machine import Machine
from stream.durability.manifest import Mark, Snapshot
from stream.durability.snapshot import Snapshots
from stream.durability.surroundings import Pace, Surroundings


class Checkpoints:
    """Captures a state at its step and publishes it once the sink has acknowledged everything up to there.

    What has changed is copied in one pause between two steps and written piece by piece between the following ones.
    When it is too much for one pause, a further round copies the rest, and what has changed meanwhile, at a later
    step: the snapshot is that step's.
    """

    def __init__(
        self, partition: int, journal: Journal, snapshots: Snapshots, around: Surroundings, pace: Pace
    ) -> None:
        self._partition = partition
        self._journal = journal
        self._snapshots = snapshots
        self._sink = around.sink
        self._clock = around.clock
        self._pace = pace
        self._writing: Mark | None = None  # of the round whose copies are being written
        self._is_whole = False  # that round was the last one
        self._captured: Snapshot | None = None
        self._last_step = 0  # captured or loaded
        self._due_ms = 0
        self._collect_due_ms = 0

    def restart(self, step: int) -> None:
        """Begin to wait for the next capture, with a state that stands where it was stored (or was kept)."""
        self._last_step = max(self._last_step, step)
        self._due_ms = self._clock.now_ms() + self._pace.snapshot_every_ms

    def is_due(self, step: int) -> bool:
        """Is it time for a capture, something new to capture, and none on its way?"""
        is_busy = self._captured is not None or self._writing is not None
        return not is_busy and step > self._last_step and self._clock.now_ms() >= self._due_ms

    def begin(self, mark: Mark, machine: Machine, writer: str) -> None:
        """Copy what has changed in the state as it is."""
        stamped = replace(mark, taken_at_ms=self._clock.now_ms(), writer=writer)
        self._is_whole = self._snapshots.copy(machine.export())
        self._writing = stamped

    def go_on(self, mark: Mark, machine: Machine, writer: str) -> None:
        """Do the next bit of what was begun: write a piece, copy the next round, publish."""
        if self._writing is not None and self._snapshots.write(writer):
            if self._is_whole:
                self._finish(self._snapshots.finish(self._writing))
            else:
                self.begin(mark, machine, writer)
        self.publish_when_acked()

    def capture(self, mark: Mark, machine: Machine, writer: str) -> None:
        """Write the state as it is, at once; what was begun or waits for acknowledgement gives way to it."""
        if self._writing is None and mark.step <= self._last_step:
            return
        stamped = replace(mark, taken_at_ms=self._clock.now_ms(), writer=writer)
        self._finish(self._snapshots.capture(stamped, machine.export()))

    def publish_when_acked(self) -> bool:
        """Publish what is captured if the sink has acknowledged all up to it; False while that waits."""
        if self._captured is None:
            return True
        if self._sink.acked(self._partition) < self._captured.step:
            return False
        is_published = self._snapshots.publish(self._captured)
        self._captured = None
        self._due_ms = self._clock.now_ms() + self._pace.snapshot_every_ms
        if is_published:
            self._collect()
        else:
            self._last_step = self._snapshots.newest_step()
        return True

    def discard(self) -> None:
        """Give up what has not been published; what was written of it is removed when somebody collects."""
        self._captured = self._writing = None

    def _finish(self, snapshot: Snapshot) -> None:
        self._captured, self._writing = snapshot, None
        self._last_step = snapshot.step

    def _collect(self) -> None:
        oldest = self._snapshots.collect()
        now_ms = self._clock.now_ms()
        if oldest and now_ms >= self._collect_due_ms:
            self._journal.collect(oldest, planned_before_ms=now_ms - self._pace.journal_kept_ms)
            self._collect_due_ms = now_ms + self._pace.collect_every_ms
