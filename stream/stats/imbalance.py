"""Whether something happens to one arm more often than to the others: lost events, users seen in two arms."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stream.stats.comparison import anytime_p
from stream.stats.confidence import Confidence

MIN_EXPECTED = 5.0


@dataclass(frozen=True, slots=True)
class Part:
    """How many of so many, in one arm."""

    hits: int
    of: int


@dataclass(frozen=True, slots=True)
class Imbalance:
    """The arm that differs most from all others together. p: anytime, times the number of arms that were compared.

    difference: share of the arm minus share of the others. p is None where too little happened to say anything.
    """

    arm: str
    difference: float
    p: float | None


def imbalance(strata: Sequence[Mapping[str, Part]], users: int, clustering: float = 1.0) -> Imbalance | None:
    """Test by arm whether hits fall on all arms alike; None: there is nothing to compare.

    z = sum(hits - expected) / sqrt(sum of variances) over the strata (Mantel, Haenszel 1959), with binomial variances
    times `clustering`: how many hits come together, as one user's do (see `clustering_of`). users: in all arms, for
    the anytime p-value. An arm has no p where it or the others may expect fewer than 5 independent hits.
    """
    arms = sorted({arm for stratum in strata for arm, part in stratum.items() if part.of})
    if len(arms) < 2:
        return None
    found = [_of_arm(arm, strata, users, clustering) for arm in arms]
    tested = [one for one in found if one.p is not None]
    if len(arms) == 2:  # each is the other's others: one test, told of the one with more
        return max(found, key=lambda one: one.difference)
    worst = min(tested or found, key=lambda one: one.p or 0.0)
    if worst.p is None:
        return worst
    compared = len(tested)
    return Imbalance(worst.arm, worst.difference, min(1.0, worst.p * compared))


def _of_arm(arm: str, strata: Sequence[Mapping[str, Part]], users: int, clustering: float) -> Imbalance:
    excess = variance = expected = expected_of_others = 0.0
    own, others = Part(0, 0), Part(0, 0)
    for stratum in strata:
        part = stratum.get(arm, Part(0, 0))
        hits, of = (sum(getattr(p, name) for p in stratum.values()) for name in ("hits", "of"))
        own = Part(own.hits + part.hits, own.of + part.of)
        others = Part(others.hits + hits - part.hits, others.of + of - part.of)
        if of:
            share = hits / of
            excess += part.hits - part.of * share
            expected += part.of * share
            expected_of_others += (of - part.of) * share
            variance += share * (1 - share) * part.of * (1 - part.of / of) * clustering
    difference = _share(own) - _share(others)
    if variance == 0 or min(expected, expected_of_others) < MIN_EXPECTED * clustering:
        return Imbalance(arm, difference, None)
    return Imbalance(arm, difference, anytime_p(excess / math.sqrt(variance), users, Confidence()))


def clustering_of(groups: Sequence[Mapping[str, Part]], events_per_user: float) -> float:
    """How many hits count as one, at least 1: never fewer than there are events of the user of a typical event.

    events_per_user: sum of squares over sum, the mean taken over events; all of a user's events may be lost together.
    groups: the same counts in disjoint groups of users (partitions). If they differ among each other by more than that
    explains, as when a single user makes all the trouble, Pearson's dispersion between them counts.
    """
    clustering = max(1.0, events_per_user)
    total, freedom = 0.0, 0
    for arm in {arm for group in groups for arm in group}:
        parts = [group[arm] for group in groups if arm in group and group[arm].of]
        hits, of = sum(part.hits for part in parts), sum(part.of for part in parts)
        if 0 < hits < of:
            share = hits / of
            total += sum((p.hits - p.of * share) ** 2 / (p.of * share * (1 - share)) for p in parts)
            freedom += len(parts) - 1
    return max(clustering, total / freedom) if freedom else clustering


def _share(part: Part) -> float:
    return part.hits / part.of if part.of else 0.0
