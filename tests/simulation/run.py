"""One seed: a storm, then calm until everything is counted, then the truth."""

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from stream.decisions.book import Book, Store
from stream.durability.journal import Entry
from stream.durability.machine import Sink
from stream.durability.partition import Partition
from tests.engine.makers import DAY, HOUR, MINUTE
from tests.engine.streams import definitions, without_metrics
from tests.simulation.broker import Broker, Group
from tests.simulation.checkpoints import SharedStore
from tests.simulation.database import Database
from tests.simulation.deciding import differences, is_settled
from tests.simulation.process import Process, World, folder_of
from tests.simulation.schedule import Broken, Schedule
from tests.simulation.truth import Truth
from tests.simulation.watched import WatchedEngines
from tests.simulation.weather import Weather, weather_of

_SESSION_MS = 600
_PATIENCE_MS = 120_000  # of calm; more means that the worker is stuck
_LOOK_MS = 200
_ROT = 0.05  # per look and partition


@dataclass(frozen=True)
class Product:
    """What is simulated, and in which weather; tests put in parts with a rule taken out."""

    partition_class: Callable[..., Partition] = Partition
    sink_of: Callable[[Sink], Sink] = lambda sink: sink
    book_class: Callable[[Store], Book] = Book
    weather: Callable[[Weather], Weather] = lambda drawn: drawn


@dataclass(frozen=True)
class Finished:
    """How a seed ended. broken: the invariant that did not hold, None when all did. trace: of everything."""

    seed: int
    broken: str | None
    trace: int
    weather: Weather
    happened: list[str] = field(repr=False)
    steps: int
    repeats: int  # executions of a step that had been executed before
    processes: int


def simulate(seed: int, product: Product | None = None, *, is_told: bool = False) -> Finished:
    """Run a seed. is_told: keep everything that happens as lines in `happened`."""
    simulation = Simulation(seed, product or Product(), is_told=is_told)
    broken = None
    try:
        simulation.run()
    except Broken as error:
        broken = str(error)
    finally:
        simulation.abandon()
    return Finished(
        seed,
        broken,
        simulation.schedule.trace,
        simulation.weather,
        simulation.schedule.told or [],
        len(simulation.world.store.steps),
        simulation.engines.repeats,
        simulation.started,
    )


