"""Panes as fragments, partials for rolling windows, and outputs as absolute totals."""

from stream.contracts.topics import Topic
from stream.engine.layout import LEDGER
from stream.engine.outputs import Chunk, Outputs
from tests.engine.makers import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    T0,
    Run,
    an_assignment,
    an_impression,
    an_interaction,
)

PANE = ("e1", "treatment", "all", "", 10, T0)


def fragments(run: Run, key: tuple[object, ...]) -> dict[int, int]:
    """Impressions by fragment of one pane."""
    return {int(k[-1]): int(v[0]) for k, v in run.rows["panes"].items() if k[:-1] == key}


def chunk_cells(chunks: list[Chunk]) -> dict[tuple[str, int, str, int], list[int]]:
    return {
        (c.experiment, c.chunk_start_ms - T0, arm, start - T0): counts
        for c in chunks
        for arm, start, counts in zip(c.arms, c.pane_start_ms, c.counts, strict=True)
    }


def test_a_pane_that_is_busy_keeps_its_fragment_and_puts_out_absolute_counts() -> None:
    run = Run()
    run.step(assignments=[an_assignment()])
    run.step(impressions=[an_impression("i1", T0)])
    outputs = run.step(impressions=[an_impression("i2", T0 + 1)])
    assert fragments(run, PANE) == {2: 2}
    assert list(outputs.tables["panes"]["impressions"]) == [2] * 6


def test_only_touched_rows_are_put_out() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment(), an_assignment("a2", user_id="u2", arm="b")],
        impressions=[an_impression("i1", T0)],
    )
    outputs = run.step(impressions=[an_impression("i2", T0 + MINUTE, "u2")])
    assert set(outputs.tables["panes"]["arm"]) == set(outputs.tables["totals"]["arm"]) == {"b"}
    assert list(outputs.tables["ledger"]["topic"]) == ["impressions"]


def test_a_step_without_records_puts_out_nothing() -> None:
    run = Run()
    run.step(assignments=[an_assignment()], impressions=[an_impression()])
    outputs = run.step()
    assert [len(table[next(iter(table))]) for table in outputs.tables.values()] == [0] * 7
    assert (outputs.chunks, outputs.rows) == ([], 0)


def test_a_quiet_slice_pane_is_closed_and_reopens_at_zero_as_a_new_fragment() -> None:
    run = Run()
    pane = ("e1", "treatment", "surface", "home", 60, T0)
    run.step(
        assignments=[an_assignment()], impressions=[an_impression("i1", T0), an_impression("i2", T0 + SECOND)]
    )
    run.step(impressions=[an_impression("clock", T0 + HOUR)])
    run.step(impressions=[an_impression("clock2", T0 + HOUR + SECOND)])
    run.step(impressions=[an_impression("i3", T0 + 2 * SECOND)])
    assert fragments(run, pane) == {1: 2, 4: 1}
    assert run.panes()[*pane[:4], T0]["impressions"] == 3


def test_a_pane_of_all_is_closed_when_no_rolling_window_needs_it_and_reopens_as_a_new_fragment() -> None:
    run = Run()
    run.definitions = run.definitions.model_copy(update={"allowed_lateness_ms": 7 * DAY})
    run.step(assignments=[an_assignment()], impressions=[an_impression("i1", T0)])
    run.step(impressions=[an_impression("i2", T0 + 12 * HOUR)])
    run.step(impressions=[an_impression("i3", T0)])
    assert fragments(run, PANE) == {1: 2}
    run.step(impressions=[an_impression("clock", T0 + 2 * DAY)])
    run.step(impressions=[an_impression("i4", T0)])
    assert fragments(run, PANE) == {1: 2, 5: 1}


def test_a_repair_of_a_closed_pane_is_a_fragment_with_a_sign() -> None:
    run = Run()
    pane = ("e1", "treatment", "surface", "home", 60, T0)
    run.step(
        assignments=[an_assignment()],
        impressions=[an_impression("i1", T0)],
        interactions=[an_interaction(at=T0)],
    )
    run.step(impressions=[an_impression("clock", T0 + HOUR, "u2")])
    run.step()
    run.step(assignments=[an_assignment("a2", T0 + HOUR, arm="control")])
    assert fragments(run, pane) == {1: 1, 4: -1}
    assert not [key for key in run.panes() if key[1] == "treatment"]


