"""Many simulated experiments, judged by every method at every look."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy import special

from benchmarks.validity.traffic import METRICS, Shape, simulate
from stream.stats.comparison import Comparison, compare
from stream.stats.estimates import Estimate, estimate
from stream.stats.moments import Moments
from stream.stats.reasons import NoInterval
from stream.stats.srm import SampleRatio, sample_ratio

ALPHA = 0.05
MIN_USERS = 50  # an arm; before that no interval is looked at
HALVES = (Fraction(1, 2), Fraction(1, 2))


@dataclass(frozen=True, slots=True)
class Share:
    """How many of so many runs."""

    count: int
    runs: int

    @property
    def value(self) -> float:
        return self.count / self.runs

    @property
    def error(self) -> float:
        """Monte-Carlo standard error; of one run more on each side, so that 0 of n is not called certain."""
        value = (self.count + 1) / (self.runs + 2)
        return math.sqrt(value * (1 - value) / self.runs)

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ± {100 * self.error:.1f}"


@dataclass(frozen=True, slots=True)
class Looks:
    """One experiment and metric. p_naive: events as units, NaN for metrics that have none.

    sharpness: the control's value in standard errors of its own, for a lift divides by it.
    """

    comparisons: list[Comparison]
    p_naive: npt.NDArray[np.float64]
    sharpness: npt.NDArray[np.float64]

    def found(self, method: str) -> npt.NDArray[np.bool_]:
        """Whether `fixed`, `always` or `naive` calls it significant, by look."""
        if method == "naive":
            return self.p_naive < ALPHA
        p = [getattr(comparison, f"p_{method}") for comparison in self.comparisons]
        return np.array([value is not None and value < ALPHA for value in p])

    def covers(self, interval: str, truth: float) -> npt.NDArray[np.bool_]:
        """Whether `fixed`, `always` or `lift` holds the truth, by look; no interval misses nothing."""
        bounds = [
            (getattr(comparison, f"{interval}_low"), getattr(comparison, f"{interval}_high"))
            for comparison in self.comparisons
        ]
        return np.array([low is None or low <= truth <= high for low, high in bounds])


def trials(shape: Shape, runs: Iterable[int], metrics: Iterable[str] = METRICS) -> Iterator[dict[str, Looks]]:
    """One experiment per element of `runs`, which seeds it."""
    chosen = tuple(metrics)
    for seed in runs:
        looks = simulate(shape, np.random.default_rng(seed))
        yield {metric: _looked_at(metric, looks[metric]) for metric in chosen}


def _looked_at(metric: str, looks: list[tuple[Moments, Moments]]) -> Looks:
    kind = METRICS[metric]
    large = [(a, b) for a, b in looks if min(a.n, b.n) >= MIN_USERS]
    estimates = [(estimate(kind, a, a + b), estimate(kind, b, a + b)) for a, b in large]
    naive = [naive_p(a, b) if metric == "ctr" else math.nan for a, b in large]
    return Looks(
        [compare(control, arm) for control, arm in estimates],
        np.array(naive),
        np.array([_sharpness(control) for control, _ in estimates]),
    )


def _sharpness(control: Estimate | NoInterval) -> float:
    if not isinstance(control, Estimate) or control.variance == 0:
        return 0.0
    return abs(float(control.value)) / math.sqrt(control.variance)


def naive_p(control: Moments, arm: Moments) -> float:
    """The z-test of two proportions, pooled, that takes impressions for independent: what not to do."""
    pooled = (control.sx + arm.sx) / (control.sy + arm.sy)
    variance = pooled * (1 - pooled) * (1 / control.sy + 1 / arm.sy)
    if variance == 0:
        return 1.0
    return float(2 * special.ndtr(-abs(arm.sx / arm.sy - control.sx / control.sy) / math.sqrt(variance)))


def sample_ratios(
    share: float, runs: Iterable[int], *, users: int = 50_000, looks: int = 100
) -> Iterator[list[SampleRatio]]:
    """50:50 planned, `share` of the users really in the arm: the tests at each look."""
    for seed in runs:
        arm = np.random.default_rng(seed).binomial(users // looks, share, looks).cumsum()
        total = np.arange(1, looks + 1) * (users // looks)
        yield [
            sample_ratio([int(n - count), int(count)], HALVES, users // 4)
            for n, count in zip(total, arm, strict=True)
        ]
