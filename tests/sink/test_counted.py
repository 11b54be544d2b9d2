"""From what engines put out, through the database, to conclusions: the same on chDB and on a server."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from stream.contracts.definitions import Definitions, Experiment, Metric
from stream.engine.outputs import TABLES, Outputs
from stream.results.compared import results as results_of
from stream.results.counted import Counted, Troubles
from stream.results.rules import Rules
from stream.sink import counted as reads
from stream.sink.as_json import with_metrics
from stream.sink.connect import Connection
from stream.sink.emission import Emission
from stream.sink.origins import Origins
from stream.sink.queries import Database, results
from stream.sink.standings import put_definitions, put_standings, read_standings
from stream.sink.writer import Writer
from tests.engine.makers import Run
from tests.results.makers import NAME, counted_of, run_of, some_users
from tests.sink.makers import NOON_MS, a_total, an_emission

Write = Callable[..., None]
EXPERIMENT = Experiment(name=NAME, pre_value="clicks", metrics={"wishes": Metric(kinds=("wish",))})
DEFINITIONS = Definitions(experiments=(EXPERIMENT,))
RULES = Rules(min_slice_users=2)


def emission(outputs: Outputs, step: int = 1, partition: int = 0) -> Emission:
    return Emission(1, partition, replace(outputs, step=step), NOON_MS, 0, Origins.of(np.array([NOON_MS])))


@pytest.fixture
def writer(connection: Connection) -> Iterator[Writer]:
    with closing(Writer(connection.client, interval_seconds=0)) as writer:
        yield writer


def sums_of(counted: Counted, slices: bool = True) -> dict[tuple[str, str, int], dict[str, int]]:
    """By arm, slice and phase, without zeros and versions."""
    return {
        (row.arm, row.slice, row.phase): {k: v for k, v in row.sums.items() if k != "version" and v}
        for row in counted.sums if slices or row.slice == "all"
    }  # fmt: skip


def cohorts_of(counted: Counted, slices: bool = True) -> set[tuple[object, ...]]:
    return {
        (c.arm, c.slice, c.phase, c.since, c.start_date, c.users, *c.active.values())
        for c in counted.cohorts if slices or c.slice == "all"
    }  # fmt: skip


def test_what_engines_count_comes_back_from_the_database(write: Write, db: Database) -> None:
    run = run_of(EXPERIMENT, some_users(1, ["control", "b"], 60), steps=1)
    outputs = run.step(planned_at=run.engine.clock_ms)
    write(emission(whole(run, outputs)))
    truth = counted_of(run)
    for slices in (True, False):
        (found,) = reads.counted(db, slices=slices)
        assert sums_of(found) == sums_of(truth, slices)
        assert cohorts_of(found) == cohorts_of(truth, slices)
        assert set(found.troubles) == set(truth.troubles)
        assert found.as_of_ms == truth.as_of_ms
    (found,) = reads.counted(db, [NAME])
    assert results_of(EXPERIMENT, found, RULES) == results_of(EXPERIMENT, truth, RULES)


def whole(run: Run, outputs: Outputs) -> Outputs:
    """The newest rows of all tables as one step's outputs."""
    tables = {}
    for name, (keys, values) in TABLES.items():
        rows = [(*key, *value) for key, value in run.rows[name].items()]
        columns = list(zip(*rows, strict=True)) if rows else [()] * len((*keys, *values))
        tables[name] = dict(zip((*keys, *values), map(list, columns), strict=True))
    return replace(outputs, tables=tables)


def test_partitions_add_up_and_troubles_stay_apart(write: Write, db: Database) -> None:
    total = a_total(impressions=10, clicks=2, assigned_users=4)
    write(an_emission(1, totals=[total]), an_emission(3, partition=1, totals=[total], clock_ms=NOON_MS - 5))
    (found,) = reads.counted(db)
    assert [row.sums["impressions"] for row in found.sums] == [20]
    assert [replace(row, partition=0) for row in found.troubles] == 2 * [Troubles("a", 0, 0, 0, 0, 0, 12, 2)]
    assert (found.version, found.as_of_ms) == (2 + 4, NOON_MS - 5)