class Simulation:
    """The world of one seed and what happens to it from outside."""

    def __init__(self, seed: int, product: Product, *, is_told: bool) -> None:
        draw = random.Random(seed)
        weather = product.weather(weather_of(draw))
        schedule = Schedule()
        schedule.told = [] if is_told else None
        self.weather = weather
        self.schedule = schedule
        self.engines = WatchedEngines(schedule, weather.partitions)
        self.started = 0
        lateness = (7 * DAY, DAY) if weather.nothing_is_late else (30 * MINUTE, 45 * MINUTE)
        broker = Broker(weather, seed, draw)
        behind_ms = (
            0 if weather.nothing_is_late else draw.choice([0, 0, 2 * HOUR])
        )  # our clocks behind Kafka's
        # The status says when it was written. Where compaction has kept a zombie's partial instead of a newer one, a
        # reader's windows are behind, under a version that others wrote, until the owner republishes.
        exempt: dict[str, Callable[[], bool]] = {
            "status": lambda: True, "rolling": lambda: broker.displaces,
        }  # fmt: skip
        self.world = World(
            seed=seed,
            weather=weather,
            schedule=schedule,
            store=SharedStore(schedule),
            database=Database(schedule, exempt),
            broker=broker,
            group=Group(weather.partitions),
            heartbeats={},
            machines=self.engines,
            definitions=(definitions, without_metrics)[seed % 2](
                allowed_lateness_ms=lateness[0], attribution_window_ms=lateness[1]
            ),
            began_ms=broker.latest_ms - behind_ms,
            partition_class=product.partition_class,
            sink_of=product.sink_of,
            book_class=product.book_class,
        )
        self._draw = draw
        self._is_calm = False
        self._sound = [
            folder_of(number) for number in range(weather.partitions)
        ]  # no snapshot has rotted yet
        self._processes: list[Process] = []

    def run(self) -> None:
        """Raises Broken."""
        schedule, weather = self.schedule, self.weather
        for _ in range(weather.workers):
            self._start()
        self._look()
        for every_ms, what in (
            (weather.kill_every_ms, self._kill),
            (weather.pause_every_ms, self._pause),
            (weather.leave_every_ms, self._stop),
            (weather.sink_away_every_ms, self._take_sink_away),
        ):
            if every_ms < weather.storm_ms:
                self._now_and_then(every_ms, what)
        schedule.run(weather.storm_ms)
        self._calm_down()
        deadline = schedule.now_ms + _PATIENCE_MS
        while not (self._is_all_counted() and is_settled(self.world.store)):
            if schedule.now_ms > deadline:
                raise schedule.fail("it does not come to an end")
            schedule.run(schedule.now_ms + 500)
        self._end()

    def abandon(self) -> None:
        """Leave nothing behind in the real process."""
        for process in self._processes:
            process.abandon()

    def _end(self) -> None:
        schedule, world = self.schedule, self.world
        chunks = {
            number: held.partition.machine.live_chunks()
            for process in self._alive()
            for number, held in process.worker.held.items()
            if held.is_running
        }
        closing = self._alive()
        for process in closing:
            process.close()
        schedule.run(schedule.now_ms + 5_000)
        if not all(process.is_closed for process in closing):
            raise schedule.fail("a process does not stop")
        truth = Truth(schedule, world.broker.logs, self._steps(), world.definitions)
        truth.compare(world.database)
        if self.weather.nothing_is_late and not self.weather.schema_is_late:
            truth.compare_with_all_at_once(world.database)
        truth.compare_rolling(world.database, {n: list(c) for n, c in chunks.items()})
        if wrong := differences(world.store, world.broker.told, world.database):
            raise schedule.fail("decisions: " + "; ".join(wrong))

    # What happens from outside

    def _start(self) -> None:
        self.started += 1
        self._processes.append(Process(self.world, f"w{self.started}").start())
        if self._is_calm:
            self._processes[-1].calm()

    def _look(self) -> None:
        """What Kafka's coordinator and a supervisor do: end sessions, start what has ended. And check the ledger."""
        now = self.schedule.now_ms
        for name in list(self.world.group.assigned):
            if self.world.heartbeats.get(name, now) < now - _SESSION_MS:
                self.schedule.note(f"{name} is out of the group")
                self.world.group.leave(name)
        for _ in range(self.weather.workers - len(self._alive())):
            self._start()
        self._check_ledger()
        if self.weather.rots and not self._is_calm:
            for folder in [folder for folder in self._sound if self._draw.random() < _ROT]:
                if self.world.store.rot(folder, self._draw):
                    self._sound.remove(folder)
        self.schedule.at(now + _LOOK_MS, self._look)

    def _check_ledger(self) -> None:
        steps = self._steps()
        for number, found in self.world.database.consumed().items():
            newest = self.world.database.newest_step[number]
            for place, topic in enumerate(("assignments", "impressions", "interactions")):
                wanted = sum(entry.ranges[place].rows for entry in steps[number] if entry.number <= newest)
                if found[topic] != wanted:
                    raise self.schedule.fail(
                        f"ledger of {topic} {number} at step {newest}: {found[topic]} instead of {wanted}"
                    )

    def _now_and_then(self, every_ms: int, what: Callable[[], None]) -> None:
        def happen() -> None:
            if not self._is_calm:
                what()
                plan()

        def plan() -> None:
            self.schedule.at(self.schedule.now_ms + self._draw.uniform(0, 2 * every_ms), happen)

        plan()

    def _kill(self) -> None:
        if alive := self._alive():
            process = self._draw.choice(alive)
            self.schedule.note(f"{process.name} is killed")
            process.life.is_dead = True

    def _pause(self) -> None:
        if alive := self._alive():
            self._let_stand_still(self._draw.choice(alive))

    def _let_stand_still(self, process: Process) -> None:
        """Now, or in the middle of the next effect of some kind."""
        ms = self._draw.uniform(0.2, 1.0) * self.weather.freeze_ms
        kind = self._draw.choice(["", "", "create", "list", "put"])
        if kind:
            process.life.will_stand_still = kind, ms
        else:
            process.life.frozen_until_ms = self.schedule.now_ms + ms
            self.schedule.note(f"{process.name} stands still")

    def _stop(self) -> None:
        if alive := self._alive():
            process = self._draw.choice(alive)
            self.schedule.note(f"{process.name} is told to stop")
            process.stop()

    def _take_sink_away(self) -> None:
        self.schedule.note("the database is away")
        self.world.database.away_until_ms = self.schedule.now_ms + self._draw.uniform(0, 3_000)

    def _calm_down(self) -> None:
        self.schedule.note("calm")
        self._is_calm = True
        self.world.database.away_until_ms = 0.0
        alive = self._alive()
        for process in alive:
            process.calm()
        # While all the others work on undisturbed, one may sleep and wake up far behind them.
        if len(alive) > 1 and self.weather.pause_every_ms < self.weather.storm_ms:
            self._let_stand_still(self._draw.choice(alive))

    # How far it is

    def _alive(self) -> list[Process]:
        return [process for process in self._processes if not process.life.is_dead]

    def _steps(self) -> dict[int, list[Entry]]:
        found: dict[int, list[Entry]] = defaultdict(list)
        numbers = {folder_of(number): number for number in range(self.weather.partitions)}
        for (folder, _), entry in sorted(self.world.store.steps.items()):
            found[numbers[folder]].append(entry)
        return found

    def _is_all_counted(self) -> bool:
        """Every partition has exactly one running owner, which has counted all; no process stands still."""
        running = []
        for process in self._alive():
            if process.life.is_asleep(self.schedule.now_ms) or process.writer.has_work:
                return False
            running += [held.partition for held in process.worker.held.values() if held.is_running]
        return sorted(partition.number for partition in running) == list(
            range(self.weather.partitions)
        ) and all(map(self._has_counted_all, running))

    def _has_counted_all(self, partition: Partition) -> bool:
        if partition.has_replay:
            return False
        offsets = partition.offsets
        logs = [log for tp, log in self.world.broker.logs.items() if tp.partition == partition.number]
        if offsets is None:
            return not any(log.arrivals for log in logs)
        return all(not log.taken(lo, 1 << 60) for lo, log in zip(offsets, logs, strict=True))
