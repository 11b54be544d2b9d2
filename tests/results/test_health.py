"""When an experiment is called broken, which arm and slice are named, and that chance alone does not do it."""

import random
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from stream.contracts.definitions import Arm, Experiment, Phase, Policy
from stream.results.columns import health_columns
from stream.results.counted import Counted, Troubles
from stream.results.health import health
from stream.results.rows import CheckName, ExperimentHealth, Verdict
from stream.results.rules import Rules
from stream.stats.imbalance import Part, imbalance
from tests.results.makers import MINUTE, NAME, T0, a_counted, arm_sums, counted_of, run_of, some_users

HALVES = Experiment(name=NAME, arms={"control": Arm(share=0.5), "b": Arm(share=0.5)})


def by_users(**users: int) -> Counted:
    return a_counted(*(arm_sums(arm, n) for arm, n in users.items()))


def troubled(late: dict[str, int], *, partitions: int = 1, **sums: int) -> Counted:
    """10,000 users an arm with ten impressions each, evenly over the partitions, the late events in the first."""
    n = 100_000 // partitions
    rows = [
        Troubles(arm, p, count if p == 0 else 0, 0, 0, 0, n, 0)
        for arm, count in late.items() for p in range(partitions)
    ]  # fmt: skip
    shown = {"impressions": 100_000, "impressions_sq": 1_000_000} | sums
    return a_counted(*(arm_sums(arm, 10_000, **shown) for arm in late), troubles=tuple(rows))


def test_an_experiment_that_went_as_planned_is_ok() -> None:
    found = health(HALVES, by_users(control=5_030, b=4_970))
    assert (found.verdict, found.reason) == (Verdict.OK, "Nothing is wrong.")
    assert found.slices[0].p_fixed == pytest.approx(stats.chisquare([5_030, 4_970]).pvalue, rel=1e-10)


def test_without_planned_shares_it_is_said_that_the_ratio_was_not_tested() -> None:
    found = health(Experiment(name=NAME), by_users(control=5, b=4_970))
    assert found.verdict is Verdict.OK
    assert found.reason == "Nothing is wrong; the sample ratio is not tested: shares not declared."


def test_a_broken_sample_ratio_names_the_arm() -> None:
    found = health(HALVES, by_users(control=5_300, b=4_700))
    assert found.verdict is Verdict.BROKEN
    assert "b has 47.00% of 10,000 users where 50.00% were planned" in found.reason
    assert found.check(CheckName.SAMPLE_RATIO).arm == "b"
    assert [(arm.arm, arm.planned_share, arm.share) for arm in found.arms] == [
        ("b", 0.5, 0.47),
        ("control", 0.5, 0.53),
    ]


def test_an_arm_that_nobody_reached_breaks_the_sample_ratio() -> None:
    found = health(HALVES, by_users(control=500))
    assert found.verdict is Verdict.BROKEN
    assert [(arm.arm, arm.users) for arm in found.arms] == [("b", 0), ("control", 500)]


def test_a_ratio_that_one_look_would_refuse_and_many_would_not_is_a_warning() -> None:
    found = health(HALVES, by_users(control=5_180, b=4_820), Rules(concentration=100_000))
    assert found.slices[0].p_fixed == pytest.approx(stats.chisquare([5_180, 4_820]).pvalue, rel=1e-9)
    assert found.verdict is Verdict.WARNING
    assert "for one look that was planned" in found.reason


def test_the_guilty_slice_is_named() -> None:
    counted = a_counted(
        arm_sums("control", 10_400), arm_sums("b", 10_000),
        arm_sums("control", 5_000, slice="country=DE"), arm_sums("b", 5_000, slice="country=DE"),
        arm_sums("control", 900, slice="country=IN"), arm_sums("b", 500, slice="country=IN"),
        arm_sums("control", 4_500, slice="country=FR"), arm_sums("b", 4_500, slice="country=FR"),
    )  # fmt: skip
    found = health(HALVES, counted)
    assert found.verdict is Verdict.BROKEN
    assert found.guilty_slice == "country=IN"
    assert "country=IN" in found.reason
    assert [row.slice for row in found.slices if row.verdict is Verdict.BROKEN] == ["country=IN"]


