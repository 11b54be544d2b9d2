"""Conclusions about the experiments that this worker answers for, drawn anew whenever their sums change."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import faust
from clickhouse_connect.driver.exceptions import ClickHouseError
from faust.types import TP
from mode import Service

from stream.contracts.definitions import Definitions
from stream.errors import LiftstreamError
from stream.results.counted import ALL, ArmSums, Counted
from stream.results.rows import Standing
from stream.results.rules import Rules
from stream.results.standing import standing
from stream.rolling.partials import partition_for
from stream.sink.counted import Reading, counted, reading, versions
from stream.sink.queries import Database
from stream.sink.standings import Rows, put_standings

log = logging.getLogger(__name__)

ROUND_SECONDS = 1.0
TIME_SHARE = 0.2  # of the time at most goes into results: counting comes first
SLICES_SECONDS = 10.0  # slices, of which there may be hundreds, are compared at most so often
_MINUTE_MS = 60_000

Mark = tuple[int, int, int]  # generation, the sums' version, minute of as_of: what was concluded from


class Sink(Rows, Protocol):
    """What we need of sink.writer.Writer."""

    @property
    def is_full(self) -> bool:
        """No more should be put now."""
        ...


@dataclass(frozen=True, slots=True)
class _Slices:
    """The slices of an experiment as they were compared last."""

    at: float
    mark: Mark
    sums: tuple[ArmSums, ...]


class Results:
    """Draws conclusions round by round, about the experiments whose partials this worker reads.

    trouble: why there are none now, in words. on_standings: told of every round's conclusions, in its thread.
    Rounds follow one another; only `keep_only` may be called from another thread.
    """

    def __init__(
        self,
        open_database: Callable[[], Database],
        sink: Sink,
        definitions: Definitions,
        rules: Rules,
        *,
        partitions: int,
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        """partitions: of the partials topic. uptime: seconds that never step back."""
        self.trouble: str | None = None
        self.on_standings: list[Callable[[list[Standing]], None]] = []
        self._open_database = open_database
        self._sink = sink
        self._definitions = definitions
        self._rules = replace(rules, attribution_window_ms=definitions.attribution_window_ms)
        self._partitions = partitions
        self._uptime = uptime
        self._owned: frozenset[int] = frozenset()
        self._database: Database | None = None
        self._asked: tuple[Reading, frozenset[int]] | None = None  # what the marks were found for
        self._marks: dict[str, Mark] = {}  # of our experiments, as the database has them
        self._seen: dict[str, Mark] = {}  # as they were concluded from
        self._slices: dict[str, _Slices] = {}

    def keep_only(self, partitions: set[int]) -> None:
        """Answer for the experiments of these partitions of the partials topic."""
        self._owned = frozenset(partitions)

    def round(self) -> None:
        """Conclude anew what changed, and write it. Never raises: without results, counting goes on."""
        if self._sink.is_full:
            return
        try:
            standings = self._conclude()
            put_standings(self._sink, standings)
            for tell in self.on_standings:
                tell(standings)
        except (LiftstreamError, ClickHouseError, OSError) as error:
            if self.trouble is None:
                log.warning("There are no new results and it will be tried again: %s", error)
            self._give_up(str(error))
        except Exception as error:
            if self.trouble is None:
                log.exception("There are no new results because of a fault of ours.")
            self._give_up(repr(error))
        else:
            self.trouble = None

    def _give_up(self, why: str) -> None:
        """Until the next round, which begins anew."""
        self.trouble = f"There are no new results: {why}"
        self._asked, self._seen, self._slices = None, {}, {}
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _conclude(self) -> list[Standing]:
        if self._database is None:
            self._database = self._open_database()
        marks = self._look(self._database)
        whole = sorted(name for name, mark in marks.items() if self._slices_are_due(name, mark))
        rest = sorted(
            name for name, mark in marks.items() if name not in whole and self._seen.get(name) != mark
        )
        found = [self._with_slices(one, marks[one.experiment]) for one in counted(self._database, whole)]
        found += [self._without_slices(one) for one in counted(self._database, rest, slices=False)]
        self._seen = marks
        self._slices = {name: slices for name, slices in self._slices.items() if name in marks}
        return found

    def _look(self, database: Database) -> dict[str, Mark]:
        """The marks of our experiments; without a new step in the database they are those of the last time."""
        owned = self._owned
        if not owned:
            return {}
        now = reading(database)
        if self._asked != (now, owned):
            self._marks = {
                name: _mark(now, version)
                for name, version in versions(database).items()
                if partition_for(name, self._partitions) in owned
            }
            self._asked = now, owned
        return self._marks

    def _slices_are_due(self, name: str, mark: Mark) -> bool:
        last = self._slices.get(name)
        return last is None or (last.mark != mark and self._uptime() - last.at >= SLICES_SECONDS)

    def _with_slices(self, one: Counted, mark: Mark) -> Standing:
        sliced = tuple(row for row in one.sums if row.slice != ALL)
        self._slices[one.experiment] = _Slices(self._uptime(), mark, sliced)
        return standing(self._definitions.experiment(one.experiment), one, self._rules)

    def _without_slices(self, one: Counted) -> Standing:
        """Results of `all`; the health looks at the slices as they were last."""
        known = replace(one, sums=(*one.sums, *self._slices[one.experiment].sums))
        return standing(self._definitions.experiment(one.experiment), known, self._rules, slices=[ALL])


def connect_results(app: faust.App, results: Results, partials_topic: str) -> None:
    """Draw conclusions about the experiments of the assigned partials, from the app's start to its stop."""

    @app.on_partitions_assigned.connect(weak=False)
    async def on_assigned(_: Any, assigned: set[TP], **__: Any) -> None:
        results.keep_only({tp.partition for tp in assigned if tp.topic == partials_topic})

    @app.service
    class Conclusions(Service):  # type: ignore[misc]
        @Service.task
        async def conclude(self) -> None:
            while not self.should_stop:
                started = time.monotonic()
                await asyncio.to_thread(results.round)
                took = time.monotonic() - started
                await self.sleep(max(ROUND_SECONDS, took / TIME_SHARE) - took)
            results.close()


def _mark(now: Reading, version: int) -> Mark:
    return now.generation, version, (now.as_of_ms or 0) // _MINUTE_MS
