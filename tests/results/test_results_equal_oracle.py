"""From events through engine, sums and results, against plain lists of users and other people's formulas."""

import math
from collections.abc import Callable, Iterable
from itertools import product

import numpy as np
import pandas as pd
import pytest
import tea_tasting as tt
from scipy import stats

from stream.contracts.definitions import Experiment, Metric, Per, Phase
from stream.results.compared import results
from stream.results.rows import Basis, Result, Variant
from stream.results.rules import Rules
from tests.results.makers import DAY, HOUR, MIDNIGHT, NAME, User, counted_of, run_of, some_users

ALPHA, TUNING = 0.05, 5_000
RULES = Rules(min_slice_users=2)
EXPERIMENT = Experiment(
    name=NAME,
    revenue_cap_minor=1_000,
    pre_value="clicks",
    metrics={
        "wishes": Metric(kinds=("wish",)),
        "worth": Metric(kinds=("wish",), of="value", per=Per.IMPRESSION),
    },
)
Figures = dict[str, float]
Group = list[Figures]


def figures_of(user: User, basis: str, as_of_ms: int) -> Figures | None:
    """All a user's own figures, by plain counting; None: the user does not count on that basis."""
    if basis == "exposed" and not user.shown:
        return None
    start = user.at if basis == "assigned" else user.shown[0][0]
    done = [(at, kind, value or 0, place) for at, kind, value, place in user.done if at >= start]
    clicked = {place for _, kind, _, place in user.done if kind == "click" and place is not None}
    converted = {place for _, kind, _, place in user.done if kind == "purchase" and place is not None}
    orders = [value for _, kind, value, _ in done if kind == "purchase"]
    latencies = [round(latency) for _, latency in user.shown if latency is not None]
    found = {
        "impressions": len(user.shown),
        "clicked": len(clicked),
        "converted": len(converted),
        "clicks": sum(kind == "click" for _, kind, *_ in done),
        "orders": len(orders),
        "converts": int(bool(orders)),
        "revenue": sum(orders),
        "capped": min(1_000, sum(orders)),
        "wishes": sum(kind == "wish" for _, kind, *_ in done),
        "worth": sum(value for _, kind, value, _ in done if kind == "wish"),
        "latency": sum(latencies),
        "timed": len(latencies),
        "pre": user.pre_value or 0,
    }
    for n in (1, 7, 30):
        date = start // DAY + n
        if (date + 1) * DAY <= as_of_ms:
            found[f"d{n}"] = int(any(at // DAY == date for at, *_ in user.done))
    return found


METRICS: dict[str, Callable[[Group], tuple[list[float], list[float] | None]]] = {
    "ctr": lambda g: (column(g, "clicked"), column(g, "impressions")),
    "conversion_rate": lambda g: (column(g, "converted"), column(g, "impressions")),
    "user_conversion_rate": lambda g: (column(g, "converts"), None),
    "clicks_per_user": lambda g: (column(g, "clicks"), None),
    "orders_per_user": lambda g: (column(g, "orders"), None),
    "revenue_per_user": lambda g: (column(g, "revenue"), None),
    "capped_revenue_per_user": lambda g: (column(g, "capped"), None),
    "average_order_value": lambda g: (column(g, "revenue"), column(g, "orders")),
    "latency_ms": lambda g: (column(g, "latency"), column(g, "timed")),
    "wishes": lambda g: (column(g, "wishes"), None),
    "worth": lambda g: (column(g, "worth"), column(g, "impressions")),
    "retention_d1": lambda g: (column(g, "d1"), None),
    "retention_d7": lambda g: (column(g, "d7"), None),
}
PER_USER = (
    "user_conversion_rate", "clicks_per_user", "revenue_per_user", "average_order_value", "wishes", "retention_d1",
)  # fmt: skip
SHARES = ("user_conversion_rate", "retention_d1", "retention_d7")


def column(group: Group, name: str) -> list[float]:
    return [figures[name] for figures in group if name in figures]


def value_and_variance(metric: str, group: Group) -> tuple[float, float, int]:
    """By the textbook, in floating point: numpy's variances, users as units."""
    x, y = METRICS[metric](group)
    n = len(x)
    if y is None:
        share = float(np.mean(x))
        return share, share * (1 - share) / n if metric in SHARES else float(np.var(x, ddof=1)) / n, n
    ratio = sum(x) / sum(y)
    residuals = np.array(x) - ratio * np.array(y)
    return ratio, float(np.var(residuals, ddof=1)) / n / float(np.mean(y)) ** 2, n


def anytime(difference: float, se: float, n: int) -> tuple[float, float]:
    """Half width and p, from the paper's formulas."""
    rho2 = (-2 * math.log(ALPHA) + math.log(1 - 2 * math.log(ALPHA))) / TUNING
    m = n * rho2
    half = se * math.sqrt(2 * (m + 1) / m * math.log(math.sqrt(m + 1) / ALPHA))
    log_e = rho2 * n * (difference / se) ** 2 / (2 * (m + 1)) - math.log(m + 1) / 2
    return half, min(1.0, math.exp(-log_e))


def assert_row(
    row: Result, control: tuple[float, float, float, int], arm: tuple[float, float, float, int]
) -> None:
    """control, arm: value, variance, sum of variance^2 / (n - 1), users."""
    (a, va, wa, na), (b, vb, wb, nb) = control, arm
    se = math.sqrt(va + vb)
    freedom = (va + vb) ** 2 / (wa + wb)
    half, p_always = anytime(b - a, se, na + nb)
    fixed = stats.t.ppf(1 - ALPHA / 2, freedom) * se
    lift_se = math.sqrt(vb / a**2 + va * b**2 / a**4)
    expected = {
        "users": nb, "control_users": na, "value": b, "control_value": a, "difference": b - a, "se": se,
        "fixed_low": b - a - fixed, "fixed_high": b - a + fixed, "p_fixed": 2 * stats.t.sf(abs(b - a) / se, freedom),
        "always_low": b - a - half, "always_high": b - a + half, "p_always": p_always, "lift": b / a - 1,
        "lift_low": b / a - 1 - half / se * lift_se, "lift_high": b / a - 1 + half / se * lift_se,
    }  # fmt: skip
    for name, value in expected.items():
        near = pytest.approx(value, rel=1e-10, abs=1e-10 * max(abs(b - a), half))
        assert getattr(row, name) == near, (row.metric, name)


def grouped(users: list[User], arm: str, basis: str, as_of_ms: int) -> Group:
    found = [figures_of(user, basis, as_of_ms) for user in users if user.arm == arm]
    return [figures for figures in found if figures is not None]


def one_sample(metric: str, group: Group) -> tuple[float, float, float, int]:
    value, variance, n = value_and_variance(metric, group)
    return value, variance, variance**2 / (n - 1), n


def plain_rows(rows: Iterable[Result]) -> dict[tuple[str, str], Result]:
    return {(row.metric, row.arm): row for row in rows if row.variant is Variant.PLAIN}


@pytest.mark.parametrize("seed", range(6))
def test_every_metric_of_every_arm_equals_plain_counting(seed: int) -> None:
    users = some_users(seed, ["control", "b", "c"], 150, days=9)
    counted = counted_of(run_of(EXPERIMENT, users, seed=seed))
    assert counted.as_of_ms is not None
    rows = {
        (r.slice, r.metric, r.arm): r
        for r in results(EXPERIMENT, counted, RULES)
        if r.variant is Variant.PLAIN
    }
    compared = 0
    for metric, arm in product(METRICS, ["b", "c"]):
        control, treated = (grouped(users, name, "exposed", counted.as_of_ms) for name in ("control", arm))
        assert_row(rows["all", metric, arm], one_sample(metric, control), one_sample(metric, treated))
        compared += 1
    for country in ("DE", "IN"):
        some = [user for user in users if user.country == country]
        control, treated = (grouped(some, name, "exposed", counted.as_of_ms) for name in ("control", "b"))
        for metric in ("ctr", "clicks_per_user", "worth"):
            row = rows[f"country={country}", metric, "b"]
            assert_row(row, one_sample(metric, control), one_sample(metric, treated))
    assert compared == 2 * len(METRICS)
    assert rows["all", "retention_d30", "b"].reason == "too_few_users"


@pytest.mark.parametrize("seed", range(3))
def test_an_arm_that_shows_nothing_is_compared_by_assigned_users_in_both_arms(seed: int) -> None:
    users = some_users(seed, ["control", "b", "holdout"], 120, hidden=["holdout"])
    counted = counted_of(run_of(EXPERIMENT, users, seed=seed))
    assert counted.as_of_ms is not None
    rows = plain_rows(results(EXPERIMENT, counted, RULES, slices=["all"]))
    for metric in PER_USER:
        row = rows[metric, "holdout"]
        control, held = (grouped(users, arm, "assigned", counted.as_of_ms) for arm in ("control", "holdout"))
        assert row.basis is Basis.ASSIGNED
        assert_row(row, one_sample(metric, control), one_sample(metric, held))
        assert rows[metric, "b"].basis is Basis.EXPOSED
    assert rows["ctr", "holdout"].reason == "too_few_users"


def test_arms_are_compared_by_assigned_users_also_where_the_control_shows_nothing() -> None:
    users = some_users(1, ["control", "b"], 120, hidden=["control"])
    counted = counted_of(run_of(EXPERIMENT, users))
    assert counted.as_of_ms is not None
    rows = plain_rows(results(EXPERIMENT, counted, RULES, slices=["all"]))
    for metric in PER_USER:
        control, arm = (grouped(users, arm, "assigned", counted.as_of_ms) for arm in ("control", "b"))
        assert_row(rows[metric, "b"], one_sample(metric, control), one_sample(metric, arm))


@pytest.mark.parametrize("seed", range(3))
def test_phases_are_compared_each_by_itself_and_weighted_by_their_users(seed: int) -> None:
    ramp = EXPERIMENT.model_copy(update={"phases": (
        Phase(starts_at_ms=MIDNIGHT, shares={"control": 0.9, "b": 0.1}),
        Phase(starts_at_ms=MIDNIGHT + 12 * HOUR, shares={"control": 0.5, "b": 0.5}),
    )})  # fmt: skip
    users = some_users(seed, ["control", "b"], 200, days=4)
    counted = counted_of(run_of(ramp, users, seed=seed))
    assert counted.as_of_ms is not None
    rows = plain_rows(results(ramp, counted, RULES, slices=["all"]))
    for metric in METRICS:
        if metric == "retention_d7":
            continue
        sides: list[list[tuple[float, float, float, int]]] = [[], []]
        for early in (True, False):
            phase = [user for user in users if (user.at < MIDNIGHT + 12 * HOUR) == early]
            for side, arm in zip(sides, ("control", "b"), strict=True):
                side.append(one_sample(metric, grouped(phase, arm, "exposed", counted.as_of_ms)))
        weights = [a[3] + b[3] for a, b in zip(*sides, strict=True)]
        shares = [weight / sum(weights) for weight in weights]
        pooled = [
            (
                sum(w * s[0] for w, s in zip(shares, side, strict=True)),
                sum(w**2 * s[1] for w, s in zip(shares, side, strict=True)),
                sum(w**4 * s[2] for w, s in zip(shares, side, strict=True)),
                sum(s[3] for s in side),
            )
            for side in sides
        ]
        assert_row(rows[metric, "b"], pooled[0], pooled[1])


@pytest.mark.parametrize("seed", range(3))
def test_ratio_mean_and_cuped_equal_tea_tasting(seed: int) -> None:
    users = some_users(seed, ["control", "b"], 300)
    counted = counted_of(run_of(EXPERIMENT, users, seed=seed))
    assert counted.as_of_ms is not None
    rows = {
        (r.metric, r.variant): r
        for r in results(EXPERIMENT, counted, RULES)
        if r.slice == "all" and r.arm == "b"
    }
    frame = pd.DataFrame(
        [
            {"variant": int(arm == "b")} | figures
            for arm in ("control", "b")
            for figures in grouped(users, arm, "exposed", counted.as_of_ms)
        ]
    )
    experiment = tt.Experiment(
        ctr=tt.RatioOfMeans("clicked", "impressions"),
        clicks=tt.Mean("clicks"),
        cuped=tt.Mean("clicks", covariate="pre"),
    )
    found = experiment.analyze(frame)
    for name, row in (
        ("ctr", rows["ctr", Variant.PLAIN]),
        ("clicks", rows["clicks_per_user", Variant.PLAIN]),
        ("cuped", rows["clicks_per_user", Variant.CUPED]),
    ):
        theirs = found[name]
        for ours, value in (
            (row.difference, theirs.effect_size), (row.value, theirs.treatment), (row.control_value, theirs.control),
            (row.fixed_low, theirs.effect_size_ci_lower), (row.fixed_high, theirs.effect_size_ci_upper),
            (row.p_fixed, theirs.pvalue), (row.lift, theirs.rel_effect_size),
        ):  # fmt: skip
            assert ours == pytest.approx(value, rel=1e-10, abs=1e-12), name
