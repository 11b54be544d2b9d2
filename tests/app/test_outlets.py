import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field

import numpy as np
import pytest
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from stream.app.outlets import Destination, KafkaOutlet, Message, Outlets
from stream.durability.machine import Executed, State
from stream.engine.outputs import Chunk, Outputs
from stream.rolling.partials import decode, decode_key, partition_for
from stream.sink.emission import Emission

TO = Destination(2, "rec.arm-partials", 4, "rec.dead-letters", {"impressions": "rec.impressions"})
CHUNK = Chunk("exp", 300_000, ["a"], [310_000], [[1, 0, 0, 0, 0, 0]])


@dataclass
class Producer:
    """Collects messages; `fails` makes the next acknowledgement an error."""

    sent: list[Message] = field(default_factory=list)
    fails: bool = False
    most_bytes: int = 1 << 20
    refuses_at_once: bool = True

    async def send(self, message: Message) -> Awaitable[object]:
        is_large = message.nbytes > self.most_bytes
        if is_large and self.refuses_at_once:
            raise MessageSizeTooLargeError
        self.sent.append(message)
        await asyncio.sleep(0)
        return self._acknowledge(is_large)

    async def _acknowledge(self, is_large: bool) -> None:
        if is_large:
            raise MessageSizeTooLargeError
        if self.fails:
            raise KafkaError


@dataclass
class Rows:
    """The ClickHouse writer."""

    is_full: bool = False
    step: int = -1
    taken: list[Emission] = field(default_factory=list)

    def put(self, emission: Emission) -> None:
        self.taken.append(emission)

    def acked(self, partition: int) -> int:
        return self.step


def executed(
    step: int = 7, chunks: tuple[Chunk, ...] = (CHUNK,), **tables: dict[str, list[object]]
) -> Executed:
    outputs = Outputs(step, dict(tables), list(chunks), 3, 999, 0)
    return Executed(outputs, planned_at_ms=1_234, lag=5, record_at_ms=np.array([4, 2, 3]))


def outlets(producer: Producer, rows: Rows, **limits: int) -> tuple[Outlets, KafkaOutlet]:
    kafka = KafkaOutlet(producer.send, **limits)
    return Outlets(rows, kafka, TO), kafka


def test_a_step_is_acknowledged_only_when_both_have_it() -> None:
    producer, rows = Producer(), Rows()
    sink, kafka = outlets(producer, rows)
    sink.put(1, executed(7))
    rows.step = 7
    assert sink.acked(1) == -1
    asyncio.run(kafka.flush())
    assert sink.acked(1) == 7
    rows.step = 6
    assert sink.acked(1) == 6


def test_two_flushes_at_once_send_every_step_once_and_lose_none() -> None:
    producer = Producer()

    async def both() -> None:
        _, kafka = outlets(producer, Rows())
        for step in (1, 2, 3):
            kafka.put(0, step, [Message("t", b"k", str(step).encode())])
        await asyncio.gather(kafka.flush(), kafka.flush())
        assert kafka.acked(0) == 3

    asyncio.run(both())
    assert [message.value for message in producer.sent] == [b"1", b"2", b"3"]


def test_partials_go_to_the_partition_of_their_experiment_with_the_step_as_version() -> None:
    producer = Producer()
    sink, kafka = outlets(producer, Rows())
    sink.put(1, executed(7))
    asyncio.run(kafka.flush())
    (message,) = producer.sent
    assert (message.topic, message.partition) == ("rec.arm-partials", partition_for("exp", 4))
    assert decode_key(message.key).partition == 1
    assert message.value is not None
    partial = decode(message.value)
    assert (partial.generation, partial.version, partial.clock_ms) == (2, 7, 999)


def test_partials_that_are_published_again_are_the_same_bytes_as_those_of_their_step() -> None:
    producer = Producer()
    sink, kafka = outlets(producer, Rows())
    sink.put(1, executed(7))
    sink.republish(1, State(7, 1_234, 999), [CHUNK])
    asyncio.run(kafka.flush())
    assert producer.sent[0] == producer.sent[1]
    assert kafka.acked(1) == 7


