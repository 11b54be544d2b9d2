"""Duplicates: same event_id in the same topic within the horizon, or the same impression_id; the lowest offset wins."""

import pytest

from stream.contracts.definitions import Arm, Definitions, Experiment
from stream.contracts.topics import Topic
from tests.engine.makers import DAY, HOUR, MINUTE, T0, Run, an_assignment, an_impression, an_interaction


@pytest.mark.parametrize("apart", [False, True])
def test_the_same_event_id_in_a_topic_counts_once_and_the_lowest_offset_wins(apart: bool) -> None:
    run = Run()
    first = an_impression("i", T0 + MINUTE, impression_id="p")
    second = an_impression("i", T0 + 2 * MINUTE, impression_id="q")
    run.step(assignments=[an_assignment()], impressions=[first] if apart else [first, second])
    if apart:
        run.step(impressions=[second])
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 2, "counted": 1, "duplicate": 1}
    assert run.panes()["e1", "treatment", "all", "", T0 + MINUTE]["impressions"] == 1
    assert run.total()["impressions"] == 1


def test_the_same_event_id_in_different_topics_is_no_duplicate() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment("same")], impressions=[an_impression("same", impression_id="imp-i1")],
        interactions=[an_interaction("same")],
    )  # fmt: skip
    assert [run.outcomes(topic)["counted"] for topic in Topic] == [1, 1, 1]


def test_the_same_impression_id_counts_once_even_from_another_user() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment(), an_assignment("a2", user_id="u2")],
        impressions=[
            an_impression("i1"), an_impression("i2", impression_id="imp-i1"),
            an_impression("i3", user_id="u2", impression_id="imp-i1"),
        ],
    )  # fmt: skip
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 3, "counted": 1, "duplicate": 2}
    assert run.total()["impressions"] == 1


def test_ids_that_differ_in_the_last_of_many_characters_are_different() -> None:
    run = Run()
    ids = ["x" * 255 + end for end in "ab"] + ["x" * 255]
    run.step(assignments=[an_assignment()], impressions=[an_impression(i, impression_id=i) for i in ids])
    assert run.total()["impressions"] == 3


def test_a_duplicate_assignment_changes_nothing() -> None:
    run = Run()
    run.step(assignments=[an_assignment("a", arm="treatment"), an_assignment("a", arm="control")])
    assert run.outcomes(Topic.ASSIGNMENTS) == {"consumed": 2, "counted": 1, "duplicate": 1}
    assert run.total()["assigned_users"] == 1
    assert run.total()["mixed_users"] == 0


def test_a_repeated_interaction_counts_once() -> None:
    run = Run()
    buys = [an_interaction("n", kind="purchase", value_minor=700)] * 3
    run.step(assignments=[an_assignment()], impressions=[an_impression()], interactions=buys)
    assert (run.total()["conversions"], run.total()["revenue_minor"]) == (1, 700)
    assert run.outcomes(Topic.INTERACTIONS) == {"consumed": 3, "counted": 1, "duplicate": 2, "attributed": 1}


def test_the_id_of_a_rejected_event_is_not_remembered() -> None:
    run = Run()
    run.step(assignments=[an_assignment()], impressions=[(an_impression("i", T0 + HOUR), T0)])
    run.step(impressions=[an_impression("i", T0 + MINUTE)])
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 2, "rejected": 1, "counted": 1}


def test_the_id_of_an_assignment_to_an_unknown_arm_is_not_remembered() -> None:
    run = Run(Definitions(experiments=(Experiment(name="e1", arms={"a": Arm(), "b": Arm()}),)))
    run.step(assignments=[an_assignment("x", arm="c")])
    run.step(assignments=[an_assignment("x", arm="a")])
    assert run.outcomes(Topic.ASSIGNMENTS) == {"consumed": 2, "rejected": 1, "counted": 1}


def test_the_id_of_a_late_event_is_not_remembered() -> None:
    run = Run()
    run.step(assignments=[an_assignment()], impressions=[an_impression("now", T0 + HOUR)])
    run.step(impressions=[an_impression("i", T0 - 3 * DAY)])
    run.step(impressions=[an_impression("i", T0 + HOUR)])
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 3, "counted": 2, "late": 1}


def test_an_id_is_forgotten_when_the_horizon_passes() -> None:
    run = Run()
    run.step(interactions=[an_interaction("n", T0)])
    run.step(interactions=[an_interaction("m", T0 + DAY)])
    run.step(interactions=[an_interaction("n", T0 + DAY)])  # the horizon is T0: still remembered
    assert run.outcomes(Topic.INTERACTIONS)["duplicate"] == 1
    run.step(interactions=[an_interaction("k", T0 + DAY + 1)])
    run.step(interactions=[an_interaction("n", T0 + DAY + 2)])
    assert run.outcomes(Topic.INTERACTIONS)["duplicate"] == 1


def test_an_id_that_comes_again_and_again_stays_a_duplicate_of_the_first_only() -> None:
    run = Run()
    run.step(interactions=[an_interaction("n", T0)])
    for k in range(1, 5):
        run.step(interactions=[an_interaction("n", T0 + k * HOUR)])
    assert run.outcomes(Topic.INTERACTIONS) == {"consumed": 5, "outside": 1, "duplicate": 4}
