"""The second agent while it catches up: nothing incomplete is written, and compaction cannot hurt for long."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from stream.app.rolling import RollingWindows
from stream.engine.outputs import Chunk
from stream.rolling.partials import encode, partition_for

DAY = 1_767_225_600_000
PARTITIONS = 4
HOME = partition_for("ranker", PARTITIONS)


@dataclass
class KeptRows:
    """Of each row the newest version, as ClickHouse shows it."""

    rows: dict[tuple[str, str, int], tuple[int, int]] = field(default_factory=dict)  # version, impressions
    writes: int = 0
    is_full = False

    def put_rows(self, table: str, columns: Any, *, generation: int, version: Any) -> None:
        self.writes += 1
        names = (columns["experiment"], columns["arm"], columns["window_seconds"].tolist())
        counts = columns["impressions"].tolist()
        for key, newest, count in zip(zip(*names, strict=True), version.tolist(), counts, strict=True):
            if self.rows.get(key, (-1, 0))[0] <= newest:
                self.rows[key] = newest, count

    def shown(self, window: int = 86_400) -> int:
        return self.rows["ranker", "a", window][1]


def a_partial(count: int, *, step: int, chunk: int = 0, partition: int = 0) -> tuple[bytes, bytes]:
    start_ms = DAY + chunk * 300_000
    told = Chunk("ranker", start_ms, ["a"], [start_ms], [[count, 0, 0, 0, 0, 0]])
    return encode(
        told,
        generation=1,
        version=step,
        partition=partition,
        clock_ms=DAY + 3_600_000,
        planned_at_ms=DAY + step,
    )


def read(windows: RollingWindows, log: list[tuple[int, tuple[bytes, bytes]]]) -> None:
    for offset, message in log:
        windows.take(HOME, offset, *message)


def compacted(log: list[tuple[int, tuple[bytes, bytes]]]) -> list[tuple[int, tuple[bytes, bytes]]]:
    """The last message of each key."""
    last = {key: (offset, (key, value)) for offset, (key, value) in log}
    return sorted(last.values())


def a_reader(rows: KeptRows, end: int) -> RollingWindows:
    windows = RollingWindows(rows, partitions=PARTITIONS)
    windows.assign({HOME})
    assert windows.without_end == {HOME}
    windows.expect({HOME: end})
    assert windows.without_end == set()
    return windows


def test_no_window_is_written_before_the_partials_were_read_to_the_end_they_had() -> None:
    log = list(enumerate([a_partial(5, step=1), a_partial(7, step=1, partition=1), a_partial(6, step=2)]))
    rows = KeptRows()
    windows = a_reader(rows, end=3)
    for place, entry in enumerate(log):
        windows.write()
        assert rows.writes == 0, place
        read(windows, [entry])
    windows.write()
    assert rows.shown() == 13


def test_nothing_is_written_while_the_end_is_unknown_and_then_at_once() -> None:
    rows = KeptRows()
    windows = RollingWindows(rows, partitions=PARTITIONS)
    windows.assign({HOME})
    read(windows, [(0, a_partial(5, step=1))])
    windows.write()
    assert rows.writes == 0
    windows.expect({HOME: 1})
    windows.write()
    assert rows.shown() == 5


def test_an_empty_partition_is_complete_at_once() -> None:
    rows = KeptRows()
    windows = a_reader(rows, end=0)
    read(windows, [(0, a_partial(5, step=1))])
    windows.write()
    assert rows.shown() == 5


def test_a_partition_that_stays_is_written_on_and_one_that_comes_back_is_read_anew() -> None:
    rows = KeptRows()
    windows = a_reader(rows, end=1)
    read(windows, [(0, a_partial(5, step=1))])
    other = (HOME + 1) % PARTITIONS
    windows.assign({HOME, other})
    assert windows.without_end == {other}
    windows.write()
    assert rows.shown() == 5
    windows.assign({other})
    windows.assign({HOME, other})
    assert windows.without_end == {HOME, other}
    assert windows.state.chunks_held == 0


@pytest.mark.parametrize("republished", [False, True])
def test_a_late_partial_of_a_zombie_that_compaction_kept_is_healed_by_the_next_snapshot(
    republished: bool,
) -> None:
    log = list(enumerate([a_partial(5, step=1), a_partial(9, step=3), a_partial(5, step=1)]))
    rows = KeptRows()
    first = a_reader(rows, end=3)
    read(first, log)
    first.write()
    assert rows.shown() == 9  # who has read everything is not misled
    second = a_reader(rows, end=3)
    if republished:
        log = [*log, (3, a_partial(9, step=3))]
    read(second, compacted(log))
    second.write()
    assert rows.shown() == 9  # the older version does not replace what was written
    assert int(second.state.rows().columns["impressions"][-1]) == (9 if republished else 5)


def test_guardrails_see_the_windows_as_they_were_written_and_only_of_our_experiments() -> None:
    windows = a_reader(KeptRows(), end=1)
    assert windows.windows_of("ranker") == []
    start_ms = DAY + 3_590_000
    told = Chunk(
        "ranker", DAY + 3_300_000, ["a", "b"], [start_ms, start_ms], [[9, 4, 2, 0, 0, 0], [7, 1, 0, 0, 0, 0]]
    )
    about = {"generation": 1, "version": 1, "partition": 0, "planned_at_ms": DAY}
    windows.take(HOME, 0, *encode(told, clock_ms=DAY + 3_600_000, **about))
    windows.write()
    seen = [row for row in windows.windows_of("ranker") if row.window == "5m"]
    assert [(row.arm, row.impressions, row.clicked_impressions) for row in seen] == [("a", 9, 4), ("b", 7, 1)]
    assert seen[0].value("ctr") == pytest.approx(4 / 9)
    assert windows.windows_of("shelf") == []
    windows.assign(set())
    assert windows.windows_of("ranker") == []
