"""The Faust driver `liftstream://host:port`: whole fetches as one message, positions from checkpoints, pulled.

Faust's own driver hands an agent one record at a time, starts at Kafka's committed offsets and pushes. This one differs
for the input topics only; other topics are read record by record, as usual, and from their beginning after every
assignment. It needs `app.intake`, an Intake. The names of Faust and aiokafka that are not public but overridden or used
here are listed in PRIVATE_NAMES, and pinned by a test.
"""

import asyncio
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Protocol

from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from stream.engine.batch import Columns
from stream.errors import LiftstreamError, Unavailable
from stream.intake import fetch_check
from stream.intake.fetch import columns_of_records
from stream.intake.record_sets import Chunk, columns

PRIVATE_NAMES = {
    "faust.transport.drivers.aiokafka:Consumer": ("_new_consumer_thread", "_getmany", "_to_message"),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread": (
        "_create_worker_consumer", "_fetch_records", "_ensure_consumer",
    ),
    "aiokafka.consumer.consumer:AIOKafkaConsumer": (
        "_isolation_level", "_fetch_max_wait_ms", "_fetch_min_bytes", "_fetch_max_bytes", "_subscription",
        "_coordinator",
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator": ("_group_instance_id",),
    "aiokafka.consumer.subscription_state:TopicPartitionState": ("position",),
}  # fmt: skip
# `Consumer._read_offset` and `Consumer._thread` of Faust are set in __init__; the integration test covers them.

_IDLE_SECONDS = 0.05  # pause when no topic-partition is wanted
_POLL_SECONDS = 0.25  # at most, so that a change of what is wanted is soon seen
_COMMIT_SECONDS = 5.0
_ENDS_SECONDS = 5.0
RECENT_MS = 10_000  # an idle topic-partition is asked about twice a second
_FETCH_WAIT_MS = 100  # of a fetch at the broker that has not enough; what is asked meanwhile waits for it
_FETCH_MOST_BYTES = 4 << 20  # of an answer: memory of larger ones is less often used again
_FETCH_ENOUGH_BYTES = 1 << 20  # else records would come one by one, each at the cost of a fetch


class Intake(Protocol):
    """What the driver asks of the application. All is called in Faust's event loop."""

    input_topics: frozenset[str]
    plain_fetch: bool  # read record by record through aiokafka, several times slower
    stays_in_group: bool  # after a clean stop, for a session's time

    def wanted(self, tps: Set[TP]) -> Set[TP]:
        """Those of the assigned input topic-partitions that data is taken for now: flow control. Must be quick."""

    async def seek_all(self, consumer: "Consumer", tps: Set[TP]) -> None:
        """Seek all assigned input topic-partitions, with `consumer.seek_stamped`, to where their state continues.

        Called after every assignment and when Faust has dropped fetched data; perhaps twice in a row. Keep it short.
        """

    def fetch_failed(self, error: LiftstreamError) -> None:
        """Reading cannot go on: end the process with this sentence."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one fetch brought of one input topic-partition: the value of the message that an agent gets.

    epoch, seq: the seq-th one (from 0) handed out after the epoch-th seek of this topic-partition. A smaller epoch is a
        left-over from before the seek; a missing seq was dropped on the way, so seek again.
    rows: how many records it holds, at most; 0 where the log only has gaps, control records or aborted transactions.
    next_offset: where the next one begins; items of an epoch join without gaps.
    end_offset: the end of the topic-partition as heard lately, None if it was not; `next_offset >= end_offset` is
        caught up.
    """

    tp: TP
    epoch: int
    seq: int
    rows: int
    next_offset: int
    end_offset: int | None
    records: tuple[Chunk, ...] | tuple[ConsumerRecord, ...]

    def columns(self) -> Columns:
        """The records, unpacked and parsed; UnreadableRecords when they are damaged."""
        if self.records and not isinstance(self.records[0], Chunk):
            return columns_of_records(self.records)
        return columns(self.records)


