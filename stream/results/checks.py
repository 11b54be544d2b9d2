"""The checks of an experiment's health, each with a test, a threshold and its verdict in words."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from stream.contracts.definitions import Experiment, Policy
from stream.results.counted import ALL, Counted, Troubles
from stream.results.metrics import Tally
from stream.results.rows import Basis, Check, CheckName, Verdict
from stream.results.rules import Rules
from stream.results.sample_ratios import SliceRatio, first_assigned
from stream.stats.comparison import compare
from stream.stats.estimates import Estimate, mean, stratified
from stream.stats.imbalance import Imbalance, Part, clustering_of, imbalance
from stream.stats.moments import Moments

THRESHOLD = 0.001  # of p; so that a healthy experiment is hardly ever called broken, however long one looks
MATERIAL = 0.01  # a difference of shares between arms from which on it breaks an experiment
MANY_MIXED = 0.01  # share of users seen in several arms that is worth a warning
MIN_EXPECTED = 5  # users an arm must expect for the chi-square

_BREAKS = {CheckName.MIXED, CheckName.LATE, CheckName.REJECTED}  # the others bias what is counted less
_WORDS = {
    CheckName.MIXED: "users seen in several arms",
    CheckName.LATE: "late events",
    CheckName.REJECTED: "rejected events",
    CheckName.DUPLICATE: "duplicates",
    CheckName.ORPHANED: "interactions without an impression to credit",
}


def sample_ratio_check(ratios: Sequence[SliceRatio]) -> tuple[Check, SliceRatio | None]:
    """Of the whole experiment and, times their number, of its slices; and the guilty slice, where there is one."""
    whole, *slices = ratios
    tested = [
        one for one in slices if one.ratio.evidence is not None and one.users != whole.users
    ]  # a real part
    worst = max(tested, key=lambda one: one.ratio.evidence or 0.0, default=None)
    p_worst = min(1.0, (worst.ratio.p_sequential or 0.0) * len(tested)) if worst else 1.0
    guilty = worst if p_worst < THRESHOLD else None
    p = whole.ratio.p_sequential
    if p is None:
        why = str(whole.ratio.reason).replace("_", " ")
        return _check(
            CheckName.SAMPLE_RATIO, Verdict.OK, None, f"the sample ratio is not tested: {why}"
        ), None
    where = f"; farthest off is {guilty.slice}: {_off(guilty)}" if guilty else ""
    if p < THRESHOLD:
        words = f"the sample ratio is broken: {_off(whole)}{where}"
        return _check(CheckName.SAMPLE_RATIO, Verdict.BROKEN, p, words, whole.farthest), guilty
    if guilty is not None:
        words = f"the sample ratio is broken in the slice {guilty.slice}: {_off(guilty)}"
        return _check(CheckName.SAMPLE_RATIO, Verdict.BROKEN, p_worst, words, guilty.farthest), guilty
    p_fixed = whole.ratio.p_fixed or 0.0
    if p_fixed < THRESHOLD and min(whole.expected.values()) >= MIN_EXPECTED:
        words = f"the sample ratio is off for one look that was planned (p = {p_fixed:.2g}): {_off(whole)}"
        return _check(CheckName.SAMPLE_RATIO, Verdict.WARNING, p, words, whole.farthest), None
    return _check(CheckName.SAMPLE_RATIO, Verdict.OK, p, "the sample ratio is as planned"), None


def _off(one: SliceRatio) -> str:
    arm = one.farthest or ""
    total = sum(one.users.get(name, 0) for name in one.expected)
    has, planned = one.users.get(arm, 0) / total, one.expected[arm] / total
    return f"{arm} has {has:.2%} of {total:,} users where {planned:.2%} were planned (p = {one.ratio.p_sequential:.2g})"


def mixed_check(experiment: Experiment, counted: Counted) -> Check:
    """Whether users of one arm were seen in another one more often than those of the others, by phase."""
    strata: dict[int, dict[str, Part]] = defaultdict(dict)
    for row in counted.sums:
        if row.slice == ALL:
            users = first_assigned(row.sums, experiment.policy)
            strata[row.phase][row.arm] = Part(row.sums["mixed_users"], users)
    parts = [part for stratum in strata.values() for part in stratum.values()]
    users, mixed = sum(part.of for part in parts), sum(part.hits for part in parts)
    if experiment.policy is Policy.AS_OF:
        return _check(CheckName.MIXED, Verdict.OK, None, "users may change arms under the policy as_of")
    check = _judged(CheckName.MIXED, imbalance(list(strata.values()), users))
    if check.verdict is Verdict.OK and mixed > MANY_MIXED * users:
        words = f"{mixed / users:.2%} of the users were seen in several arms"
        return _check(CheckName.MIXED, Verdict.WARNING, check.p, words)
    return check


def trouble_checks(counted: Counted) -> list[Check]:
    """Whether late, rejected, duplicate and orphaned events fall on all arms alike.

    They are not counted by phase: while the shares of a plan change, an hour of trouble hits arms unlike without fault.
    """
    whole = [row for row in counted.sums if row.slice == ALL]
    users = sum(row.sums["assigned_users"] for row in whole)
    has_phases = len({row.phase for row in whole if row.sums["assigned_users"]}) > 1
    clustering = events_per_user([row.sums for row in whole])
    return [
        _trouble_check(name, part_of, counted.troubles, users, clustering, has_phases)
        for name, part_of in PARTS.items()
    ]


PartOf = Callable[[Troubles], Part]
PARTS: dict[CheckName, PartOf] = {
    CheckName.LATE: lambda t: Part(t.late, t.events + t.late),
    CheckName.REJECTED: lambda t: Part(t.rejected, t.events + t.rejected),
    CheckName.DUPLICATE: lambda t: Part(t.duplicate, t.events + t.duplicate),
    CheckName.ORPHANED: lambda t: Part(t.orphaned, max(t.interactions, t.orphaned)),
}


def by_arm(part_of: PartOf, troubles: Sequence[Troubles]) -> dict[str, Part]:
    """The parts of each arm, all partitions together."""
    found: dict[str, Part] = {}
    for row in troubles:
        part, before = part_of(row), found.get(row.arm, Part(0, 0))
        found[row.arm] = Part(before.hits + part.hits, before.of + part.of)
    return found


def _trouble_check(
    name: CheckName,
    part_of: PartOf,
    troubles: Sequence[Troubles],
    users: int,
    events_each: float,
    has_phases: bool,
) -> Check:
    whole = by_arm(part_of, troubles)
    if has_phases and any(part.hits for part in whole.values()):
        words = f"{_WORDS[name]} are not compared while the planned shares change"
        return _check(name, Verdict.OK, None, words)
    partitions: dict[int, list[Troubles]] = defaultdict(list)
    for row in troubles:
        partitions[row.partition].append(row)
    groups = [by_arm(part_of, rows) for rows in partitions.values()]
    return _judged(name, imbalance([whole], users, clustering_of(groups, events_each)))


def events_per_user(sums: Sequence[Mapping[str, int]]) -> float:
    """Of the user of a typical event: sum of squares over sum, for impressions, clicks and conversions, added up.

    That is never less than the same for all events together: (a + b)^2 / (A + B) <= a^2 / A + b^2 / B.
    """
    found = 0.0
    for name in ("impressions", "clicks", "conversions"):
        total = sum(row[name] for row in sums)
        found += sum(row[f"{name}_sq"] for row in sums) / total if total else 0.0
    return found


def _judged(name: CheckName, found: Imbalance | None) -> Check:
    words = _WORDS[name]
    if found is None or found.p is None:
        return _check(name, Verdict.OK, None, f"too few {words} to compare arms")
    if found.p >= THRESHOLD:
        return _check(name, Verdict.OK, found.p, f"{words} fall on all arms alike")
    more = "more" if found.difference > 0 else "fewer"
    points = abs(found.difference)
    breaks = name in _BREAKS and points >= MATERIAL
    text = f"{found.arm} has {more} {words} than the other arms, by {points:.2%} (p = {found.p:.2g})"
    return _check(name, Verdict.BROKEN if breaks else Verdict.WARNING, found.p, text, found.arm)


def pre_value_check(
    experiment: Experiment, tallies: Mapping[str, Mapping[int, Tally]], rules: Rules
) -> Check:
    """Whether the users differed already before the experiment: pre_value of assigned users, by phase."""
    reference = experiment.control_among(tallies) or min(tallies, default="")
    worst, compared = None, 0
    for arm in tallies:
        if arm == reference or reference not in tallies:
            continue
        pair = _pre_values(tallies[reference], tallies[arm])
        comparison = compare(*pair, rules.confidence) if pair else None
        if comparison is None or comparison.p_always is None:
            continue
        compared += 1
        if worst is None or comparison.p_always < worst[0]:
            worst = comparison.p_always, arm, comparison.difference or 0.0
    if worst is None or experiment.policy is Policy.AS_OF:
        return _check(CheckName.PRE_VALUE, Verdict.OK, None, "there are no pre_values to compare")
    p = min(1.0, worst[0] * compared)
    if p >= THRESHOLD:
        return _check(CheckName.PRE_VALUE, Verdict.OK, p, "the arms' pre_values are alike")
    _, arm, difference = worst
    text = (
        f"{arm} differed from {reference} before the experiment: pre_value by {difference:.4g} (p = {p:.2g})"
    )
    return _check(CheckName.PRE_VALUE, Verdict.BROKEN, p, text, arm)


def _pre_values(control: Mapping[int, Tally], arm: Mapping[int, Tally]) -> tuple[Estimate, Estimate] | None:
    strata = []
    for phase in control.keys() & arm.keys():
        a, b = (_pre_moments(side[phase]) for side in (control, arm))
        left, right = mean(a), mean(b)
        if isinstance(left, Estimate) and isinstance(right, Estimate):
            strata.append((a.n + b.n, left, right))
    if not strata:
        return None
    return stratified([(n, a) for n, a, _ in strata]), stratified([(n, b) for n, _, b in strata])


def _pre_moments(tally: Tally) -> Moments:
    sums = tally.sums
    return Moments(tally.users(Basis.ASSIGNED), sums["pre_value"], sums["pre_value_sq"])


def _check(name: CheckName, verdict: Verdict, p: float | None, reason: str, arm: str | None = None) -> Check:
    return Check(name, verdict, p, THRESHOLD, reason, arm)