def test_a_partition_without_news_does_not_hold_as_of_back(write: Write, db: Database) -> None:
    old = an_emission(1, totals=[a_total()], clock_ms=NOON_MS - 500_000)
    write(old, an_emission(1, partition=1, totals=[a_total()], clock_ms=-1))
    assert reads.reading(db).as_of_ms == NOON_MS - 500_000
    late = an_emission(1, partition=2, totals=[a_total()], clock_ms=NOON_MS)
    write(replace(late, planned_at_ms=old.planned_at_ms + reads.IDLE_MS + 1))
    assert reads.reading(db).as_of_ms == NOON_MS


def test_an_empty_database_has_no_conclusions(db: Database) -> None:
    assert reads.counted(db) == []
    assert reads.definitions(db) is None
    assert reads.reading(db).as_of_ms is None


def test_the_rules_of_the_newest_run_are_kept(write: Write, writer: Writer, db: Database) -> None:
    write(an_emission(1, totals=[a_total()]))
    put_definitions(writer, Definitions(currency="USD"), generation=1, now_ms=1)
    put_definitions(writer, DEFINITIONS, generation=1, now_ms=2)
    put_definitions(writer, Definitions(currency="USD"), generation=1, now_ms=1)
    assert writer.drain(30)
    assert reads.definitions(db) == DEFINITIONS


def test_the_views_show_the_conclusions_of_the_newest_reading(
    write: Write, writer: Writer, db: Database
) -> None:
    run = run_of(EXPERIMENT, some_users(1, ["control", "b"], 300), steps=1)
    write(emission(whole(run, run.step(planned_at=run.engine.clock_ms))))
    standings = read_standings(db, DEFINITIONS, RULES)
    older = [
        replace(one, version=0, results=tuple(replace(row, users=1) for row in one.results))
        for one in standings
    ]
    gone = [replace(row, metric="of an earlier file", users=1) for row in standings[0].results]
    put_standings(writer, [replace(older[0], results=(*older[0].results, *gone))])
    put_standings(writer, standings)
    put_standings(writer, older)
    assert writer.drain(30)
    rows = db.query("SELECT * FROM experiment_results").dicts()
    (told,) = [
        row for row in with_metrics(results(db), standings) if row["arm"] == "b" and row["slice"] == "all"
    ]
    stored = {
        (row["metric"], row["variant"]): row for row in rows if row["arm"] == "b" and row["slice"] == "all"
    }
    assert {(row["metric"], row["variant"]): row for row in told["metrics"]} == stored
    assert len(rows) == len(standings[0].results)
    assert "NaN" not in json.dumps(told, default=str)
    health = db.query("SELECT * FROM experiment_health WHERE slice = 'all' ORDER BY arm").dicts()
    assert [row["users"] for row in health] == [arm.users for arm in standings[0].health.arms]


def test_the_history_keeps_the_least_p_of_every_minute(write: Write, writer: Writer, db: Database) -> None:
    run = run_of(EXPERIMENT, some_users(1, ["control", "b"], 300), steps=1)
    write(emission(whole(run, run.step(planned_at=run.engine.clock_ms))))
    (one,) = read_standings(db, DEFINITIONS, RULES)
    row = next(row for row in one.results if row.metric == "ctr" and row.p_always is not None)
    for version, (second, p) in enumerate([(0, 0.5), (30, 0.2), (60, 0.9), (130, 0.1), (200, 0.3)]):
        seen = replace(row, p_always=p, as_of_ms=NOON_MS + second * 1_000)
        put_standings(writer, [replace(one, version=version, results=(seen,))])
        assert writer.drain(30)
    found = db.query("SELECT p_always, least_p_always FROM experiment_results_history ORDER BY minute").rows
    assert [tuple(pair) for pair in found] == [(0.2, 0.2), (0.9, 0.2), (0.1, 0.1), (0.3, 0.1)]
