import asyncio
import math
from collections import Counter
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from faust.types import TP

from stream.app import held as held_module
from stream.app import worker as worker_module
from stream.app.breaker import Breaker, Rule
from stream.app.held import LEAST_SECONDS, MOST_SECONDS, Held, interval_seconds
from stream.app.worker import Worker
from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.durability.partition import Partition, Pause
from stream.durability.snapshot import Snapshots
from stream.durability.surroundings import Owner, Surroundings
from stream.errors import ConfigurationError, DamagedStore, Unavailable
from tests.app.fakes import NAMES, MemoryConsumer, MemoryDecoder
from tests.durability.fakes import (
    ENGINE_VERSION,
    CountingMachines,
    Database,
    DictStore,
    Doom,
    FakeReadings,
    HandClock,
    OutboxSink,
    Record,
)  # fmt: skip
from tests.durability.process import a_log

PARTITIONS = 2


def a_topic_log(rows: int = 30) -> dict[TP, list[Record]]:
    logs = {number: a_log(number, rows=(rows, rows, rows)) for number in range(PARTITIONS)}
    return {TP(NAMES[topic], number): log[topic] for number, log in logs.items() for topic in Topic}


class UnreliableStore(DictStore):
    """Does not answer while `is_away`."""

    is_away = False

    def create(self, path: str, data: bytes) -> bool:
        if self.is_away:
            raise Unavailable("The checkpoint store does not answer.")
        return super().create(path, data)


@dataclass
class Scene:
    """A worker with everything around it in memory."""

    log: dict[TP, list[Record]] = field(default_factory=a_topic_log)
    store: UnreliableStore = field(default_factory=UnreliableStore)
    database: Database = field(default_factory=Database)
    failures: int = 0
    rows_per_second: float = math.inf

    def __post_init__(self) -> None:
        self.consumer = MemoryConsumer(self.log)
        self.sink = OutboxSink(self.database, Doom())
        around = Surroundings(self.store, CountingMachines(), FakeReadings(), self.sink, HandClock().clock)
        owner = Owner("me", ENGINE_VERSION, Definitions())
        self.worker = Worker(
            NAMES,
            partition_of=lambda number: Partition(number, f"g000001/p{number:05d}", owner, around),
            decoder=MemoryDecoder(),
            breaker_of=lambda number: Breaker(number, Rule(1_000, 0.5)),
            partitions=PARTITIONS,
            memory_limit=1 << 30,
            stays_in_group=False,
            on_failure=self._count_failure,
            rows_per_second=self.rows_per_second,
        )

    def _count_failure(self) -> None:
        self.failures += 1

    def tps(self, *numbers: int) -> set[TP]:
        return {tp for tp in self.log if tp.partition in (numbers or range(PARTITIONS))}

    async def round(self) -> None:
        """One that finds every partition due."""
        for held in self.held:
            held.stepped_at -= held.interval_seconds
        await self.worker.round(self.consumer)

    async def assign(self, *numbers: int) -> None:
        await self.worker.seek_all(self.consumer, self.tps(*numbers))
        await self.round()

    def fetch(self, limit: int = 10, lose: int = -1) -> int:
        """Hand over one fetch of every wanted topic-partition except the one in place `lose`; how many there were."""
        fetched = [self.consumer.fetch(tp, limit) for tp in sorted(self.worker.wanted(self.tps()))]
        arrived = [item for item in fetched if item is not None]
        for place, item in enumerate(arrived):
            if place != lose:
                self.worker.accept(item)
        return len(arrived)

    async def run(self, lose: int = -1) -> None:
        """Until nothing more is fetched."""
        while self.fetch(lose=lose) or any(feed.has_lost for held in self.held for feed in held.feeds):
            await self.round()
            lose = -1
        self.sink.flush()

    @property
    def held(self) -> list[Held]:
        return list(self.worker.held.values())

    def expected(self) -> Counter[str]:
        return Counter(record.key for records in self.log.values() for record in records)

    def counted(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for (_, key), (_, value) in self.database.rows.items():
            if key != "chain":
                total[key] += value  # type: ignore[assignment]
        return total


def test_a_partition_that_has_not_enough_waits_while_another_one_steps() -> None:
    async def scene() -> None:
        s = Scene()
        await s.assign()
        s.fetch()
        await s.round()
        taken = [held.partition.step for held in s.held]
        s.fetch()
        await s.worker.round(s.consumer)
        assert [held.partition.step for held in s.held] == taken
        await s.round()
        assert all(held.partition.step > step for held, step in zip(s.held, taken, strict=True))

    play(scene())


@pytest.mark.parametrize(
    ("rows_made", "seconds"), [(0, LEAST_SECONDS), (50, LEAST_SECONDS), (320, 3.2), (10**6, MOST_SECONDS)]
)
def test_many_rows_make_steps_longer_and_few_do_not(rows_made: int, seconds: float) -> None:
    assert interval_seconds(rows_made, 100) == seconds
    assert interval_seconds(rows_made, math.inf) == LEAST_SECONDS


def test_a_partition_whose_steps_make_many_rows_takes_longer_ones_and_counts_the_same() -> None:
    async def scene() -> None:
        s = Scene(rows_per_second=10)
        await s.assign()
        assert [held.rows_per_second for held in s.held] == [2, 2]  # two fifths of it, shared
        s.fetch()
        await s.round()
        # The first step had to catch up.
        assert [held.interval_seconds for held in s.held] == [LEAST_SECONDS] * 2
        s.fetch()
        await s.round()
        assert all(2.5 < held.interval_seconds <= MOST_SECONDS for held in s.held)
        steps = [held.partition.step for held in s.held]
        s.fetch()
        for held in s.held:
            held.stepped_at -= 2 * LEAST_SECONDS
        await s.worker.round(s.consumer)
        assert [held.partition.step for held in s.held] == steps
        await s.round()
        await s.run()
        assert s.counted() == s.expected()

    play(scene())


def test_whoever_has_enough_does_not_wait_for_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        s = Scene(rows_per_second=10)
        await s.assign()
        for _ in range(2):
            s.fetch()
            await s.round()
        monkeypatch.setattr("stream.app.held.ENOUGH_ROWS", 5)
        steps = [held.partition.step for held in s.held]
        s.fetch()
        await s.worker.round(s.consumer)
        assert all(held.partition.step > step for held, step in zip(s.held, steps, strict=True))

    play(scene())


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scene)