@dataclass(slots=True)
class _Stamp:
    """Of the next Fetched of a topic-partition. `state` is aiokafka's: another one after every assignment."""

    state: Any
    epoch: int
    seq: int
    next_offset: int


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Runs aiokafka's consumer in a thread with a loop of its own; drains and seeks both happen there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._stamps: dict[TP, _Stamp] = {}

    async def on_start(self) -> None:
        """Choose how records are read, before the first fetch."""
        intake: Intake = self.app.intake
        fetch_check.choose(intake.input_topics, plain=intake.plain_fetch)
        await super().on_start()

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # an aborted transaction never happened
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS
        consumer._fetch_min_bytes = _FETCH_ENOUGH_BYTES
        consumer._fetch_max_bytes = _FETCH_MOST_BYTES
        return consumer

    async def on_thread_stop(self) -> None:
        """Leave the group, so that others take over at once; aiokafka never does so with an instance name."""
        intake: Intake = self.app.intake
        if self._consumer is not None and not intake.stays_in_group:
            self._consumer._coordinator._group_instance_id = None
        await super().on_thread_stop()

    def highwater(self, tp: TP) -> int | None:
        """Where a topic-partition ends for us, if that was heard lately and it is still assigned; see `recent_end`."""
        try:
            return recent_end(self._ensure_consumer(), TopicPartition(*tp), time.time() * 1000)
        except (
            AssertionError
        ):  # aiokafka's answer when it is not; that changes at any time in the consumer's thread
            return None

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: Any,
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[TP, list[Any]]:
        drained = await super()._fetch_records(
            consumer, active_partitions, timeout=timeout, max_records=max_records
        )
        inputs = self.app.intake.input_topics
        out: dict[TP, list[Any]] = {TP(*tp): found for tp, found in drained.items() if tp.topic not in inputs}
        for tp, stamp in self._stamps.items():
            if tp in active_partitions and _state_of(consumer, tp) is stamp.state:
                out |= self._stamped(tp, stamp, drained.get(tp, ()))
        return out

    def _stamped(self, tp: TP, stamp: _Stamp, records: Any) -> dict[TP, list[Any]]:
        """What was drained of a topic-partition, also when its position moved without any record; or nothing."""
        position: int = stamp.state.position
        if not records and position <= stamp.next_offset:
            return {}
        fetched = Fetched(
            tp,
            epoch=stamp.epoch,
            seq=stamp.seq,
            rows=sum(r.rows if isinstance(r, Chunk) else 1 for r in records),
            next_offset=position,
            end_offset=self.highwater(tp),
            records=tuple(records),
        )
        stamp.seq += 1
        stamp.next_offset = position
        return {tp: [fetched]}

    async def seek_stamped(self, positions: Mapping[TP, int]) -> dict[TP, int]:
        """Seek and begin a new epoch of each topic-partition that is still assigned: their epochs."""
        return dict(await self.call_thread(self._seek_stamped, positions))

    async def _seek_stamped(self, positions: Mapping[TP, int]) -> dict[TP, int]:
        consumer = self._ensure_consumer()
        epochs = {}
        for tp, offset in positions.items():
            if (state := _state_of(consumer, tp)) is None:
                continue
            consumer.seek(TopicPartition(*tp), offset)
            epochs[tp] = self._stamps[tp].epoch + 1 if tp in self._stamps else 1
            self._stamps[tp] = _Stamp(state, epochs[tp], seq=0, next_offset=offset)
        return epochs

    async def end_offsets(self, tps: Set[TP]) -> dict[TP, int]:
        """Ask the broker where topic-partitions end; KafkaError or TimeoutError when it does not answer."""
        return dict(await self.call_thread(self._end_offsets, tps))

    async def _end_offsets(self, tps: Set[TP]) -> dict[TP, int]:
        consumer = self._ensure_consumer()
        ends = await asyncio.wait_for(
            consumer.end_offsets([TopicPartition(*tp) for tp in tps]), _ENDS_SECONDS
        )
        return {TP(*tp): offset for tp, offset in ends.items()}

    async def commit_advisory(self, offsets: Mapping[TP, int]) -> bool:
        """Commit what is still assigned, for lag monitors; whether it worked. Nothing depends on it."""
        return bool(await self.call_thread(self._commit_advisory, offsets))

    async def _commit_advisory(self, offsets: Mapping[TP, int]) -> bool:
        consumer = self._ensure_consumer()
        held = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
        held = {tp: offset for tp, offset in held.items() if tp in consumer.assignment()}
        try:
            if held:
                await asyncio.wait_for(consumer.commit(held), _COMMIT_SECONDS)
        except (KafkaError, TimeoutError) as error:  # Faust's own commit would crash the worker
            self.log.warning(
                "Kafka did not take the committed offsets (only lag monitors need them): %r", error
            )
            return False
        return True


