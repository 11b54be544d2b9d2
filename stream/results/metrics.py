"""Which metrics an experiment has, and of which sums each is made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from stream.contracts.definitions import DAY_MS, Experiment, Per
from stream.results.counted import Cohort
from stream.results.rows import Basis
from stream.stats.estimates import Kind
from stream.stats.moments import Moments

RETENTION_DAYS = (1, 7, 30)
_SINCE = {Basis.EXPOSED: "exposure", Basis.ASSIGNED: "assignment"}
_USERS = {Basis.EXPOSED: "exposed_users", Basis.ASSIGNED: "assigned_users"}


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted of one arm, slice and phase: sums by name, users by their start."""

    sums: Mapping[str, int] = field(default_factory=dict)
    cohorts: tuple[Cohort, ...] = ()

    def users(self, basis: Basis) -> int:
        """Those who count on that basis."""
        return self.sums.get(_USERS[basis], 0)

    def cohorts_since(self, basis: Basis) -> Iterator[Cohort]:
        """Users by the start that the basis counts from."""
        return (cohort for cohort in self.cohorts if cohort.since == _SINCE[basis])


@dataclass(frozen=True, slots=True)
class Sums:
    """Names of the sums that a metric's moments are, on one basis. An empty name is a sum that it does not use."""

    x: str
    xx: str = ""
    y: str = ""
    yy: str = ""
    xy: str = ""
    p: str = ""
    pp: str = ""
    xp: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric made of sums. One without sums on a basis has no users there."""

    name: str
    kind: Kind
    sums: Mapping[Basis, Sums]
    since_ms: int | None = None

    def moments(self, tally: Tally, basis: Basis) -> Moments:
        """Of the users of one arm, slice and phase."""
        names = self.sums.get(basis)
        if names is None:
            return Moments()
        value = {name: tally.sums.get(getattr(names, name), 0) for name in names.__slots__}
        return Moments(
            n=tally.users(basis),
            sx=value["x"],
            sxx=value["xx"] if names.xx else value["x"],
            sy=value["y"],
            syy=value["yy"],
            sxy=value["xy"],
            sp=value["p"],
            spp=value["pp"],
            sxp=value["xp"],
        )


@dataclass(frozen=True, slots=True)
class Retention:
    """The share of users who were active on their n-th day, of those whose n-th day (UTC) is over at `until_ms`."""

    days: int
    until_ms: int | None
    since_ms: int | None = None
    kind: Kind = Kind.PROPORTION

    @property
    def name(self) -> str:
        """Its name in tables."""
        return f"retention_d{self.days}"

    def moments(self, tally: Tally, basis: Basis) -> Moments:
        """Of the users of one arm, slice and phase."""
        over = [cohort for cohort in tally.cohorts_since(basis) if self.is_over(cohort)]
        returned = sum(cohort.active[self.days] for cohort in over)
        return Moments(sum(cohort.users for cohort in over), returned, returned)

    def is_over(self, cohort: Cohort) -> bool:
        """Whether the users' n-th day is complete."""
        return self.until_ms is not None and (cohort.start_date + self.days + 1) * DAY_MS <= self.until_ms


AnyMetric = Metric | Retention


def metrics_of(
    experiment: Experiment, as_of_ms: int | None, since_ms: Mapping[str, int] | None = None
) -> list[AnyMetric]:
    """All metrics, in the order in which they are shown. since_ms: of declared metrics that were declared later."""
    rates: list[AnyMetric] = [
        Metric("ctr", Kind.RATIO, _per_impression("clicked_impressions", "clicked")),
        Metric("conversion_rate", Kind.RATIO, _per_impression("converted_impressions", "converted")),
        Metric("user_conversion_rate", Kind.PROPORTION, _both("converted_users", squared="")),
        Metric("clicks_per_user", Kind.MEAN, _both("clicks")),
        Metric("orders_per_user", Kind.MEAN, _both("conversions")),
        Metric("revenue_per_user", Kind.MEAN, _both("revenue_minor", squared="revenue_sq")),
    ]
    if experiment.revenue_cap_minor is not None:
        capped = _both("capped_revenue_minor", squared="capped_revenue_sq")
        rates.append(Metric("capped_revenue_per_user", Kind.MEAN, capped))
    rates.append(Metric("average_order_value", Kind.RATIO, _order_value()))
    until = [moment for moment in (as_of_ms, experiment.ends_at_ms) if moment is not None]
    until_ms = min(until) if as_of_ms is not None else None
    rates += [Retention(days, until_ms) for days in RETENTION_DAYS]
    latency = Sums(
        "latency_ms", "latency_sq", "timed_impressions", "timed_impressions_sq", "latency_x_timed_impressions"
    )
    rates.append(Metric("latency_ms", Kind.RATIO, {Basis.EXPOSED: latency}))
    return rates + list(_declared(experiment, since_ms or {}))


def foretold(experiment: Experiment) -> str | None:
    """The metric that has a CUPED variant, as pre_value foretells it; None: there is none."""
    declared = experiment.metrics.get(experiment.pre_value or "")
    if declared is not None:
        return experiment.pre_value if declared.per is Per.USER else None
    revenue = "revenue_per_user" if experiment.revenue_cap_minor is None else "capped_revenue_per_user"
    names = {"clicks": "clicks_per_user", "conversions": "orders_per_user", "revenue": revenue}
    return names.get(experiment.pre_value or "")


def with_pre_value(metric: Metric) -> Metric:
    """The CUPED variant of a metric per user."""
    sums = {
        basis: replace(names, p=f"{e}pre_value", pp=f"{e}pre_value_sq", xp=f"{e}pre_value_x_foretold")
        for (basis, names), e in zip(metric.sums.items(), ("exposed_", ""), strict=True)
    }
    return replace(metric, kind=Kind.CUPED_MEAN, sums=sums)


def _both(name: str, *, squared: str | None = None) -> dict[Basis, Sums]:
    """A quantity per user: as exposed, and as assigned. squared: the name of its squares if it is not NAME_sq."""
    squares = f"{name}_sq" if squared is None else squared
    return {
        Basis.EXPOSED: Sums(f"exposed_{name}", f"exposed_{squares}" if squares else ""),
        Basis.ASSIGNED: Sums(name, squares),
    }


def _per_impression(name: str, short: str) -> dict[Basis, Sums]:
    sums = Sums(name, f"{short}_sq", "impressions", "impressions_sq", f"{short}_x_impressions")
    return {Basis.EXPOSED: sums}


def _order_value() -> dict[Basis, Sums]:
    return {
        basis: Sums(
            f"{e}revenue_minor", f"{e}revenue_sq", f"{e}conversions", f"{e}conversions_sq", f"{e}revenue_x_conversions"
        )
        for basis, e in ((Basis.EXPOSED, "exposed_"), (Basis.ASSIGNED, ""))
    }  # fmt: skip


def _declared(experiment: Experiment, since_ms: Mapping[str, int]) -> Iterator[Metric]:
    for slot, (name, declared) in enumerate(experiment.metrics.items(), 1):
        quantity = f"declared_{slot}"
        if declared.per is Per.USER:
            yield Metric(name, Kind.MEAN, _both(quantity), since_ms.get(name))
            continue
        sums = _per_impression(f"exposed_{quantity}", f"exposed_{quantity}")
        yield Metric(name, Kind.RATIO, sums, since_ms.get(name))
