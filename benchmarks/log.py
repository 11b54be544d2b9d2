"""A recorded log as a workload: the events of files, in the order of their own time, sent to Kafka today.

Files are those that `liftstream backfill` reads. Like there, events are merged by `at`, ties in file order, so nothing
is late whatever the order in the files. What the rules leave open is not sent: see `RecordedLog.left_out`.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from kafka.partitioner.default import murmur2

from benchmarks.workload import PARTITIONS, Record
from stream.contracts import avro
from stream.contracts.files import BadRecord, read_events
from stream.contracts.limits import FUTURE_MS, MAX_ARMS, MAX_EXPERIMENTS
from stream.contracts.models import Assignment, Event, Impression, Interaction
from stream.contracts.topics import Topic
from stream.errors import ConfigurationError

EXPERIMENT, ARMS = "log", ("control", "treatment")  # of users, where the log has no assignments
FIRST_OF_1980_MS = 315_532_800_000
REMEMBERED_MS = 86_400_000  # an event_id at least, by the default of allowed_lateness


class Fact(NamedTuple):
    """What the oracle needs of an event; the last five are None where its topic has no such field."""

    event_id: str
    user_id: str
    experiment_and_arm: tuple[str, str] | None = None
    impression_id: str | None = None
    item_id: str | None = None
    kind: str | None = None
    value_minor: int | None = None
    currency: str | None = None


class Entry(NamedTuple):
    """One record, in the order of sorting. number: in which it was read."""

    at_ms: int
    topic: Topic
    number: int
    value: bytes
    fact: Fact


@dataclass(slots=True)
class RecordedLog:
    """Entries in the order of sending. left_out: how many records were not taken, by reason, for people."""

    entries: list[Entry]
    left_out: Counter[str] = field(default_factory=Counter)
    first_bad: list[BadRecord] = field(default_factory=list)

    @property
    def records(self) -> Iterator[Record]:
        """As Kafka gets them: their Kafka time is the present."""
        for entry in self.entries:
            key = entry.fact.user_id.encode()
            yield Record(time.time_ns() // 1_000_000, entry.topic, key, entry.value)

    @property
    def experiments(self) -> list[str]:
        """That users are in."""
        named = (entry.fact.experiment_and_arm for entry in self.entries)
        return sorted({experiment for experiment, _ in filter(None, named)})

    @property
    def seems_in_seconds(self) -> bool:
        """Whether all events are of the 1970s, as times in seconds are when they are read as milliseconds."""
        return bool(self.entries) and self.entries[-1].at_ms < FIRST_OF_1980_MS

    def first(self, events: int) -> "RecordedLog":
        """Its beginning."""
        return RecordedLog(self.entries[:events])


def read_log(files: Mapping[Topic, Sequence[Path]], most_events: int | None = None) -> RecordedLog:
    """The first so many events of files by time, and an assignment of each user where there is no such file.

    Raises ConfigurationError for files that cannot be read, and for a log that no worker would take.
    """
    log = RecordedLog([])
    for topic, paths in files.items():
        encoder = avro.Encoder(topic)
        for path in paths:
            for event in read_events(path, topic):
                _take(log, topic, event, encoder)
                if most_events and len(log.entries) > 2 * most_events:
                    log.entries = sorted(log.entries)[:most_events]
    log.entries = sorted(log.entries)[: most_events or None]
    if not files.get(Topic.ASSIGNMENTS):
        log.entries = sorted([*_assignments(log.entries), *log.entries])
    _leave_out_unsure_repeats(log)
    _refuse_too_many(log)
    return log


def partition_of(user_id: str) -> int:
    """Where a user's records go: events are remembered by partition."""
    return int((murmur2(user_id.encode()) & 0x7FFFFFFF) % PARTITIONS)


def _take(log: RecordedLog, topic: Topic, event: Event | BadRecord, encoder: avro.Encoder) -> None:
    if isinstance(event, BadRecord):
        log.left_out["break the contract, as `liftstream send` would say"] += 1
        log.first_bad = [*log.first_bad, event][:5]
    elif event.at > time.time_ns() // 1_000_000 + FUTURE_MS:
        log.left_out["are in the future"] += 1
    else:
        number = len(log.entries)
        log.entries.append(Entry(event.at, topic, number, encoder.encode(event), _fact(event)))


def _fact(event: Event) -> Fact:
    if isinstance(event, Assignment):
        return Fact(event.event_id, event.user_id, (event.experiment, event.arm))
    if isinstance(event, Impression):
        return Fact(event.event_id, event.user_id, None, event.impression_id, event.item_id)
    assert isinstance(event, Interaction)
    return Fact(
        event.event_id, event.user_id, None, event.impression_id, event.item_id,
        event.kind, event.value_minor, event.currency,
    )  # fmt: skip


def _assignments(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Each user enters an arm by a hash of the id, with the first event."""
    encoder = avro.Encoder(Topic.ASSIGNMENTS)
    known: set[str] = set()
    for entry in entries:
        user_id = entry.fact.user_id
        if user_id not in known:
            known.add(user_id)
            arm = ARMS[murmur2(user_id.encode()) // PARTITIONS % len(ARMS)]
            event = Assignment(
                event_id=f"assigned-{len(known)}",
                at=entry.at_ms,
                user_id=user_id,
                experiment=EXPERIMENT,
                arm=arm,
            )
            yield Entry(entry.at_ms, Topic.ASSIGNMENTS, -len(known), encoder.encode(event), _fact(event))


def _leave_out_unsure_repeats(log: RecordedLog) -> None:
    """An id that comes again a day later may be forgotten or not, for steps are forgotten whole."""
    first_ms: dict[tuple[int, Topic, str], int] = {}
    kept = []
    for entry in log.entries:
        partition = partition_of(entry.fact.user_id)
        ids = [(partition, entry.topic, entry.fact.event_id)]
        if entry.topic is Topic.IMPRESSIONS and entry.fact.impression_id != entry.fact.event_id:
            ids.append((partition, entry.topic, f"impression {entry.fact.impression_id}"))
        firsts = [first_ms.setdefault(one, entry.at_ms) for one in ids]
        if entry.at_ms - min(firsts) > REMEMBERED_MS:
            log.left_out["repeat an id of more than a day before"] += 1
        else:
            kept.append(entry)
    log.entries = kept


def _refuse_too_many(log: RecordedLog) -> None:
    pairs = {entry.fact.experiment_and_arm for entry in log.entries if entry.topic is Topic.ASSIGNMENTS}
    arms = Counter(experiment for experiment, _ in filter(None, pairs))
    for experiment, count in arms.items():
        if count > MAX_ARMS:
            raise ConfigurationError(f"Experiment {experiment} has {count} arms; at most {MAX_ARMS} count.")
    if len(arms) > MAX_EXPERIMENTS:
        raise ConfigurationError(f"The log has {len(arms)} experiments; at most {MAX_EXPERIMENTS} count.")
