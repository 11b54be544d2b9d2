"""Whether an arm should be proposed as the champion."""

from collections.abc import Collection, Iterator, Sequence

from stream.contracts.definitions import Experiment
from stream.contracts.guardrails import Better, Promotion, Role
from stream.decisions.figures import Figures, figures_of
from stream.decisions.guard import Finding
from stream.results.rows import CheckName, ExperimentHealth, Result, Verdict


def candidates(experiment: Experiment, arms: Collection[str]) -> list[str]:
    """The challengers; where none is declared, all arms but the control, the champion and the baseline."""
    if challengers := experiment.arms_with(Role.CHALLENGER):
        return [arm for arm in challengers if arm in arms]
    served = {
        experiment.control_among(arms),
        *experiment.arms_with(Role.CHAMPION),
        *experiment.arms_with(Role.BASELINE),
    }
    return [arm for arm in sorted(arms) if arm not in served]


def proposals(
    experiment: Experiment,
    results: Sequence[Result],
    health: ExperimentHealth,
    *,
    runtime_ms: int,
    guilty: Collection[str],
) -> Iterator[Finding]:
    """What the rule says of every candidate. runtime_ms: since the first user. guilty: arms with a broken guardrail."""
    rule = experiment.promotion
    if rule is None:
        return
    for arm in candidates(experiment, {row.arm for row in results}):
        if figures := figures_of(results, rule.metric, arm):
            obstacle = _obstacle(rule, arm, figures, health, runtime_ms, guilty)
            yield Finding(arm, obstacle is None, figures, obstacle or _praise(rule, figures))


def _obstacle(
    rule: Promotion,
    arm: str,
    figures: Figures,
    health: ExperimentHealth,
    runtime_ms: int,
    guilty: Collection[str],
) -> str | None:
    if runtime_ms < rule.min_runtime_ms:
        return "the experiment has not run long enough"
    if min(figures.users or 0, figures.control_users or 0) < rule.min_users:
        return f"there are fewer than {rule.min_users:,} users"
    if not _is_above(rule, figures):
        return f"the interval is not better than the control by more than {rule.margin}"
    if arm in guilty:
        return "a guardrail is broken"
    if health.verdict is Verdict.BROKEN or health.check(CheckName.SAMPLE_RATIO).verdict is not Verdict.OK:
        return f"the experiment is not healthy: {health.reason}"
    return None


def _is_above(rule: Promotion, figures: Figures) -> bool:
    low, high = (
        (figures.lift_low, figures.lift_high)
        if rule.margin.is_relative
        else (figures.always_low, figures.always_high)
    )
    if low is None or high is None:
        return False
    return low > rule.margin.size if rule.direction is Better.HIGHER else high < -rule.margin.size


def _praise(rule: Promotion, figures: Figures) -> str:
    low, high = figures.lift_low, figures.lift_high
    lift = "" if low is None or high is None else f"; lift [{low * 100:.3g}, {high * 100:.3g}] %"
    better = f"{rule.metric} is better than the control by more than {rule.margin}{lift}"
    return f"{better}; guardrails and sample ratio are clean"
