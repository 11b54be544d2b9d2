"""A whole worker without sockets: record sets in, partials and inserts out, driven as fast as it goes.

Everything between Kafka's answer and ClickHouse's request is the product's own: record sets are parsed, decoded,
queued, journaled in a real store, counted, stored as snapshots, encoded as partials and as Arrow. What is missing,
sockets and Faust's event loop, `make bench` measures.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition
from clickhouse_connect.driver.query import arrow_buffer
from faust.types import TP

from benchmarks.workload import PARTITIONS, Record, Workload
from stream.app.breaker import Breaker, Rule
from stream.app.decoder import Decoder
from stream.app.engines import Engines
from stream.app.held import Counters, Held
from stream.app.outlets import Destination, KafkaOutlet, Message, Outlets
from stream.app.rolling import RollingWindows
from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.contracts.versions import Schemas
from stream.durability.partition import Partition
from stream.durability.store import open_store
from stream.durability.surroundings import Clock, Owner, Surroundings
from stream.engine import ENGINE_VERSION
from stream.engine.batch import SPARE_BYTES
from stream.intake.fetch import RawMemoryRecords, RawPartitionRecords
from stream.intake.frames import Frame
from stream.intake.murmur2 import partition_of
from stream.intake.reading import Readings
from stream.intake.transport import Fetched
from stream.sink.writer import Writer

BATCH_ROWS = 2_500  # of a producer that sends half a megabyte at a time
FETCH_BATCHES = 2  # a megabyte, Faust's default for a fetch of a partition
EVENTS_PER_SECOND = 5_000  # by the clock of the step loop: snapshots come every 60 s
EVERYTHING = 1 << 30  # room that a feed never runs out of
PREFIX = "stages."


class Log:
    """What a broker holds: record sets by topic and partition, each with the offset after it."""

    def __init__(self, workload: Workload) -> None:
        records: dict[TP, list[Record]] = defaultdict(list)
        for record in workload.records:
            records[TP(PREFIX + record.topic.word, _partition(record.key))].append(record)
        self.events = len(workload.records)
        self.sets = {tp: _record_sets(of) for tp, of in records.items()}
        self.ends = {tp: len(of) for tp, of in records.items()}


class NoDatabase:
    """Takes inserts as far as clickhouse_connect brings them before the socket. rows: by table."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = defaultdict(int)

    def command(self, cmd: str, parameters: dict[str, Any]) -> None:
        """Nothing is asked."""

    def insert_arrow(self, table: str, arrow_table: pa.Table, *, settings: dict[str, Any]) -> None:
        arrow_buffer(arrow_table, "lz4")
        self.rows[table] += arrow_table.num_rows

    def close(self) -> None:
        """Nothing is open."""


@dataclass(slots=True)
class Sent:
    """Partials on their way from one agent to the other."""

    messages: list[Message] = field(default_factory=list)

    async def send(self, message: Message) -> Awaitable[None]:
        self.messages.append(message)
        return _at_once()


