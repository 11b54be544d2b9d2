"""Another engine version takes over: from a snapshot with no steps behind it, and from nothing else."""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from stream.app.engines import Engines
from stream.contracts.topics import Topic
from stream.durability.machine import Executed, State
from stream.durability.partition import Done, Partition
from stream.durability.snapshot import Snapshots
from stream.durability.store import open_store
from stream.durability.surroundings import Owner, Surroundings
from stream.engine import ENGINE_VERSION
from stream.engine.migrations import EVENTS_OF_VERSION_2, SUMS_OF_VERSION_2
from stream.engine.outputs import TABLES, Chunk, Outputs, Words
from stream.errors import ConfigurationError
from tests.durability.fakes import ENGINE_VERSION as OLD
from tests.durability.fakes import Crash, Database, Doom, FakeReading, FakeReadings, HandClock
from tests.durability.process import Process, a_log, expected
from tests.engine.makers import HOUR, KEY, MINUTE, Run, a_batch
from tests.engine.streams import Given, arrivals, definitions, first_definitions, in_steps

STORED = Path(__file__).parent / "version_1"  # written by engine version 1 after 6 steps of this stream
RULES = first_definitions(allowed_lateness_ms=30 * MINUTE, attribution_window_ms=45 * MINUTE)
STORED_3 = (
    Path(__file__).parent / "version_3"
)  # the same by engine version 3, with declared metrics and phases
STORED_4 = Path(__file__).parent / "version_4"  # by engine version 4
STORED_5 = Path(__file__).parent / "version_5"  # by engine version 5
STORED_6 = Path(__file__).parent / "version_6"  # by engine version 6
RULES_3 = definitions(allowed_lateness_ms=30 * MINUTE, attribution_window_ms=45 * MINUTE)
STEPS = in_steps(arrivals(11, 400, 5 * HOUR, 40 * MINUTE), [40])
TAKEN = 6


UNCHANGED = ("panes", "ledger", "dead_letters")  # by the versions since; sums over users became more


def known(run: Run) -> dict[tuple[str, ...], dict[str, int]]:
    """Of the sums over users those that the first version had by user; under as_of it did not know the earliest arm."""
    names = set(SUMS_OF_VERSION_2) - set(EVENTS_OF_VERSION_2)
    rows = {
        key: {n: sums[n] for n in names if sums[n]} for key, sums in run.totals().items() if key[0] != "of"
    }
    return {key: sums for key, sums in rows.items() if sums}


class Kept:
    """A sink that acknowledges at once."""

    is_full = False

    def __init__(self) -> None:
        self.outputs: list[Outputs] = []

    def put(self, partition: int, executed: Executed) -> None:
        self.outputs.append(executed.outputs)

    def republish(self, partition: int, state: State, chunks: Sequence[Chunk]) -> None:
        pass

    def acked(self, partition: int) -> int:
        return self.outputs[-1].step if self.outputs else -1


def planned_at(step: Given) -> int:
    return max(at for items in step.values() for _, at in items)


def as_text(outputs: Outputs, names: Sequence[str] = UNCHANGED) -> str:
    tables = {n: {c: values(v) for c, v in outputs.tables[n].items()} for n in names}
    return repr((tables, outputs.chunks, outputs.clock_ms, outputs.horizon_ms))


def values(column: object) -> object:
    return list(column) if isinstance(column, Words) else np.asarray(column).tolist()


def take(run: Run, step: Given) -> Outputs:
    return run.step(
        assignments=step[Topic.ASSIGNMENTS], impressions=step[Topic.IMPRESSIONS],
        interactions=step[Topic.INTERACTIONS], planned_at=planned_at(step),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORED, tmp_path / "store"))


def test_an_export_of_version_1_goes_on_as_an_engine_that_never_stopped(folder: Path) -> None:
    found = Snapshots(open_store(folder.as_uri()), "g000001/p00000").newest()
    assert found is not None
    always, upgraded = Run(RULES), Run(RULES)
    for step in STEPS[:TAKEN]:
        take(always, step)
    upgraded.engine = Engines(key=KEY, partitions=1).load(0, RULES, found[1])
    upgraded.offsets = always.offsets.copy()
    assert upgraded.engine.live_chunks() == always.engine.live_chunks()
    for step in STEPS[TAKEN:]:
        assert as_text(take(upgraded, step)) == as_text(take(always, step))
    assert known(upgraded) == known(always)


