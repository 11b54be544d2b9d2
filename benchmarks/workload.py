"""The workload of every benchmark: the same events for the same scale, on every machine and in every run.

Scale 1.0 is 200,000 assignments, 2,000,000 impressions and 200,000 interactions: 100,000 users in two experiments of
three arms; 1 % of impressions and interactions come twice; 2 % of impressions come up to a minute late; 1 % of
assignments come after some of the impressions they concern; 5 % of interactions refer to no impression; 10 % are
purchases.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, NamedTuple, Self

import fastavro
from confluent_kafka import Producer

from stream.contracts.topics import Topic
from stream.contracts.versions import as_numbers, newest

SEED = 20260101
START_MS = 1_767_225_600_000  # 2026-01-01
PARTITIONS = 4
EXPERIMENTS = ("ranker", "layout")
ARMS = ("control", "treat_a", "treat_b")
SURFACES = ("home", "search", "detail", "cart")
COUNTRIES = ("US", "DE", "IN", "BR", None)
DEVICES = ("ios", "android", "web", None)


class Record(NamedTuple):
    """A Kafka record; arrival_ms is its record time and the order of sending."""

    arrival_ms: int
    topic: Topic
    key: bytes
    value: bytes


class Impression(NamedTuple):
    """What the oracle needs of one."""

    impression_id: str
    user_id: str
    item_id: str
    at_ms: int


class Interaction(NamedTuple):
    """What the oracle needs of one; value_minor is 0 for clicks."""

    impression_id: str
    user_id: str
    kind: str
    value_minor: int
    at_ms: int


@dataclass(slots=True)
class Workload:
    """Records in the order of sending, and each fact once, for the oracle."""

    records: list[Record] = field(default_factory=list)
    assignments: dict[str, dict[str, str]] = field(default_factory=dict)  # user: experiment: arm
    impressions: list[Impression] = field(default_factory=list)
    interactions: list[Interaction] = field(default_factory=list)

    @property
    def duplicates(self) -> int:
        """Records that repeat an event."""
        users = len(self.assignments) * len(EXPERIMENTS)
        return len(self.records) - users - len(self.impressions) - len(self.interactions)


def make_workload(scale: float) -> Workload:
    """All records and facts; about 200 bytes of memory a record, 15 us of time."""
    maker = _Maker(scale)
    maker.make_impressions()
    maker.make_assignments()
    maker.make_interactions()
    maker.workload.records.sort(key=lambda record: record[:2])
    return maker.workload


def send(records: Iterable[Record], bootstrap: str, prefix: str) -> None:
    """Produce every record to the topics of this prefix; raises RuntimeError when one is not delivered."""
    with Sender(bootstrap, prefix) as sender:
        for record in records:
            sender.send(record)


class Sender:
    """A producer of the three topics of a prefix; at the end of the block all is delivered, or RuntimeError says so."""

    def __init__(self, bootstrap: str, prefix: str, *, linger_ms: int = 20) -> None:
        self._names = {topic: prefix + topic.word for topic in Topic}
        self._failures: list[str] = []
        failures = self._failures  # the producer must not hold this object: it ends when nobody holds it
        self._sent = 0
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "linger.ms": linger_ms,
                "batch.size": 500_000,
                "queue.buffering.max.messages": 400_000,
                "enable.idempotence": True,
                "log_level": 3,  # a broker that has just started is slow to give a producer id
                "on_delivery": lambda error, _: failures.append(str(error)) if error else None,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *why: object) -> None:
        if kind is None and (self._producer.flush(60) or self._failures):
            raise RuntimeError(f"not all records were delivered: {self._failures[:3]}")

    def send(self, record: Record) -> None:
        """Queue one record."""
        while not self._is_queued(record):
            self._producer.poll(0.05)
        self._sent += 1
        if self._sent % 4096 == 0:
            self._producer.poll(0)

    def poll(self) -> None:
        """Hear what was delivered."""
        self._producer.poll(0)

    def _is_queued(self, record: Record) -> bool:
        try:
            self._producer.produce(
                self._names[record.topic], record.value, record.key, timestamp=record.arrival_ms
            )
        except BufferError:
            return False
        return True


class _Encoder:
    """Avro in Confluent's framing, as any producer would send it."""

    def __init__(self, topic: Topic) -> None:
        version = newest(topic)
        self._header = bytes([0]) + version.schema_id.to_bytes(4, "big")
        self._schema = fastavro.parse_schema(as_numbers(version.schema))

    def __call__(self, event: dict[str, Any]) -> bytes:
        out = BytesIO()
        out.write(self._header)
        fastavro.schemaless_writer(out, self._schema, event)
        return out.getvalue()


