"""Event time: panes, lateness, the future, the partition's clock and its horizon."""

from itertools import permutations

import pytest

from stream.contracts.definitions import Arm, Definitions, Experiment
from stream.contracts.topics import Topic
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

IMPRESSIONS, INTERACTIONS = Topic.IMPRESSIONS, Topic.INTERACTIONS


def impressions_by_pane(run: Run, dimension: str = "all", value: str = "") -> dict[int, int]:
    """Impressions by pane start, in ms after T0."""
    return {
        key[4] - T0: counts["impressions"]
        for key, counts in run.panes().items()
        if key[2:4] == (dimension, value)
    }


def test_a_pane_holds_its_start_and_not_its_end() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment()],
        impressions=[an_impression(f"i{at}", T0 + at) for at in (0, 9_999, 10_000, 59_999, 60_000)],
    )
    assert impressions_by_pane(run) == {0: 2, 10_000: 1, 50_000: 1, 60_000: 1}
    assert impressions_by_pane(run, "surface", "home") == {0: 4, 60_000: 1}


def test_an_event_exactly_at_the_horizon_counts_and_one_a_millisecond_before_is_late() -> None:
    run = Run()
    run.step(assignments=[an_assignment(at=T0 - DAY)], impressions=[an_impression("i1", T0 + HOUR)])
    assert run.engine.horizon_ms == T0 + HOUR - DAY
    run.step(
        impressions=[an_impression("at", T0 + HOUR - DAY), an_impression("late", T0 + HOUR - DAY - 1)],
        interactions=[an_interaction("n", T0 + HOUR - DAY - 1)],
    )
    assert run.outcomes(IMPRESSIONS) == {"consumed": 3, "counted": 2, "late": 1}
    assert run.outcomes(INTERACTIONS) == {"consumed": 1, "late": 1}
    assert run.total()["impressions"] == 2
    assert run.total()["clicks"] == 0


def test_lateness_is_judged_by_the_horizon_at_the_start_of_the_step() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment(at=T0 - 3 * DAY)],
        impressions=[an_impression("new", T0 + HOUR), an_impression("old", T0 - 2 * DAY)],
    )
    assert run.outcomes(IMPRESSIONS) == {"consumed": 2, "counted": 2}


def test_an_assignment_is_never_late() -> None:
    run = Run()
    run.step(impressions=[an_impression(at=T0 + HOUR)])
    run.step(assignments=[an_assignment(at=T0 - 30 * DAY)])
    assert run.outcomes(Topic.ASSIGNMENTS) == {"consumed": 1, "counted": 1}
    assert run.total()["impressions"] == 1


@pytest.mark.parametrize(("ahead", "outcome"), [(5 * MINUTE, "counted"), (5 * MINUTE + 1, "rejected")])
def test_an_event_may_be_five_minutes_ahead_of_its_record_time(ahead: int, outcome: str) -> None:
    run = Run()
    run.step(
        assignments=[an_assignment()],
        impressions=[(an_impression(at=T0 + ahead), T0)],
        interactions=[(an_interaction(at=T0 + ahead), T0)],
        planned_at=T0 + HOUR,
    )
    assert run.outcomes(IMPRESSIONS) == {"consumed": 1, outcome: 1}
    assert run.outcomes(INTERACTIONS)[outcome] == 1


def test_an_assignment_from_the_future_is_rejected_too_and_moves_no_clock() -> None:
    run = Run()
    run.step(assignments=[(an_assignment(at=T0 + HOUR), T0)])
    assert run.dead_letters() == [("assignments", 0, "future_timestamp", "at")]
    assert run.engine.clock_ms == -1


def test_a_record_time_far_ahead_of_the_planner_does_not_vouch_for_the_future() -> None:
    run = Run()
    just, beyond = T0 + HOUR + 5 * MINUTE, T0 + HOUR + 5 * MINUTE + 1
    run.step(
        impressions=[
            (an_impression("just", just), T0 + 9 * DAY),
            (an_impression("beyond", beyond), T0 + 9 * DAY),
        ],
        planned_at=T0,
    )
    assert run.dead_letters() == [("impressions", 1, "future_timestamp", "at")]
    assert run.engine.clock_ms == just


