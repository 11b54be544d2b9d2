"""A backlog through planner, step loop and engine: nothing becomes late by being read late."""

import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from stream.app.engines import Engines
from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.durability.machine import Executed, State
from stream.durability.partition import Done, Partition, Pause
from stream.durability.surroundings import Owner, Pace, Surroundings
from stream.engine.outputs import Chunk
from stream.intake.reading import Reading, Readings
from stream.intake.transport import RECENT_MS
from tests.durability.fakes import DictStore, HandClock
from tests.engine.makers import (
    DAY,
    HOUR,
    KEY,
    MINUTE,
    PROGRAMS,
    T0,
    Arrival,
    Event,
    Run,
    a_batch,
    an_assignment,
    an_impression,
    an_interaction,
)
from tests.engine.oracle import Oracle
from tests.engine.streams import assert_equal, oracle_step

PACE = Pace(max_rows=70, patience_ms=500, snapshot_every_ms=5_000, silence_ms=1 << 40)
SKEWS = (-4 * MINUTE, 0, 0, 0, 20 * HOUR)  # how much later than `at` Kafka gets it
Given = dict[Topic, list[Arrival]]  # by time of arrival


def traffic(seed: int, days: int = 7, shown: int = 400) -> Given:
    """Some days of two arms: producers whose clocks differ, and assignments up to hours after the impressions."""
    draw = random.Random(seed)
    users = [f"u{i}" for i in range(40)]
    impressions = [
        an_impression(f"i{i}", T0 + draw.randrange(days * DAY), draw.choice(users), item_id=f"x{i}")
        for i in range(shown)
    ]
    clicks = [
        an_interaction(
            f"n{i}", of["at"] + draw.randrange(20 * HOUR), of["user_id"], impression_id=of["impression_id"],
            kind=draw.choice(["click", "purchase"]), value_minor=i,
        )
        for i, of in enumerate(draw.choices(impressions, k=shown // 3))
    ]  # fmt: skip
    assignments = [
        an_assignment(f"a{i}", T0 + draw.randrange(12 * HOUR), user, arm=draw.choice(["control", "b"]))
        for i, user in enumerate(users)
    ]

    def arriving(events: list[Event], skews: Sequence[int]) -> list[Arrival]:
        return sorted(
            ((event, event["at"] + draw.choice(skews)) for event in events), key=lambda arrival: arrival[1]
        )

    return {
        Topic.ASSIGNMENTS: arriving(assignments, (0, HOUR, 6 * HOUR)),
        Topic.IMPRESSIONS: arriving(impressions, SKEWS),
        Topic.INTERACTIONS: arriving(clicks, SKEWS),
    }


@dataclass
class RowSink:
    """Keeps the newest rows and acknowledges at once."""

    run: Run = field(default_factory=Run)
    newest: int = -1
    is_full = False

    def put(self, partition: int, executed: Executed) -> None:
        if executed.outputs.step > self.newest:
            self.run.keep(executed.outputs)
            self.newest = executed.outputs.step

    def republish(self, partition: int, state: State, chunks: Sequence[Chunk]) -> None:
        pass

    def acked(self, partition: int) -> int:
        return self.newest


class Reader:
    """A worker that reads topics at different speeds, some of them not at all for a while."""

    def __init__(self, given: Given, *, definitions: Definitions | None = None) -> None:
        self.definitions = definitions or Definitions()
        self.sink = RowSink(Run(self.definitions))
        self.clock = HandClock(T0)
        self.rates = {Topic.ASSIGNMENTS: 1_000, Topic.IMPRESSIONS: 100, Topic.INTERACTIONS: 4}
        self.stalled: set[Topic] = set()
        self.waits = 0
        self._given = given
        self._store = DictStore()
        self.start()

    def start(self) -> None:
        """As a new process would: from snapshot and journal."""
        around = Surroundings(
            self._store, Engines(key=KEY, partitions=1), Readings(1), self.sink, self.clock.clock
        )
        owner = Owner(f"w{self.clock.ms}", 1, self.definitions)
        self.partition = Partition(0, "g000001/p00000", owner, around, PACE)
        self.partition.recover()
        offsets = self.partition.offsets or (0, 0, 0)
        self.partition.start(offsets)
        self._next = dict(zip(Topic, offsets, strict=True))
        self._heard: dict[Topic, tuple[int, int]] = {}  # end, when

    def round(self) -> Done | Pause:
        """A quarter of a second."""
        self.clock.ms += 250
        for topic in Topic:
            if topic not in self.stalled:
                self._fetch(topic)
            end, heard_ms = self._heard.get(topic, (0, 0))
            self.partition.observe(topic, end if self.clock.ms - heard_ms <= RECENT_MS else None)
        result = self.partition.advance()
        self.waits += result is Pause.WAITING_FOR_RECORDS
        return result

    def _fetch(self, topic: Topic) -> None:
        arrivals = self._given[topic]
        end = bisect_right(arrivals, self.clock.ms, key=lambda arrival: arrival[1])
        first = self._next[topic]
        last = min(end, first + self.rates[topic], first + self.partition.room(topic))
        if last > first:
            batch = a_batch(topic, arrivals[first:last], first)
            self.partition.offer(topic, batch, last, Reading.of(PROGRAMS[topic], 1))
            self._next[topic] = last
        self._heard[topic] = end, self.clock.ms

    def go_on(self, until: Callable[[], bool], rounds: int = 2_000) -> None:
        for _ in range(rounds):
            self.round()
            if until():
                return
        raise AssertionError("it does not come to an end")

    def has_read(self, upto_ms: int | None = None) -> bool:
        """All that had arrived by then."""
        offsets = self.partition.offsets or (0, 0, 0)
        upto = self.clock.ms if upto_ms is None else upto_ms
        return all(
            offset >= bisect_right(self._given[topic], upto, key=lambda arrival: arrival[1])
            for topic, offset in zip(Topic, offsets, strict=True)
        )

    def is_exact(self) -> bool:
        """Nothing was late, and all totals and panes are those of one step over everything."""
        oracle = Oracle(self.definitions)
        oracle_step(oracle, self._given, self.clock.ms, (True, True, True))
        run = self.sink.run
        assert {topic: run.outcomes(topic)["late"] for topic in Topic} == dict.fromkeys(Topic, 0)
        assert_equal(run, oracle)
        return True

    @property
    def clock_ms(self) -> int:
        return int(self.partition.machine.clock_ms)  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", range(3))
def test_a_week_of_three_topics_at_different_speeds_is_read_without_making_anything_late(seed: int) -> None:
    draw = random.Random(seed)
    reading = Reader(traffic(seed))
    reading.clock.ms = T0 + 9 * DAY
    for rounds in range(2_000):
        if rounds % 9 == 0:
            reading.stalled = {topic for topic in Topic if draw.random() < 0.4}
        if rounds % 23 == 22:
            reading.start()
        reading.round()
        if reading.has_read():
            break
    assert reading.waits
    assert reading.is_exact()


@pytest.mark.parametrize("silent", list(Topic))
def test_nothing_is_late_when_the_topics_come_back_one_by_one_after_days(silent: Topic) -> None:
    reading = Reader(traffic(5))
    reading.clock.ms = T0 + 2 * DAY
    reading.go_on(reading.has_read)
    reading.clock.ms += 4 * DAY  # the broker could not be reached, or the machine slept
    reading.stalled = {silent}  # now all but one can
    for _ in range(60):
        reading.round()
    reading.stalled = set()
    reading.clock.ms = T0 + 9 * DAY
    reading.go_on(reading.has_read)
    assert reading.is_exact()


def test_a_topic_that_cannot_be_read_holds_the_clock_but_not_the_counting() -> None:
    given = traffic(6)
    reading = Reader(given)
    reading.clock.ms = T0 + 9 * DAY
    reading.stalled = {Topic.INTERACTIONS}
    reading.go_on(
        lambda: (
            reading.partition.offsets is not None
            and reading.partition.offsets[1] == len(given[Topic.IMPRESSIONS])
        )
    )
    assert reading.clock_ms == -1
    reading.stalled = set()
    reading.go_on(reading.has_read)
    assert reading.is_exact()
    assert reading.clock_ms == max(event["at"] for arrivals in given.values() for event, _ in arrivals)


@pytest.mark.parametrize("empty", list(Topic))
def test_a_topic_without_events_for_hours_neither_holds_the_clock_nor_lets_it_run_ahead(empty: Topic) -> None:
    given = traffic(7, days=2)
    given[empty] = [arrival for arrival in given[empty] if arrival[1] > T0 + DAY]
    shown = {event["impression_id"] for event, _ in given[Topic.IMPRESSIONS]}
    given[Topic.INTERACTIONS] = [a for a in given[Topic.INTERACTIONS] if a[0]["impression_id"] in shown]
    reading = Reader(given)
    reading.clock.ms = T0 + DAY
    reading.go_on(reading.has_read)
    read = [event["at"] for arrivals in given.values() for event, at in arrivals if at <= reading.clock.ms]
    assert reading.clock_ms == max(read)
    reading.clock.ms = T0 + 4 * DAY
    reading.go_on(reading.has_read)
    assert reading.is_exact()


def test_a_partition_without_events_for_days_goes_on_where_it_stood() -> None:
    given = {
        topic: [a for a in arrivals if a[1] <= T0 + DAY or a[1] > T0 + 5 * DAY]
        for topic, arrivals in traffic(8).items()
    }
    reading = Reader(given)
    reading.clock.ms = T0 + DAY
    reading.go_on(reading.has_read)
    stood_at = reading.clock_ms
    reading.clock.ms = T0 + 5 * DAY
    for _ in range(40):
        reading.round()
    assert reading.clock_ms == stood_at
    reading.clock.ms = T0 + 9 * DAY
    reading.go_on(reading.has_read)
    assert reading.clock_ms > stood_at


def test_panes_are_reopened_days_later_while_the_lateness_allows_it() -> None:
    given = traffic(9, days=6)
    again = [
        (an_impression(f"r{i}", event["at"], event["user_id"], item_id=f"y{i}"), T0 + 6 * DAY + i * MINUTE)
        for i, (event, _) in enumerate(given[Topic.IMPRESSIONS][:100])
    ]
    given[Topic.IMPRESSIONS] = sorted(given[Topic.IMPRESSIONS] + again, key=lambda arrival: arrival[1])
    reading = Reader(given, definitions=Definitions(allowed_lateness_ms=7 * DAY))
    for day in range(1, 9):
        reading.clock.ms = T0 + day * DAY
        reading.go_on(reading.has_read)
    reading.is_exact()
    assert len({key[:-1] for key in reading.sink.run.rows["panes"]}) < len(reading.sink.run.rows["panes"])


def test_at_the_memory_limit_a_topic_that_comes_back_is_read_until_the_clock_has_caught_up() -> None:
    reading = Reader(traffic(10))
    reading.clock.ms = T0 + 9 * DAY
    reading.stalled = {Topic.INTERACTIONS}
    reading.go_on(lambda: reading.partition.step == 3)
    reading.partition.memory_limit = 1
    assert reading.round() is Pause.MEMORY_LIMIT
    reading.stalled = set()
    reading.go_on(lambda: reading.round() is Pause.MEMORY_LIMIT)
    reached = reading.partition.machine.newest_ms
    assert reached[Topic.INTERACTIONS] > 0
    assert max(reached) - reading.clock_ms < 12 * HOUR
    reading.partition.memory_limit = 1 << 40
    reading.go_on(reading.has_read)
    assert reading.is_exact()
