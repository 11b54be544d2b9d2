"""Experiments: declared or not, their arms and limits, and how they end and freeze."""

import pytest

from stream.contracts.definitions import Arm, Definitions, Experiment, Metric, Policy
from stream.contracts.topics import Topic
from tests.engine.makers import DAY, HOUR, MINUTE, T0, Run, an_assignment, an_impression, an_interaction

END = T0 + HOUR
NAMES = ("impressions", "clicked_impressions", "clicks")


def an_ending_run(**rules: int) -> Run:
    return Run(Definitions(experiments=(Experiment(name="e1", ends_at_ms=END),), **rules))


def numbers(run: Run) -> list[int]:
    return [run.total()[name] for name in NAMES]


def test_an_experiment_without_a_file_works() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment(experiment="nobody declared me", arm="x")], impressions=[an_impression()]
    )
    assert run.total("nobody declared me", "x")["impressions"] == 1


def test_an_arm_missing_from_an_existing_file_is_rejected() -> None:
    run = Run(Definitions(experiments=(Experiment(name="e1", arms={"control": Arm(), "b": Arm()}),)))
    run.step(
        assignments=[an_assignment("1", arm="c"), an_assignment("2", arm="b")], impressions=[an_impression()]
    )
    assert run.dead_letters() == [("assignments", 0, "unknown_arm", "arm")]
    assert run.outcomes(Topic.ASSIGNMENTS) == {"consumed": 2, "rejected": 1, "counted": 1}
    assert run.total(arm="b")["impressions"] == 1
    assert run.total(arm="b")["mixed_users"] == 0


def test_an_arm_that_was_used_before_its_file_came_without_it_is_rejected_from_then_on() -> None:
    run = Run()
    run.step(assignments=[an_assignment("1", arm="c")])
    run.definitions = Definitions(experiments=(Experiment(name="e1", arms={"control": Arm(), "b": Arm()}),))
    run.step(assignments=[an_assignment("2", user_id="u2", arm="c")])
    assert run.dead_letters() == [("assignments", 1, "unknown_arm", "arm")]
    assert run.total(arm="c")["assigned_users"] == 1


def test_the_21st_arm_is_rejected_and_the_twenty_go_on() -> None:
    run = Run()
    run.step(assignments=[an_assignment(f"a{k}", user_id=f"u{k}", arm=f"arm{k}") for k in range(22)])
    run.step(assignments=[an_assignment("more", user_id="more", arm="arm19")])
    assert run.dead_letters() == [("assignments", k, "too_many_arms", "arm") for k in (20, 21)]
    assert [run.total(arm=f"arm{k}")["assigned_users"] for k in (0, 18, 19, 20)] == [1, 1, 2, 0]


def test_the_1001st_experiment_is_rejected_and_the_thousand_go_on() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment(f"a{k}", experiment=f"e{k}") for k in range(1_001)],
        impressions=[an_impression()],
    )
    assert run.dead_letters() == [("assignments", 1_000, "too_many_experiments", "experiment")]
    assert len(run.totals()) == 4_000
    assert all(counts["impressions"] == 1 for counts in run.totals().values())
    run.step(assignments=[an_assignment("again", user_id="u2", experiment="e999")])
    assert run.total("e999")["assigned_users"] == 2


def test_a_frozen_experiment_makes_room_for_another() -> None:
    ended = Definitions(experiments=(Experiment(name="ended", ends_at_ms=T0 + 1),))
    run = Run(ended)
    run.step(assignments=[an_assignment(f"a{k}", experiment=f"e{k}") for k in range(999)])
    run.step(assignments=[an_assignment("b", experiment="one too many")])
    assert [reason for _, _, reason, _ in run.dead_letters()] == ["too_many_experiments"]
    run.step(impressions=[an_impression(at=T0 + 2 + 2 * DAY)])
    run.step()
    run.step(assignments=[an_assignment("c", experiment="now there is room")])
    assert run.total("now there is room")["assigned_users"] == 1


@pytest.mark.parametrize(("at", "counts"), [(END - 1, 1), (END, 0)])
def test_from_the_end_on_no_impression_counts(at: int, counts: int) -> None:
    run = an_ending_run()
    run.step(assignments=[an_assignment(at=T0)], impressions=[an_impression(at=at)])
    assert run.total()["impressions"] == counts
    assert run.total()["exposed_users"] == counts
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 1, "counted": 1}


def test_credits_go_on_after_the_end_for_impressions_before_it() -> None:
    run = an_ending_run()
    run.step(
        assignments=[an_assignment(at=T0)],
        impressions=[an_impression("before", END - 1), an_impression("after", END)],
        interactions=[
            an_interaction("n1", END + 9 * HOUR, impression_id="imp-before"),
            an_interaction("n2", END + 9 * HOUR, impression_id="imp-after"),
            an_interaction("n3", END + 9 * HOUR, impression_id=None),
            an_interaction("n4", END - 1, impression_id=None),
        ],
    )  # fmt: skip
    assert numbers(run) == [1, 1, 2]


def test_an_assignment_from_the_end_on_assigns_nobody() -> None:
    run = an_ending_run()
    run.step(assignments=[an_assignment("1", END - 1), an_assignment("2", END, "u2")])
    run.step(assignments=[an_assignment("3", END, "u1", arm="control")])
    assert run.total()["assigned_users"] == 1
    assert run.total()["mixed_users"] == 0


