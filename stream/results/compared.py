"""Every metric of every arm against the control, in every slice."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction

from stream.contracts.definitions import DAY_MS, Experiment, Policy
from stream.results.counted import ALL, Counted
from stream.results.metrics import AnyMetric, Metric, Retention, Tally, foretold, metrics_of, with_pre_value
from stream.results.rows import Basis, Result, Variant
from stream.results.rules import Rules
from stream.stats.comparison import Comparison, compare
from stream.stats.estimates import Estimate, Kind, estimate, stratified
from stream.stats.moments import Moments
from stream.stats.multiplicity import benjamini_hochberg, bonferroni
from stream.stats.reasons import NoInterval

Arm = Mapping[int, Tally]  # by phase
Strata = dict[int, Moments]  # by phase
_NOBODY: Arm = {}
_FIGURES = [field.name for field in fields(Comparison) if field.name != "reason"]


def results(
    experiment: Experiment,
    counted: Counted,
    rules: Rules | None = None,
    *,
    slices: Iterable[str] | None = None,
) -> tuple[Result, ...]:
    """Rows by slice (`all` first), metric, variant and arm. slices: only these; None: all."""
    chosen = counted.slices if slices is None else [name for name in counted.slices if name in set(slices)]
    made = _Maker(experiment, counted, rules or Rules())
    return tuple(row for name in chosen for row in _adjusted(list(made.rows(name))))


@dataclass(frozen=True, slots=True)
class _Pair:
    """A metric's moments by phase for the two arms of a comparison."""

    kind: Kind
    control: Strata
    arm: Strata

    def estimates(self) -> tuple[Estimate, Estimate] | NoInterval:
        """Control and arm, over the phases in which both have an estimate, with the same weights."""
        found = []
        for phase in sorted(self.control.keys() & self.arm.keys()):
            both = self.control[phase] + self.arm[phase]
            control, arm = (estimate(self.kind, side[phase], both) for side in (self.control, self.arm))
            if isinstance(control, Estimate) and isinstance(arm, Estimate):
                found.append((both.n, control, arm))
        if not found:
            return self._why_not()
        if len(found) == 1:
            return found[0][1], found[0][2]
        return stratified([(n, c) for n, c, _ in found]), stratified([(n, a) for n, _, a in found])

    def _why_not(self) -> NoInterval:
        for side in (self.control, self.arm):
            whole = _whole(side)
            found = estimate(self.kind, whole, whole)
            if isinstance(found, NoInterval):
                return found
        return NoInterval.NO_COMMON_PHASE


class _Maker:
    """Makes the rows of one experiment from one reading of its sums."""

    def __init__(self, experiment: Experiment, counted: Counted, rules: Rules) -> None:
        self._experiment = experiment
        self._counted = counted
        self._rules = rules
        self._arms = tallies_of(counted)
        self._control = experiment.control_among(counted.arms)
        self._metrics = metrics_of(experiment, counted.as_of_ms, counted.since_ms)
        shown = {
            arm
            for (name, arm), phases in self._arms.items()
            if name == ALL and _exposed_users(phases.values())
        }
        self._has_impressions = shown

    def rows(self, slice_name: str) -> Iterator[Result]:
        """The rows of one slice."""
        arms = {arm: phases for (name, arm), phases in sorted(self._arms.items()) if name == slice_name}
        for metric in self._metrics:
            for variant, varied in self._variants(metric):
                for arm, phases in arms.items():
                    control = None if self._control is None else arms.get(self._control, _NOBODY)
                    yield self._row(slice_name, varied, variant, arm, phases, control)

    def _variants(self, metric: AnyMetric) -> Iterator[tuple[Variant, AnyMetric]]:
        yield Variant.PLAIN, metric
        if isinstance(metric, Metric) and metric.name == foretold(self._experiment):
            yield Variant.CUPED, with_pre_value(metric)

    def _row(
        self, slice_name: str, metric: AnyMetric, variant: Variant, arm: str, phases: Arm, control: Arm | None
    ) -> Result:
        basis = self._basis(metric, arm)
        strata = _strata(metric, phases, basis)
        whole = _whole(strata)
        row = Result(
            experiment=self._counted.experiment,
            metric=metric.name,
            variant=variant,
            kind=metric.kind.value,
            slice=slice_name,
            arm=arm,
            control=self._control,
            basis=basis,
            users=whole.n,
            value=_plain_value(metric.kind, whole),
            mature_share=self._mature_share(metric, phases, basis),
            since_ms=metric.since_ms,
            as_of_ms=self._counted.as_of_ms,
        )
        if control is None:
            return replace(row, reason=NoInterval.NO_CONTROL.value)
        if arm == self._control:
            return row
        return self._against(row, _Pair(metric.kind, _strata(metric, control, basis), strata))

    def _against(self, row: Result, pair: _Pair) -> Result:
        whole = _whole(pair.control)
        row = replace(row, control_users=whole.n, control_value=_plain_value(pair.kind, whole))
        if self._experiment.policy is Policy.AS_OF:
            return replace(row, reason=NoInterval.RATES_ONLY.value)
        estimates = pair.estimates()
        if isinstance(estimates, NoInterval):
            return replace(row, reason=estimates.value)
        control, arm = estimates
        row = replace(
            row,
            users=arm.n,
            control_users=control.n,
            value=float(arm.value),
            control_value=float(control.value),
        )
        if row.slice != ALL and min(control.n, arm.n) < self._rules.min_slice_users:
            return replace(row, reason=NoInterval.SLICE_TOO_SMALL.value)
        return _with_comparison(row, compare(control, arm, self._rules.confidence))

    def _basis(self, metric: AnyMetric, arm: str) -> Basis:
        """Exposed users, unless an arm of the comparison shows nothing: then all assigned users, in both arms."""
        if isinstance(metric, Metric) and Basis.ASSIGNED not in metric.sums:
            return Basis.EXPOSED
        compared = {arm} if self._control is None else {arm, self._control}
        return Basis.EXPOSED if compared <= self._has_impressions else Basis.ASSIGNED

    def _mature_share(self, metric: AnyMetric, phases: Arm, basis: Basis) -> float | None:
        as_of_ms = self._counted.as_of_ms
        cohorts = [cohort for tally in phases.values() for cohort in tally.cohorts_since(basis)]
        users = sum(cohort.users for cohort in cohorts)
        if as_of_ms is None or not users:
            return None
        if isinstance(metric, Retention):
            return sum(cohort.users for cohort in cohorts if metric.is_over(cohort)) / users
        window_ms = self._rules.attribution_window_ms
        over = (c.users for c in cohorts if (c.start_date + 1) * DAY_MS + window_ms <= as_of_ms)
        return sum(over) / users


