"""Users who change their arm: exclude, first and as_of."""

from stream.contracts.definitions import Definitions, Experiment, Policy
from stream.contracts.topics import Topic
from tests.engine.makers import DAY, HOUR, MINUTE, T0, Run, an_assignment, an_impression, an_interaction

NAMES = (
    "assigned_users",
    "exposed_users",
    "impressions",
    "clicked_impressions",
    "clicks",
    "mixed_users",
    "mixed_events",
)


def under(policy: Policy) -> Run:
    return Run(Definitions(experiments=(Experiment(name="e1", policy=policy),)))


def numbers(run: Run, arm: str) -> list[int]:
    return [run.total(arm=arm)[name] for name in NAMES]


def first_in_a(run: Run) -> None:
    """u1 in a with an impression, its click an hour later; u2 in b with an impression."""
    run.step(
        assignments=[an_assignment("1", T0, arm="a"), an_assignment("1b", T0, "u2", arm="b")],
        impressions=[an_impression("i1", T0 + MINUTE), an_impression("j1", T0 + MINUTE, "u2")],
        interactions=[an_interaction("n1", T0 + HOUR)],
    )  # fmt: skip


def test_exclude_takes_a_user_of_two_arms_out_of_all_of_them_and_published_totals_fall() -> None:
    run = Run()  # the default policy
    first_in_a(run)
    assert numbers(run, "a") == [1, 1, 1, 1, 1, 0, 0]
    run.step(assignments=[an_assignment("2", T0 + 2 * HOUR, arm="b")])
    assert numbers(run, "a") == [0, 0, 0, 0, 0, 1, 2]
    assert numbers(run, "b") == [1, 1, 1, 0, 0, 0, 0]
    assert {k: v for k, v in run.panes().items() if k[1] == "a"} == {}
    total = run.total(arm="a")
    assert total["impressions_sq"] == total["clicked_sq"] == total["clicks_sq"] == 0


def test_exclude_counts_later_events_of_a_mixed_user_as_mixed_only() -> None:
    run = under(Policy.EXCLUDE)
    first_in_a(run)
    run.step(assignments=[an_assignment("2", T0 + 2 * HOUR, arm="b")])
    run.step(
        impressions=[an_impression("i2", T0 + 3 * HOUR)], interactions=[an_interaction("n2", T0 + 3 * HOUR)]
    )
    assert numbers(run, "a") == [0, 0, 0, 0, 0, 1, 4]
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 3, "counted": 3}


def test_exclude_takes_out_the_sums_of_events_that_have_left_the_state() -> None:
    run = under(Policy.EXCLUDE)
    first_in_a(run)
    run.step(impressions=[an_impression("clock", T0 + 4 * DAY, "u2")])
    run.step(assignments=[an_assignment("2", T0 + 4 * DAY, arm="b")])
    assert numbers(run, "a") == [0, 0, 0, 0, 0, 1, 0]
    # The panes are repaired for held events only.
    assert run.panes()["e1", "a", "all", "", T0 + MINUTE]["impressions"] == 1


def test_exclude_holds_even_if_the_other_arm_is_in_force_before_all_events() -> None:
    run = under(Policy.EXCLUDE)
    first_in_a(run)
    run.step(assignments=[an_assignment("2", T0 - HOUR, arm="b")])
    assert numbers(run, "a") == [0] * 7
    assert numbers(run, "b") == [1, 1, 1, 0, 0, 1, 2]  # u1 is counted as mixed where it was first
    run.step(assignments=[an_assignment("3", T0 - 2 * HOUR, arm="c")])
    assert numbers(run, "b") == [1, 1, 1, 0, 0, 0, 0]
    assert numbers(run, "c") == [0, 0, 0, 0, 0, 1, 2]


def test_exclude_does_not_forgive_a_return_to_the_first_arm() -> None:
    run = under(Policy.EXCLUDE)
    first_in_a(run)
    run.step(assignments=[an_assignment("2", T0 + HOUR, arm="b"), an_assignment("3", T0 + 2 * HOUR, arm="a")])
    assert numbers(run, "a") == [0, 0, 0, 0, 0, 1, 2]


