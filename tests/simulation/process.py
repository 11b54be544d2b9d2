"""One worker process: the product's Worker with everything around it, as app/faust_app.py wires it."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from faust.types import TP

from stream.app.breaker import Breaker, Rule
from stream.app.outlets import Destination, KafkaOutlet, Message, Outlets
from stream.app.rolling import RollingWindows
from stream.app.worker import Worker
from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.decisions.book import Book, Store
from stream.durability.image import Sizes
from stream.durability.machine import Machines, Sink
from stream.durability.partition import Partition
from stream.durability.surroundings import Clock, Owner, Pace, Surroundings
from stream.intake.reading import Readings
from stream.rolling.partials import partition_for
from tests.app.fakes import NAMES
from tests.simulation.broker import PARTIALS, PARTIALS_PARTITIONS, Broker, Group, SimulatedDecoder
from tests.simulation.checkpoints import SharedStore, TroubledStore
from tests.simulation.consumer import SimulatedConsumer
from tests.simulation.database import Connection, Database, HandWriter
from tests.simulation.deciding import TOPIC, decisions_of
from tests.simulation.schedule import Life, ProcessLoop, Schedule
from tests.simulation.trouble import Trouble
from tests.simulation.weather import Weather

GENERATION = 1
PACE = Pace(
    max_rows=8,
    patience_ms=300,
    snapshot_every_ms=400,
    journal_kept_ms=700,  # as short as the rule allows: longer than `silence_ms`, clocks' differences included
    collect_every_ms=0,
    silence_ms=300,
    # So small that snapshots take several rounds and pieces, and poor pieces are written again.
    sizes=Sizes(piece_bytes=12_000, round_bytes=24_000, spare_bytes=4_000, pieces=4, is_checked=True),
)
_STEP_SECONDS = 0.2
_DECIDE_SECONDS = 0.5
_HEARTBEAT_SECONDS = 0.1
_MAX_ROWS, _MAX_MESSAGES = 2_000, 300
_SKEW_MS = 80


class NoBroker(Exception):
    """The simulated broker does not take a message."""


@dataclass(frozen=True)
class World:
    """All that outlives a process."""

    seed: int
    weather: Weather
    schedule: Schedule
    store: SharedStore
    database: Database
    broker: Broker
    group: Group
    heartbeats: dict[str, float]
    machines: Machines
    definitions: Definitions
    began_ms: int  # the wall clock at simulated time 0
    partition_class: Callable[..., Partition]
    sink_of: Callable[[Sink], Sink]
    book_class: Callable[[Store], Book]


class Process:
    """From its start to its end, which comes by itself or by its surroundings."""

    def __init__(self, world: World, name: str) -> None:
        draw = random.Random(f"{world.seed} {name}")
        schedule = world.schedule
        self.name = name
        self.life = Life(name)
        self.is_closed = False
        self._world = world
        self._draw = draw
        self._stops = self._is_closing = False
        self._trouble = Trouble(schedule, self.life, world.weather, draw)
        self._loop = ProcessLoop(schedule, self.life, lambda: draw.uniform(0, 10))
        self._skew_ms = draw.randint(-_SKEW_MS, _SKEW_MS)
        self._consumer = SimulatedConsumer(world.broker, schedule, world.weather, draw)
        self._applied: Any = None
        self.writer = HandWriter(
            lambda: Connection(world.database, self._trouble, lambda: schedule.now_ms),
            max_rows=_MAX_ROWS,
            now=lambda: self._now_ms() / 1000,
        )
        outlet = KafkaOutlet(self._send, max_messages=_MAX_MESSAGES)
        to = Destination(GENERATION, PARTIALS, PARTIALS_PARTITIONS, "rec.dead-letters", {})
        store = TroubledStore(world.store, self._trouble, draw)
        clock = Clock(now_ms=self._now_ms, uptime_ms=lambda: int(schedule.now_ms))
        readings = Readings(world.weather.partitions)
        sink = world.sink_of(Outlets(self.writer, outlet, to))
        around = Surroundings(store, world.machines, readings, sink, clock)
        owner = Owner(name, 1, world.definitions)
        self.worker = Worker(
            NAMES,
            partition_of=lambda number: world.partition_class(number, folder_of(number), owner, around, PACE),
            decoder=SimulatedDecoder(knows_all=draw.random() < 0.5, partitions=world.weather.partitions),
            breaker_of=lambda number: Breaker(number, Rule(10**9, 1.0)),
            partitions=len(world.broker.logs) // len(Topic),
            memory_limit=1 << 40,
            stays_in_group=False,
            on_failure=self._failed,
            uptime=self._loop.time,
        )
        self.rolling = RollingWindows(self.writer, partitions=PARTIALS_PARTITIONS)
        self._outlet = outlet
        self._told = KafkaOutlet(self._send)
        self._decisions = decisions_of(
            world.book_class(store), self.writer, self._told,
            simulated_ms=lambda: schedule.now_ms, now_ms=self._now_ms,
        )  # fmt: skip

    def start(self) -> "Process":
        """Begin all tasks."""
        for task in (
            self._beat,
            self._keep_membership,
            self._fetch,
            self._step,
            self._send_messages,
            self._write,
            self._roll,
            self._decide,
        ):
            self._spawn(task)
        return self

    def stop(self) -> None:
        """SIGTERM: last snapshots, out of the group, the end."""
        if not self._stops:
            self._stops = True
            self._spawn(self._stop)

    def close(self) -> None:
        """Take last snapshots and take no further step; everything else goes on."""
        self._is_closing = True
        self._spawn(self._close)

    def abandon(self) -> None:
        """Leave nothing behind in the real process."""
        self.life.is_dead = True
        self._loop.abandon()

    def calm(self) -> None:
        """No more trouble."""
        self._trouble.weather = self._consumer.weather = self._world.weather.calm

    def _spawn(self, task: Callable[[], Any]) -> None:
        self._world.schedule.at(0, lambda: self._loop.create_task(task()), process=self.life)

    def _now_ms(self) -> int:
        return self._world.began_ms + int(self._world.schedule.now_ms) + self._skew_ms

    def _failed(self) -> None:
        self._world.schedule.fail(f"{self.name} stopped: {self.worker.failure!r}")

    # Tasks

    async def _beat(self) -> None:
        group, heartbeats = self._world.group, self._world.heartbeats
        while not self._stops:
            if self.name not in group.assigned:
                # Until it hears that it is out of the group, it goes on as before: a zombie.
                await asyncio.sleep(self._draw.uniform(0, 1.0))
                self._world.schedule.note(f"{self.name} joins")
                heartbeats[self.name] = self._world.schedule.now_ms
                group.join(self.name)
            heartbeats[self.name] = self._world.schedule.now_ms
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    async def _keep_membership(self) -> None:
        while not self._stops:
            if self._world.group.assigned.get(self.name) not in (None, self._applied):
                await self._rebalance()
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    async def _rebalance(self) -> None:
        group, consumer = self._world.group, self._consumer
        consumer.assign(frozenset(), ())
        await asyncio.sleep(self._draw.uniform(0, 0.2))
        self._applied = group.assigned.get(self.name)
        if self._applied is None:
            return
        numbers, partials = self._applied
        self._world.schedule.note(f"{self.name} is assigned {sorted(numbers)} {sorted(partials)}")
        inputs = frozenset(TP(NAMES[topic], number) for number in numbers for topic in Topic)
        consumer.assign(inputs, partials)
        self.worker.keep_only(set(numbers))
        self.rolling.assign(set(partials))
        self._decisions.keep_only(lambda name: partition_for(name, PARTIALS_PARTITIONS) in partials)
        self.rolling.expect(consumer.partials_ends)
        if inputs:
            await self.worker.seek_all(consumer, inputs)

    async def _fetch(self) -> None:
        while True:
            for fetched in self._consumer.fetch(self.worker.wanted(self._consumer.inputs)):
                self.worker.accept(fetched)
            for partition, offset, (key, value) in self._consumer.new_partials():
                self.rolling.take(partition, offset, key, value)
            await asyncio.sleep(self._draw.uniform(0.04, 0.16))

    async def _step(self) -> None:
        while not self._stops and not self._is_closing:
            started = self._loop.time()
            await self.worker.round(self._consumer)
            await self.worker.wait(max(0.02, _STEP_SECONDS - (self._loop.time() - started)))

    async def _send_messages(self) -> None:
        while True:
            try:
                await self._outlet.flush()
                await self._told.flush()
                await asyncio.sleep(0.1)
            except NoBroker:
                await asyncio.sleep(0.3)

    async def _write(self) -> None:
        while True:
            await self._loop.run_in_executor(None, self.writer.flush)
            await asyncio.sleep(self._draw.choice([0.1, 0.1, 0.6]))

    async def _roll(self) -> None:
        while True:
            self.rolling.write()
            await asyncio.sleep(0.5)

    async def _decide(self) -> None:
        while not self._stops:
            await self._loop.run_in_executor(None, self._decisions.round)
            await asyncio.sleep(_DECIDE_SECONDS)

    async def _close(self) -> None:
        try:
            await self.worker.close(self._outlet.flush)
        except NoBroker:
            self._world.schedule.note(f"{self.name} closes without its last snapshots")
        self.is_closed = True

    async def _stop(self) -> None:
        await self._close()
        self._world.group.leave(self.name)
        self.life.is_dead = True

    async def _send(self, message: Message) -> Awaitable[object]:
        with self._trouble.around(f"send to {message.topic}", NoBroker, may_freeze=False):
            if message.topic == PARTIALS:
                assert message.partition is not None
                self._world.broker.partials[message.partition].append((message.key, message.value))
            elif message.topic == TOPIC:
                self._world.broker.told.append((message.key, message.value))
        acknowledged = self._loop.create_future()
        self._loop.call_later(self._draw.uniform(0, 0.02), _acknowledge, acknowledged)
        return acknowledged


def _acknowledge(acknowledged: "asyncio.Future[None]") -> None:
    if not acknowledged.done():
        acknowledged.set_result(None)


def folder_of(number: int) -> str:
    """Where the simulated deployment keeps a partition."""
    return f"g{GENERATION:06d}/p{number:05d}"
