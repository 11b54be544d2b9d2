"""One worker: takes what Faust fetches, and runs the steps of the partitions it is assigned.

Everything here runs in Faust's event loop except the partitions' turns and the store's I/O, which run in a thread.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from faust.types import TP

from stream.app.breaker import Breaker
from stream.app.copartition import refusal
from stream.app.feed import Feed, share_of_bytes
from stream.app.held import Counters, Decodes, Held
from stream.app.seeking import Seeking, Seeks
from stream.contracts.topics import Topic
from stream.durability.partition import Partition
from stream.errors import ConfigurationError, LiftstreamError, Unavailable
from stream.intake.transport import Fetched

log = logging.getLogger(__name__)

T = TypeVar("T")
STEPS_SHARE = 0.4  # of the rows that the sink may write; the rest is for catch-ups, windows and results
LEAST_PAUSE_SECONDS = 0.02  # between rounds
STOP_SECONDS = 6.0  # for the acknowledgements that the last snapshots wait for


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
        partitions: int,
        memory_limit: int,
        stays_in_group: bool,
        on_failure: Callable[[], None],
        rows_per_second: float = math.inf,
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        """names: of the input topics. partitions: of each of them, when this deployment began.

        memory_limit: bytes of state of all partitions together. stays_in_group: see the setting stay_in_group.
        rows_per_second: that the sink writes at most. on_failure: called once, when `failure` is set.
        uptime: seconds that never step back.
        """
        self.input_topics = frozenset(names.values())
        self.stays_in_group = stays_in_group
        self.counters = Counters()
        self.failure: BaseException | None = None
        self.trouble: str | None = None  # something does not answer; being tried again
        self.trouble_since = 0.0  # by `uptime`
        self.held: dict[int, Held] = {}
        self.has_assignment = False
        self.busy_since: float | None = None  # by `uptime`: since when the step's thread is at one thing
        self.arrived_ms: dict[Topic, int] = {}  # the wall clock when records of a topic last came
        self._names = names
        self._partitions = partitions
        self._seeking = Seeking(names)
        self._topics = {name: topic for topic, name in names.items()}
        self.memory_limit = memory_limit
        self._rows_per_second = rows_per_second
        self._partition_of = partition_of
        self._decoder = decoder
        self._breaker_of = breaker_of
        self._on_failure = on_failure
        self._uptime = uptime
        self._assignment = 0
        self._stepping = asyncio.Lock()
        # Always the same one: memory that a thread has freed serves that thread again, and is not cleared anew.
        self._thread = ThreadPoolExecutor(1, "steps")
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
        """Note the assignment, and go on with what stays ours.

        A rebalance does not stop steps: state, queues and journal are as good as before, and should a partition go to
        another worker, both take the same steps until we hear of it. What is new here is loaded in `round`.
        """
        self._assignment += 1
        self.counters.assignments += 1
        counts = {topic: consumer.partitions_of(name) for topic, name in self._names.items()}
        if why := refusal(self._names, tps, counts, self._partitions):
            self._release(self.held)
            self.fail(ConfigurationError(why))
            return
        numbers = sorted({tp.partition for tp in tps})
        self.keep_only(set(numbers))
        kept = [number for number in numbers if number in self.held and self.held[number].is_running]
        await self._seeking.park(consumer, set(numbers) - set(kept))
        self.held = {number: self.held.get(number) or self._hold(number) for number in numbers}
        for held in self.held.values():
            held.partition.memory_limit = self.memory_limit // len(self.held)
            for feed in held.feeds:
                feed.max_bytes = share_of_bytes(len(self.held))
            held.rows_per_second = STEPS_SHARE * self._rows_per_second / len(self.held)
            held.is_assigned = True
        self.has_assignment = True
        await self._seeking.go_on(
            consumer, {tp: feed for number in kept for tp, feed in self._feeds(self.held[number])}
        )
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
        topic = self._topics[fetched.tp.topic]
        if fetched.rows:
            self.arrived_ms[topic] = time.time_ns() // 1_000_000
        feed = held.feeds[topic]
        feed.accept(fetched)
        if held.has_enough:
            self._enough.set()

    def _feeds(self, held: Held) -> Iterator[tuple[TP, Feed]]:
        for topic in Topic:
            yield self._seeking.tp(topic, held.partition.number), held.feeds[topic]

    def _release(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if held := self.held.get(number):
                held.is_assigned = held.is_running = False

    def keep_only(self, numbers: Set[int]) -> None:
        """Forget the partitions that went to other workers, perhaps all. Those that stay keep their state in memory."""
        self._release(self.held.keys() - numbers)
        self.held = {number: held for number, held in self.held.items() if number in numbers}

    def fail(self, error: BaseException) -> None:
        """End the process with this error, the first one."""
        if self.failure is None:
            self.failure = error
            self._on_failure()

    # Rounds

    async def wait(self, step_seconds: float) -> None:
        """Until the next turn: so long after a partition's last one, or when there is enough for a step."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._enough.wait(), self._seconds_to_next(step_seconds))

    def _seconds_to_next(self, step_seconds: float) -> float:
        nexts = [held.next_at(step_seconds) for held in self.held.values() if held.is_assigned]
        if self.trouble or not nexts:
            return step_seconds
        return max(LEAST_PAUSE_SECONDS, min(nexts) - self._uptime())

    async def round(self, consumer: Seeks) -> None:
        """Give every assigned partition a turn. Never raises; what cannot go on ends up in `failure`."""
        self._enough.clear()
        try:
            for held in [held for held in self.held.values() if held.is_assigned]:
                await self._attend(consumer, held)
            self.trouble = None
        except Unavailable as error:
            if self.trouble is None:
                self.trouble_since = self._uptime()
                log.warning("%s Trying again.", error)
            self.trouble = str(error)
        except Exception as error:
            self.fail(error)

    async def _attend(self, consumer: Seeks, held: Held) -> None:
        if not held.is_assigned:  # a rebalance came in the middle of the round
            return
        if not held.is_running:
            await self._take_over(consumer, held)
        self._observe_ends(consumer, held)
        if lost := {tp: feed for tp, feed in self._feeds(held) if feed.has_lost}:
            self.counters.lost_fetches += len(lost)
            await self._seeking.go_on(consumer, lost)
        if not held.is_running or not held.is_due:
            return
        async with self._stepping:
            if await self._in_thread(held.turn, self._decoder, self.counters):
                self._enough.set()

    async def _take_over(self, consumer: Seeks, held: Held) -> None:
        """Load state and journal, go to where they end, and begin to take data."""
        held.turned_at = self._uptime()
        assignment = self._assignment
        async with self._stepping:
            await self._in_thread(held.partition.recover)
        if assignment != self._assignment or not held.is_assigned:
            return  # the next assignment may not even contain it
        offsets = await self._seeking.go_to_state(consumer, held.partition, held.feeds)
        if offsets is None or assignment != self._assignment or not held.is_assigned:
            return
        async with self._stepping:
            await self._in_thread(held.partition.start, offsets)
        held.begin(is_ours=held.is_assigned and assignment == self._assignment)
        self.counters.takeovers += 1

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        """Outside the event loop, and timed: the watchdog sees work that never ends."""
        self.busy_since = self._uptime()
        try:
            return await self._untimed(work, *args)
        finally:
            self.busy_since = None

    async def _untimed(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def _observe_ends(self, consumer: Seeks, held: Held) -> None:
        """Ask where the topics end: one in which nothing happens is never fetched and would look behind."""
        for topic in Topic:
            held.feeds[topic].hear_end(consumer.highwater(self._seeking.tp(topic, held.partition.number)))
            held.feeds[topic].notice_loss(self._uptime())

    # The end

    def offsets(self) -> dict[TP, int]:
        """Up to where the running partitions have counted, for lag monitors."""
        return {
            self._seeking.tp(topic, held.partition.number): offsets[topic]
            for held in self.held.values()
            if held.is_running and (offsets := held.partition.offsets) is not None
            for topic in Topic
        }

    def feeds(self) -> dict[TP, Feed]:
        """What was fetched of the topic-partitions of running partitions."""
        return {tp: feed for held in self.held.values() if held.is_running for tp, feed in self._feeds(held)}

    async def close(self, flush: Callable[[], Any]) -> None:
        """Take last snapshots and wait a moment for their acknowledgements; `flush` lets outputs be written."""
        running = [held for held in self.held.values() if held.is_running]
        self._release(self.held)
        async with self._stepping:
            with suppress(Unavailable):
                await self._capture_all([held.partition for held in running], flush)

    async def _capture_all(self, partitions: list[Partition], flush: Callable[[], Any]) -> None:
        for partition in partitions:
            await self._untimed(partition.capture)
        deadline = self._uptime() + STOP_SECONDS
        while partitions:
            with suppress(TimeoutError):
                await asyncio.wait_for(flush(), max(0.0, deadline - self._uptime()))
            partitions = [p for p in partitions if not await self._untimed(p.publish_when_acked)]
            if partitions and self._uptime() >= deadline:
                log.warning(
                    "Not all outputs were acknowledged in time: the next start repeats the last steps."
                )
                return
            if partitions:
                await asyncio.sleep(0.05)