class _Maker:
    def __init__(self, scale: float) -> None:
        self.workload = Workload()
        self._random = random.Random(SEED)
        self._users = max(1, int(100_000 * scale))
        self._impressions = int(2_000_000 * scale)
        self._interactions = int(200_000 * scale)
        self._encode = {topic: _Encoder(topic) for topic in Topic}
        self._arrivals: dict[str, list[int]] = {}  # of each user's first impressions

    def make_impressions(self) -> None:
        repeated = self._impressions // 100
        for i in range(self._impressions - repeated):
            at_ms = START_MS + i
            delay_ms = self._below(60_000) + 1 if self._random.random() < 0.02 else 0
            self._add_impression(at_ms, at_ms + delay_ms)
        self._repeat(self.workload.records[:], repeated, least_ms=1_000, most_ms=120_000)

    def make_assignments(self) -> None:
        for number in range(self._users):
            user_id = _user_id(number)
            arms = {experiment: self._one_of(ARMS) for experiment in EXPERIMENTS}
            self.workload.assignments[user_id] = arms
            for experiment, arm in arms.items():
                at_ms = arrival_ms = START_MS - 1 - self._below(3_600_000)
                if self._random.random() < 0.01 and user_id in self._arrivals:
                    arrival_ms = self._one_of(self._arrivals[user_id]) + 1
                event = {"experiment": experiment, "arm": arm}
                self._add(Topic.ASSIGNMENTS, user_id, at_ms, arrival_ms, event)

    def make_interactions(self) -> None:
        repeated = self._interactions // 100
        rest = self._interactions - repeated
        orphans, purchases = rest // 20, rest // 10
        before = len(self.workload.records)
        clicks = [self._add_click() for _ in range(rest - orphans - purchases)]
        for _ in range(orphans):
            at_ms = START_MS + self._below(len(self.workload.impressions))
            nowhere = Impression(self._uuid(), _user_id(self._below(self._users)), self._item_id(), at_ms)
            self._add_interaction(nowhere, "click", at_ms)
        for impression, clicked_at_ms in self._random.sample(clicks, purchases):
            at_ms = clicked_at_ms + 1_000 + self._below(60_000)
            self._add_interaction(impression, "purchase", at_ms, self._below(20_000))
        self._repeat(self.workload.records[before:], repeated, least_ms=1_000, most_ms=60_000)

    def _add_impression(self, at_ms: int, arrival_ms: int) -> None:
        fact = Impression(self._uuid(), _user_id(self._below(self._users)), self._item_id(), at_ms)
        event = {
            "impression_id": fact.impression_id,
            "request_id": self._uuid(),
            "item_id": fact.item_id,
            "surface": self._one_of(SURFACES),
            "position": self._below(40),
            "model": "two-tower",
            "model_version": self._one_of(("v12", "v13")),
            "score": self._random.random(),
            "latency_ms": self._random.random() * 80,
            "country": self._one_of(COUNTRIES),
            "device": self._one_of(DEVICES),
        }
        self._add(Topic.IMPRESSIONS, fact.user_id, at_ms, arrival_ms, event)
        self.workload.impressions.append(fact)
        arrivals = self._arrivals.setdefault(fact.user_id, [])
        if len(arrivals) < 8:
            arrivals.append(arrival_ms)

    def _add_click(self) -> tuple[Impression, int]:
        impression = self._one_of(self.workload.impressions)
        at_ms = impression.at_ms + 1_000 + self._below(300_000)
        self._add_interaction(impression, "click", at_ms)
        return impression, at_ms

    def _add_interaction(self, of: Impression, kind: str, at_ms: int, value_minor: int | None = None) -> None:
        event = {
            "impression_id": of.impression_id,
            "item_id": of.item_id,
            "kind": kind,
            "value_minor": value_minor,
        }
        self._add(Topic.INTERACTIONS, of.user_id, at_ms, at_ms, event)
        fact = Interaction(of.impression_id, of.user_id, kind, value_minor or 0, at_ms)
        self.workload.interactions.append(fact)

    def _add(self, topic: Topic, user_id: str, at_ms: int, arrival_ms: int, event: dict[str, Any]) -> None:
        whole = {"event_id": self._uuid(), "at": at_ms, "user_id": user_id, **event}
        self.workload.records.append(Record(arrival_ms, topic, user_id.encode(), self._encode[topic](whole)))

    def _repeat(self, records: list[Record], count: int, *, least_ms: int, most_ms: int) -> None:
        again = self._random.sample(records, count)
        later = (least_ms + self._below(most_ms - least_ms) for _ in again)
        repeats: Iterator[Record] = (
            record._replace(arrival_ms=record.arrival_ms + delay_ms)
            for record, delay_ms in zip(again, later, strict=True)
        )
        self.workload.records.extend(repeats)

    def _below(self, bound: int) -> int:
        return self._random.randrange(bound)

    def _one_of(self, choices: Any) -> Any:
        return choices[self._random.randrange(len(choices))]

    def _item_id(self) -> str:
        return f"item-{self._below(50_000):06d}"

    def _uuid(self) -> str:
        digits = f"{self._random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _user_id(number: int) -> str:
    return f"user-{number:08d}"
