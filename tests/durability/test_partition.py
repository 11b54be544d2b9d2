from dataclasses import replace

import pytest

from stream.contracts.definitions import Definitions, Experiment, Policy
from stream.contracts.topics import Topic
from stream.durability.manifest import Snapshot
from stream.durability.partition import Done, Pause
from stream.durability.snapshot import Snapshots
from stream.errors import ConfigurationError, DamagedStore, Unavailable
from tests.durability.fakes import (
    ENGINE_VERSION,
    Database,
    DictStore,
    FakeReading,
    HandClock,
    Record,
    a_batch,
)
from tests.durability.process import SMALL, Log, Process, a_log

STEPS = "g000001/p00003/step"


def a_process(log: Log | None = None, store: DictStore | None = None, **others: object) -> Process:
    options = {"clock": HandClock(), **others}
    return Process(log or a_log(), store or DictStore(), Database(), **options)  # type: ignore[arg-type]


def fetch_all(process: Process) -> None:
    for topic in Topic:
        process.fetch(topic, limit=1_000)


def started(process: Process) -> Process:
    process.start()
    return process


def test_nothing_queued_takes_and_journals_no_step() -> None:
    store = DictStore()
    process = started(a_process(store=store))
    assert process.partition.advance() is Pause.NOTHING_QUEUED
    assert store.objects == {}


def test_a_step_holds_at_most_the_rows_that_are_set() -> None:
    process = started(a_process())
    fetch_all(process)
    done = process.partition.advance()
    assert isinstance(done, Done)
    assert done.outputs.rows == SMALL.max_rows == sum(taken.rows for taken in done.entry.ranges)


def test_the_entry_says_which_topics_are_caught_up() -> None:
    process = started(a_process(pace=replace(SMALL, max_rows=45)))
    fetch_all(process)
    entries = []
    while isinstance(done := process.partition.advance(), Done):
        entries.append(done.entry)
    assert entries[0].caught_up == (False, False, False)
    assert entries[-1].caught_up == (True, True, True)


def test_a_topic_whose_end_is_unknown_is_not_caught_up() -> None:
    process = started(
        a_process({Topic.ASSIGNMENTS: [Record(0, 5, "a")], Topic.IMPRESSIONS: [], Topic.INTERACTIONS: []})
    )
    process.fetch(Topic.ASSIGNMENTS, limit=1)
    process.clock.ms += 1
    assert process.partition.advance() is Pause.WAITING_FOR_RECORDS
    process.clock.ms += SMALL.patience_ms
    done = process.partition.advance()
    assert isinstance(done, Done)
    assert done.entry.caught_up == (True, False, False)


def test_no_topic_runs_ahead_of_one_that_lies_behind() -> None:
    process = started(a_process(pace=replace(SMALL, max_rows=1_000)))
    process.fetch(Topic.ASSIGNMENTS, limit=1_000)
    process.fetch(Topic.IMPRESSIONS, limit=1_000)
    process.fetch(Topic.INTERACTIONS, limit=3)
    read_until_ms = max(record.at_ms for record in process.log[Topic.INTERACTIONS][:3])
    done = process.partition.advance()
    assert isinstance(done, Done)
    machine = process.partition.machine
    assert max(machine.newest_ms) == read_until_ms


def test_a_full_sink_stops_planning_but_loses_nothing() -> None:
    process = started(a_process())
    process.sink.room = 2
    fetch_all(process)
    assert isinstance(process.partition.advance(), Done)
    assert isinstance(process.partition.advance(), Done)
    assert process.partition.advance() is Pause.SINK_IS_FULL
    process.sink.flush()
    assert isinstance(process.partition.advance(), Done)


def test_at_the_memory_limit_it_pauses_and_says_so() -> None:
    process = started(a_process())
    process.partition.memory_limit = 100
    fetch_all(process)
    assert process.partition.advance() is Pause.MEMORY_LIMIT


def test_a_snapshot_waits_for_the_acknowledgement_of_its_step() -> None:
    store = DictStore()
    process = started(a_process(store=store))
    fetch_all(process)
    process.partition.advance()
    process.partition.capture()
    assert not process.partition.publish_when_acked()
    assert store.names("g000001/p00003/snapshot") == []
    process.sink.flush()
    assert process.partition.publish_when_acked()
    assert len(store.names("g000001/p00003/snapshot")) == 1


def test_a_snapshot_whose_publication_was_not_answered_keeps_its_data() -> None:
    store = DictStore()
    process = started(a_process(store=store))
    fetch_all(process)
    process.partition.advance()
    process.partition.capture()
    process.sink.flush()
    snapshots = process.partition._snapshots
    publish = snapshots.publish

    def publish_without_an_answer(snapshot: Snapshot) -> None:
        publish(snapshot)
        raise Unavailable("no answer")

    snapshots.publish = publish_without_an_answer  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        process.partition.publish_when_acked()
    process.partition._fall_behind()
    assert Snapshots(store, "g000001/p00003").newest() is not None


