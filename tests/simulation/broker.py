"""The simulated broker: the input topics, the partials topic, and which process is assigned what."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from faust.types import TP

from stream.contracts.avro import Encoder
from stream.contracts.models import MODELS
from stream.contracts.topics import Topic
from stream.contracts.versions import newest
from stream.engine.batch import Batch
from stream.intake.decode import columns_of, decode
from stream.intake.murmur2 import partition_of
from stream.intake.reading import Reading
from stream.intake.transport import Fetched
from stream.rolling.partials import decode as decode_partial
from tests.app.fakes import NAMES
from tests.engine.makers import HOUR, MINUTE, PROGRAMS, T0, Arrival
from tests.engine.streams import arrivals
from tests.simulation.weather import Weather

Message = tuple[bytes, bytes | None]
Placed = tuple[int, int, Message]  # partition, offset
PARTIALS = "rec.arm-partials"
PARTIALS_PARTITIONS = 2
SPAN_MS = 3 * HOUR
LATE_ID = 77  # a schema id that not every process can resolve
OLDER = {topic: Reading.of(program, 1) for topic, program in PROGRAMS.items()}
NEWER = {
    topic: Reading.of(program.adding(LATE_ID, newest(topic).schema), 1) for topic, program in PROGRAMS.items()
}


@dataclass(frozen=True)
class Log:
    """One input topic-partition, whole. visible_at_ms: simulated time from which each record can be fetched.

    batch, newer: decoded without and with the schema that comes late; `is_late`: the records that are written with it.
    """

    arrivals: list[Arrival]
    batch: Batch
    newer: Batch
    is_late: list[bool]
    visible_at_ms: np.ndarray
    end: int  # behind the last record there may be a gap

    def end_at(self, now_ms: float) -> int:
        """Where the log ends now."""
        seen = int(np.searchsorted(self.visible_at_ms, now_ms, side="right"))
        return self.end if seen == len(self.arrivals) else int(self.batch.offset[seen])

    def taken(self, lo: int, hi: int, reading: str = "") -> list[Arrival]:
        """The records of a range, as they are for a reading: what it does not know are only bytes."""
        first, last = np.searchsorted(self.batch.offset, [lo, hi])
        knows = reading == NEWER[self.batch.topic].digest
        late = self.is_late[first:last]
        return [
            (b"", at) if is_late and not knows else (event, at)
            for (event, at), is_late in zip(self.arrivals[first:last], late, strict=True)
        ]


@dataclass(frozen=True)
class Records:
    """What one fetch brought, decoded already as in Log. value: for a feed, which measures it."""

    batch: Batch
    newer: Batch
    value: bytes = b""


class Broker:
    """Partitions of the three input topics, and the messages of the partials topic."""

    def __init__(self, weather: Weather, seed: int, draw: random.Random) -> None:
        self.partitions = weather.partitions
        self.logs = _logs(weather, seed, draw)
        self.latest_ms = max(at for log in self.logs.values() for _, at in log.arrivals)
        self.partials: list[list[Message]] = [[] for _ in range(PARTIALS_PARTITIONS)]
        self.told: list[Message] = []  # of the decisions' topic
        self.displaces = False  # a reader got a zombie's partial instead of a newer one

    @property
    def inputs(self) -> list[TP]:
        """All input topic-partitions."""
        return list(self.logs)

    def compacted(self, partition: int, upto: int) -> list[Placed]:
        """The last message of each key among the first ones of the partials topic, in their order."""
        messages = self.partials[partition][:upto]
        last = {key: offset for offset, (key, _) in enumerate(messages)}
        versions: dict[bytes, int] = {}
        for key, value in messages:
            version = decode_partial(value or b"").version
            self.displaces |= version < versions.setdefault(key, version)
            versions[key] = max(version, versions[key])
        return [(partition, offset, messages[offset]) for offset in sorted(last.values())]

    def fetch(self, tp: TP, position: int, now_ms: float, limit: int) -> Fetched | None:
        """The next records of a topic-partition, without a stamp; perhaps only a gap; None at its end."""
        log = self.logs[tp]
        end = log.end_at(now_ms)
        if position >= end:
            return None
        first, last = np.searchsorted(log.batch.offset, [position, end])
        last = min(last, first + limit)
        following = int(log.batch.offset[last]) if last < len(log.batch) else end
        found = Records(log.batch.rows(int(first), int(last)), log.newer.rows(int(first), int(last)))
        return Fetched(tp, 0, 0, len(found.batch), min(following, end), end, (found,))  # type: ignore[arg-type]


class SimulatedDecoder:
    """Records come decoded: the decoder is a pure function with tests of its own."""

    def __init__(self, *, knows_all: bool, partitions: int) -> None:
        """knows_all: also the schema that comes late."""
        self._knows_all = knows_all
        self._partitions = partitions

    def decode(self, topic: Topic, fetched: Fetched) -> Batch:
        records = fetched.records[0]
        assert isinstance(records, Records)
        return records.newer if self._knows_all else records.batch

    def reading(self, topic: Topic) -> Reading:
        programs = NEWER if self._knows_all else OLDER
        return Reading.of(programs[topic].program, self._partitions)


class Group:
    """Who is assigned what: the input partitions and those of the partials topic, evenly over the members."""

    def __init__(self, partitions: int) -> None:
        self.assigned: dict[str, tuple[frozenset[int], frozenset[int]]] = {}
        self._partitions = partitions

    def join(self, name: str) -> None:
        """Let a process take part."""
        self._share([*self.assigned, name])

    def leave(self, name: str) -> None:
        """Share a process's partitions among the others; no error if it is gone already."""
        if name in self.assigned:
            self._share([member for member in self.assigned if member != name])

    def _share(self, members: Iterable[str]) -> None:
        members = sorted(members)
        self.assigned = {
            member: (
                frozenset(range(i, self._partitions, len(members))),
                frozenset(range(len(members) - 1 - i, PARTIALS_PARTITIONS, len(members))),
            )
            for i, member in enumerate(members)
        }


