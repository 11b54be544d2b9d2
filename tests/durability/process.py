"""A worker's life around one partition: recover, fetch, step, flush, until everything is counted or it dies."""

import random
from collections import Counter
from collections.abc import Sequence

from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.durability.manifest import Offsets
from stream.durability.partition import Done, Partition, Pause
from stream.durability.surroundings import Owner, Pace, Surroundings
from tests.durability.fakes import (
    ENGINE_VERSION,
    CountingMachines,
    Database,
    DictStore,
    Doom,
    DoomedStore,
    FakeReading,
    FakeReadings,
    HandClock,
    OutboxSink,
    Record,
    a_batch,
)

FOLDER = "g000001/p00003"
SMALL = Pace(max_rows=7, snapshot_every_ms=10, patience_ms=20, silence_ms=1_000_000)
Log = dict[Topic, list[Record]]


def a_log(seed: int = 1, rows: Sequence[int] = (9, 40, 20), gap: int = 3) -> Log:
    """Three topics over the same stretch of time, with gaps between offsets and some disorder."""
    random_ = random.Random(seed)
    log: Log = {}
    for topic, count in zip(Topic, rows, strict=True):
        offset, records = 5, []
        for i in range(count):
            at_ms = max(0, i * 10_000 // count + random_.randint(-300, 300))
            records.append(Record(offset, at_ms, f"{topic.word}-{random_.randint(0, 5)}"))
            offset += random_.randint(1, gap)
        log[topic] = records
    return log


def expected(log: Log) -> Counter[str]:
    return Counter(record.key for records in log.values() for record in records)


class Process:
    def __init__(
        self,
        log: Log,
        store: DictStore,
        database: Database,
        *,
        clock: HandClock,
        doom: Doom | None = None,
        pace: Pace = SMALL,
        definitions: Definitions | None = None,
        engine_version: int = ENGINE_VERSION,
        seed: int = 0,
        known: frozenset[int] = frozenset({1}),
        folder: str = FOLDER,
    ) -> None:
        doom = doom or Doom()
        self.log = log
        self.clock = clock
        self.sink = OutboxSink(database, doom)
        self.replayed: list[int] = []
        self.taken: list[Done] = []
        self._random = random.Random(seed)
        self._reading = FakeReading(known)
        self._next: dict[Topic, int] = {}
        self.partition = Partition(
            3,
            folder,
            Owner(f"writer-{seed}", engine_version, definitions or Definitions()),
            Surroundings(
                DoomedStore(store, doom), CountingMachines(), FakeReadings(), self.sink, clock.clock
            ),
            pace,
        )

    def start(self) -> None:
        self.partition.recover()
        offsets = self.partition.offsets or (0, 0, 0)
        self.fetch_from(offsets)
        self.partition.start(offsets)

    def fetch_from(self, offsets: Offsets) -> None:
        """Seek."""
        self._next = {topic: offsets[topic] for topic in Topic}

    def fetch(self, topic: Topic, limit: int | None = None) -> None:
        """Offer what comes next in the topic: up to `limit` records, by default a few."""
        records = [record for record in self.log[topic] if record.offset >= self._next[topic]]
        limit = self._random.randint(0, 5) if limit is None else limit
        if taken := records[:limit]:
            self._next[topic] = taken[-1].offset + 1
            batch = a_batch(topic, taken, self._reading.known)
            self.partition.offer(topic, batch, self._next[topic], self._reading)
        self.partition.observe(topic, self.log[topic][-1].offset + 1 if self.log[topic] else 0)

    def turn(self) -> Done | Pause:
        """One round of a worker's loop."""
        self.clock.ms += 10
        for topic in Topic:
            if self.partition.room(topic):
                self.fetch(topic)
        result = self.partition.advance()
        if isinstance(result, Done):
            self.taken.append(result)
        elif result is Pause.MUST_RECOVER:
            self.start()
        if self._random.random() < 0.5:
            self.sink.flush()
        return result

    @property
    def is_finished(self) -> bool:
        return all(
            not records or (self.partition.step and self.partition.offsets[topic] > records[-1].offset)  # type: ignore[index]
            for topic, records in self.log.items()
        )

    def run(self, turns: int = 2_000) -> "Process":
        """Until everything is counted and written."""
        self.start()
        for _ in range(turns):
            self.turn()
            if self.is_finished:
                break
        else:
            raise AssertionError("it does not come to an end")
        self.end()
        return self

    def end(self) -> None:
        """Stop cleanly."""
        self.sink.flush()
        self.partition.capture()
        assert self.partition.publish_when_acked()
