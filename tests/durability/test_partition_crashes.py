import random
from collections import Counter
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.durability.journal import Entry
from stream.durability.machine import Executed
from stream.errors import Unavailable
from tests.durability.fakes import Crash, Database, DictStore, Doom, HandClock
from tests.durability.process import SMALL, Log, Process, a_log, expected


def totals_after(log: Log, dooms: list[Doom]) -> tuple[Database, int]:
    """Run processes one after the other, each to its doom, the last one to the end; also how often it crashed."""
    store, database, clock = DictStore(), Database(), HandClock()
    crashes = 0
    for seed, doom in enumerate([*dooms, Doom()]):
        try:
            Process(log, store, database, clock=clock, doom=doom, seed=seed).run()
        except Crash:
            crashes += 1
    return database, crashes


def effects_of_a_run(log: Log) -> int:
    doom = Doom()
    Process(log, DictStore(), Database(), clock=HandClock(), doom=doom).run()
    return doom.effects


def test_without_a_crash_everything_is_counted_once() -> None:
    log = a_log()
    database, _ = totals_after(log, [])
    assert Counter(database.totals()) == expected(log)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_effect_changes_no_total_and_no_output(after: bool) -> None:
    log = a_log()
    effects = effects_of_a_run(log)
    assert effects > 50
    repeated = 0
    for k in range(1, effects + 1):
        database, crashes = totals_after(log, [Doom(k, after)])
        assert crashes == 1
        assert Counter(database.totals()) == expected(log), f"after a crash at effect {k}"
        repeated += database.repeated
    assert repeated > effects  # replays did happen


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1_000),
    dooms=st.lists(st.builds(Doom, st.integers(1, 60), st.booleans()), min_size=2, max_size=6),
)
def test_many_crashes_in_a_row_change_nothing(seed: int, dooms: list[Doom]) -> None:
    log = a_log(seed)
    database, _ = totals_after(log, [replace(doom) for doom in dooms])
    assert Counter(database.totals()) == expected(log)


@pytest.mark.parametrize("seed", range(20))
def test_two_owners_at_once_put_out_the_same(seed: int) -> None:
    log, store, database, clock = a_log(seed), DictStore(), Database(), HandClock()
    schedule = random.Random(seed)
    owners = [Process(log, store, database, clock=clock, seed=number) for number in range(2)]
    for owner in owners:
        owner.start()
    while not all(owner.is_finished for owner in owners):
        schedule.choice(owners).turn()
    for owner in owners:
        owner.end()
    steps = owners[0].partition.step
    assert steps == owners[1].partition.step == database.repeated
    assert Counter(database.totals()) == expected(log)


def test_a_zombie_that_wakes_up_behind_collected_entries_loads_the_newer_state() -> None:
    log, store, database, clock = a_log(rows=(30, 150, 80)), DictStore(), Database(), HandClock()
    pace = replace(SMALL, silence_ms=100, journal_kept_ms=0, collect_every_ms=0)
    zombie = Process(log, store, database, clock=clock, pace=pace, seed=1)
    zombie.start()
    while zombie.partition.step < 2:
        zombie.turn()
    Process(log, store, database, clock=clock, pace=pace, seed=2).run()
    assert zombie.partition.step < 5 < int(store.names("g000001/p00003/step")[0][-12:])
    steps = store.names("g000001/p00003/step")
    for topic in zombie.log:
        zombie.fetch(topic, limit=100)
    clock.ms += 1_000
    for _ in range(50):
        zombie.turn()
    assert zombie.is_finished
    assert store.names("g000001/p00003/step") == steps  # it left nothing behind
    assert Counter(database.totals()) == expected(log)


AGGRESSIVE = replace(SMALL, silence_ms=100, journal_kept_ms=0, collect_every_ms=0)


def assert_it_does_no_harm(zombie: Process, database: Database) -> None:
    """It wakes up after others have gone far ahead, works on to the end, and does no harm."""
    for _ in range(50):
        zombie.turn()
    assert zombie.is_finished
    assert Counter(database.totals()) == expected(zombie.log)


def assert_no_entry_came_back(store: DictStore) -> None:
    entry, snapshot = (int(store.names(f"g000001/p00003/{kind}")[0][-12:]) for kind in ("step", "snapshot"))
    assert entry >= snapshot > 5


def test_a_zombie_that_stood_still_between_recovering_and_starting_is_noticed() -> None:
    log, store, database, clock = a_log(rows=(30, 150, 80)), DictStore(), Database(), HandClock()
    zombie = Process(log, store, database, clock=clock, pace=AGGRESSIVE, seed=1)
    zombie.partition.recover()
    Process(log, store, database, clock=clock, pace=AGGRESSIVE, seed=2).run()
    clock.ms += 1_000
    zombie.partition.start((0, 0, 0))
    zombie.fetch_from((0, 0, 0))
    assert_it_does_no_harm(zombie, database)
    assert_no_entry_came_back(store)