@pytest.mark.parametrize("stored", [STORED_3, STORED_4, STORED_5, STORED_6])
def test_an_export_of_a_later_version_goes_on_as_an_engine_that_never_stopped(stored: Path) -> None:
    found = Snapshots(open_store(stored.as_uri()), "g000001/p00000").newest()
    assert found is not None
    always, upgraded = Run(RULES_3), Run(RULES_3)
    for step in STEPS[:TAKEN]:
        take(always, step)
    upgraded.engine = Engines(key=KEY, partitions=1).load(0, RULES_3, found[1])
    upgraded.offsets = always.offsets.copy()
    for step in STEPS[TAKEN:]:
        assert as_text(take(upgraded, step), tuple(TABLES)) == as_text(take(always, step), tuple(TABLES))


def test_a_partition_stored_by_version_1_is_taken_over_and_stored_in_the_present_format(folder: Path) -> None:
    store, clock, sink = open_store(folder.as_uri()), HandClock(), Kept()
    around = Surroundings(store, Engines(key=KEY, partitions=1), FakeReadings(), sink, clock.clock)
    partition = Partition(0, "g000001/p00000", Owner("two", ENGINE_VERSION, RULES), around)
    partition.recover()
    offsets = partition.offsets
    assert partition.step == TAKEN
    assert offsets is not None
    partition.start(offsets)
    given: Given = {topic: [event for step in STEPS[TAKEN:] for event in step[topic]] for topic in Topic}
    for topic in Topic:
        end = offsets[topic] + len(given[topic])
        partition.offer(topic, a_batch(topic, given[topic], offsets[topic]), end, FakeReading())
        partition.observe(topic, end)
    while isinstance(partition.advance(), Done):
        pass
    partition.capture()
    assert partition.publish_when_acked()
    consumed = sum(len(rows) for step in STEPS[TAKEN:] for rows in step.values())
    assert sum(outputs.rows for outputs in sink.outputs) == consumed
    assert len(store.names("g000001/p00000/snapshot")) == 2
    other = Partition(0, "g000001/p00000", Owner("three", ENGINE_VERSION, RULES), around)
    other.recover()
    assert other.step == partition.step
    assert other.machine.live_chunks() == partition.machine.live_chunks()


def test_the_next_version_goes_on_from_where_the_one_before_stopped_cleanly(tmp_path: Path) -> None:
    log, store, database, clock = a_log(), open_store(tmp_path.as_uri()), Database(), HandClock()
    old = Process(log, store, database, clock=clock, seed=1)
    old.start()
    while old.partition.step < 4:
        old.turn()
    old.end()  # SIGTERM
    Process(log, store, database, clock=clock, seed=2, engine_version=OLD + 1).run()
    assert Counter(database.totals()) == expected(log)


def test_the_next_version_refuses_steps_of_a_killed_one_which_runs_once_more_and_stops(
    tmp_path: Path,
) -> None:
    log, store, database, clock = a_log(), open_store(tmp_path.as_uri()), Database(), HandClock()
    killed = Process(log, store, database, clock=clock, seed=1, doom=Doom(25))
    with pytest.raises(Crash):
        killed.run()
    new = Process(log, store, database, clock=clock, seed=2, engine_version=OLD + 1)
    with pytest.raises(ConfigurationError, match=f"steps of engine version {OLD}"):
        new.start()
    once_more = Process(log, store, database, clock=clock, seed=3)
    once_more.start()
    while once_more.partition.has_replay:
        once_more.turn()
    once_more.end()
    new.run()
    assert Counter(database.totals()) == expected(log)


def test_an_earlier_version_does_not_take_over_from_a_later_one(tmp_path: Path) -> None:
    log, store, database, clock = a_log(), open_store(tmp_path.as_uri()), Database(), HandClock()
    Process(log, store, database, clock=clock, seed=1, engine_version=OLD + 1).run()
    with pytest.raises(ConfigurationError, match="run the newer version"):
        Process(log, store, database, clock=clock, seed=2).start()
