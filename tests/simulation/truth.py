"""What must be in the database at the end: the oracle takes the journaled steps of each partition."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import date
from typing import Any

from faust.types import TP

from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.durability.journal import Entry
from stream.engine.outputs import COUNTS, TABLES, Chunk
from stream.rolling.partials import PANE_MS, partition_for
from stream.rolling.state import IDLE_TIMEOUT_MS, REFRESH_MS, WINDOWS_SECONDS
from tests.app.fakes import NAMES
from tests.engine.makers import HOUR
from tests.engine.oracle import Oracle
from tests.engine.streams import CAUGHT_UP, oracle_step
from tests.simulation.broker import PARTIALS_PARTITIONS, Log
from tests.simulation.database import Database
from tests.simulation.schedule import Schedule

Logs = Mapping[TP, Log]
Counts = dict[str, int]
_NAMES = dict(
    zip(("impressions", "clicked", "converted", "clicks", "conversions", "revenue"), COUNTS, strict=True)
)


class Truth:
    """Compares; what differs ends the simulation."""

    def __init__(
        self, schedule: Schedule, logs: Logs, steps: Mapping[int, list[Entry]], definitions: Definitions
    ) -> None:
        """steps: by partition, in their order."""
        self._schedule = schedule
        self._logs = logs
        self._steps = steps
        self._definitions = definitions
        self._oracles = {number: self._oracle(number) for number in steps}
        self._panes = {number: _plain(oracle.panes()) for number, oracle in self._oracles.items()}

    def compare(self, database: Database) -> None:
        """Totals, panes, ledger and dead letters of every partition."""
        for number, oracle in self._oracles.items():
            self._equal(f"totals of {number}", table("totals", database, number), _plain(oracle.totals()))
            self._equal(f"cohorts of {number}", table("cohorts", database, number), _plain(oracle.cohorts()))
            self._equal(f"troubles of {number}", table("troubles", database, number), _plain(oracle.troubles))
            self._equal(f"panes of {number}", panes(database, number), self._panes[number])
            outcomes = oracle.outcomes()
            self._equal(f"ledger of {number}", ledger(database, number), _plain(outcomes))
            letters = Counter(row["topic"] for p, row in database.columns("dead_letters") if p == number)
            rejected: Counter[str] = Counter()
            for (topic, _), counts in outcomes.items():
                rejected[topic] += counts["rejected"]
            self._equal(f"dead letters of {number}", dict(letters), dict(+rejected))

    def compare_with_all_at_once(self, database: Database) -> None:
        """When nothing is late, the steps do not matter: totals and panes are those of a single one."""
        for number in self._steps:
            oracle = Oracle(self._definitions)
            given = {topic: self._log(topic, number).arrivals for topic in Topic}
            oracle_step(oracle, given, 1 << 60, CAUGHT_UP)
            self._equal(
                f"totals of {number}, at once", table("totals", database, number), _plain(oracle.totals())
            )
            self._equal(f"panes of {number}, at once", panes(database, number), _plain(oracle.panes()))

    def compare_rolling(self, database: Database, live_chunks: Mapping[int, list[Chunk]]) -> None:
        """The windows of every experiment, from the oracle's panes. live_chunks: by partition, only for which exist."""
        sources: dict[int, set[int]] = defaultdict(set)  # by partition of the partials topic
        for number, chunks in live_chunks.items():
            for chunk in chunks:
                sources[_home(chunk.experiment)].add(number)
        experiments = {chunk.experiment for chunks in live_chunks.values() for chunk in chunks}
        found: dict[str, dict[tuple[str, int], tuple[int, Counts]]] = defaultdict(dict)
        for _, row in database.columns("rolling"):
            counts = {name: row[name] for name in COUNTS if row[name]}
            found[row["experiment"]][row["arm"], row["window_seconds"]] = row["as_of_ms"], counts
        self._equal("experiments with windows", set(found), experiments)
        for experiment in experiments:
            newest_ms = self._as_of_ms(sources[_home(experiment)])
            for (arm, seconds), (as_of_ms, window) in found[experiment].items():
                wanted = self._window(experiment, arm, as_of_ms - seconds * 1000, as_of_ms)
                self._equal(f"window {experiment} {arm} {seconds} s", window, wanted)
                is_recent = newest_ms - REFRESH_MS < as_of_ms <= newest_ms
                self._equal(
                    f"as_of of {experiment} near {newest_ms}", (as_of_ms, is_recent), (as_of_ms, True)
                )
            arms = {
                arm
                for number in sources[_home(experiment)]
                for e, arm, dimension, *_ in self._panes[number]
                if (e, dimension) == (experiment, "all")
            }
            lacking = {(arm, seconds) for arm in arms for seconds in WINDOWS_SECONDS} - set(found[experiment])
            self._equal(f"windows that {experiment} lacks", lacking, set())

    def _as_of_ms(self, numbers: set[int]) -> int:
        newest = max(self._steps[n][-1].planned_at_ms for n in numbers)
        clocks = [
            self._oracles[n].clock
            for n in numbers
            if self._steps[n][-1].planned_at_ms >= newest - IDLE_TIMEOUT_MS
        ]
        return int(min(clocks) // PANE_MS * PANE_MS)

    def _window(self, experiment: str, arm: str, start_ms: int, stop_ms: int) -> Counts:
        total: Counter[str] = Counter()
        for of_partition in self._panes.values():
            for (e, a, dimension, _, pane_ms), counts in of_partition.items():
                if (e, a, dimension) == (experiment, arm, "all") and start_ms <= pane_ms < stop_ms:
                    total.update(counts)
        return {name: n for name, n in total.items() if n}

    def _oracle(self, number: int) -> Oracle:
        oracle = Oracle(self._definitions)
        expected = [0, 0, 0]
        for position, entry in enumerate(self._steps[number], 1):
            self._equal(f"step number in partition {number}", entry.number, position)
            self._equal(f"begin of step {entry.number}", [r.lo for r in entry.ranges], expected)
            latest_ms = (
                entry.planned_at_ms + HOUR
            )  # a record is at most that far ahead of the planner's clock
            given = {
                topic: [
                    (event, min(at, latest_ms))
                    for event, at in self._log(topic, number).taken(taken.lo, taken.hi, reading)
                ]
                for topic, taken, reading in zip(Topic, entry.ranges, entry.readings, strict=True)
            }
            oracle_step(oracle, given, entry.planned_at_ms, entry.caught_up)
            expected = [r.hi for r in entry.ranges]
        for topic in Topic:
            log = self._log(topic, number)
            self._equal(f"records left in {topic.word} {number}", log.taken(expected[topic], 1 << 60), [])
        return oracle

    def _log(self, topic: Topic, number: int) -> Log:
        return self._logs[TP(NAMES[topic], number)]

    def _equal(self, what: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            raise self._schedule.fail(f"{what}: {_difference(found, wanted)}")


def _home(experiment: str) -> int:
    return partition_for(experiment, PARTIALS_PARTITIONS)


def table(name: str, database: Database, number: int) -> dict[Any, Counts]:
    """The rows of one of the engine's tables that are not all zero, by their key."""
    keys = TABLES[name][0]
    return {
        tuple(_days(row[key]) for key in keys): counts
        for p, row in database.columns(name)
        if p == number and (counts := _counts(row, skip=len(keys)))
    }


def panes(database: Database, number: int) -> dict[Any, Counts]:
    """By (experiment, arm, dimension, value, pane start): the sum of the fragments."""
    out: dict[Any, Counter[str]] = defaultdict(Counter)
    for p, row in database.columns("panes"):
        if p == number:
            key = tuple(row[name] for name in ("experiment", "arm", "dimension", "value", "pane_start_ms"))
            out[key].update(_counts(row, skip=7))
    return _plain(out)


def ledger(database: Database, number: int) -> dict[Any, Counts]:
    """By (topic, hour number)."""
    out: dict[Any, Counter[str]] = defaultdict(Counter)
    for p, row in database.columns("ledger"):
        if p == number:
            counts = _counts(row, skip=3)
            counts.pop("misrouted", None)
            out[row["topic"], row["hour_ms"] // HOUR].update(counts)
    return _plain(out)


def _days(value: Any) -> Any:
    """Dates as the engine has them, as days since 1970."""
    return value.toordinal() - date(1970, 1, 1).toordinal() if isinstance(value, date) else value


def _counts(row: dict[str, Any], skip: int) -> Counts:
    return {name: n for name, n in list(row.items())[skip:] if n}


def _plain(by_key: Mapping[Any, Mapping[str, int]]) -> dict[Any, Counts]:
    """Names as in the tables, zeros left out."""
    plain = {k: {_NAMES.get(name, name): n for name, n in v.items() if n} for k, v in by_key.items()}
    return {k: v for k, v in plain.items() if v}


def _difference(found: Any, wanted: Any) -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
        return f"{len(keys)} differ, such as " + "; ".join(
            f"{key}: {found.get(key)} instead of {wanted.get(key)}" for key in keys[:3]
        )
    return f"{found} instead of {wanted}"
