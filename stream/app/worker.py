"""One worker: takes what Faust fetches, and runs the steps of the partitions it is assigned.

Everything here runs in Faust's event loop except the partitions' turns and the store's I/O, which run in a thread.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from typing import Any, Protocol

from faust.types import TP

from stream.app.breaker import Breaker
from stream.app.held import ENOUGH_ROWS, Counters, Decodes, Held
from stream.contracts.topics import Topic
from stream.durability.partition import Partition
from stream.durability.snapshot import Offsets
from stream.errors import ConfigurationError, DamagedStore, LiftstreamError, Unavailable
from stream.intake.transport import Fetched

log = logging.getLogger(__name__)

REVOKE_SECONDS = 3.0  # a rebalance waits so long for a running step; whoever comes next repeats it anyway
STOP_SECONDS = 10.0  # for the acknowledgements of the last snapshots


class Seeks(Protocol):
    """What we need of the transport's Consumer."""

    async def earliest_offsets(self, *tps: TP) -> Mapping[TP, int]:
        """Where the logs begin."""
        ...

    async def seek_stamped(self, positions: Mapping[TP, int]) -> Mapping[TP, int]:
        """Seek; the new epoch of each that is still assigned."""
        ...

    async def commit_advisory(self, offsets: Mapping[TP, int]) -> bool:
        """Commit for lag monitors."""
        ...

    def highwater(self, tp: TP) -> int | None:
        """Where the log ends, None when that was not heard lately."""
        ...