def test_everything_that_is_fetched_is_counted_once() -> None:
    async def scene() -> None:
        s = Scene()
        await s.assign()
        await s.run()
        assert s.counted() == s.expected()
        assert s.worker.failure is None
        assert s.worker.offsets() == {tp: records[-1].offset + 1 for tp, records in s.log.items()}

    play(scene())


@pytest.mark.parametrize("lose", range(6))
def test_a_fetch_that_is_lost_on_the_way_is_fetched_again(lose: int) -> None:
    async def scene() -> None:
        s = Scene()
        await s.assign()
        await s.run(lose=lose)
        assert s.counted() == s.expected()
        assert s.worker.counters.lost_fetches == 1

    play(scene())


def test_nothing_is_taken_before_the_state_is_loaded_or_after_it_went_to_another_worker() -> None:
    async def scene() -> None:
        s = Scene()
        assert s.worker.wanted(s.tps()) == set()
        await s.worker.seek_all(s.consumer, s.tps())
        assert s.worker.wanted(s.tps()) == set()
        await s.round()
        assert s.worker.wanted(s.tps()) == s.tps()
        await s.assign(1)
        assert s.worker.wanted(s.tps()) == s.tps(1)
        await s.round()
        assert s.worker.wanted(s.tps()) == s.tps(1)

    play(scene())