def test_publishing_again_acknowledges_no_step() -> None:
    sink, kafka = outlets(Producer(), Rows())
    sink.republish(1, State(7, 1_234, 999), [CHUNK])
    asyncio.run(kafka.flush())
    assert kafka.acked(1) == -1


def test_a_dead_letter_carries_its_payload_and_where_it_came_from() -> None:
    producer = Producer()
    sink, kafka = outlets(producer, Rows())
    letter: dict[str, list[object]] = {
        "topic": ["impressions"], "offset": [41], "record_at_ms": [9], "reason": ["malformed"], "field": [""],
        "rule": ["the bytes are not a record of that schema"], "schema_id": [-1], "payload": [b"\xff"],
        "payload_bytes": [1],
    }  # fmt: skip
    sink.put(3, executed(chunks=(), dead_letters=letter))
    asyncio.run(kafka.flush())
    (message,) = producer.sent
    headers = dict(message.headers)
    assert (message.topic, message.key, message.value) == (
        "rec.dead-letters",
        b"rec.impressions/3/41",
        b"\xff",
    )
    assert (headers["reason"], headers["topic"], headers["partition"], headers["offset"]) == (
        b"malformed", b"rec.impressions", b"3", b"41",
    )  # fmt: skip


def test_what_kafka_did_not_take_is_sent_again() -> None:
    producer = Producer(fails=True)
    sink, kafka = outlets(producer, Rows())
    sink.put(1, executed(7))
    with pytest.raises(KafkaError):
        asyncio.run(kafka.flush())
    assert kafka.acked(1) == -1
    producer.fails = False
    asyncio.run(kafka.flush())
    assert kafka.acked(1) == 7
    assert producer.sent[0] == producer.sent[1]


def test_a_dead_letter_too_large_for_its_topic_is_sent_without_its_payload() -> None:
    letter: dict[str, list[object]] = {
        "topic": ["impressions"], "offset": [41], "record_at_ms": [9], "reason": ["malformed"], "field": [""],
        "rule": ["r"], "schema_id": [-1], "payload": [b"x" * 100], "payload_bytes": [10**6],
    }  # fmt: skip
    for refuses_at_once in (True, False):
        producer = Producer(most_bytes=50, refuses_at_once=refuses_at_once)
        sink, kafka = outlets(producer, Rows())
        sink.put(3, executed(chunks=(), dead_letters=letter))
        asyncio.run(kafka.flush())
        assert kafka.acked(3) == 7
        message = producer.sent[-1]
        headers = dict(message.headers)
        assert (message.value, headers["payload_left_out"], headers["payload_bytes"]) == (
            b"",
            b"true",
            b"1000000",
        )


def test_a_partial_is_never_cut() -> None:
    sink, kafka = outlets(Producer(most_bytes=1), Rows())
    sink.put(3, executed())
    with pytest.raises(MessageSizeTooLargeError):
        asyncio.run(kafka.flush())
    assert kafka.acked(3) == -1


def test_large_messages_fill_the_outbox_by_their_bytes() -> None:
    sink, kafka = outlets(Producer(), Rows(), max_bytes=1_000)
    kafka.put(0, 1, [Message("t", b"k", bytes(999))])
    assert not sink.is_full
    kafka.put(0, 2, [Message("t", b"k", b"")])
    assert kafka.waiting_bytes == 1_001
    assert sink.is_full
    asyncio.run(kafka.flush())
    assert (kafka.waiting_bytes, kafka.waiting_messages, sink.is_full) == (0, 0, False)


def test_either_one_being_full_makes_the_sink_full() -> None:
    rows = Rows()
    sink, _ = outlets(Producer(), rows, max_messages=0)
    assert not sink.is_full
    rows.is_full = True
    assert sink.is_full
    rows.is_full = False
    sink.put(1, executed())
    assert sink.is_full


def test_clickhouse_gets_what_its_status_says() -> None:
    rows = Rows()
    sink, _ = outlets(Producer(), rows)
    sink.put(3, executed(7))
    (emission,) = rows.taken
    assert (emission.generation, emission.partition, emission.lag) == (2, 3, 5)
    assert emission.origins.newest_ms == 4
