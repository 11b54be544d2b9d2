"""What a hostile or broken producer writes, from a seed: most can never be counted, none may stop anybody."""

import random
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

import fastavro

from stream.contracts.topics import Topic
from stream.contracts.versions import Schemas, newest

HOSTILE_EXPERIMENT = "hostile"  # far from any good name: no flipped bit leads there
_LARGEST = 1_000_000  # of a value, near the 1 MiB that brokers take by default


@dataclass(frozen=True, slots=True)
class Record:
    """partition None: by the key. is_bad: it must be rejected; otherwise it may or may not be."""

    topic: Topic
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    is_bad: bool = False


@cache
def _schema(topic: Topic) -> Any:
    return Schemas().parsed(newest(topic).schema_id)


def encoded(topic: Topic, fields: dict[str, Any], schema_id: int | None = None) -> bytes:
    """The fields as they are, whether or not they keep the contract."""
    out = BytesIO(struct.pack(">bI", 0, newest(topic).schema_id if schema_id is None else schema_id))
    out.seek(5)
    fastavro.schemaless_writer(out, _schema(topic), fields)
    return out.getvalue()


class Hostile:
    """An endless producer of records for topics of so many partitions."""

    def __init__(self, seed: int, partitions: int) -> None:
        self._draw = random.Random(seed)
        self._partitions = partitions
        self._made = 0
        self._now_ms = int(time.time() * 1000)

    def records(self, count: int) -> Iterator[Record]:
        """As many records, of all kinds."""
        kinds: list[tuple[int, Callable[[Topic], Record]]] = [
            (14, self._noise), (10, self._cut), (10, self._flipped), (10, self._unknown_schema),
            (8, self._long), (10, self._out_of_range), (6, self._null), (6, self._misrouted),
            (6, self._keyless), (6, self._crowd), (6, self._names), (6, self._other_topics_schema), (2, self._trailing),
        ]  # fmt: skip
        weights = [weight for weight, _ in kinds]
        made = [make for _, make in kinds]
        huge_every = max(1, count // 200)
        for i in range(count):
            topic = self._draw.choice(list(Topic))
            make = self._huge if i % huge_every == 0 else self._draw.choices(made, weights)[0]
            yield make(topic)

    # Kinds

    def _noise(self, topic: Topic) -> Record:
        return self._record(topic, b"\xff" + self._draw.randbytes(self._draw.randrange(200)), is_bad=True)

    def _cut(self, topic: Topic) -> Record:
        whole = encoded(topic, self._event(topic))
        return self._record(topic, whole[: self._draw.randrange(len(whole))], is_bad=True)

    def _flipped(self, topic: Topic) -> Record:
        value = bytearray(encoded(topic, self._event(topic)))
        for _ in range(self._draw.randint(1, 8)):
            value[self._draw.randrange(len(value))] ^= 1 << self._draw.randrange(8)
        return self._record(topic, bytes(value))

    def _unknown_schema(self, topic: Topic) -> Record:
        some_id = self._draw.choice([self._draw.randrange(1 << 32), self._draw.randrange(10_000, 20_000)])
        return self._record(topic, encoded(topic, self._event(topic), some_id), is_bad=True)

    def _other_topics_schema(self, topic: Topic) -> Record:
        other = self._draw.choice([t for t in Topic if t is not topic])
        return self._record(topic, encoded(other, self._event(other)), is_bad=True)

    def _trailing(self, topic: Topic) -> Record:
        return self._record(topic, encoded(topic, self._event(topic)) + b"more", is_bad=True)

    def _long(self, topic: Topic) -> Record:
        length = self._draw.choice([257, 300, 2_000, 5_000])
        return self._record(topic, encoded(topic, self._event(topic, event_id="x" * length)), is_bad=True)

    def _huge(self, topic: Topic) -> Record:
        length = self._draw.choice([100_000, 524_200, _LARGEST - 500])
        text = self._draw.choice(["x" * length, self._draw.randbytes(length // 2).hex()])
        return self._record(topic, encoded(topic, self._event(topic, user_id=text)), is_bad=True)

    def _out_of_range(self, topic: Topic) -> Record:
        at = self._draw.choice(
            [-1, -(1 << 63), (1 << 63) - 1, 1 << 62, 253_402_300_800_000, self._now_ms + 86_400_000]
        )
        wrong: list[dict[str, Any]] = [{"at": at}]
        if topic is Topic.IMPRESSIONS:
            numbers = [float("nan"), float("inf"), float("-inf")]
            wrong += [{"score": self._draw.choice(numbers)}, {"latency_ms": -1.0}, {"position": -(1 << 31)}]
        if topic is Topic.INTERACTIONS:
            wrong += [{"value_minor": 10**12 + 1}, {"value_minor": -(1 << 63)}, {"currency": "eur"}]
        return self._record(
            topic, encoded(topic, self._event(topic, **self._draw.choice(wrong))), is_bad=True
        )

    def _null(self, topic: Topic) -> Record:
        return self._record(topic, self._draw.choice([None, b""]), is_bad=True)

    def _misrouted(self, topic: Topic) -> Record:
        event = self._event(topic)
        partition = self._draw.randrange(self._partitions)
        return Record(topic, event["user_id"].encode(), encoded(topic, event), partition)

    def _keyless(self, topic: Topic) -> Record:
        key = self._draw.choice([None, b"", b"\xff\xfe", bytes(1_000)])
        return Record(topic, key, encoded(topic, self._event(topic)), self._draw.randrange(self._partitions))

    def _crowd(self, topic: Topic) -> Record:
        """Valid, with values that nobody has seen."""
        some = {"country": self._word(), "device": self._word()} if topic is not Topic.INTERACTIONS else {}
        if topic is Topic.IMPRESSIONS:
            some |= {"category": self._word(), "surface": self._word(), "model_version": self._word()}
        if topic is Topic.INTERACTIONS:
            some |= {
                "kind": self._word(),
                "currency": "".join(self._draw.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=3)),
            }
        return self._record(topic, encoded(topic, self._event(topic, **some)))

    def _names(self, _: Topic) -> Record:
        """An assignment to an experiment, or an arm, that nobody has seen."""
        named = self._draw.choice([{"experiment": f"x-{self._word()}"}, {"arm": self._word()}])
        return self._record(
            Topic.ASSIGNMENTS, encoded(Topic.ASSIGNMENTS, self._event(Topic.ASSIGNMENTS, **named))
        )

    # What they are made of

    def _record(self, topic: Topic, value: bytes | None, *, is_bad: bool = False) -> Record:
        return Record(topic, f"hostile-{self._draw.randrange(1_000)}".encode(), value, is_bad=is_bad)

    def _word(self) -> str:
        return self._draw.randbytes(self._draw.choice([4, 8, 60])).hex()

    def _event(self, topic: Topic, **changed: Any) -> dict[str, Any]:
        self._made += 1
        user = f"hostile-{self._draw.randrange(1_000)}"
        event: dict[str, Any] = {
            "event_id": f"h{self._made}", "at": self._now_ms - self._draw.randrange(600_000), "user_id": user,
        }  # fmt: skip
        if topic is Topic.ASSIGNMENTS:
            event |= {"experiment": HOSTILE_EXPERIMENT, "arm": "a"}
        if topic is Topic.IMPRESSIONS:
            event |= {
                "impression_id": f"hi{self._made}", "request_id": "r", "item_id": "t", "surface": "s", "position": 1,
                "model": "m", "model_version": "1",
            }  # fmt: skip
        if topic is Topic.INTERACTIONS:
            event |= {"impression_id": f"hi{self._draw.randrange(self._made)}", "kind": "click"}
        return event | changed
