import asyncio
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from faust.types import TP

from stream.app.breaker import Breaker, Rule
from stream.app.ends import Ends
from stream.app.health import Health, Patience
from stream.app.pages import WRITE_SECONDS, Diary
from stream.contracts.topics import Topic
from stream.durability.partition import Pause
from tests.app.fakes import NAMES
from tests.app.test_worker import Scene


@dataclass
class QuietWriter:
    """As much of a Writer as health asks for."""

    unavailable_since: float | None = None
    trouble: str | None = None
    waiting_rows: int = 0
    held_back_seconds: float = 0.0
    rows_per_second: float = 50_000


@dataclass
class HandClock:
    """Seconds that the test moves."""

    seconds: float = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Judged(Scene):
    """A scene with its health; `clock` is both clocks of the health."""

    clock: HandClock = field(default_factory=HandClock)
    writer: QuietWriter = field(default_factory=QuietWriter)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ends = Ends(self.clock)
        self.health = Health(
            self.worker, self.writer, self.ends, NAMES, Patience(stalled=300, behind=60, silent=600),  # type: ignore[arg-type]
            uptime=self.clock, now=self.clock,
        )  # fmt: skip
        self.worker._uptime = self.clock

    async def hear_ends(self) -> None:
        async def ask(tps: Any) -> Mapping[TP, int]:
            return {tp: self.consumer.highwater(tp) or 0 for tp in tps}

        await self.ends.ask(ask, self.worker.feeds().keys())

    async def settle(self) -> None:
        """Everything counted, and the ends known."""
        await self.assign()
        await self.run()
        await self.hear_ends()
        self.health.beat()
        for held in self.held:
            held.newest_record_ms = int(self.clock() * 1000)


async def silent_broker(_: Any) -> Mapping[TP, int]:
    raise KafkaError("no answer")


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scene)


def test_a_worker_that_has_counted_everything_is_ready() -> None:
    async def scene() -> None:
        s = Judged()
        assert s.health.reasons() == ["No partitions are assigned yet."]
        await s.worker.seek_all(s.consumer, s.tps())
        assert s.health.reasons() == ["Partition 0 is being loaded.", "Partition 1 is being loaded."]
        await s.settle()
        assert s.health.reasons() == []
        assert s.health.warnings() == []
        assert s.health.stalls() == []

    play(scene())


