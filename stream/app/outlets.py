"""Where outputs go: ClickHouse, the partials topic and the dead-letter topic, behind one Sink."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from aiokafka.errors import MessageSizeTooLargeError

from stream.app.spread import Spread
from stream.durability.machine import Executed, State
from stream.engine.outputs import Chunk, Outputs
from stream.rolling.partials import encode, partition_for
from stream.sink.emission import Emission
from stream.sink.origins import Origins

log = logging.getLogger(__name__)

Headers = dict[str, bytes]

_BREATHE_EVERY = 500  # messages


@dataclass(frozen=True, slots=True)
class Message:
    """One record to be produced; partition None: by the key."""

    topic: str
    key: bytes
    value: bytes | None
    partition: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    may_lose_value: bool = (
        False  # where a topic takes no message so large: better without its value than never
    )

    @property
    def nbytes(self) -> int:
        """Bytes of key and value."""
        return len(self.key) + len(self.value or b"")

    def without_value(self) -> "Message":
        """The same for a topic that does not take it whole."""
        return replace(self, value=b"", headers=(*self.headers, ("payload_left_out", b"true")))


Send = Callable[[Message], Awaitable[Awaitable[object]]]  # the outer: handed over, the inner: acknowledged


class KafkaOutlet:
    """A bounded outbox of messages. `put` from any thread, `flush` in the event loop."""

    def __init__(self, send: Send, *, max_messages: int = 100_000, max_bytes: int = 64 << 20) -> None:
        self._send = send
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[int, int, tuple[Message, ...]]] = deque()  # partition, step, messages
        # Messages and bytes; each counter is written by one side only, so no lock is needed.
        self._in = [0, 0]
        self._out = [0, 0]
        self._acked: dict[int, int] = {}
        self.seconds = Spread()  # until a step's messages were acknowledged
        self._flushing = asyncio.Lock()

    @property
    def is_full(self) -> bool:
        """Whether no more should be put now; what is put nevertheless is kept."""
        return self.waiting_messages > self._max_messages or self.waiting_bytes > self._max_bytes

    @property
    def waiting_messages(self) -> int:
        """Messages that Kafka has not acknowledged."""
        return self._in[0] - self._out[0]

    @property
    def waiting_bytes(self) -> int:
        """Bytes of their keys and values."""
        return self._in[1] - self._out[1]

    def put(self, partition: int, step: int, messages: Sequence[Message]) -> None:
        """Take a step's messages, perhaps none."""
        self._in[0] += len(messages)
        self._in[1] += sum(message.nbytes for message in messages)
        self._waiting.append((partition, step, tuple(messages)))

    def acked(self, partition: int) -> int:
        """The step up to which all that was put is in Kafka; -1 when none is."""
        return self._acked.get(partition, -1)

    async def flush(self) -> None:
        """Produce all that waits now. Raises what Kafka's client raises; then everything unacknowledged stays."""
        async with self._flushing:  # a second flush would take what the first has not sent
            for _ in range(len(self._waiting)):
                partition, step, messages = self._waiting[0]
                started = time.monotonic()
                await self._deliver(messages)
                if messages:
                    self.seconds.add(time.monotonic() - started)
                self._waiting.popleft()
                self._out[0] += len(messages)
                self._out[1] += sum(message.nbytes for message in messages)
                self._acked[partition] = max(step, self.acked(partition))

    async def _deliver(self, messages: Sequence[Message]) -> None:
        """Produce messages and wait until all are acknowledged."""
        sent = []
        for place, message in enumerate(messages):
            sent.append((message, await self._handed_over(message)))
            if place % _BREATHE_EVERY == 0:
                await asyncio.sleep(
                    0
                )  # a step may have 100,000 dead letters, and pages wait in the same loop
        for message, acknowledged in sent:
            try:
                await acknowledged
            except MessageSizeTooLargeError:
                if not message.may_lose_value:
                    raise
                await (await self._send(message.without_value()))

    async def _handed_over(self, message: Message) -> Awaitable[object]:
        try:
            return await self._send(message)
        except MessageSizeTooLargeError:
            if not message.may_lose_value:
                raise
            return await self._send(message.without_value())


class ClickHouse(Protocol):
    """What we need of sink.writer.Writer."""

    @property
    def is_full(self) -> bool:
        """No more should be put now."""
        ...

    def put(self, emission: Emission) -> None:
        """Take a step's outputs."""
        ...

    def acked(self, partition: int) -> int:
        """The step up to which all is written."""
        ...


@dataclass(frozen=True, slots=True)
class Destination:
    """Whose outputs these are and which topics take them."""

    generation: int
    partials_topic: str
    partials_partitions: int
    dead_letters_topic: str
    input_topics: dict[str, str]  # full names by word


class Outlets:
    """The step loop's Sink."""

    def __init__(self, writer: ClickHouse, kafka: KafkaOutlet, to: Destination) -> None:
        self._writer = writer
        self._kafka = kafka
        self._to = to

    @property
    def is_full(self) -> bool:
        """See durability.machine.Sink."""
        return self._writer.is_full or self._kafka.is_full

    def put(self, partition: int, executed: Executed) -> None:
        """See durability.machine.Sink."""
        outputs = executed.outputs.with_topics(self._to.input_topics)
        state = State(outputs.step, executed.planned_at_ms, outputs.clock_ms)
        messages = [
            *self._partials(partition, state, outputs.chunks),
            *self._dead_letters(partition, outputs),
        ]
        self._kafka.put(partition, outputs.step, messages)
        self._writer.put(
            Emission(
                generation=self._to.generation,
                partition=partition,
                outputs=outputs,
                planned_at_ms=executed.planned_at_ms,
                lag=executed.lag,
                origins=Origins.of(executed.record_at_ms),
            )
        )

    def republish(self, partition: int, state: State, chunks: Sequence[Chunk]) -> None:
        """See durability.machine.Sink."""
        # A step of its own does not become acknowledged by this: -1.
        self._kafka.put(partition, -1, [*self._partials(partition, state, chunks)])

    def acked(self, partition: int) -> int:
        """See durability.machine.Sink."""
        return min(self._writer.acked(partition), self._kafka.acked(partition))

    def _partials(self, partition: int, state: State, chunks: Sequence[Chunk]) -> Iterator[Message]:
        for chunk in chunks:
            key, value = encode(
                chunk,
                generation=self._to.generation,
                version=state.step,
                partition=partition,
                clock_ms=state.clock_ms,
                planned_at_ms=state.planned_at_ms,
            )
            target = partition_for(chunk.experiment, self._to.partials_partitions)
            yield Message(self._to.partials_topic, key, value, target)

    def _dead_letters(self, partition: int, outputs: Outputs) -> Iterator[Message]:
        table = outputs.tables.get("dead_letters")
        if not table:
            return
        names = ("topic", "offset", "record_at_ms", "reason", "field", "rule", "schema_id", "payload_bytes")
        for *about, payload in zip(*(table[name] for name in names), table["payload"], strict=True):
            told = {name: str(value) for name, value in zip(names, about, strict=True)}
            told["partition"] = str(partition)
            key = f"{told['topic']}/{partition}/{told['offset']}".encode()
            headers = tuple((name, value.encode()) for name, value in sorted(told.items()))
            yield Message(
                self._to.dead_letters_topic, key, bytes(payload), headers=headers, may_lose_value=True
            )
