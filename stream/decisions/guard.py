"""Whether a guardrail's rule is true of an arm now, and why, in words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stream.contracts.definitions import Experiment
from stream.contracts.guardrails import Better, Guardrail
from stream.decisions.figures import Figures, WindowCounts, figures_of, figures_of_window
from stream.results.rows import Result


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule says of one arm. is_true: None where there are too few users, or no figure, to say anything."""

    arm: str
    is_true: bool | None
    figures: Figures
    reason: str


def findings(
    experiment: Experiment, guardrail: Guardrail, results: Sequence[Result], windows: Sequence[WindowCounts]
) -> Iterator[Finding]:
    """One for each arm that the guardrail watches."""
    arms = sorted({row.arm for row in results})
    control = experiment.control_among(arms)
    for arm in [arm for arm in arms if arm != control] if guardrail.arm is None else [guardrail.arm]:
        figures = (
            figures_of(results, guardrail.metric, arm)
            if guardrail.window is None
            else figures_of_window(windows, guardrail.window, guardrail.metric, arm, control)
        )
        if figures is not None:
            yield find(guardrail, arm, figures)


def find(guardrail: Guardrail, arm: str, figures: Figures) -> Finding:
    """What the rule says of these figures."""
    if too_few := _too_few(guardrail, figures):
        return Finding(arm, None, figures, too_few)
    match guardrail.rule:
        case "range":
            is_true, reason = _range(guardrail, figures)
        case "change":
            is_true, reason = _change(guardrail, figures)
        case _:
            is_true, reason = _worse(guardrail, figures)
    return Finding(arm, is_true, figures, f"{subject(figures)} {reason}")


def subject(figures: Figures) -> str:
    """What a sentence is about: `ctr`, `ctr of the last 5m`."""
    return figures.metric if figures.window is None else f"{figures.metric} of the last {figures.window}"


def _too_few(guardrail: Guardrail, figures: Figures) -> str | None:
    needs_control = guardrail.rule != "range"
    if guardrail.window is None:
        counts, least, what = (figures.users, figures.control_users), guardrail.min_users, "users"
    else:
        counts = (figures.impressions, figures.control_impressions)
        least, what = guardrail.min_impressions, "impressions"
    relevant = counts if needs_control else counts[:1]
    if any((count or 0) < least for count in relevant):
        return f"{subject(figures)} rests on fewer than {least:,} {what}"
    return None


def _range(guardrail: Guardrail, figures: Figures) -> tuple[bool | None, str]:
    value, low, high = figures.value, guardrail.min, guardrail.max
    if value is None:
        return None, "has no value"
    if low is not None and value < low:
        return True, f"is {value:.6g}, below the minimum {low:g}"
    if high is not None and value > high:
        return True, f"is {value:.6g}, above the maximum {high:g}"
    return False, f"is {value:.6g}, within its range"


def _change(guardrail: Guardrail, figures: Figures) -> tuple[bool | None, str]:
    lift, limit = figures.lift, guardrail.change
    if lift is None or limit is None:
        return None, "has no lift over the control"
    is_true = lift <= limit if limit < 0 else lift >= limit
    return is_true, f"is {lift * 100:+.3g} % against the control, with the limit {limit * 100:+g} %"


def _worse(guardrail: Guardrail, figures: Figures) -> tuple[bool | None, str]:
    margin = guardrail.worse_than_control
    if margin is None:
        return None, "has no margin"
    low, high = (
        (figures.lift_low, figures.lift_high)
        if margin.is_relative
        else (figures.always_low, figures.always_high)
    )
    if low is None or high is None:
        return None, "has no interval"
    is_true = high < -margin.size if guardrail.direction is Better.HIGHER else low > margin.size
    what = "lift" if margin.is_relative else "difference"
    scale, unit = (100, " %") if margin.is_relative else (1, "")
    return is_true, (
        f"{'is worse' if is_true else 'is not surely worse'} than the control by more than {margin}: the always-valid "
        f"interval of the {what} is [{low * scale:.4g}, {high * scale:.4g}]{unit}"
    )
