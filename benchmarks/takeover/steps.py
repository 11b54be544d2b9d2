"""Who took which step when, read from the journal in the checkpoint store: nothing in the workers is asked."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from stream.durability.journal import Journal
from stream.durability.snapshot import Snapshots
from stream.durability.store import open_store

POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that was planned. pid: of the process that planned it. at_ms: by the wall clock."""

    partition: int
    number: int
    at_ms: int
    pid: int
    records: int


@dataclass(slots=True)
class _Reader:
    journal: Journal
    read_to: int = 0


@dataclass
class Steps:
    """The steps of a deployment's first generation, in the order in which they were planned in their partition."""

    checkpoints: Path
    partitions: int
    _taken: list[list[Taken]] = field(init=False)

    def __post_init__(self) -> None:
        store = open_store(self.checkpoints.absolute().as_uri())
        self._taken = [[] for _ in range(self.partitions)]
        folders = [f"g000001/p{p:05d}" for p in range(self.partitions)]
        self._readers = [_Reader(Journal(store, folder)) for folder in folders]
        self._snapshots = [Snapshots(store, folder) for folder in folders]

    def read(self) -> None:
        """Take in what is new."""
        for partition, reader in enumerate(self._readers):
            for entry in reader.journal.after(reader.read_to):
                pid = int(entry.writer.rsplit("-", 2)[1])
                records = sum(taken.rows for taken in entry.ranges)
                self._taken[partition].append(
                    Taken(partition, entry.number, entry.planned_at_ms, pid, records)
                )
                reader.read_to = entry.number

    @property
    def records(self) -> int:
        """Of all steps."""
        return sum(step.records for taken in self._taken for step in taken)

    def are_saved_since(self, at_ms: int) -> bool:
        """Whether each partition has a snapshot of a step that was taken after a time."""
        later = (next((step for step in taken if step.at_ms > at_ms), None) for taken in self._taken)
        return all(
            step is not None and of_partition.newest_step() >= step.number
            for step, of_partition in zip(later, self._snapshots, strict=True)
        )

    def owners(self) -> dict[int, int]:
        """Who took the newest step, by partition."""
        return {taken[-1].partition: taken[-1].pid for taken in self._taken if taken}

    def newest_ms(self, partition: int) -> int:
        """When the newest step was taken, 0 before the first."""
        taken = self._taken[partition]
        return taken[-1].at_ms if taken else 0

    def first(self, partition: int, after_ms: int, by: Callable[[int], bool]) -> Taken | None:
        """The first step after a time by a process of which `by` is true."""
        later = (taken for taken in self._taken[partition] if taken.at_ms > after_ms)
        return next((taken for taken in later if by(taken.pid)), None)

    def standstill(self, partition: int, from_ms: int) -> float:
        """The longest pause between two steps of which the later one was after a time, in seconds."""
        times = [taken.at_ms for taken in self._taken[partition]]
        pauses = (late - early for early, late in pairwise(times) if late > from_ms)
        return max(pauses, default=0) / 1000

    def wait_for(self, condition: Callable[["Steps"], bool], *, seconds: float, what: str) -> None:
        """Read on until a condition holds. Raises TimeoutError that says what did not come."""
        patience = threading.Event()
        for _ in range(int(seconds / POLL_SECONDS)):
            self.read()
            if condition(self):
                return
            patience.wait(POLL_SECONDS)
        raise TimeoutError(f"{what} did not happen in {seconds:g} s; the owners are {self.owners()}")
