"""The join: which arm an event belongs to, and what an assignment repairs that comes after its events."""

from stream.contracts.definitions import Definitions, Experiment, Policy
from stream.contracts.topics import Topic
from tests.engine.makers import DAY, HOUR, MINUTE, T0, Run, an_assignment, an_impression, an_interaction

AS_OF = Definitions(experiments=(Experiment(name="e1", policy=Policy.AS_OF),))


def impressions(run: Run, *arms: str) -> list[int]:
    """Impressions of the arms of e1."""
    return [run.total(arm=arm)["impressions"] for arm in arms]


def test_an_event_belongs_to_the_arm_of_the_latest_assignment_at_or_before_it() -> None:
    run = Run(AS_OF)
    run.step(
        assignments=[an_assignment("1", T0, arm="a"), an_assignment("2", T0 + HOUR, arm="b")],
        impressions=[
            an_impression("i0", T0 - 1), an_impression("i1", T0), an_impression("i2", T0 + HOUR - 1),
            an_impression("i3", T0 + HOUR),
        ],
    )  # fmt: skip
    assert impressions(run, "a", "b") == [2, 1]
    assert run.total(arm="a")["before_assignment"] == 1


def test_an_event_before_the_assignment_is_flagged_and_counts_in_no_arm() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment(at=T0)], impressions=[an_impression("i", T0 - 1)],
        interactions=[an_interaction("n", T0 - 1)],
    )  # fmt: skip
    total = run.total()
    assert (total["impressions"], total["clicks"], total["before_assignment"]) == (0, 0, 2)
    assert (total["assigned_users"], total["exposed_users"]) == (1, 0)
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 1, "counted": 1}


def test_of_two_assignments_at_the_same_time_the_larger_event_id_wins() -> None:
    common = "0123456789abcdef-and-more-"
    smaller, larger = common + "a", common + "b"
    for first, second in ((smaller, larger), (larger, smaller)):
        for policy in (Policy.FIRST, Policy.AS_OF):
            run = Run(Definitions(experiments=(Experiment(name="e1", policy=policy),)))
            run.step(assignments=[an_assignment(first, arm=f"arm of {first}")], impressions=[an_impression()])
            run.step(assignments=[an_assignment(second, arm=f"arm of {second}")])
            run.step(impressions=[an_impression("i2")])
            assert impressions(run, f"arm of {larger}", f"arm of {smaller}") == [2, 0], policy


def test_a_longer_event_id_is_larger_than_its_beginning() -> None:
    for first, second in (("a1", "a10"), ("a10", "a1")):
        run = Run(AS_OF)
        run.step(assignments=[an_assignment(first, arm=first), an_assignment(second, arm=second)])
        run.step(impressions=[an_impression()])
        assert impressions(run, "a10", "a1") == [1, 0]


def test_event_ids_are_compared_by_their_bytes() -> None:
    run = Run(AS_OF)
    run.step(
        assignments=[an_assignment("z", arm="z"), an_assignment("é", arm="é")], impressions=[an_impression()]
    )
    assert impressions(run, "é", "z") == [1, 0]


def test_an_event_counts_in_every_experiment_its_user_is_in() -> None:
    run = Run()
    run.step(
        assignments=[
            an_assignment("1", experiment="e1", arm="a"), an_assignment("2", experiment="e2", arm="b"),
            an_assignment("3", experiment="e3", user_id="u2"),
        ],
        impressions=[an_impression()], interactions=[an_interaction()],
    )  # fmt: skip
    assert [
        run.total(e, arm)["impressions"] for e, arm in (("e1", "a"), ("e2", "b"), ("e3", "treatment"))
    ] == [1, 1, 0]
    assert [run.total(e, arm)["clicks"] for e, arm in (("e1", "a"), ("e2", "b"))] == [1, 1]
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 1, "counted": 1}


def test_an_experiment_counts_only_its_surfaces() -> None:
    run = Run(Definitions(experiments=(Experiment(name="e1", surfaces=("home", "cart")),)))
    run.step(
        assignments=[an_assignment(), an_assignment("a2", experiment="everywhere")],
        impressions=[an_impression(s, surface=s) for s in ("home", "cart", "search")],
        interactions=[
            an_interaction("n1", impression_id="imp-home"), an_interaction("n2", impression_id="imp-search"),
            an_interaction("n3", impression_id=None),
        ],
    )  # fmt: skip
    assert [run.total()[name] for name in ("impressions", "clicks", "clicked_impressions")] == [2, 1, 1]
    everywhere = run.total("everywhere")
    assert [everywhere[name] for name in ("impressions", "clicks", "clicked_impressions")] == [3, 3, 2]


