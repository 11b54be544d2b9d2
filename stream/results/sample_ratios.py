"""The sample ratio of an experiment and of each of its slices."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from stream.contracts.definitions import Experiment, Policy
from stream.results.counted import ALL, Counted
from stream.results.rules import Rules
from stream.stats.reasons import NoSampleRatio
from stream.stats.srm import SampleRatio, phased_sample_ratio

Users = dict[str, int]  # by arm


@dataclass(frozen=True, slots=True)
class SliceRatio:
    """The test of one slice. users, expected: by arm, all phases together; expected of those that were tested."""

    slice: str
    ratio: SampleRatio
    users: Users
    expected: Mapping[str, float]

    @property
    def farthest(self) -> str | None:
        """The arm that is farthest from what was expected."""
        off = {
            arm: (self.users.get(arm, 0) - expected) ** 2 / expected
            for arm, expected in self.expected.items()
            if expected
        }
        return max(off, key=lambda arm: off[arm], default=None)


def first_assigned(sums: Mapping[str, int], policy: Policy) -> int:
    """Users by first assignment, those included who were seen in another arm later."""
    excluded = sums["mixed_users"] if policy is Policy.EXCLUDE else 0
    return sums["assigned_users"] + excluded


def slice_ratios(experiment: Experiment, counted: Counted, rules: Rules) -> list[SliceRatio]:
    """Of every slice, `all` first, whether there is a test or not."""
    users: dict[str, dict[int, Users]] = {name: defaultdict(dict) for name in [ALL, *counted.slices]}
    for row in counted.sums:
        users[row.slice][row.phase][row.arm] = first_assigned(row.sums, experiment.policy)
    return [_slice_ratio(experiment, name, phases, rules) for name, phases in users.items()]


def _slice_ratio(experiment: Experiment, name: str, phases: dict[int, Users], rules: Rules) -> SliceRatio:
    whole: Users = defaultdict(int)
    expected: dict[str, float] = defaultdict(float)
    tested: list[tuple[list[int], list[float] | None]] = []
    for phase, users in sorted(phases.items()):
        shares = experiment.shares_at(phase)
        for arm, count in users.items():
            whole[arm] += count
        if shares is None:
            tested.append(([], None))
            continue
        counts = [users.get(arm, 0) for arm in shares]
        tested.append((counts, list(shares.values())))
        for arm, share in shares.items():
            expected[arm] += share / sum(shares.values()) * sum(counts)
    if experiment.policy is Policy.AS_OF:
        ratio = SampleRatio(reason=NoSampleRatio.RATES_ONLY)
    else:
        ratio = phased_sample_ratio(tested, rules.concentration)
    return SliceRatio(name, ratio, dict(whole), dict(expected))