def test_a_zombie_that_stood_still_between_journaling_and_emitting_is_noticed() -> None:
    log, store, database, clock = a_log(rows=(30, 150, 80)), DictStore(), Database(), HandClock()
    zombie = Process(log, store, database, clock=clock, pace=AGGRESSIVE, seed=1)
    put = zombie.sink.put

    def stand_still_then_put(partition: int, executed: Executed) -> None:
        zombie.sink.put = put  # type: ignore[method-assign]
        Process(log, store, database, clock=clock, pace=AGGRESSIVE, seed=2).run()
        clock.ms += 1_000
        put(partition, executed)

    zombie.start()
    for topic in log:
        zombie.fetch(topic, limit=100)
    zombie.sink.put = stand_still_then_put  # type: ignore[method-assign]
    assert_it_does_no_harm(zombie, database)
    assert_no_entry_came_back(store)


def test_an_entry_that_a_dead_zombie_left_behind_is_not_adopted() -> None:
    log, store, database, clock = a_log(rows=(30, 150, 80)), DictStore(), Database(), HandClock()
    zombies = [Process(log, store, database, clock=clock, pace=AGGRESSIVE, seed=seed) for seed in (1, 2)]
    for zombie in zombies:
        zombie.start()
    Process(log, store, database, clock=clock, pace=AGGRESSIVE, seed=3).run()
    clock.ms += 1_000
    dead, other = zombies
    for topic in log:
        dead.fetch(topic, limit=100)
    dead.partition._journal.withdraw = None  # type: ignore[assignment,method-assign]
    with pytest.raises(TypeError):
        dead.partition.advance()  # it dies between writing and withdrawing
    for topic in log:
        other.fetch(topic, limit=100)
    assert_it_does_no_harm(other, database)


def test_what_is_collected_while_a_worker_recovers_is_no_damage() -> None:
    log, store, database, clock = a_log(rows=(30, 150, 80)), DictStore(), Database(), HandClock()
    late = Process(log, store, database, clock=clock, pace=AGGRESSIVE, seed=1)
    after = late.partition._journal.after

    def after_all_the_others(number: int) -> list[Entry]:
        late.partition._journal.after = after  # type: ignore[method-assign]
        Process(log, store, database, clock=clock, pace=AGGRESSIVE, seed=2).run()
        return after(number)

    late.partition._journal.after = after_all_the_others  # type: ignore[method-assign]
    late.start()
    assert late.is_finished


def a_log_with_two_schemas(seed: int = 1) -> Log:
    """Every third record is written with a schema that not every process knows."""
    return {
        topic: [replace(r, key=f"new {r.key}") if i % 3 == 0 else r for i, r in enumerate(records)]
        for topic, records in a_log(seed).items()
    }


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1_000),
    dooms=st.lists(st.builds(Doom, st.integers(1, 60), st.booleans()), min_size=1, max_size=5),
    knows=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_a_schema_id_that_becomes_known_between_crashes_changes_no_output_of_a_step(
    seed: int, dooms: list[Doom], knows: list[bool]
) -> None:
    log, store, database, clock = a_log_with_two_schemas(seed), DictStore(), Database(), HandClock()
    for number, doom in enumerate([*map(replace, dooms), Doom()]):
        known = frozenset({1, 2} if knows[number] else {1})
        process = Process(log, store, database, clock=clock, doom=doom, seed=number, known=known)
        with suppress(Crash):
            process.run()
    found: Counter[str] = Counter()
    for key, count in database.totals().items():
        found[key.removesuffix("?")] += count  # type: ignore[operator]
    assert found == expected(log)


@pytest.mark.parametrize("seed", range(10))
def test_two_owners_of_whom_one_knows_a_schema_put_out_the_same(seed: int) -> None:
    log, store, database, clock = a_log_with_two_schemas(seed), DictStore(), Database(), HandClock()
    schedule = random.Random(seed)
    owners = [
        Process(log, store, database, clock=clock, seed=number, known=frozenset(known))
        for number, known in enumerate([{1}, {1, 2}])
    ]
    for owner in owners:
        owner.start()
    while not all(owner.is_finished for owner in owners):
        schedule.choice(owners).turn()
    assert owners[0].partition.step == database.repeated


def test_a_full_disk_stops_the_steps_and_room_lets_them_go_on() -> None:
    class Full(DictStore):
        is_full = False

        def create(self, path: str, data: bytes) -> bool:
            if self.is_full:
                raise Unavailable("the disk is full")
            return super().create(path, data)

    log, store, database = a_log(), Full(), Database()
    process = Process(log, store, database, clock=HandClock())
    process.start()
    refused = 0
    for turn in range(400):
        store.is_full = turn % 20 != 19
        step = process.partition.step
        try:
            process.turn()
        except Unavailable:
            refused += 1
            assert process.partition.step == step
    process.end()
    assert refused > 20
    assert process.is_finished
    assert Counter(database.totals()) == expected(log)