def test_without_a_record_time_the_planners_clock_judges_the_future() -> None:
    run = Run()
    run.step(
        impressions=[
            (an_impression("i", T0 + 5 * MINUTE), -1),
            (an_impression("j", T0 + 5 * MINUTE + 1), -1),
        ],
        planned_at=T0,
    )
    assert run.dead_letters() == [("impressions", 1, "future_timestamp", "at")]
    assert run.ledger() == {("impressions", T0 // HOUR): {"consumed": 2, "outside": 1, "rejected": 1}}


def test_with_all_topics_caught_up_the_clock_is_the_largest_time_of_all() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment(at=T0)], impressions=[an_impression(at=T0 + 5), an_impression("j", T0 + 3)]
    )
    assert run.engine.clock_ms == T0 + 5
    assert run.engine.horizon_ms == T0 + 5 - DAY
    assert run.engine.newest_ms == (T0, T0 + 5, -1)


def test_the_clock_is_the_smallest_among_the_topics_that_are_not_caught_up() -> None:
    run = Run()
    events = {
        "assignments": [an_assignment(at=T0)], "impressions": [an_impression(at=T0 + HOUR)],
        "interactions": [an_interaction(at=T0 + 2 * HOUR)],
    }  # fmt: skip
    run.step(**events, caught_up=(True, False, False))  # type: ignore[arg-type]
    assert run.engine.clock_ms == T0 + HOUR


def test_a_topic_that_is_not_caught_up_and_brought_nothing_yet_holds_the_clock() -> None:
    run = Run()
    run.step(impressions=[an_impression(at=T0 + HOUR)], caught_up=(True, True, False))
    assert (run.engine.clock_ms, run.engine.horizon_ms) == (-1, -1)
    run.step(impressions=[an_impression("j", T0 - 90 * DAY)], caught_up=(True, True, False))
    assert run.outcomes(IMPRESSIONS)["late"] == 0
    run.step(caught_up=(True, True, True))
    assert run.engine.clock_ms == T0 + HOUR


def test_the_clock_never_goes_back() -> None:
    run = Run()
    run.step(impressions=[an_impression(at=T0 + HOUR)], interactions=[an_interaction(at=T0)])
    run.step(caught_up=(True, True, False))
    assert (run.engine.clock_ms, run.engine.horizon_ms) == (T0 + HOUR, T0 + HOUR - DAY)
    run.step(impressions=[an_impression("j", at=T0 + MINUTE)])
    assert run.engine.clock_ms == T0 + HOUR


def test_a_longer_allowed_lateness_does_not_move_the_horizon_back() -> None:
    run = Run()
    run.step(impressions=[an_impression(at=T0)])
    run.definitions = Definitions(allowed_lateness_ms=30 * DAY)
    run.step(impressions=[an_impression("j", at=T0 + SECOND)])
    assert run.engine.horizon_ms == T0 - DAY


def test_late_and_rejected_events_do_not_move_the_clock_but_outside_and_duplicate_ones_do() -> None:
    run = Run()
    run.step(impressions=[an_impression("i", T0), (an_impression("future", T0 + DAY), T0)])
    assert run.engine.clock_ms == T0
    run.step(impressions=[an_impression("i", T0 + MINUTE)])
    assert run.outcomes(IMPRESSIONS) == {"consumed": 3, "outside": 1, "rejected": 1, "duplicate": 1}
    assert run.engine.clock_ms == T0 + MINUTE
    run.step(impressions=[an_impression("late", T0 - 2 * DAY)])
    assert run.engine.clock_ms == T0 + MINUTE


def test_an_assignment_rejected_for_its_arm_does_not_move_the_clock() -> None:
    run = Run(Definitions(experiments=(Experiment(name="e1", arms={"a": Arm(), "b": Arm()}),)))
    run.step(assignments=[an_assignment(at=T0, arm="c")])
    assert run.engine.clock_ms == -1


def test_any_order_of_arrival_gives_the_same_numbers() -> None:
    events = [
        ("assignments", an_assignment("a1", T0, arm="a")), ("assignments", an_assignment("a2", T0 + HOUR, arm="a")),
        ("impressions", an_impression("i1", T0 + MINUTE)), ("interactions", an_interaction("n1", T0 + 2 * MINUTE)),
        ("interactions", an_interaction("n2", T0 + 3 * MINUTE, kind="purchase", value_minor=5)),
    ]  # fmt: skip
    seen = []
    for order in permutations(events):
        run = Run()
        for topic, event in order:
            run.step(**{topic: [event]})  # type: ignore[arg-type]
        seen.append((run.totals(), run.panes(), run.outcomes(INTERACTIONS)))
    assert all(other == seen[0] for other in seen)
    assert seen[0][0]["e1", "a", "all", ""]["revenue_minor"] == 5