def test_a_late_assignment_repairs_impressions_interactions_and_outcomes() -> None:
    run = Run()
    run.step(
        impressions=[an_impression(at=T0 + MINUTE)],
        interactions=[
            an_interaction("n1", T0 + 2 * MINUTE), an_interaction("n2", T0 + HOUR, impression_id="imp-none"),
            an_interaction("n3", T0 + HOUR, impression_id=None, kind="purchase", value_minor=250),
        ],
    )  # fmt: skip
    assert run.totals() == {}
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 1, "outside": 1}
    assert run.outcomes(Topic.INTERACTIONS) == {"consumed": 3, "outside": 3}
    run.step(assignments=[an_assignment(at=T0)])
    total = run.total()
    names = ("impressions", "clicked_impressions", "clicks", "conversions", "revenue_minor", "exposed_users")
    assert [total[name] for name in names] == [1, 1, 2, 1, 250, 1]
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 1, "counted": 1}
    assert run.outcomes(Topic.INTERACTIONS) == {
        "consumed": 3, "counted": 3, "attributed": 1, "waiting": 1, "no_reference": 1,
    }  # fmt: skip
    assert run.panes()["e1", "treatment", "all", "", T0 + MINUTE]["clicked_impressions"] == 1


def test_repaired_outcomes_go_to_the_hour_of_the_repaired_record() -> None:
    run = Run()
    run.step(
        impressions=[(an_impression(at=T0), T0 + 2 * HOUR)],
        interactions=[(an_interaction(at=T0), T0 + 3 * HOUR)],
    )
    run.step(assignments=[(an_assignment(at=T0), T0 + 9 * HOUR)])
    hour = T0 // HOUR
    assert run.ledger() == {
        ("impressions", hour + 2): {"consumed": 1, "counted": 1},
        ("interactions", hour + 3): {"consumed": 1, "counted": 1, "attributed": 1},
        ("assignments", hour + 9): {"consumed": 1, "counted": 1},
    }


def test_an_assignment_after_its_events_turns_outside_into_counted_and_flags_them() -> None:
    run = Run()
    run.step(impressions=[an_impression(at=T0)])
    run.step(assignments=[an_assignment(at=T0 + HOUR)])
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 1, "counted": 1}
    assert (run.total()["impressions"], run.total()["before_assignment"]) == (0, 1)


def test_a_second_experiment_repairs_its_own_numbers_only() -> None:
    run = Run()
    run.step(assignments=[an_assignment()], impressions=[an_impression()], interactions=[an_interaction()])
    before = run.total()
    run.step(assignments=[an_assignment("a2", experiment="e2")])
    assert run.total() == before == run.total("e2")
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 1, "counted": 1}


def test_an_earlier_assignment_to_the_same_arm_brings_in_the_events_before() -> None:
    run = Run()
    run.step(assignments=[an_assignment("a2", T0 + HOUR)], impressions=[an_impression(at=T0 + MINUTE)])
    assert (run.total()["impressions"], run.total()["before_assignment"]) == (0, 1)
    run.step(assignments=[an_assignment("a1", T0)])
    assert (run.total()["impressions"], run.total()["before_assignment"], run.total()["assigned_users"]) == (
        1,
        0,
        1,
    )


def test_repeating_the_same_arm_changes_nothing() -> None:
    for policy in Policy:
        run = Run(Definitions(experiments=(Experiment(name="e1", policy=policy),)))
        run.step(
            assignments=[an_assignment()], impressions=[an_impression()], interactions=[an_interaction()]
        )
        before = run.totals(), run.panes()
        run.step(assignments=[an_assignment(f"again{i}", T0 + i * MINUTE) for i in range(1, 9)])
        assert (run.totals(), run.panes()) == before, policy
        assert run.outcomes(Topic.ASSIGNMENTS) == {"consumed": 9, "counted": 9}


def test_what_has_left_the_state_is_not_repaired() -> None:
    run = Run()
    run.step(impressions=[an_impression(at=T0)], interactions=[an_interaction(at=T0)])
    run.step(impressions=[an_impression("clock", T0 + 2 * DAY + 1)])
    run.step()
    run.step(assignments=[an_assignment(at=T0 - HOUR)])
    assert [run.total()[name] for name in ("impressions", "clicks", "assigned_users")] == [1, 0, 1]
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 2, "counted": 1, "outside": 1}
    assert run.outcomes(Topic.INTERACTIONS) == {"consumed": 1, "outside": 1}


def test_an_assignment_applies_to_all_later_events() -> None:
    run = Run()
    run.step(assignments=[an_assignment(at=T0)])
    for day in range(1, 5):
        run.step(impressions=[an_impression(f"i{day}", T0 + day * DAY)])
    assert run.total()["impressions"] == 4
