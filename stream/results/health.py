"""Whether an experiment can be trusted: its checks, what happened to each arm, and a verdict in words."""

from collections import Counter

from stream.contracts.definitions import Experiment
from stream.results import checks
from stream.results.compared import tallies_of
from stream.results.counted import ALL, Counted
from stream.results.rows import ArmHealth, Check, ExperimentHealth, SliceHealth, Verdict
from stream.results.rules import Rules
from stream.results.sample_ratios import SliceRatio, first_assigned, slice_ratios
from stream.stats.imbalance import Part

_WORST_FIRST = (Verdict.BROKEN, Verdict.WARNING, Verdict.OK)


def health(experiment: Experiment, counted: Counted, rules: Rules | None = None) -> ExperimentHealth:
    """All checks of an experiment; its verdict is the worst of theirs, its reason what they found."""
    rules = rules or Rules()
    ratios = slice_ratios(experiment, counted, rules)
    tallies = {arm: phases for (name, arm), phases in tallies_of(counted).items() if name == ALL}
    ratio, guilty = checks.sample_ratio_check(ratios)
    found = (
        ratio,
        checks.mixed_check(experiment, counted),
        *checks.trouble_checks(counted),
        checks.pre_value_check(experiment, tallies, rules),
    )
    verdict = min((check.verdict for check in found), key=_WORST_FIRST.index)
    return ExperimentHealth(
        experiment=counted.experiment,
        verdict=verdict,
        reason=_in_words(found),
        checks=found,
        arms=_arms(experiment, counted, ratios[0]),
        slices=tuple(_slice_health(one, len(ratios) - 1) for one in ratios),
        guilty_slice=guilty.slice if guilty else None,
        as_of_ms=counted.as_of_ms,
    )


def _in_words(found: tuple[Check, ...]) -> str:
    failed = sorted(
        (check for check in found if check.verdict is not Verdict.OK),
        key=lambda c: _WORST_FIRST.index(c.verdict),
    )
    ratio = found[0]
    if not failed:
        return "Nothing is wrong" + (f"; {ratio.reason}." if ratio.p is None else ".")
    text = "; ".join(check.reason for check in failed)
    return f"{text[0].upper()}{text[1:]}."


def _slice_health(one: SliceRatio, slices: int) -> SliceHealth:
    p = one.ratio.p_sequential
    compared = 1 if one.slice == ALL else slices
    is_broken = p is not None and p * compared < checks.THRESHOLD
    return SliceHealth(
        slice=one.slice,
        p_fixed=one.ratio.p_fixed,
        p_sequential=p,
        verdict=Verdict.BROKEN if is_broken else Verdict.OK,
        reason=None if one.ratio.reason is None else one.ratio.reason.value,
        users=dict(sorted(one.users.items())),
    )


def _arms(experiment: Experiment, counted: Counted, ratio: SliceRatio) -> tuple[ArmHealth, ...]:
    sums: dict[str, Counter[str]] = {arm: Counter() for arm in sorted({*ratio.users, *ratio.expected})}
    for row in counted.sums:
        if row.slice == ALL:
            sums[row.arm].update(row.sums)
    parts = {name: checks.by_arm(part_of, counted.troubles) for name, part_of in checks.PARTS.items()}
    users = sum(ratio.users.values())
    planned = sum(ratio.expected.values())
    found = []
    for arm, of_arm in sums.items():
        own = first_assigned(of_arm, experiment.policy)
        late, rejected, duplicate, orphaned = (parts[name].get(arm, Part(0, 0)) for name in checks.PARTS)
        found.append(
            ArmHealth(
                arm=arm,
                users=own,
                planned_share=_share(ratio.expected[arm], planned) if arm in ratio.expected else None,
                share=_share(own, users),
                assigned_users=of_arm["assigned_users"],
                exposed_users=of_arm["exposed_users"],
                mixed_users=of_arm["mixed_users"],
                mixed_share=_share(of_arm["mixed_users"], own),
                before_assignment=of_arm["before_assignment"],
                foreign_currency=of_arm["foreign_currency"],
                late=late.hits,
                late_share=_share(late.hits, late.of),
                rejected=rejected.hits,
                rejected_share=_share(rejected.hits, rejected.of),
                duplicate=duplicate.hits,
                duplicate_share=_share(duplicate.hits, duplicate.of),
                orphaned=orphaned.hits,
                orphaned_share=_share(orphaned.hits, orphaned.of),
                pre_value=_share(of_arm["pre_value"], of_arm["assigned_users"]),
            )
        )
    return tuple(found)


def _share(part: float, of: float) -> float | None:
    return part / of if of else None