class WorkerInProcess:
    """One worker that owns all partitions."""

    def __init__(self, log: Log, folder: Path, definitions: Definitions | None = None) -> None:
        """folder: for its checkpoints."""
        self._log = log
        self._taken = 0
        self.database = NoDatabase()
        self._sent = Sent()
        self._writer = Writer(lambda: self.database)
        self._outlet = KafkaOutlet(self._sent.send)
        self._rolling = RollingWindows(self._writer, partitions=1)
        self._rolling.assign({0})
        self._rolling.expect({0: 0})
        topics = {topic.word: PREFIX + topic.word for topic in Topic}
        around = Surroundings(
            store=open_store(str(folder)),
            machines=Engines(key=bytes(16), partitions=PARTITIONS),
            readings=Readings(PARTITIONS),
            sink=Outlets(self._writer, self._outlet, Destination(1, "partials", 1, "dead", topics)),
            clock=Clock(now_ms=self._now_ms, uptime_ms=self._now_ms),
        )
        owner = Owner("stages", ENGINE_VERSION, definitions or Definitions())
        self._decoder = Decoder(Schemas(), partitions=PARTITIONS)
        self._counters = Counters()
        self._held = [
            Held(Partition(number, f"g1/p{number}", owner, around), Breaker(number, Rule(EVERYTHING, 1.0)))
            for number in range(PARTITIONS)
        ]
        self._coming = {tp: _fetches(tp, sets) for tp, sets in log.sets.items()}
        self._seqs: dict[TP, int] = defaultdict(int)

    @property
    def records(self) -> int:
        """Events that steps have taken."""
        return self._counters.records

    @property
    def steps(self) -> int:
        """Of all partitions."""
        return self._counters.steps

    def run(self) -> None:
        """Count everything and write everything."""
        for held in self._held:
            held.partition.recover()
            held.partition.start((0, 0, 0))
            held.begin(is_ours=True)
            for feed in held.feeds:
                feed.restart(1, 0)
        offset = 0
        while self.records < self._log.events:
            for held in self._held:
                self._fetch(held)
                held.turn(self._decoder, self._counters)
                asyncio.run(self._outlet.flush())
            for message in self._sent.messages:
                self._rolling.take(0, offset, message.key, message.value)
                offset += 1
            self._sent.messages.clear()
            self._rolling.write()
        self._writer.drain()
        for held in self._held:  # what was captured is published, now that all is acknowledged
            held.partition.publish_when_acked()

    def close(self) -> None:
        """End the writer's thread."""
        self._writer.close()

    def _now_ms(self) -> int:
        return 1_800_000_000_000 + self.records * 1000 // EVENTS_PER_SECOND

    def _fetch(self, held: Held) -> None:
        """As much as the feeds have room for; a fetch is parsed when it is taken, as aiokafka does."""
        for topic, feed in zip(Topic, held.feeds, strict=True):
            tp = TP(PREFIX + topic.word, held.partition.number)
            coming = self._coming[tp]
            while coming and feed.has_room:
                at, data = coming.popleft()
                parsed = RawPartitionRecords(
                    TopicPartition(*tp),
                    RawMemoryRecords(data),
                    None,
                    at,
                    check_crcs=True,
                    read_committed=False,
                )
                chunks = tuple(parsed)
                rows = sum(chunk.rows for chunk in chunks)
                end = self._log.ends[tp]
                feed.accept(Fetched(tp, 1, self._seqs[tp], rows, parsed.next_fetch_offset, end, chunks))
                self._seqs[tp] += 1


def _received(data: bytes) -> memoryview | bytes:
    """A record set as it comes from a connection: where it was received."""
    frame = Frame(len(data))
    frame.view[:] = data
    return frame.read(len(data))


def _fetches(tp: TP, sets: Sequence[bytes]) -> deque[tuple[int, memoryview | bytes]]:
    """(first offset, record set) of each fetch."""
    step = FETCH_BATCHES
    return deque(
        (start * BATCH_ROWS, _received(b"".join(sets[start : start + step])))
        for start in range(0, len(sets), step)
    )


def _record_sets(records: Sequence[Record]) -> list[bytes]:
    return [
        _record_set(start, records[start : start + BATCH_ROWS])
        for start in range(0, len(records), BATCH_ROWS)
    ]


def _record_set(base: int, records: Sequence[Record]) -> bytes:
    """One batch as the broker stores it, with its base offset."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=False, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1 << 30,
    )  # fmt: skip
    for place, record in enumerate(records):
        builder.append(place, record.arrival_ms, record.key, record.value, [])
    data = builder.build()
    data[:8] = base.to_bytes(8, "big")  # not covered by the checksum
    return bytes(data)


def _partition(key: bytes) -> int:
    buf = np.frombuffer(key + bytes(SPARE_BYTES), np.uint8)
    return int(partition_of(buf, 0, len(key), PARTITIONS))


async def _at_once() -> None:
    """Acknowledged."""