def test_a_slice_of_all_users_is_not_the_guilty_one() -> None:
    unknown = [arm_sums(arm, n, slice="country=__unknown__") for arm, n in (("control", 5_300), ("b", 4_700))]
    found = health(HALVES, a_counted(arm_sums("control", 5_300), arm_sums("b", 4_700), *unknown))
    assert (found.verdict, found.guilty_slice) == (Verdict.BROKEN, None)
    assert "farthest" not in found.reason


def test_many_slices_are_allowed_for() -> None:
    def with_slices(n: int) -> Verdict:
        even = [arm_sums(arm, 500, slice=f"country={k}") for k in range(n) for arm in ("control", "b")]
        off = arm_sums("control", 1_110, slice="device=tv"), arm_sums("b", 900, slice="device=tv")
        counted = a_counted(arm_sums("control", 5_000), arm_sums("b", 5_000), *even, *off)
        return health(HALVES, counted, Rules(concentration=500)).verdict

    assert with_slices(0) is Verdict.BROKEN
    assert with_slices(40) is Verdict.OK


def test_a_ramp_does_not_break_the_sample_ratio() -> None:
    ramp = Experiment(name=NAME, phases=(
        Phase(starts_at_ms=1, shares={"control": 0.99, "b": 0.01}),
        Phase(starts_at_ms=2, shares={"control": 0.5, "b": 0.5}),
    ))  # fmt: skip
    early = [arm_sums("control", 9_900, phase=0), arm_sums("b", 100, phase=0)]
    good = a_counted(*early, arm_sums("control", 5_000, phase=1), arm_sums("b", 5_000, phase=1))
    assert health(ramp, good).verdict is Verdict.OK
    assert [arm.planned_share for arm in health(ramp, good).arms] == [
        pytest.approx(0.255),
        pytest.approx(0.745),
    ]
    bad = a_counted(*early, arm_sums("control", 9_900, phase=1), arm_sums("b", 100, phase=1))
    assert health(ramp, bad).verdict is Verdict.BROKEN


def test_users_are_counted_by_first_assignment_mixed_ones_included() -> None:
    counted = a_counted(
        arm_sums("control", 4_000, mixed_users=1_000), arm_sums("b", 4_000, mixed_users=1_000)
    )
    found = health(HALVES, counted)
    assert [arm.users for arm in found.arms] == [5_000, 5_000]
    assert found.arms[0].mixed_share == 0.2
    assert found.verdict is Verdict.WARNING
    assert "20.00% of the users were seen in several arms" in found.reason
    first = HALVES.model_copy(update={"policy": Policy.FIRST})
    assert [arm.users for arm in health(first, counted).arms] == [4_000, 4_000]


def test_users_mixed_more_often_in_one_arm_break_it() -> None:
    counted = a_counted(arm_sums("control", 4_900, mixed_users=100), arm_sums("b", 4_700, mixed_users=300))
    found = health(HALVES, counted)
    assert found.check(CheckName.MIXED).verdict is Verdict.BROKEN
    assert found.check(CheckName.MIXED).arm == "b"


def test_the_policy_as_of_is_not_tested_for_what_it_allows() -> None:
    found = health(HALVES.model_copy(update={"policy": Policy.AS_OF}), by_users(control=5_000, b=10))
    assert found.verdict is Verdict.OK
    assert found.slices[0].reason == "rates_only"


def test_a_pipe_that_loses_more_of_one_arm_breaks_the_experiment() -> None:
    found = health(HALVES, troubled({"control": 1_000, "b": 5_000}))
    assert found.verdict is Verdict.BROKEN
    assert found.check(CheckName.LATE).arm == "b"
    assert found.reason.startswith("B has more late events than the other arms, by 3.77%")
    assert found.arms[0].late_share == 5_000 / 105_000


def test_a_small_difference_is_only_a_warning() -> None:
    assert health(HALVES, troubled({"control": 1_000, "b": 1_700})).verdict is Verdict.WARNING


def test_late_events_that_come_in_bundles_of_one_user_are_no_alarm() -> None:
    """Ten late events may be one user's; a user with thousands of events in one partition is one user."""
    assert health(HALVES, troubled({"control": 1_000, "b": 1_300})).verdict is Verdict.OK
    single = {"control": 1_000, "b": 9_000}
    assert health(HALVES, troubled(single)).verdict is Verdict.BROKEN
    assert health(HALVES, troubled(single, partitions=8)).verdict is Verdict.OK


