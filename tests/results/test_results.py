"""Which rows there are, when there is no interval and why, and what many comparisons do to p-values."""

import pytest

from stream.contracts.definitions import Experiment, Metric, Per, Phase, Policy
from stream.contracts.guardrails import METRICS
from stream.engine.moments import MOMENTS
from stream.results.compared import results
from stream.results.counted import Cohort, Counted
from stream.results.metrics import Metric as SummedMetric
from stream.results.metrics import foretold, metrics_of, with_pre_value
from stream.results.rows import Direction, Result, Variant
from stream.results.rules import Rules
from tests.results.makers import DAY, NAME, T0, a_counted, arm_sums, counted_of, run_of, some_users

EXPERIMENT = Experiment(name=NAME)
TODAY = T0 // DAY


def rows_of(
    experiment: Experiment, counted: Counted, rules: Rules | None = None
) -> dict[tuple[str, str, str], Result]:
    found = results(experiment, counted, rules)
    return {(row.slice, row.metric, row.arm): row for row in found if row.variant is Variant.PLAIN}


def clickers(arm: str, users: int, clicks: int, **fields: object) -> object:
    return arm_sums(
        arm, users, clicked_impressions=clicks, clicked_sq=clicks, impressions=10 * users, impressions_sq=100 * users,
        clicked_x_impressions=10 * clicks, **fields,
    )  # type: ignore[arg-type]  # fmt: skip


def test_every_sum_that_a_metric_names_is_one_that_is_counted() -> None:
    everything = Experiment(
        name=NAME, revenue_cap_minor=5, pre_value="own",
        metrics={"own": Metric(kinds=("a",)), "of": Metric(kinds=("b",), per=Per.IMPRESSION)},
    )  # fmt: skip
    metrics = [metric for metric in metrics_of(everything, T0) if isinstance(metric, SummedMetric)]
    metrics += [with_pre_value(metric) for metric in metrics if metric.name == foretold(everything)]
    assert len(metrics) == 12
    for metric in metrics:
        for names in metric.sums.values():
            assert {getattr(names, name) for name in names.__slots__} - {""} <= set(MOMENTS), metric.name


def test_the_names_that_declared_metrics_must_not_have_are_those_of_the_built_in_ones() -> None:
    capped = Experiment(name=NAME, revenue_cap_minor=5)
    assert [metric.name for metric in metrics_of(capped, T0)] == list(METRICS)


@pytest.mark.parametrize(
    ("pre_value", "cap", "metric"),
    [
        ("clicks", None, "clicks_per_user"), ("conversions", None, "orders_per_user"),
        ("revenue", None, "revenue_per_user"), ("revenue", 5, "capped_revenue_per_user"), (None, None, None),
    ],
)  # fmt: skip
def test_pre_value_adjusts_the_metric_it_foretells(
    pre_value: str | None, cap: int | None, metric: str | None
) -> None:
    assert foretold(Experiment(name=NAME, pre_value=pre_value, revenue_cap_minor=cap)) == metric


def test_without_a_control_there_are_values_only() -> None:
    row = rows_of(EXPERIMENT, a_counted(clickers("a", 50, 5), clickers("b", 50, 9)))["all", "ctr", "b"]
    assert (row.value, row.control, row.difference, row.reason) == (9 / 500, None, None, "no_control")


def test_the_control_itself_has_a_value_and_no_reason() -> None:
    row = rows_of(EXPERIMENT, a_counted(clickers("control", 50, 5)))["all", "ctr", "control"]
    assert (row.value, row.difference, row.reason) == (0.01, None, None)


def test_users_who_may_be_in_two_arms_give_rates_only() -> None:
    experiment = EXPERIMENT.model_copy(update={"policy": Policy.AS_OF})
    row = rows_of(experiment, a_counted(clickers("control", 50, 5), clickers("b", 50, 9)))["all", "ctr", "b"]
    assert (row.value, row.control_value, row.p_always, row.reason) == (9 / 500, 0.01, None, "rates_only")


def test_zero_cells_have_no_interval_and_say_why() -> None:
    rows = rows_of(
        EXPERIMENT, a_counted(clickers("control", 50, 0), clickers("b", 50, 0), clickers("c", 50, 9))
    )
    assert rows["all", "ctr", "b"].reason == "no_variance"
    assert rows["all", "ctr", "b"].value == 0
    lifted = rows["all", "ctr", "c"]
    assert lifted.reason == "control_is_zero"
    assert lifted.lift is None
    assert lifted.always_low is not None
    assert rows["all", "latency_ms", "b"].reason == "no_denominator"
    assert rows["all", "latency_ms", "b"].value is None


def test_a_slice_with_few_users_has_values_and_no_interval() -> None:
    counted = a_counted(
        clickers("control", 500, 40), clickers("b", 500, 60), clickers("control", 99, 9, slice="country=DE"),
        clickers("b", 200, 20, slice="country=DE"),
    )  # fmt: skip
    rows = rows_of(EXPERIMENT, counted)
    assert rows["country=DE", "ctr", "b"].reason == "slice_too_small"
    assert rows["country=DE", "ctr", "b"].value == 0.01
    assert rows["all", "ctr", "b"].reason is None
    assert rows_of(EXPERIMENT, counted, Rules(min_slice_users=99))["country=DE", "ctr", "b"].reason is None