def test_a_closed_hour_of_the_ledger_reopens_as_a_new_fragment() -> None:
    run = Run()
    run.step(impressions=[an_impression("i1", T0)])
    for k in range(1, 130):
        run.step(interactions=[an_interaction(f"n{k}", T0 + k * 10 * SECOND)])
    assert int(run.engine._store.m[LEDGER]) == 1
    run.step(assignments=[an_assignment(at=T0 + 1300 * SECOND)])
    rows = {k[2]: v for k, v in run.rows["ledger"].items() if k[0] == "impressions"}
    assert rows[1][:5] == (1, 0, 0, 0, 1)  # consumed, counted, duplicate, late, outside
    assert rows[131][:5] == (0, 1, 0, 0, -1)
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 1, "counted": 1}


def test_a_partial_holds_all_panes_of_its_five_minutes_and_only_touched_ones_are_put_out() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment(), an_assignment("a2", user_id="u2", arm="b")],
        impressions=[an_impression("i1", T0), an_impression("i2", T0 + 5 * MINUTE),
                     an_impression("i3", T0 + 9_999, "u2")],
    )  # fmt: skip
    outputs = run.step(impressions=[an_impression("i4", T0 + 4 * MINUTE)])
    assert chunk_cells(outputs.chunks) == {
        ("e1", 0, "treatment", 0): [1, 0, 0, 0, 0, 0],
        ("e1", 0, "treatment", 4 * MINUTE): [1, 0, 0, 0, 0, 0],
        ("e1", 0, "b", 0): [1, 0, 0, 0, 0, 0],
    }
    live = chunk_cells(run.engine.live_chunks())
    assert live == chunk_cells(outputs.chunks) | {
        ("e1", 5 * MINUTE, "treatment", 5 * MINUTE): [1, 0, 0, 0, 0, 0]
    }


def test_a_partial_is_absolute_over_steps_and_says_zero_after_a_repair() -> None:
    run = Run()
    run.step(assignments=[an_assignment()], impressions=[an_impression("i1", T0)])
    outputs = run.step(impressions=[an_impression("i2", T0)], interactions=[an_interaction(at=T0)])
    assert chunk_cells(outputs.chunks) == {("e1", 0, "treatment", 0): [2, 1, 0, 1, 0, 0]}
    outputs = run.step(assignments=[an_assignment("a2", T0 + 1, arm="control")])
    assert chunk_cells(outputs.chunks)["e1", 0, "treatment", 0] == [0, 0, 0, 0, 0, 0]


def test_partials_leave_a_day_after_their_end() -> None:
    run = Run()
    run.step(assignments=[an_assignment()], impressions=[an_impression("i1", T0)])
    run.step(impressions=[an_impression("clock", T0 + DAY + 5 * MINUTE - 1, "u2")])
    assert len(run.engine.live_chunks()) == 1
    run.step(impressions=[an_impression("clock2", T0 + DAY + 5 * MINUTE, "u2")])
    assert run.engine.live_chunks() == []


def test_the_sum_of_partials_is_the_sum_of_panes() -> None:
    run = Run()
    seen: dict[tuple[str, int, str, int], list[int]] = {}

    def keep(outputs: Outputs) -> None:
        seen.update(chunk_cells(outputs.chunks))

    keep(run.step(assignments=[an_assignment(f"a{k}", user_id=f"u{k}", arm="ab"[k % 2]) for k in range(10)]))
    for hour in range(12):
        shown = [
            an_impression(f"{hour}-{k}", T0 + hour * HOUR + k * 100_000, f"u{k % 10}") for k in range(30)
        ]
        keep(run.step(impressions=shown))
    assert sum(counts[0] for counts in seen.values()) == 360
    assert sum(v["impressions"] for k, v in run.panes().items() if k[2] == "all") == 360


def test_outputs_say_how_far_the_partition_is() -> None:
    run = Run()
    outputs = run.step(impressions=[an_impression(at=T0), (b"poison", T0)])
    assert (outputs.step, outputs.rows, outputs.clock_ms, outputs.horizon_ms) == (1, 2, T0, T0 - DAY)