def test_few_troubles_are_not_compared() -> None:
    found = health(HALVES, troubled({"control": 0, "b": 40}))
    assert found.check(CheckName.LATE).p is None
    assert found.verdict is Verdict.OK


def test_events_are_not_compared_while_the_planned_shares_change() -> None:
    counted = troubled({"control": 1_000, "b": 5_000})
    rows = (*counted.sums, arm_sums("b", 10, phase=1))
    ramp = Experiment(name=NAME, phases=(Phase(starts_at_ms=1, shares={"control": 0.5, "b": 0.5}),))
    found = health(ramp, a_counted(*rows, troubles=counted.troubles))
    assert found.check(CheckName.LATE).verdict is Verdict.OK
    assert "while the planned shares change" in found.check(CheckName.LATE).reason


def test_arms_that_differed_before_the_experiment_break_it() -> None:
    def rows(mean: int) -> Counted:
        values = {"pre_value": 5_000 * mean, "pre_value_sq": 5_000 * (mean**2 + 25)}
        control = arm_sums("control", 5_000, pre_value=50_000, pre_value_sq=625_000)
        return a_counted(control, arm_sums("b", 5_000, **values))

    assert health(HALVES, rows(10)).check(CheckName.PRE_VALUE).p == 1
    found = health(HALVES, rows(11))
    assert found.verdict is Verdict.BROKEN
    assert "b differed from control before the experiment: pre_value by 1" in found.reason.lower()
    assert found.arms[0].pre_value == 11


def clustered(seed: int, users: int) -> list[Counted]:
    """An A/A stream in which a tenth of the users have most of their many events late, at 20 looks."""
    r = np.random.default_rng(seed)
    arm = r.random(users) < 0.5
    shown = 1 + r.poisson(r.gamma(0.8, 12, users))
    late = r.binomial(shown, np.where(r.random(users) < 0.1, 0.8, 0.01))
    partition = r.integers(0, 4, users)
    looks = []
    for n in np.linspace(users // 20, users, 20, dtype=int):
        rows, lost = [], []
        for name, chosen in (("control", ~arm[:n]), ("b", arm[:n])):
            good = (shown[:n] - late[:n])[chosen]
            sums = {"impressions": int(good.sum()), "impressions_sq": int((good**2).sum())}
            rows.append(arm_sums(name, int(chosen.sum()), **sums))
            for p in range(4):
                here = chosen & (partition[:n] == p)
                counts = int(late[:n][here].sum()), int((shown[:n] - late[:n])[here].sum())
                lost.append(Troubles(name, p, counts[0], 0, 0, 0, counts[1], 0))
        looks.append(a_counted(*rows, troubles=tuple(lost)))
    return looks


def test_continuous_looks_at_a_healthy_stream_raise_no_alarm() -> None:
    verdicts = Counter(
        health(HALVES, look).check(CheckName.LATE).verdict
        for seed in range(40)
        for look in clustered(seed, 2_000)
    )
    assert verdicts == {Verdict.OK: 800}


def test_hits_are_compared_within_strata() -> None:
    hour_of_trouble = {"control": Part(900, 9_000), "b": Part(10, 100)}
    quiet = {"control": Part(0, 5_000), "b": Part(0, 5_000)}
    found = imbalance([hour_of_trouble, quiet], 10_000)
    assert found is not None
    assert found.p == 1
    pooled = imbalance([{"control": Part(900, 14_000), "b": Part(10, 5_100)}], 10_000)
    assert pooled is not None
    assert pooled.p is not None
    assert pooled.p < 1e-20


def test_the_engine_says_what_happened_to_each_arm() -> None:
    users = some_users(3, ["control", "b"], 200)
    for user in random.Random(1).sample(users, 20):
        user.done.append((user.at + MINUTE, "click", None, None))
    found = health(HALVES, counted_of(run_of(HALVES, users)))
    assert sum(arm.users for arm in found.arms) == 200
    assert sum(arm.orphaned for arm in found.arms) > 20
    assert sum(arm.duplicate for arm in found.arms) > 20
    assert found.as_of_ms is not None
    assert found.as_of_ms > T0 - 86_400_000
    assert_one_length(found)


def assert_one_length(found: ExperimentHealth) -> None:
    assert len({len(column) for column in health_columns([found]).values()}) == 1