def tallies_of(counted: Counted) -> dict[tuple[str, str], dict[int, Tally]]:
    """By slice and arm, then by phase."""
    cohorts = defaultdict(list)
    for cohort in counted.cohorts:
        cohorts[cohort.slice, cohort.arm, cohort.phase].append(cohort)
    found: dict[tuple[str, str], dict[int, Tally]] = defaultdict(dict)
    for row in counted.sums:
        of_row = tuple(cohorts[row.slice, row.arm, row.phase])
        found[row.slice, row.arm][row.phase] = Tally(row.sums, of_row)
    return found


def _exposed_users(tallies: Iterable[Tally]) -> int:
    return sum(tally.users(Basis.EXPOSED) for tally in tallies)


def _strata(metric: AnyMetric, phases: Arm, basis: Basis) -> Strata:
    return {phase: metric.moments(tally, basis) for phase, tally in phases.items()}


def _whole(strata: Strata) -> Moments:
    return sum(strata.values(), Moments())


def _plain_value(kind: Kind, whole: Moments) -> float | None:
    """The value of all users together, also where they are too few for an interval."""
    over = whole.sy if kind is Kind.RATIO else whole.n
    return float(Fraction(whole.sx) / over) if over else None


def _with_comparison(row: Result, comparison: Comparison) -> Result:
    figures = {name: getattr(comparison, name) for name in _FIGURES}
    reason = comparison.reason
    return replace(row, **figures, reason=None if reason is None else reason.value)


def _adjusted(rows: list[Result]) -> Iterator[Result]:
    """The rows of one slice with p_always adjusted for all metrics and arms that were compared in it.

    A CUPED row stands in for its plain one: the same question is not asked twice.
    """
    plain = {(row.metric, row.arm): row for row in rows if row.variant is Variant.PLAIN}
    cuped = {(row.metric, row.arm): row for row in rows if row.variant is Variant.CUPED}
    by_variant = {Variant.PLAIN: _family(plain), Variant.CUPED: _family(plain | cuped)}
    for row in rows:
        adjusted = by_variant[row.variant].get((row.metric, row.arm))
        yield row if adjusted is None else replace(row, p_bonferroni=adjusted[0], p_bh=adjusted[1])


def _family(rows: Mapping[tuple[str, str], Result]) -> dict[tuple[str, str], tuple[float, float]]:
    p_values = {key: row.p_always for key, row in rows.items() if row.p_always is not None}
    listed = list(p_values.values())
    return dict(zip(p_values, zip(bonferroni(listed), benjamini_hochberg(listed), strict=True), strict=True))
