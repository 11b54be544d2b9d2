"""What must be in the database: the oracle counts what the topics hold, user by user.

Lateness and clocks follow from the journaled steps, which must cover every record exactly once. What remains does
not depend on steps as long as nothing expires, so each group of users whose events refer to one another is given to an
oracle of its own: the oracle is quadratic.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from pydantic import ValidationError

from stream.contracts.avro import decode
from stream.contracts.definitions import Definitions
from stream.contracts.limits import FUTURE_MS
from stream.contracts.models import MODELS
from stream.contracts.topics import Topic
from stream.durability.journal import Entry, Journal
from stream.durability.store import Store
from stream.errors import Rejected
from tests.engine.makers import HOUR
from tests.engine.oracle import Event, Oracle

Key = tuple[Any, ...]
Counts = dict[Key, Counter[str]]
Place = tuple[Topic, int]  # and partition
_NEVER = 1 << 60
_CAUGHT_UP = (True, True, True)
_READ_SECONDS = 60.0
_BATCH_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it lies in a topic."""

    offset: int
    at_ms: int
    key: bytes
    value: bytes


@dataclass(slots=True)
class Truth:
    """Names as in the tables. Keys: totals (experiment, arm, dimension, value), sums that and the phase, cohorts that
    and (since, days since 1970), panes the key of totals and the pane's start in ms, ledger (topic's word, partition,
    hour number). clocks: by partition.
    """

    records: int = 0
    totals: Counts = field(default_factory=lambda: defaultdict(Counter))
    sums: Counts = field(default_factory=lambda: defaultdict(Counter))
    cohorts: Counts = field(default_factory=lambda: defaultdict(Counter))
    panes: Counts = field(default_factory=lambda: defaultdict(Counter))
    ledger: Counts = field(default_factory=lambda: defaultdict(Counter))
    dead_letters: set[tuple[str, int, int]] = field(default_factory=set)
    clocks: dict[int, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)  # how journal and topics differ