class Worker:
    """The application's side of the transport (its Intake), and the rounds of the step loop."""

    plain_fetch = False

    def __init__(
        self,
        names: Mapping[Topic, str],
        *,
        partition_of: Callable[[int], Partition],
        decoder: Decodes,
        breaker_of: Callable[[int], Breaker],
        memory_limit: int,
        on_failure: Callable[[], None],
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        """names: of the input topics. memory_limit: bytes of state of all partitions together.

        on_failure: called once, when `failure` is set. uptime: seconds that never step back.
        """
        self.input_topics = frozenset(names.values())
        self.counters = Counters()
        self.failure: BaseException | None = None
        self.trouble: str | None = None  # something does not answer; being tried again
        self.held: dict[int, Held] = {}
        self.has_assignment = False
        self._names = names
        self._topics = {name: topic for topic, name in names.items()}
        self._memory_limit = memory_limit
        self._partition_of = partition_of
        self._decoder = decoder
        self._breaker_of = breaker_of
        self._on_failure = on_failure
        self._uptime = uptime
        self._earliest: dict[TP, int] = {}
        self._assignment = 0
        self._stepping = asyncio.Lock()
        self._enough = asyncio.Event()

    # What the transport asks (stream.intake.transport.Intake)

    def wanted(self, tps: Set[TP]) -> Set[TP]:
        """Those whose queues have room."""
        return {tp for tp in tps if self._has_room(tp)}

    def _has_room(self, tp: TP) -> bool:
        held = self.held.get(tp.partition)
        if held is None or not held.is_running:
            return False
        return held.feeds[self._topics[tp.topic]].has_room

    async def seek_all(self, consumer: Seeks, tps: Set[TP]) -> None:
        """Note the assignment. Each partition is sought to its state's offsets when that is loaded, in `round`."""
        self._assignment += 1
        self._release(self.held)
        numbers = {tp.partition for tp in tps}
        if missing := {self._tp(topic, p) for topic in Topic for p in numbers} - tps:
            self.fail(
                ConfigurationError(
                    f"Kafka assigned {', '.join(sorted(f'{tp.topic}-{tp.partition}' for tp in tps))} but not "
                    f"{', '.join(sorted(f'{tp.topic}-{tp.partition}' for tp in missing))} to this worker: let all "
                    "workers of the group run the same version."
                )
            )
            return
        # A position is needed now, else Kafka's client reports one missing. Nothing is taken from there.
        self._earliest = {TP(*tp): offset for tp, offset in (await consumer.earliest_offsets(*tps)).items()}
        await consumer.seek_stamped(self._earliest)
        # What is no longer ours is forgotten; what is keeps its state in memory.
        self.held = {number: self.held.get(number) or self._hold(number) for number in sorted(numbers)}
        for held in self.held.values():
            held.partition.memory_limit = self._memory_limit // len(self.held)
            held.is_assigned = True
        self.has_assignment = True
        self._enough.set()

    def _hold(self, number: int) -> Held:
        return Held(self._partition_of(number), self._breaker_of(number), self._uptime)

    def fetch_failed(self, error: LiftstreamError) -> None:
        """Reading cannot go on."""
        self.fail(error)

    # What Faust tells

    def accept(self, fetched: Fetched) -> None:
        """Queue what was fetched. Never raises for what it contains."""
        held = self.held.get(fetched.tp.partition)
        if held is None or not held.is_running:
            return
        feed = held.feeds[self._topics[fetched.tp.topic]]
        feed.accept(fetched)
        if feed.has_lost or held.rows >= ENOUGH_ROWS or not feed.has_room:
            self._enough.set()

    async def revoked(self, tps: Iterable[TP]) -> None:
        """Take no further step of these, and wait a moment for a running one."""
        self._release({tp.partition for tp in tps if tp.topic in self.input_topics})
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stepping.acquire(), REVOKE_SECONDS)
            self._stepping.release()

    def _release(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if held := self.held.get(number):
                held.is_assigned = held.is_running = False

    def fail(self, error: BaseException) -> None:
        """End the process with this error, the first one."""
        if self.failure is None:
            self.failure = error
            self._on_failure()

    # Rounds

    async def wait(self, seconds: float) -> None:
        """Until there is enough for a step, but at most so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._enough.wait(), seconds)

    async def round(self, consumer: Seeks) -> None:
        """Give every assigned partition a turn. Never raises; what cannot go on ends up in `failure`."""
        self._enough.clear()
        try:
            for held in [held for held in self.held.values() if held.is_assigned]:
                await self._attend(consumer, held)
            self.trouble = None
        except Unavailable as error:
            if self.trouble is None:
                log.warning("%s Trying again.", error)
            self.trouble = str(error)
        except Exception as error:
            self.fail(error)

    async def _attend(self, consumer: Seeks, held: Held) -> None:
        if not held.is_running:
            await self._take_over(consumer, held)
        self._observe_ends(consumer, held)
        if any(feed.has_lost for feed in held.feeds):
            await self._seek_again(consumer, held)
        if not held.is_running:
            return
        async with self._stepping:
            if await asyncio.to_thread(held.turn, self._decoder, self.counters):
                self._enough.set()

    async def _take_over(self, consumer: Seeks, held: Held) -> None:
        """Load state and journal, go to where they end, and begin to take data."""
        assignment = self._assignment
        number = held.partition.number
        async with self._stepping:
            await asyncio.to_thread(held.partition.recover)
        if assignment != self._assignment or not held.is_assigned:
            return  # the next assignment may not even contain it
        offsets = self._offsets(held.partition)
        positions = {self._tp(topic, number): offsets[topic] for topic in Topic}
        epochs = await consumer.seek_stamped(positions)
        if assignment != self._assignment or not held.is_assigned or len(epochs) < len(positions):
            return
        for topic in Topic:
            held.feeds[topic].restart(epochs[self._tp(topic, number)], offsets[topic])
        async with self._stepping:
            await asyncio.to_thread(held.partition.start, offsets)
        held.stepped_at = self._uptime()
        held.is_running = held.is_assigned and assignment == self._assignment
        self.counters.takeovers += 1

    def _offsets(self, partition: Partition) -> Offsets:
        """Where the state continues; for a new one where the topics begin. Raises DamagedStore when that is gone."""
        one, two, three = (self._earliest[self._tp(topic, partition.number)] for topic in Topic)
        offsets = partition.offsets
        if offsets is None:
            return one, two, three
        for topic, first in zip(Topic, (one, two, three), strict=True):
            if offsets[topic] < first:
                raise DamagedStore(
                    f"Partition {partition.number} continues at offset {offsets[topic]} of the {topic.word} but the "
                    f"topic begins at {first}: Kafka has deleted records that were not counted, so start over with "
                    "--new-generation, and keep records longer (retention.ms)."
                )
        return offsets

    async def _seek_again(self, consumer: Seeks, held: Held) -> None:
        """Faust dropped something on the way: fetch it once more."""
        lost = {
            self._tp(topic, held.partition.number): held.feeds[topic]
            for topic in Topic
            if held.feeds[topic].has_lost
        }
        self.counters.lost_fetches += len(lost)
        epochs = await consumer.seek_stamped({tp: feed.next_offset for tp, feed in lost.items()})
        for tp, epoch in epochs.items():
            lost[tp].resume(epoch)

    def _observe_ends(self, consumer: Seeks, held: Held) -> None:
        """Ask where the topics end: one in which nothing happens is never fetched and would look behind."""
        for topic in Topic:
            held.feeds[topic].hear_end(consumer.highwater(self._tp(topic, held.partition.number)))
            held.feeds[topic].notice_loss(self._uptime())

    # The end

    def offsets(self) -> dict[TP, int]:
        """Up to where the running partitions have counted, for lag monitors."""
        return {
            self._tp(topic, held.partition.number): held.partition.offsets[topic]
            for held in self.held.values()
            if held.is_running and held.partition.offsets is not None
            for topic in Topic
        }

    async def close(self, flush: Callable[[], Any]) -> None:
        """Take last snapshots and wait a moment for their acknowledgements; `flush` lets outputs be written."""
        running = [held for held in self.held.values() if held.is_running]
        self._release(self.held)
        async with self._stepping:
            with suppress(Unavailable):
                await self._capture_all([held.partition for held in running], flush)

    async def _capture_all(self, partitions: list[Partition], flush: Callable[[], Any]) -> None:
        for partition in partitions:
            await asyncio.to_thread(partition.capture)
        deadline = self._uptime() + STOP_SECONDS
        while partitions and self._uptime() < deadline:
            await flush()
            partitions = [p for p in partitions if not await asyncio.to_thread(p.publish_when_acked)]
            if partitions:
                await asyncio.sleep(0.05)
        if partitions:
            log.warning("Not all outputs were acknowledged in time: the next start repeats the last steps.")

    def _tp(self, topic: Topic, partition: int) -> TP:
        return TP(self._names[topic], partition)