def test_a_broker_that_does_not_answer_is_said_after_a_moment(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        s = Judged()
        await s.settle()
        await s.ends.ask(silent_broker, s.worker.feeds().keys())
        assert s.health.reasons() == []
        s.clock.seconds += 11
        await s.ends.ask(silent_broker, s.worker.feeds().keys())
        s.health.beat()
        assert s.health.reasons() == ["The broker has not answered for 11 s."]
        assert s.health.unavailable()["broker"] == 11
        await s.hear_ends()
        assert s.health.reasons() == []

    play(scene())
    assert [record.message.partition(" after")[0] for record in caplog.records[-2:]] == [
        "The broker does not answer and will be asked again: KafkaError('no answer')",
        "The broker answers again",
    ]


def test_more_rows_than_clickhouse_may_get_are_a_warning_after_a_while() -> None:
    async def scene() -> None:
        s = Judged()
        await s.settle()
        s.writer.held_back_seconds, s.writer.waiting_rows = 59.0, 123_456
        assert s.health.warnings() == []
        s.writer.held_back_seconds = 180.0
        assert s.health.warnings() == [
            "ClickHouse would get more than rows_per_second = 50,000 for 3 min; 123,456 rows wait: raise it if "
            "ClickHouse carries more, start more workers, or count fewer slice_dimensions."
        ]
        assert s.health.reasons() == []

    play(scene())


def test_services_that_are_away_are_named() -> None:
    async def scene() -> None:
        s = Judged()
        await s.settle()
        s.writer.unavailable_since, s.writer.trouble, s.writer.waiting_rows = 990.0, "refused", 1_234
        assert s.health.reasons() == ["ClickHouse cannot be written to for 10 s (refused); 1,234 rows wait."]
        s.writer.unavailable_since = None
        s.store.is_away = True
        for log in s.log.values():
            log.append(replace(log[-1], offset=log[-1].offset + 1))
        s.fetch()
        await s.round()
        assert s.health.reasons()[0] == "The checkpoint store does not answer."
        s.clock.seconds += 7
        assert s.health.unavailable() == {"broker": 0.0, "clickhouse": 0.0, "store": 7.0}

    play(scene())


def test_pauses_and_a_tripped_breaker_are_said_with_what_to_do() -> None:
    async def scene() -> None:
        s = Judged()
        await s.settle()
        first, second = s.held
        first.pause = Pause.SINK_IS_FULL
        second.pause = Pause.MEMORY_LIMIT
        second.breaker = Breaker(1, Rule(10, 0.5))
        second.breaker.see(10, 9, "must not be empty")
        sink, memory, breaker = s.health.reasons()
        assert sink.startswith("Partition 0 pauses: what waits for ClickHouse or Kafka")
        assert "raise memory_limit" in memory
        assert "9 of the last 10 events of partition 1 were rejected" in breaker

    play(scene())


def test_at_its_memory_limit_a_worker_pauses_and_says_so_until_the_limit_is_raised() -> None:
    async def scene() -> None:
        s = Judged()
        s.worker.memory_limit = 2
        await s.assign()
        s.fetch()
        await s.round()
        assert {held.pause for held in s.held} == {Pause.MEMORY_LIMIT}
        assert s.health.reasons() == [
            f"Partition {n} pauses: its state is 100 bytes and may be 1: raise memory_limit, or start more workers. "
            "Nothing is dropped." for n in (0, 1)
        ]  # fmt: skip
        assert s.counted() == {}
        s.worker.memory_limit = 1_000
        await s.settle()
        assert s.health.reasons() == []
        assert s.counted() == s.expected()

    play(scene())


def test_a_worker_that_lags_is_unready_once_its_newest_record_is_old() -> None:
    async def scene() -> None:
        s = Judged()
        await s.assign()
        s.fetch()
        await s.round()
        await s.hear_ends()
        s.health.beat()
        for held in s.held:
            held.newest_record_ms = int(s.clock() * 1000)
        assert s.health.reasons() == []
        assert set(s.health.lags()) == s.tps()
        s.clock.seconds += 61
        s.health.beat()
        lags = [sum(lag for tp, lag in s.health.lags().items() if tp.partition == n) for n in (0, 1)]
        assert min(lags) > 0
        assert s.health.reasons() == [
            f"Partition {n} is behind: its newest counted record is 61 s old and {lag} wait."
            for n, lag in enumerate(lags)
        ]

    play(scene())


def test_a_partition_with_records_and_no_step_is_stalled_unless_it_has_an_excuse() -> None:
    async def scene() -> None:
        s = Judged()
        await s.assign()
        s.fetch()
        s.clock.seconds += 200
        s.health.beat()
        said = [f"partition {n} has records and has taken no step for 200 s" for n in (0, 1)]
        assert s.health.stalls() == said
        assert s.health.stalls(share=1.0) == []
        assert s.health.reasons()[:1] == [f"Stalled: {said[0]}."]
        assert s.health.stalled_seconds() == 200
        s.held[0].pause = Pause.SINK_IS_FULL
        assert s.health.stalls() == said[1:]
        s.worker.trouble = "The checkpoint store does not answer."
        assert s.health.stalls() == []

    play(scene())


def test_work_that_never_ends_and_a_loop_that_stands_still_are_stalls() -> None:
    async def scene() -> None:
        s = Judged()
        await s.settle()
        s.worker.busy_since = s.clock()
        s.clock.seconds += 301
        assert s.health.stalls(share=1.0) == [
            "the event loop has stood still for 301 s",
            "a step, or the loading of a partition, has not come to an end for 301 s",
        ]

    play(scene())


def test_fetching_that_stands_still_is_a_stall() -> None:
    async def scene() -> None:
        s = Judged()
        await s.assign()
        await s.hear_ends()
        s.health.beat()
        s.clock.seconds += 200
        s.health.beat()
        assert len(s.health.stalls()) == 6
        assert (
            "nothing has been fetched of rec.assignments partition 0, which has more for 200 s"
            in s.health.stalls()
        )
        s.fetch()
        s.health.beat()
        s.held[0].stepped_at = s.held[1].stepped_at = s.clock()
        assert s.health.stalls() == []

    play(scene())


def test_a_topic_that_had_records_and_has_none_is_a_warning_and_no_reason() -> None:
    async def scene() -> None:
        s = Judged()
        await s.settle()
        at_ms = int(s.clock() * 1000)
        s.worker.arrived_ms = {Topic.ASSIGNMENTS: at_ms, Topic.IMPRESSIONS: at_ms + 300_000}
        s.clock.seconds += 660
        s.health.beat()
        assert s.health.warnings() == [
            "No records of rec.assignments for 11 min, though all that came is counted: does its producer run?"
        ]
        assert s.health.reasons() == []
        s.log[TP(NAMES[Topic.ASSIGNMENTS], 0)].append(s.log[TP(NAMES[Topic.ASSIGNMENTS], 0)][-1])
        s.ends.by_tp[TP(NAMES[Topic.ASSIGNMENTS], 0)] += 1  # it has some: then it is we who are late
        assert s.health.warnings() == []

    play(scene())


def test_the_silence_of_a_topic_outlives_a_restart() -> None:
    async def scene() -> None:
        s = Judged()
        s.health.remember_arrivals({Topic.IMPRESSIONS: int(s.clock() * 1000) - 3_600_000})
        await s.assign()
        assert s.health.warnings() == []  # there is something to be counted
        s.worker.arrived_ms = {}
        s.health.remember_arrivals({Topic.INTERACTIONS: int(s.clock() * 1000) - 3_600_000})
        await s.settle()
        assert set(s.worker.arrived_ms) == set(Topic)

    play(scene())


@dataclass
class Table:
    rows: list[Mapping[str, Any]] = field(default_factory=list)

    def put_rows(self, table: str, columns: Mapping[str, Any], *, generation: int, version: Any) -> None:
        assert (table, generation) == ("workers", 7)
        self.rows.append({name: value for name, (value,) in columns.items()})


def test_the_diary_logs_changes_and_writes_them_at_once_and_the_rest_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        s, table = Judged(), Table()
        diary = Diary(s.health, table, worker="me", generation=7, now=s.clock)
        diary.keep()
        await s.settle()
        diary.keep()
        diary.keep()
        assert [(row["is_ready"], row["reasons"]) for row in table.rows] == [
            (0, "No partitions are assigned yet."), (1, ""),
        ]  # fmt: skip
        s.clock.seconds += WRITE_SECONDS
        s.health.beat()
        diary.keep()
        assert len(table.rows) == 3
        assert table.rows[-1]["impressions_at_ms"] == s.worker.arrived_ms[Topic.IMPRESSIONS]

    with caplog.at_level(logging.INFO, logger="stream.app.pages"):
        play(scene())
    assert [r.message for r in caplog.records if r.name == "stream.app.pages"] == [
        "Not ready: No partitions are assigned yet.", "Ready.",
    ]  # fmt: skip