def _logs(weather: Weather, seed: int, draw: random.Random) -> dict[TP, Log]:
    placed: dict[TP, list[tuple[Arrival, float]]] = {
        TP(NAMES[topic], number): [] for number in range(weather.partitions) for topic in Topic
    }
    stream = arrivals(seed, weather.events * weather.partitions, SPAN_MS, 40 * MINUTE)
    for i, (topic, arrival) in enumerate(stream):
        event = arrival[0]
        if isinstance(event, dict) and event["at"] > T0 + SPAN_MS + 2 * HOUR:
            continue  # a clock a day ahead would end all windows
        number = _home(event["user_id"], weather.partitions) if isinstance(event, dict) else 0
        if draw.random() < 0.03:
            number = draw.randrange(weather.partitions)  # misrouted, perhaps
        sent_ms = 0.8 * weather.storm_ms * i / len(stream)
        visible_ms = sent_ms + draw.uniform(0, weather.topic_delays_ms[topic])
        copies = 2 if draw.random() < 0.02 else 1  # a producer that tried again
        placed[TP(NAMES[topic], number)] += [(arrival, visible_ms)] * copies
    return {tp: _log(tp, weather, records, draw) for tp, records in placed.items()}


def _log(tp: TP, weather: Weather, records: list[tuple[Arrival, float]], draw: random.Random) -> Log:
    topic = next(topic for topic in Topic if NAMES[topic] == tp.topic)
    given = [arrival for arrival, _ in records]
    may_be_late = weather.schema_is_late
    is_late = [may_be_late and isinstance(event, dict) and draw.random() < 0.2 for event, _ in given]
    encoders = {False: Encoder(topic), True: Encoder(topic, LATE_ID)}
    values = [
        event if isinstance(event, bytes) else encoders[late].encode(MODELS[topic].model_construct(**event))
        for (event, _), late in zip(given, is_late, strict=True)
    ]
    gaps = [draw.choice([1, 1, 1, 2, 5]) for _ in given]
    offsets = np.cumsum([draw.choice([0, 7]), *gaps])[:-1]
    columns = columns_of(values, offsets, np.array([at for _, at in given], np.int64))
    batch, newer = (
        decode(topic, columns, readings[topic].program, partition=tp.partition, partitions=weather.partitions)
        for readings in (OLDER, NEWER)
    )
    visible = np.maximum.accumulate([0.0, *(ms for _, ms in records)])[1:]
    end = int(offsets[-1]) + gaps[-1] if given else 0
    return Log(given, batch, newer, is_late, visible, end)


def _home(user_id: str, partitions: int) -> int:
    key = np.frombuffer(user_id.encode() + bytes(8), np.uint8)
    return int(partition_of(key, 0, len(user_id), partitions))
