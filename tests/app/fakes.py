"""A consumer and a decoder over records in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from faust.types import TP

from stream.contracts.topics import Topic
from stream.engine.batch import Batch
from stream.intake.transport import Fetched
from tests.durability.fakes import FakeReading, Record, a_batch

NAMES = {topic: f"rec.{topic.word}" for topic in Topic}


def a_fetched(
    tp: TP = TP(NAMES[Topic.IMPRESSIONS], 0),  # noqa: B008
    *,
    epoch: int = 1,
    seq: int = 0,
    records: tuple[Record, ...] = (),
    next_offset: int = 0,
    end_offset: int | None = 0,
) -> Fetched:
    return Fetched(tp, epoch, seq, len(records), next_offset, end_offset, records)  # type: ignore[arg-type]


@dataclass
class MemoryConsumer:
    """What Kafka, aiokafka and the transport are together. `lose` names seqs of fetches that never arrive."""

    log: Mapping[TP, list[Record]]
    begins: dict[TP, int] = field(default_factory=dict)
    positions: dict[TP, int] = field(default_factory=dict)
    stamps: dict[TP, list[int]] = field(default_factory=dict)
    committed: dict[TP, int] = field(default_factory=dict)
    unheard: set[TP] = field(default_factory=set)  # the broker has not told their ends lately
    counts: dict[str, int] = field(default_factory=dict)

    async def earliest_offsets(self, *tps: TP) -> dict[TP, int]:
        return {tp: self.begins.get(tp, 0) for tp in tps}

    async def seek_stamped(self, positions: Mapping[TP, int]) -> dict[TP, int]:
        for tp, offset in positions.items():
            self.positions[tp] = offset
            self.stamps[tp] = [self.stamps.get(tp, [0, 0])[0] + 1, 0]
        return {tp: self.stamps[tp][0] for tp in positions}

    async def commit_advisory(self, offsets: Mapping[TP, int]) -> bool:
        self.committed.update(offsets)
        return True

    def highwater(self, tp: TP) -> int | None:
        if tp in self.unheard:
            return None
        return self.log[tp][-1].offset + 1 if self.log[tp] else 0

    def partitions_of(self, topic: str) -> int | None:
        return self.counts.get(topic)

    def fetch(self, tp: TP, limit: int = 10) -> Fetched | None:
        records = [record for record in self.log[tp] if record.offset >= self.positions[tp]][:limit]
        if not records:
            return None
        epoch, seq = self.stamps[tp]
        self.stamps[tp][1] += 1
        self.positions[tp] = records[-1].offset + 1
        return a_fetched(
            tp, epoch=epoch, seq=seq, records=tuple(records), next_offset=self.positions[tp],
            end_offset=self.highwater(tp),
        )  # fmt: skip


class MemoryDecoder:
    def decode(self, topic: Topic, fetched: Fetched) -> Batch:
        return a_batch(topic, fetched.records)  # type: ignore[arg-type]

    def reading(self, topic: Topic) -> FakeReading:
        return FakeReading(frozenset({1, 2}))
