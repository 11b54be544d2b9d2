"""The product with one rule taken out, to see that the simulation notices."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from stream.decisions.book import Book, Page
from stream.decisions.decision import Decision
from stream.durability.journal import Entry, Journal
from stream.durability.machine import Executed, Sink, State
from stream.durability.partition import Partition
from stream.durability.queue import Piece
from stream.engine.batch import Batch
from stream.engine.outputs import Chunk
from tests.simulation.run import Product
from tests.simulation.weather import NEVER_MS, Weather


class NoJournal(Journal):
    """Nothing is written and nothing is there; only the simulation remembers what was planned first."""

    def append(self, entry: Entry) -> Entry:
        self._store.remember(self._path(entry.number), entry)  # type: ignore[attr-defined]
        return entry

    def after(self, number: int) -> list[Entry]:
        return []


class WithoutJournal(Partition):
    """Plans every step anew, as a stream processor does that only has snapshots."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._journal = NoJournal(self._around.store, args[1])


class WithoutStaleCheck(Partition):
    """Takes every entry it could write for a new one."""

    def _is_stale(self, *_: Any) -> bool:
        return False


class WithoutReadings(Partition):
    """Decodes the records of a journaled step with the schemas that are known now."""

    def _as_read(self, piece: Piece, *_: Any) -> Batch:
        return piece.batch


class WrittenOver(Book):
    """Whoever decides writes, whatever is there."""

    def write(self, decision: Decision) -> bool:
        self._store.put(f"decisions/{decision.id}/decision", decision.to_json())
        return True


class NeverDone(Book):
    """Nobody learns what another worker left undone."""

    def pages(self, experiment: str) -> list[Page]:
        return [replace(page, done=frozenset({"message"})) for page in super().pages(experiment)]


class AckedAtOnce:
    """A sink that says that all is durable as soon as it was put."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    @property
    def is_full(self) -> bool:
        return self._sink.is_full

    def put(self, partition: int, executed: Executed) -> None:
        self._sink.put(partition, executed)

    def republish(self, partition: int, state: State, chunks: Sequence[Chunk]) -> None:
        self._sink.republish(partition, state, chunks)

    def acked(self, partition: int) -> int:
        return 1 << 60


def of_sleepers(drawn: Weather) -> Weather:
    """Workers that often stand still while others get far ahead: else a collected entry is hardly ever missed."""
    return replace(
        drawn, workers=3, partitions=1, events=300, storm_ms=12_000, pause_every_ms=1_000, freeze=0.01, freeze_ms=5_000,
        crash=0, refuse=0, lose_answer=0, kill_every_ms=NEVER_MS, sink_away_every_ms=NEVER_MS, rots=False,
        nothing_is_late=False,
    )  # fmt: skip


ABLATIONS = {
    "no journal": Product(partition_class=WithoutJournal),
    "no stale check": Product(partition_class=WithoutStaleCheck, weather=of_sleepers),
    "no wait for the sinks": Product(sink_of=AckedAtOnce),
    "no put-if-absent of decisions": Product(book_class=WrittenOver, weather=of_sleepers),
    "no completion of decisions": Product(book_class=NeverDone),
    "no schemas in the journal": Product(partition_class=WithoutReadings),
}