def test_live_partials_are_published_again_at_takeover_and_with_each_snapshot() -> None:
    store = DictStore()
    first = a_process(store=store).run()
    assert first.sink.republished[-1].step == first.partition.step
    second = started(a_process(store=store))
    second.partition.advance()
    assert second.sink.republished == [first.sink.republished[-1]]


def test_partials_are_not_published_again_before_the_journal_is_repeated() -> None:
    store = DictStore()
    first = started(a_process(store=store, pace=replace(SMALL, snapshot_every_ms=10**9)))
    while len(first.taken) < 4:
        first.turn()
    second = started(a_process(store=store, seed=9, pace=replace(SMALL, snapshot_every_ms=10**9)))
    while second.partition.has_replay:
        assert second.sink.republished == []
        second.turn()
    second.turn()
    assert second.sink.republished[0].step == 4


def test_journaled_steps_are_repeated_with_exactly_their_ranges() -> None:
    store, clock = DictStore(), HandClock()
    first = started(a_process(store=store, clock=clock, pace=replace(SMALL, snapshot_every_ms=10**9)))
    while len(first.taken) < 4:
        first.turn()
    second = started(a_process(store=store, clock=clock, seed=9, pace=replace(SMALL, max_rows=1_000)))
    fetch_all(second)
    repeated = [second.partition.advance() for _ in range(4)]
    assert [done.entry for done in repeated if isinstance(done, Done) and done.is_replay] == [
        done.entry for done in first.taken
    ]


def test_a_step_whose_records_have_changed_is_refused() -> None:
    store = DictStore()
    first = started(a_process(store=store))
    while not first.taken:
        first.turn()
    changed = a_log()
    for records in changed.values():
        records[0] = replace(records[0], key="forged")
    second = started(a_process(changed, store))
    fetch_all(second)
    with pytest.raises(DamagedStore, match="not those that step 1 was planned on"):
        second.partition.advance()


def test_a_journaled_step_is_fetched_even_when_it_is_larger_than_a_step_may_be_now() -> None:
    store = DictStore()
    first = started(a_process(store=store, pace=replace(SMALL, max_rows=1_000)))
    fetch_all(first)
    assert isinstance(first.partition.advance(), Done)
    second = a_process(store=store, pace=replace(SMALL, max_rows=3)).run()
    assert second.taken[0].is_replay
    assert second.partition.step == 1


def test_memory_is_kept_unless_a_snapshot_is_newer() -> None:
    store, database, clock = DictStore(), Database(), HandClock()
    here, there = (Process(a_log(), store, database, clock=clock, seed=seed) for seed in range(2))
    here.start()
    while here.partition.step < 2:
        here.turn()
    machine = here.partition.machine
    here.start()
    assert here.partition.machine is machine
    there.run()
    here.start()
    assert here.partition.machine is not machine
    assert here.partition.step == there.partition.step


def test_another_engine_version_takes_over_only_where_the_snapshot_ends_the_journal() -> None:
    store = DictStore()
    first = started(a_process(store=store))
    while first.partition.step < 2:
        first.turn()
    newer = a_process(store=store, engine_version=ENGINE_VERSION + 1)
    with pytest.raises(ConfigurationError, match=f"steps of engine version {ENGINE_VERSION}"):
        newer.start()
    first.end()
    newer.run()
    assert newer.partition.step > 2


def test_definitions_that_contradict_the_data_are_refused_at_the_start() -> None:
    store = DictStore()
    a_process(store=store).run()
    changed = Definitions(experiments=(Experiment(name="exp", policy=Policy.FIRST),))
    with pytest.raises(ConfigurationError, match="Experiment exp has data counted with policy = exclude"):
        a_process(store=store, definitions=changed).start()


def test_new_definitions_take_over_behind_the_journal_and_replays_use_the_old_ones() -> None:
    store, database, clock = DictStore(), Database(), HandClock()
    first = started(Process(a_log(), store, database, clock=clock))
    while first.partition.step < 3:
        first.turn()
    changed = Definitions(attribution_window_ms=5)
    second = Process(a_log(), store, database, clock=clock, definitions=changed, seed=3).run()
    used = [done.entry.definitions for done in second.taken]
    replayed = [done.entry.definitions for done in second.taken if done.is_replay]
    assert set(replayed) == {Definitions().digest}
    assert used[len(replayed) :] == [changed.digest] * (len(used) - len(replayed))


def test_a_partition_starts_only_where_its_state_ends() -> None:
    process = a_process().run()
    process.partition.recover()
    with pytest.raises(ValueError, match="must start at"):
        process.partition.start((0, 0, 0))


def test_records_of_another_place_are_a_fault_not_a_count() -> None:
    process = started(a_process())
    process.fetch(Topic.ASSIGNMENTS, limit=2)
    with pytest.raises(ValueError, match="does not continue"):
        process.partition.offer(
            Topic.ASSIGNMENTS,
            a_batch(Topic.ASSIGNMENTS, process.log[Topic.ASSIGNMENTS][:1]),
            7,
            FakeReading(),
        )