def test_credits_count_until_window_and_lateness_have_passed_and_then_results_freeze() -> None:
    run = an_ending_run()
    run.step(assignments=[an_assignment(at=T0)], impressions=[an_impression(at=END - 1)])
    # The horizon comes to stand exactly at end + window: not yet past it.
    run.step(impressions=[an_impression("clock", END + 2 * DAY, "u9")])
    assert run.engine.horizon_ms == END + DAY
    run.step(interactions=[an_interaction("beyond the window", END + DAY)])
    assert numbers(run) == [1, 0, 0]
    assert run.engine._store.a["frozen"][0] == 0
    run.step(impressions=[an_impression("clock2", END + 2 * DAY + 1, "u9")])
    before = run.total()
    run.step(
        assignments=[an_assignment("more", T0, "u5")], impressions=[an_impression("more", END + 2 * DAY, "u1")],
        interactions=[an_interaction("more", END + 2 * DAY)],
    )  # fmt: skip
    assert run.total() == before
    assert run.engine._store.a["frozen"][0] == 1
    assert (run.engine._store.a["assigned"]["experiment"][:1] == -1).all()


def test_a_credit_after_the_end_and_just_inside_window_and_horizon_still_counts() -> None:
    run = an_ending_run()
    run.step(assignments=[an_assignment(at=T0)], impressions=[an_impression(at=END - 1)])
    run.step(impressions=[an_impression("clock", END + 2 * DAY - 1, "u9")])
    run.step(interactions=[an_interaction(at=END - 1 + DAY)])
    assert numbers(run) == [1, 1, 1]


def test_a_frozen_experiment_drops_its_users_rows_and_they_are_used_again() -> None:
    run = an_ending_run()
    run.step(assignments=[an_assignment(f"a{k}", T0, f"u{k}") for k in range(500)])
    before = run.totals()
    run.step(impressions=[an_impression("clock", END + 2 * DAY + 1, "u9")])
    run.step()
    assert run.totals() == before
    assert run.engine._emitter.cohorts.rows == 0
    assert run.table("cohorts")["e1", "treatment", "all", "", 0, "assignment", T0 // DAY]["users"] == 500
    rows = int(run.engine._store.m[14])
    run.step(
        assignments=[an_assignment(f"b{k}", END + 2 * DAY, f"u{k}", experiment="e2") for k in range(500)]
    )
    assert int(run.engine._store.m[14]) == rows == 500
    assert run.total("e2")["assigned_users"] == 500
    assert {k: v for k, v in run.totals().items() if k[0] == "e1"} == before


def test_freezing_one_experiment_leaves_the_users_other_ones() -> None:
    run = an_ending_run()
    run.step(
        assignments=[
            an_assignment("0", T0, experiment="e0"), an_assignment("1", T0), an_assignment("2", T0, experiment="e2"),
        ],
    )  # fmt: skip
    late = END + 2 * DAY + 1
    run.step(impressions=[an_impression("i1", late)])
    run.step(impressions=[an_impression("i2", late + MINUTE)])
    assert [run.total(e)["impressions"] for e in ("e0", "e1", "e2")] == [2, 0, 2]
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 2, "counted": 2}


def test_a_user_whose_only_experiment_froze_is_outside_again() -> None:
    run = an_ending_run()
    run.step(assignments=[an_assignment(at=T0)], impressions=[an_impression("i1", T0)])
    run.step(impressions=[an_impression("i2", END + 2 * DAY + 1)])
    run.step(impressions=[an_impression("i3", END + 2 * DAY + 1)])
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 3, "counted": 2, "outside": 1}


def test_a_metric_without_data_that_is_replaced_leaves_its_slot_to_the_new_one() -> None:
    rules = [
        Definitions(experiments=(Experiment(name="e1", metrics={name: Metric(kinds=(name,))}),))
        for name in ("save", "share")
    ]
    run = Run(rules[0])
    run.step()
    run.definitions = rules[1]
    run.step(assignments=[an_assignment()])
    run.step(interactions=[an_interaction(kind="share"), an_interaction("n2", kind="save")])
    assert run.total()["declared_1"] == 1
    assert run.rows["declared_metrics"]["e1", "share"] == (1, -1)


def test_a_metric_that_is_declared_later_counts_events_from_then_on_and_takes_no_earlier_ones_back() -> None:
    plain = Definitions(experiments=(Experiment(name="e1", policy=Policy.AS_OF),))
    run = Run(plain)
    run.step(
        assignments=[an_assignment(arm="a")],
        impressions=[an_impression()],
        interactions=[an_interaction(kind="wish")],
    )
    saves = {"wishes": Metric(kinds=("wish",))}
    run.definitions = Definitions(experiments=(Experiment(name="e1", policy=Policy.AS_OF, metrics=saves),))
    since = T0 + 2 * MINUTE + 1  # no event was as late
    run.step(
        interactions=[
            an_interaction("n2", since, kind="wish"), an_interaction("late", since - 1, kind="wish"),
        ],
    )  # fmt: skip
    assert run.rows["declared_metrics"]["e1", "wishes"] == (1, since)
    assert run.total(arm="a")["declared_1"] == 1
    run.step(assignments=[an_assignment("a2", T0 + 1, arm="b")])  # all events move to the other arm
    assert [run.total(arm=arm)["declared_1"] for arm in "ab"] == [0, 1]
    assert [run.total(arm=arm)["declared_1_sq"] for arm in "ab"] == [0, 1]