class Consumer(driver.Consumer):  # type: ignore[misc]
    """Faust's consumer, with whole fetches of the input topics."""

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        """Called by Faust after every assignment, and when it drops fetched data because its flow is stopped."""
        tps = self.assignment()
        inputs = {tp for tp in tps if tp.topic in self._intake.input_topics}
        if others := tps - inputs:
            self._forget_read_offsets(others)
            await self._thread.seek_to_beginning(*(TopicPartition(*tp) for tp in others))
            self._forget_read_offsets(others)
        if inputs:
            await self._intake.seek_all(self, inputs)

    async def seek_stamped(self, positions: Mapping[TP, int]) -> dict[TP, int]:
        """Seek and begin a new epoch of each topic-partition that is still assigned: their epochs."""
        # Before, for what is fetched at once after it; after, for what Faust was still handing out meanwhile.
        self._forget_read_offsets(positions)
        epochs: dict[TP, int] = await self._thread.seek_stamped(positions)
        self._forget_read_offsets(positions)
        return epochs

    async def end_offsets(self, tps: Set[TP]) -> dict[TP, int]:
        """Ask the broker where topic-partitions end; KafkaError or TimeoutError when it does not answer."""
        ends: dict[TP, int] = await self._thread.end_offsets(tps)
        return ends

    async def commit_advisory(self, offsets: Mapping[TP, int]) -> bool:
        """Commit what is still assigned, for lag monitors; whether it worked. Nothing depends on it."""
        return bool(await self._thread.commit_advisory(offsets))

    def partitions_of(self, topic: str) -> int | None:
        """How many partitions a topic has, as last heard; None when nothing is known."""
        found = self._thread._ensure_consumer().partitions_for_topic(topic)
        return len(found) if found else None

    async def verify_all_partitions_active(self) -> None:
        """Faust's alarm about topic-partitions that are not read: a pause is normal here.

        Asked while the consumer still starts, as when a broker is slow, Faust's own would end the worker.
        """

    @property
    def _intake(self) -> Intake:
        intake: Intake = self.app.intake
        return intake

    def _forget_read_offsets(self, tps: Any) -> None:
        for tp in tps:
            self._read_offset[tp] = None  # Faust drops messages below it

    async def _getmany(self, active_partitions: Set[TP] | None, timeout: float) -> dict[TP, list[Any]]:
        active = active_partitions or set()
        inputs = {tp for tp in active if tp.topic in self._intake.input_topics}
        tps = self._intake.wanted(inputs) | (active - inputs)
        if not tps:  # an empty set would mean all to aiokafka
            await asyncio.sleep(_IDLE_SECONDS)
            return {}
        try:
            found: dict[TP, list[Any]] = await super()._getmany(tps, min(timeout, _POLL_SECONDS))
        except (
            NoOffsetForPartitionError
        ):  # a fetch that was waiting when the group rebalanced; the seek is to come
            await asyncio.sleep(_IDLE_SECONDS)
            return {}
        except (KafkaError, LiftstreamError) as error:
            self._intake.fetch_failed(_sentence(error))
            await asyncio.sleep(1)
            return {}
        return found

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        if not isinstance(record, Fetched):
            return super()._to_message(tp, record)
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            record.next_offset - 1,
            0.0,  # timestamp: each record has its own
            0,  # its type
            [],  # headers
            None,  # key
            record,
            None,  # checksum
            0,  # key size
            0,  # value size
            tp,
            generation_id=self.app.consumer_generation_id,
        )


class Transport(driver.Transport):  # type: ignore[misc]
    """Entry point `liftstream` of the group `faust.transports`."""

    Consumer = Consumer


def recent_end(consumer: Any, tp: TopicPartition, now_ms: float) -> int | None:
    """The last stable offset as of the last fetch; None when there was no fetch lately.

    What was the end before an outage may be days from it by now, and whoever takes a topic-partition for caught up
    lets the clock run ahead of the records that are still to be read.
    """
    heard_ms = consumer.last_poll_timestamp(tp)
    if heard_ms is None or abs(now_ms - heard_ms) > RECENT_MS:
        return None
    stable = consumer.last_stable_offset(tp)
    end: int | None = consumer.highwater(tp) if stable in (None, -1) else stable
    return end


def _state_of(consumer: Any, tp: TP) -> Any:
    """aiokafka's state of a topic-partition; None when it is not assigned."""
    subscription = consumer._subscription.subscription
    if subscription is None or subscription.assignment is None:
        return None
    return subscription.assignment.state_value(TopicPartition(*tp))


def _sentence(error: Exception) -> LiftstreamError:
    if isinstance(error, LiftstreamError):
        return error
    if isinstance(error, OffsetOutOfRangeError):
        gone = ", ".join(
            f"{tp.topic} partition {tp.partition} at offset {at}" for tp, at in error.args[0].items()
        )
        return Unavailable(
            f"Kafka has deleted records that were not read yet ({gone}): raise the topic's retention, and start with "
            "--new-generation to begin anew"
        )
    return Unavailable(f"Kafka does not let this worker read: {error!r}")
