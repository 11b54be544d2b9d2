"""All comparisons of an experiment and its sample ratio, from the moments of its arms."""

from collections.abc import Mapping
from dataclasses import dataclass

from stream.stats.comparison import Comparison, compare
from stream.stats.confidence import DEFAULT_CONCENTRATION, Confidence
from stream.stats.estimates import Kind, estimate
from stream.stats.moments import Exact, Moments
from stream.stats.srm import SampleRatio, sample_ratio


@dataclass(frozen=True, slots=True)
class MetricSums:
    """One metric of an experiment: moments by arm, the control among them."""

    metric: str
    kind: Kind
    control: str
    arms: Mapping[str, Moments]


@dataclass(frozen=True, slots=True)
class ExperimentSums:
    """An experiment's metrics, and its planned shares by arm (None: not declared)."""

    experiment: str
    metrics: tuple[MetricSums, ...]
    shares: Mapping[str, Exact | float] | None = None

    def users(self) -> dict[str, int]:
        """Users by arm: the most that any metric has, as a metric may leave out users that it cannot judge yet."""
        users: dict[str, int] = {}
        for metric in self.metrics:
            for arm, moments in metric.arms.items():
                users[arm] = max(moments.n, users.get(arm, 0))
        return users


@dataclass(frozen=True, slots=True)
class ArmComparison:
    """The comparison of one arm with the control, for one metric."""

    metric: str
    arm: str
    control: str
    comparison: Comparison


def comparisons(metric: MetricSums, confidence: Confidence) -> list[ArmComparison]:
    """Every arm against the control, in the order of the arms."""
    control = metric.arms[metric.control]
    found = []
    for arm, moments in metric.arms.items():
        if arm != metric.control:
            both = control + moments
            comparison = compare(
                estimate(metric.kind, control, both), estimate(metric.kind, moments, both), confidence
            )
            found.append(ArmComparison(metric.metric, arm, metric.control, comparison))
    return found


def experiment_sample_ratio(
    experiment: ExperimentSums, concentration: Exact = DEFAULT_CONCENTRATION
) -> SampleRatio:
    """The sample ratio of all arms that have a planned share; an arm without sums has no users."""
    if experiment.shares is None:
        return sample_ratio([], None)
    users = experiment.users()
    counts = [users.get(arm, 0) for arm in experiment.shares]
    return sample_ratio(counts, list(experiment.shares.values()), concentration)