def test_first_gives_everything_to_the_earliest_assignment() -> None:
    run = under(Policy.FIRST)
    first_in_a(run)
    run.step(
        assignments=[an_assignment("2", T0 + 2 * HOUR, arm="b")],
        impressions=[an_impression("i2", T0 + 3 * HOUR)],
    )
    assert numbers(run, "a") == [1, 1, 2, 1, 1, 1, 3]
    assert numbers(run, "b") == [1, 1, 1, 0, 0, 0, 0]


def test_first_moves_everything_when_an_earlier_assignment_arrives_even_what_has_left_the_state() -> None:
    run = under(Policy.FIRST)
    first_in_a(run)
    run.step(impressions=[an_impression("i9", T0 + 4 * DAY)])
    run.step(assignments=[an_assignment("0", T0 - HOUR, arm="b")])
    assert numbers(run, "a") == [0] * 7
    assert numbers(run, "b") == [2, 2, 3, 1, 1, 1, 1]
    panes = run.panes()
    assert panes["e1", "b", "all", "", T0 + 4 * DAY]["impressions"] == 1
    assert ("e1", "a", "all", "", T0 + 4 * DAY) not in panes
    assert panes["e1", "a", "all", "", T0 + MINUTE]["impressions"] == 1  # no longer held


def test_as_of_counts_each_event_in_the_arm_in_force_and_the_user_in_both() -> None:
    run = under(Policy.AS_OF)
    first_in_a(run)
    run.step(
        assignments=[an_assignment("2", T0 + 30 * MINUTE, arm="b")], impressions=[an_impression("i2", T0 + 3 * HOUR)],
    )  # fmt: skip
    # The click an hour later belongs to b, its clicked impression to a, where it was shown.
    assert numbers(run, "a") == [1, 1, 1, 1, 0, 1, 3]
    assert numbers(run, "b") == [2, 2, 2, 0, 1, 0, 0]


def test_as_of_is_repaired_by_an_assignment_in_between_that_arrives_late() -> None:
    run = under(Policy.AS_OF)
    run.step(
        assignments=[an_assignment("1", T0, arm="a"), an_assignment("3", T0 + 2 * HOUR, arm="a")],
        impressions=[an_impression(f"i{m}", T0 + m * MINUTE) for m in (0, 59, 60, 119, 120)],
    )
    assert run.total(arm="a")["impressions"] == 5
    run.step(assignments=[an_assignment("2", T0 + HOUR, arm="b")])
    assert [run.total(arm=arm)["impressions"] for arm in "ab"] == [3, 2]
    assert [run.total(arm=arm)["impressions_sq"] for arm in "ab"] == [9, 4]
    panes = run.panes()
    assert ("e1", "a", "all", "", T0 + 60 * MINUTE) not in panes
    assert panes["e1", "b", "all", "", T0 + 60 * MINUTE]["impressions"] == 1


def test_as_of_keeps_one_sum_per_user_and_arm_over_returns_to_it() -> None:
    run = under(Policy.AS_OF)
    run.step(
        assignments=[an_assignment(str(k), T0 + k * HOUR, arm="ab"[k % 2]) for k in range(6)],
        impressions=[an_impression(f"i{k}", T0 + k * HOUR) for k in range(6)],
    )
    for arm in "ab":
        total = run.total(arm=arm)
        assert (total["assigned_users"], total["exposed_users"], total["impressions"]) == (1, 1, 3)
        assert total["impressions_sq"] == 9  # of one user with three


def test_a_mixed_user_counts_as_mixed_once_per_experiment() -> None:
    for policy in Policy:
        run = under(policy)
        run.step(assignments=[an_assignment(str(k), T0 + k * HOUR, arm="abcd"[k]) for k in range(4)])
        assert sum(run.total(arm=arm)["mixed_users"] for arm in "abcd") == 1, policy
        assert run.total(arm="a")["mixed_users"] == 1


def test_being_in_two_arms_of_different_experiments_is_not_mixed() -> None:
    run = Run()
    run.step(assignments=[an_assignment("1", arm="a"), an_assignment("2", experiment="e2", arm="b")])
    run.step(impressions=[an_impression()])
    assert run.total("e1", "a")["mixed_events"] == run.total("e2", "b")["mixed_events"] == 0
    assert run.total("e2", "b")["impressions"] == 1