def test_a_ramp_does_not_pool_unlike_weeks() -> None:
    """Simpson: in each week both arms click alike, but the arm had nearly all its users in the good one."""
    ramp = EXPERIMENT.model_copy(update={"phases": (
        Phase(starts_at_ms=1, shares={"control": 0.99, "b": 0.01}),
        Phase(starts_at_ms=2, shares={"control": 0.5, "b": 0.5}),
    )})  # fmt: skip
    counted = a_counted(
        clickers("control", 99_000, 9_900, phase=0), clickers("b", 1_000, 100, phase=0),
        clickers("control", 50_000, 25_000, phase=1), clickers("b", 50_000, 25_000, phase=1),
    )  # fmt: skip
    row = rows_of(ramp, counted)["all", "ctr", "b"]
    assert row.difference == pytest.approx(0, abs=1e-15)
    assert row.direction is Direction.UNDECIDED
    assert row.users == 51_000
    pooled = rows_of(
        EXPERIMENT, a_counted(clickers("control", 149_000, 34_900), clickers("b", 51_000, 25_100))
    )
    assert pooled["all", "ctr", "b"].direction is Direction.HIGHER


def test_arms_that_never_ran_together_are_not_compared() -> None:
    counted = a_counted(clickers("control", 500, 40, phase=0), clickers("b", 500, 60, phase=1))
    row = rows_of(EXPERIMENT, counted)["all", "ctr", "b"]
    assert (row.reason, row.difference) == ("no_common_phase", None)


def test_retention_counts_users_whose_day_is_over() -> None:
    cohorts = tuple(
        Cohort(arm, "all", 0, "exposure", TODAY - ago, 100, {1: 40, 7: 20, 30: 0})
        for arm in ("control", "b")
        for ago in (0, 1, 2, 8)
    )
    counted = a_counted(
        arm_sums("control", 400, impressions=1), arm_sums("b", 400, impressions=1), cohorts=cohorts
    )
    rows = rows_of(EXPERIMENT, counted)
    assert (rows["all", "retention_d1", "b"].users, rows["all", "retention_d1", "b"].value) == (200, 0.4)
    assert rows["all", "retention_d1", "b"].mature_share == 0.5
    assert rows["all", "retention_d7", "b"].users == 100
    assert rows["all", "retention_d30", "b"].mature_share == 0
    ended = EXPERIMENT.model_copy(update={"ends_at_ms": (TODAY - 5) * DAY})
    assert rows_of(ended, counted)["all", "retention_d1", "b"].users == 100


def test_maturity_is_the_share_of_users_whose_attribution_window_is_over() -> None:
    cohorts = tuple(
        Cohort("b", "all", 0, "exposure", TODAY - ago, 100, {1: 0, 7: 0, 30: 0}) for ago in (0, 1, 2, 3)
    )
    counted = a_counted(arm_sums("control", 2), arm_sums("b", 400), cohorts=cohorts)
    assert rows_of(EXPERIMENT, counted)["all", "ctr", "b"].mature_share == 0.5
    week = Rules(attribution_window_ms=7 * DAY)
    assert rows_of(EXPERIMENT, counted, week)["all", "ctr", "b"].mature_share == 0
    assert rows_of(EXPERIMENT, counted)["all", "ctr", "control"].mature_share is None


def test_a_metric_that_was_declared_later_says_since_when_it_counts() -> None:
    experiment = EXPERIMENT.model_copy(update={"metrics": {"wishes": Metric(kinds=("wish",))}})
    counted = a_counted(arm_sums("control", 9), arm_sums("b", 9), since_ms={"wishes": T0})
    rows = rows_of(experiment, counted)
    assert rows["all", "wishes", "b"].since_ms == T0
    assert rows["all", "ctr", "b"].since_ms is None


def test_p_values_are_adjusted_for_all_metrics_and_arms_of_a_slice() -> None:
    users = some_users(5, ["control", "b", "c"], 400)
    for user in users:  # b's users click on everything
        user.done += [
            (at, "click", None, place) for place, (at, _) in enumerate(user.shown) if user.arm == "b"
        ]
    experiment = EXPERIMENT.model_copy(update={"pre_value": "clicks"})
    found = results(experiment, counted_of(run_of(experiment, users)), Rules(min_slice_users=2))
    whole = [row for row in found if row.slice == "all"]
    plain = [row for row in whole if row.variant is Variant.PLAIN and row.p_always is not None]
    assert len({row.metric for row in plain}) > 6
    for row in plain:
        assert row.p_always is not None
        assert row.p_bonferroni == min(1.0, row.p_always * len(plain))
        assert row.p_always <= (row.p_bh or 0) <= row.p_bonferroni
    cuped = [row for row in whole if row.variant is Variant.CUPED and row.p_always is not None]
    assert [row.p_bonferroni for row in cuped] == [
        min(1.0, (row.p_always or 0) * len(plain)) for row in cuped
    ]
    assert len(cuped) == 2
    assert min(row.p_bonferroni or 1.0 for row in cuped) < 1


def test_nothing_that_is_said_is_infinite_or_not_a_number() -> None:
    for seed, users in enumerate((2, 3, 5, 9)):
        counted = counted_of(run_of(EXPERIMENT, some_users(seed, ["control", "b"], users)))
        for row in results(EXPERIMENT, counted, Rules(min_slice_users=2)):
            for name in row.__slots__:
                value = getattr(row, name)
                assert not isinstance(value, float) or abs(value) < float("inf"), (row.metric, name)
