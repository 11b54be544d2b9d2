from pathlib import Path

import pytest

from benchmarks.takeover.__main__ import Figure
from benchmarks.takeover.steps import Steps
from stream.durability.journal import Entry, Journal, Range
from stream.durability.store import open_store

NOTHING = Range(0, 0, 0, 0)


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    journal = Journal(open_store(tmp_path.as_uri()), "g000001/p00001")
    for number, (at_ms, pid) in enumerate([(1_000, 7), (2_000, 7), (6_500, 8), (7_500, 8)], 1):
        entry = Entry(
            number=number, ranges=(NOTHING,) * 3, caught_up=(True,) * 3, definitions="", engine_version=1,
            planned_at_ms=at_ms, writer=f"a-host-{pid}-0123abcd",
        )  # fmt: skip
        journal.append(entry)
    read = Steps(tmp_path, partitions=2)
    read.read()
    return read


def test_the_owner_is_the_process_that_took_the_newest_step(steps: Steps) -> None:
    assert steps.owners() == {1: 8}
    assert steps.newest_ms(1) == 7_500
    assert steps.newest_ms(0) == 0


def test_a_takeover_ends_with_the_first_step_of_another_process(steps: Steps) -> None:
    found = steps.first(1, 1_500, (7).__ne__)
    assert found is not None
    assert found.at_ms == 6_500
    assert steps.first(1, 7_500, (7).__ne__) is None


def test_a_standstill_is_the_longest_pause_that_ends_later(steps: Steps) -> None:
    assert steps.standstill(1, 1_500) == 4.5
    assert steps.standstill(1, 6_600) == 1.0
    assert steps.standstill(0, 0) == 0.0


def test_a_budget_is_for_the_95th_percentile() -> None:
    figure = Figure.of("killed", [5.0] * 19 + [11.0])
    assert (figure.n, figure.p50, figure.p95, figure.max) == (20, 5.0, 11.0, 11.0)
    assert not figure.is_kept
    assert Figure.of("killed", [5.0] * 21 + [11.0]).is_kept