def read_topics(bootstrap: str, prefix: str, partitions: int) -> dict[Place, list[Stored]]:
    """Everything the input topics hold."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "truth", "enable.auto.commit": False})
    found = {}
    for topic in Topic:
        for number in range(partitions):
            found[topic, number] = _read(consumer, TopicPartition(prefix + topic.word, number, 0))
    consumer.close()
    return found


def journals(store: Store, partitions: int) -> dict[int, list[Entry]]:
    """All steps of the first generation, by partition."""
    return {number: Journal(store, f"g000001/p{number:05d}").after(0) for number in range(partitions)}


def truth_of(
    logs: Mapping[Place, Sequence[Stored]], steps: Mapping[int, Sequence[Entry]], definitions: Definitions
) -> Truth:
    """Count everything."""
    truth = Truth(records=sum(map(len, logs.values())))
    for number, entries in steps.items():
        walk = _Walk(number, {topic: logs[topic, number] for topic in Topic}, definitions, truth)
        walk.take(entries)
        for group in walk.groups():
            _count(group, number, definitions, truth)
    truth.panes = {key: counts for key, counts in truth.panes.items() if any(counts.values())}
    truth.totals = {key: counts for key, counts in truth.totals.items() if any(counts.values())}
    return truth


class _Walk:
    """One partition's records in the order of its steps: what is rejected, what is late, and where the clock stands."""

    def __init__(
        self, number: int, logs: Mapping[Topic, Sequence[Stored]], definitions: Definitions, truth: Truth
    ) -> None:
        self._number = number
        self._logs = logs
        self._definitions = definitions
        self._truth = truth
        self._newest = [-1, -1, -1]
        self._clock = self._horizon = -1
        self._next = [0, 0, 0]  # positions in the logs
        self._accepted: list[tuple[Topic, Event, int]] = []

    def take(self, entries: Sequence[Entry]) -> None:
        expected = [0, 0, 0]
        for entry in entries:
            if [taken.lo for taken in entry.ranges] != expected:
                self._truth.wrong.append(
                    f"step {entry.number} of partition {self._number} does not begin at {expected}"
                )
            expected = [taken.hi for taken in entry.ranges]
            for topic in Topic:
                self._take(topic, entry)
            self._advance(entry)
        for topic in Topic:
            if left := len(self._logs[topic]) - self._next[topic]:
                self._truth.wrong.append(f"{left} records of {topic.word} {self._number} are in no step")
        self._truth.clocks[self._number] = self._clock

    def groups(self) -> Iterable[list[tuple[Topic, Event, int]]]:
        """Events that refer to one another, directly or through others."""
        union = _Union()
        for topic, event, _ in self._accepted:
            union.join(("user", event["user_id"]), (topic, event["event_id"]))
            if event.get("impression_id") is not None:
                union.join(("user", event["user_id"]), ("impression", event["impression_id"]))
        found: dict[Hashable, list[tuple[Topic, Event, int]]] = defaultdict(list)
        for item in self._accepted:
            found[union.root(("user", item[1]["user_id"]))].append(item)
        return found.values()

    def _take(self, topic: Topic, entry: Entry) -> None:
        log, first = self._logs[topic], self._next[topic]
        position = first
        while position < len(log) and log[position].offset < entry.ranges[topic].hi:
            self._see(topic, log[position], entry.planned_at_ms)
            position += 1
        self._next[topic] = position
        if position - first != entry.ranges[topic].rows:
            self._truth.wrong.append(
                f"step {entry.number} of partition {self._number} says {entry.ranges[topic].rows} records of "
                f"{topic.word}, but there are {position - first}"
            )

    def _see(self, topic: Topic, record: Stored, planned_at_ms: int) -> None:
        event = self._event(topic, record, planned_at_ms)
        hour = self._truth.ledger[topic.word, self._number, record.at_ms // HOUR]
        if event is None:
            hour.update(consumed=1, rejected=1)
            self._truth.dead_letters.add((topic.word, self._number, record.offset))
        elif topic is not Topic.ASSIGNMENTS and event["at"] < self._horizon:
            hour.update(consumed=1, late=1)
        else:
            self._newest[topic] = max(self._newest[topic], event["at"])
            self._accepted.append((topic, event, record.at_ms))

    def _event(self, topic: Topic, record: Stored, planned_at_ms: int) -> Event | None:
        try:
            event = decode(topic, record.value)
            MODELS[topic].model_validate(event)
        except (Rejected, ValidationError):
            return None
        if event["at"] > min(record.at_ms, planned_at_ms + HOUR) + FUTURE_MS:
            return None
        if topic is Topic.ASSIGNMENTS:
            declared = self._definitions.experiment(event["experiment"]).arms
            if declared and event["arm"] not in declared:
                return None
        return event

    def _advance(self, entry: Entry) -> None:
        behind = [newest for newest, done in zip(self._newest, entry.caught_up, strict=True) if not done]
        self._clock = max(self._clock, min(behind) if behind else max(self._newest))
        if self._clock >= 0:
            self._horizon = max(self._horizon, self._clock - self._definitions.allowed_lateness_ms)


def _count(
    group: Sequence[tuple[Topic, Event, int]], number: int, definitions: Definitions, truth: Truth
) -> None:
    oracle = Oracle(definitions)
    given: dict[Topic, list[tuple[Event, int]]] = {topic: [] for topic in Topic}
    for topic, event, at_ms in group:
        given[topic].append((event, at_ms))
    oracle.step(given, _NEVER, _CAUGHT_UP)
    _add(truth.totals, oracle.totals(), lambda key: key[:4])
    _add(truth.sums, oracle.totals(), lambda key: key)
    _add(truth.cohorts, oracle.cohorts(), lambda key: key)
    _add(truth.panes, oracle.panes(), lambda key: key)
    _add(truth.ledger, oracle.outcomes(), lambda key: (key[0], number, key[1]))


def _add(into: Counts, found: Mapping[Any, Counter[str]], key_of: Callable[[Any], Key]) -> None:
    for key, counts in found.items():
        into[key_of(key)].update(counts)


class _Union:
    """Disjoint sets."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def root(self, item: Hashable) -> Hashable:
        while (parent := self._parent.setdefault(item, item)) != item:
            self._parent[item] = self._parent[parent]
            item = parent
        return item

    def join(self, one: Hashable, other: Hashable) -> None:
        self._parent[self.root(one)] = self.root(other)


def _read(consumer: Consumer, place: TopicPartition) -> list[Stored]:
    _, end = consumer.get_watermark_offsets(place, timeout=_READ_SECONDS)
    consumer.assign([place])
    found: list[Stored] = []
    deadline = time.monotonic() + _READ_SECONDS
    while end and (not found or found[-1].offset < end - 1):
        for message in consumer.consume(10_000, _BATCH_SECONDS):
            if message.error():
                raise RuntimeError(str(message.error()))
            found.append(Stored(message.offset(), message.timestamp()[1], message.key(), message.value()))
        if time.monotonic() > deadline:
            raise RuntimeError(f"{place.topic} {place.partition} cannot be read to its end")
    return found
