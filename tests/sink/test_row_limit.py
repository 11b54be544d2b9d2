"""What ClickHouse gets stays below the limit in any ten seconds, and nothing of it is lost."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream.sink.row_limit import WINDOW_SECONDS, RowLimit
from stream.sink.writer import Writer
from tests.simulation.database import HandWriter
from tests.sink.fakes import FakeClickHouse, away
from tests.sink.makers import a_dead_letter, a_pane, an_emission

LIMIT = 10
WINDOW_ROWS = int(LIMIT * WINDOW_SECONDS)


@dataclass
class HandClock:
    """Seconds that only waiting moves."""

    seconds: float = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class TimedClickHouse(FakeClickHouse):
    """Notes when how many rows came; an insert takes a moment."""

    clock: HandClock
    came: list[tuple[float, int]] = field(default_factory=list)
    on_insert: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        super().__init__()

    def insert_arrow(self, table: str, arrow_table: pa.Table, *, settings: dict[str, Any]) -> None:
        super().insert_arrow(table, arrow_table, settings=settings)
        self.came.append((self.clock.seconds, arrow_table.num_rows))
        self.clock.seconds += 0.02
        self.on_insert()

    @property
    def most_of_a_window(self) -> int:
        """Rows of the worst ten seconds."""
        return max(
            sum(n for at, n in self.came if start <= at < start + WINDOW_SECONDS) for start, _ in self.came
        )


class HandTimedWriter(HandWriter):
    """Waiting moves the clock, and may let something happen."""

    clock: HandClock
    waits = 0

    def _pause(self, seconds: float) -> None:
        self.waits += 1
        self.clock.seconds += seconds


def a_writer(**options: Any) -> tuple[HandTimedWriter, TimedClickHouse]:
    clock = HandClock()
    database = TimedClickHouse(clock)
    writer = HandTimedWriter(
        database.client, now=clock, limit=RowLimit(LIMIT, uptime=clock), interval_seconds=0, **options
    )
    writer.clock = clock
    return writer, database


@given(st.lists(st.tuples(st.floats(0, 15), st.integers(1, 3 * WINDOW_ROWS)), min_size=1, max_size=30))
@example([(4.0, 101), (10.0, 100)])  # a window may end between two neighbouring floats
def test_no_ten_seconds_get_more_and_nobody_waits_longer_than_that(flushes: list[tuple[float, int]]) -> None:
    clock = HandClock()
    limit = RowLimit(LIMIT, uptime=clock)
    sent: list[tuple[float, int]] = []
    for pause, rows in flushes:
        clock.seconds += pause
        left = rows
        while left:
            wait = limit.seconds_until(left)
            assert wait < WINDOW_SECONDS + 1e-6
            clock.seconds += wait + 1e-6 * (wait > 0)
            part = int(min(left, limit.room()))
            assert part
            limit.note(part)
            sent.append((clock.seconds, part))
            left -= part
    for start, _ in sent:
        assert sum(n for at, n in sent if start <= at < start + WINDOW_SECONDS) <= WINDOW_ROWS


def test_without_a_limit_nobody_waits() -> None:
    limit = RowLimit()
    limit.note(10**9)
    assert limit.seconds_until(10**9) == 0


@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.integers(0, 2), st.integers(0, 150), st.integers(1, 150)),
        min_size=1,
        max_size=25,
    )
)
def test_however_many_rows_steps_make_the_newest_of_each_arrives_at_that_pace(
    steps: list[tuple[float, int, int, int]],
) -> None:
    writer, database = a_writer()
    newest: dict[tuple[int, int], int] = {}
    last: dict[int, int] = {}
    for step, (pause, partition, first, many) in enumerate(steps, 1):
        writer.clock.seconds += pause
        panes = [a_pane(fragment=i, impressions=step) for i in range(first, first + many)]
        newest.update({(partition, i): step for i in range(first, first + many)})
        last[partition] = step
        writer.put(an_emission(step, partition=partition, panes=panes))
        if step % 3:
            writer.flush()
    writer.flush()
    assert database.most_of_a_window <= WINDOW_ROWS
    assert {(r["partition"], r["fragment"]): r["impressions"] for r in database.rows("panes")} == newest
    assert {partition: writer.acked(partition) for partition in last} == last


def test_few_rows_go_at_once_and_whole() -> None:
    writer, database = a_writer()
    for step in range(1, 30):
        writer.put(an_emission(step, panes=[a_pane(fragment=i) for i in range(4)]))
        writer.flush()
        writer.clock.seconds += 1
    assert writer.waits == 0
    assert writer.held_back_seconds == 0
    assert len(database.inserts) == 29 * 2  # panes and status


def test_what_comes_while_rows_are_held_back_takes_their_place() -> None:
    writer, database = a_writer()
    steps = iter(range(2, 5))

    def put(step: int) -> None:
        writer.put(an_emission(step, panes=[a_pane(fragment=i, impressions=step) for i in range(90)]))

    put(1)
    writer.flush()
    put(2)
    pause = writer._pause

    def put_meanwhile(seconds: float) -> None:
        pause(seconds)
        if (step := next(steps, None)) is not None:
            put(step)

    writer._pause = put_meanwhile  # type: ignore[method-assign]
    writer.flush()
    assert sum(rows.num_rows for name, rows in database.inserts if name == "panes") == 180
    assert writer.acked(0) == 4
    assert writer.held_back_seconds > 5
    put(5)
    writer.clock.seconds += 20
    writer.flush()
    assert writer.held_back_seconds == 0


def test_a_flush_that_was_held_back_and_fails_loses_nothing() -> None:
    writer, database = a_writer()
    writer.put(an_emission(1, dead_letters=[a_dead_letter(offset=i) for i in range(250)]))
    database.on_insert = lambda: database.answers.append(away()) if len(database.inserts) == 2 else None
    writer.flush()
    assert writer.acked(0) == -1
    writer.flush()
    assert writer.acked(0) == 1
    assert len({row["offset"] for row in database.rows("dead_letter_rows")}) == 250
    assert database.most_of_a_window <= WINDOW_ROWS


def test_pieces_are_large_enough_to_be_worth_an_insert() -> None:
    writer, database = a_writer()
    writer.put(an_emission(1, dead_letters=[a_dead_letter(offset=i) for i in range(1_000)]))
    writer.flush()
    sizes = [n for _, n in database.came[:-2]]
    assert min(sizes) >= WINDOW_ROWS // 4
    assert all(later >= earlier for (earlier, _), (later, _) in pairwise(database.came))


def test_closing_does_not_wait_for_the_limit() -> None:
    writer = Writer(FakeClickHouse().client, interval_seconds=0, limit=RowLimit(1_000))
    writer.put(an_emission(1, dead_letters=[a_dead_letter(offset=i) for i in range(20_001)]))
    writer.close(0.2)
    assert writer.acked(0) == -1
    assert writer.error is None
    assert not writer._thread.is_alive()


@pytest.mark.parametrize("rows", [1, WINDOW_ROWS // 4, WINDOW_ROWS])
def test_a_window_holds_what_a_flush_of_ten_seconds_brings(rows: int) -> None:
    limit = RowLimit(LIMIT, uptime=HandClock())
    assert limit.seconds_until(rows) == 0