def test_a_topic_whose_end_was_not_heard_lately_is_not_caught_up() -> None:
    async def scene() -> None:
        s = Scene()
        await s.assign(0)
        await s.run()
        away = TP(NAMES[Topic.INTERACTIONS], 0)
        s.consumer.unheard = {away}
        for tp, records in s.log.items():
            last = records[-1]
            records.append(Record(last.offset + 1, last.at_ms + 1, "more"))
            assert tp == away or tp.partition or s.worker.accept(s.consumer.fetch(tp)) is None
        await s.round()
        assert s.held[0].pause is Pause.WAITING_FOR_RECORDS
        s.consumer.unheard = set()
        await s.run()
        assert s.held[0].partition.lag == 0

    play(scene())


def test_what_was_fetched_before_a_new_assignment_is_not_counted_twice() -> None:
    async def scene() -> None:
        s = Scene()
        await s.assign()
        s.fetch()
        early = s.consumer.fetch(sorted(s.tps())[0])
        await s.assign()
        assert early is not None
        s.worker.accept(early)
        await s.run()
        assert s.counted() == s.expected()

    play(scene())


def test_a_partition_that_stays_keeps_its_state_and_one_that_leaves_is_forgotten() -> None:
    async def scene() -> None:
        s = Scene()
        await s.assign()
        await s.run()
        kept = s.worker.held[1].partition.machine
        await s.assign(1)
        assert list(s.worker.held) == [1]
        assert s.worker.held[1].partition.machine is kept
        assert s.worker.held[1].partition.memory_limit == 1 << 30

    play(scene())


def test_a_partition_that_stays_neither_stops_nor_loads_nor_forgets_its_queue() -> None:
    async def scene() -> None:
        s = Scene()
        await s.assign()
        s.fetch()
        queued = [held.rows for held in s.held]
        s.store.is_away = True
        await s.worker.seek_all(s.consumer, s.tps())
        assert [held.rows for held in s.held] == queued
        assert all(held.is_running for held in s.held)
        s.store.is_away = False
        await s.run()
        assert s.counted() == s.expected()
        assert s.worker.counters.takeovers == PARTITIONS

    play(scene())


def test_what_arrives_while_a_rebalance_seeks_is_not_counted_twice() -> None:
    async def scene() -> None:
        s = Scene()
        await s.assign()
        seek = s.consumer.seek_stamped

        async def seek_slowly(positions: Mapping[TP, int]) -> Mapping[TP, int]:
            s.fetch(limit=3)
            return await seek(positions)

        s.consumer.seek_stamped = seek_slowly  # type: ignore[method-assign]
        await s.worker.seek_all(s.consumer, s.tps())
        s.consumer.seek_stamped = seek  # type: ignore[method-assign]
        await s.run()
        assert s.counted() == s.expected()

    play(scene())


def test_the_first_records_after_a_takeover_wake_the_rounds_at_once() -> None:
    async def scene() -> None:
        s = Scene()
        await s.assign()
        await s.round()
        s.fetch(limit=1)
        await asyncio.wait_for(s.worker.wait(60), 5)
        await s.round()
        s.fetch(limit=1)
        waiting = asyncio.create_task(s.worker.wait(60))
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()

    play(scene())


def test_a_worker_that_loses_all_its_partitions_takes_no_further_step() -> None:
    async def scene() -> None:
        s = Scene()
        await s.assign()
        s.fetch()
        s.worker.keep_only(set())
        await s.round()
        assert s.held == []
        assert s.worker.counters.steps == 0

    play(scene())


def test_partitions_that_were_added_are_refused() -> None:
    async def scene() -> None:
        s = Scene()
        s.consumer.counts = {NAMES[topic]: PARTITIONS for topic in Topic} | {NAMES[Topic.IMPRESSIONS]: 3}
        await s.assign()
        assert isinstance(s.worker.failure, ConfigurationError)
        assert "counts 2 partitions of each input topic, but rec.impressions has 3" in str(s.worker.failure)
        assert s.worker.wanted(s.tps()) == set()

    play(scene())


def test_an_assignment_without_one_of_the_topics_is_refused() -> None:
    async def scene() -> None:
        s = Scene()
        tps = s.tps() - {TP(NAMES[Topic.INTERACTIONS], 1)}
        await s.worker.seek_all(s.consumer, tps)
        assert isinstance(s.worker.failure, ConfigurationError)
        assert "rec.interactions-1" in str(s.worker.failure)
        assert s.failures == 1

    play(scene())


def test_a_state_older_than_the_log_is_refused() -> None:
    async def scene() -> None:
        s = Scene()
        await s.assign()
        await s.run()
        later = Scene(log=s.log, store=s.store)
        later.consumer.begins = dict.fromkeys(s.tps(), 1000)
        await later.assign()
        assert isinstance(later.worker.failure, DamagedStore)
        assert "Kafka has deleted records" in str(later.worker.failure)

    play(scene())


def test_a_store_that_is_away_is_tried_again_and_said() -> None:
    async def scene() -> None:
        s = Scene()
        await s.assign()
        s.store.is_away = True
        s.fetch()
        await s.round()
        assert s.worker.trouble == "The checkpoint store does not answer."
        s.store.is_away = False
        await s.run()
        assert s.counted() == s.expected()
        assert s.worker.trouble is None

    play(scene())


def test_a_fault_of_our_own_ends_the_worker_and_keeps_the_first_reason() -> None:
    async def scene() -> None:
        s = Scene()
        await s.assign()
        s.sink.put = None  # type: ignore[assignment, method-assign]
        s.fetch()
        await s.round()
        s.worker.fetch_failed(Unavailable("later"))
        assert isinstance(s.worker.failure, TypeError)
        assert s.failures == 1

    play(scene())


def test_a_clean_end_leaves_snapshots_of_everything() -> None:
    async def scene() -> None:
        s = Scene()
        await s.assign()
        await s.run()

        async def flush() -> None:
            s.sink.flush()

        await s.worker.close(flush)
        steps = [held.partition.step for held in s.held]
        folders = [f"g000001/p{number:05d}" for number in range(PARTITIONS)]
        assert [Snapshots(s.store, folder).newest_step() for folder in folders] == steps
        again = Scene(log=s.log, store=s.store, database=s.database)
        await again.assign()
        await again.run()
        assert again.worker.counters.replayed_steps == 0
        assert again.counted() == s.expected()

    play(scene())


def test_a_last_flush_that_hangs_keeps_no_snapshot_of_what_was_acknowledged_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "STOP_SECONDS", 0.05)

    async def scene() -> None:
        s = Scene()
        await s.assign()
        await s.run()

        async def hang() -> None:
            s.sink.flush()
            await asyncio.Event().wait()

        await asyncio.wait_for(s.worker.close(hang), 60)
        assert all(s.store.names(f"g000001/p{number:05d}/snapshot") for number in range(PARTITIONS))

    play(scene())


@pytest.mark.parametrize("limit", ["records", "bytes"])
def test_enough_records_or_a_full_queue_wake_the_rounds_early(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        s = Scene()
        await s.assign()
        s.fetch(limit=1)
        await s.round()
        if limit == "records":
            monkeypatch.setattr(held_module, "ENOUGH_ROWS", 10)
        else:
            for held in s.held:
                held.feeds[0].max_bytes = 1
        s.fetch(limit=10)
        await asyncio.wait_for(s.worker.wait(60), 5)

    play(scene())


def test_turns_begin_a_step_apart_or_as_far_as_their_rows_ask_for() -> None:
    async def scene() -> None:
        s = Scene(rows_per_second=1_000)
        await s.assign()
        s.fetch()
        await s.round()
        held = s.held[0]
        assert held.turned_at <= held.stepped_at
        assert held.next_at(1.0) == held.turned_at + 1.0
        held._rows_made = 10**6
        assert held.next_at(1.0) == held.stepped_at + MOST_SECONDS

    play(scene())


def test_a_held_partition_has_a_breaker_of_its_own() -> None:
    async def scene() -> None:
        s = Scene()
        await s.assign()
        breakers = [held.breaker for held in s.held]
        assert all(isinstance(breaker, Breaker) for breaker in breakers)
        assert len(set(map(id, breakers))) == PARTITIONS

    play(scene())
