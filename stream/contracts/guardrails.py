"""What an experiment's file says about decisions: guardrails, promotion, and the roles of arms."""

import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from stream.contracts.models import Text

METRICS = (
    "ctr", "conversion_rate", "user_conversion_rate", "clicks_per_user", "orders_per_user", "revenue_per_user",
    "capped_revenue_per_user", "average_order_value", "retention_d1", "retention_d7", "retention_d30", "latency_ms",
)  # fmt: skip
LOWER_IS_BETTER = ("latency_ms",)
WINDOW_METRICS = ("ctr", "conversion_rate")  # those that rolling windows have
RESERVED = ("promotion", "promoted")  # take a guardrail's place in the ids of other decisions
HOUR_MS = 3_600_000
_PERCENT = re.compile(r"\s*([+-]?[0-9]+(?:\.[0-9]+)?)\s*%\s*")


class Role(StrEnum):
    """What an arm is in the product, besides what it is compared with."""

    CHAMPION = "champion"  # what the product serves now
    CHALLENGER = "challenger"  # what may replace it
    BASELINE = "baseline"  # what there is without a model


class Better(StrEnum):
    """The direction in which a metric improves."""

    HIGHER = "higher"
    LOWER = "lower"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]


class Margin(_Part):
    """A difference in the metric's own unit, or, relative, as a part of the control's value."""

    size: Annotated[Finite, Field(ge=0)] = 0.0
    is_relative: bool = False

    def __str__(self) -> str:
        return f"{self.size * 100:g} %" if self.is_relative else f"{self.size:g}"


def _part(value: Any) -> Any:
    """`"-20%"` as -0.2; numbers as they are."""
    if isinstance(value, str):
        match = _PERCENT.fullmatch(value)
        if match is None:
            raise ValueError('must be a number such as -0.2, or a percentage such as "-20%"')
        return float(match[1]) / 100
    return value


def _margin(value: Any) -> Any:
    """`0.01`: in the metric's unit; `"5%"`: of the control's value."""
    if isinstance(value, str):
        return Margin(size=_part(value), is_relative=True)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Margin(size=float(value))
    return value


Part = Annotated[Finite, BeforeValidator(_part)]


class Guardrail(_Part):
    """A rule that must not become true of an arm. Exactly one of: a range (min, max), change, worse_than_control.

    arm: None means every arm but the control. window: look at a rolling window instead of everything since the start.
    `hold_ms` and `cooldown_ms` are in the time of the events.
    """

    metric: Text
    name: Text | None = None
    arm: Text | None = None
    min: Finite | None = None
    max: Finite | None = None
    change: Part | None = None  # of the control's value: -0.2 is 20 % less
    worse_than_control: Annotated[Margin | None, BeforeValidator(_margin)] = None
    better: Better | None = None
    window: Literal["1m", "5m", "1h", "24h"] | None = None
    min_users: Annotated[int, Field(ge=0)] = 100  # in the arm, and in the control where that matters
    min_impressions: Annotated[int, Field(ge=0)] = 1_000  # the same for a window
    hold_ms: Annotated[int, Field(ge=0)] = 0  # how long the rule must be true without interruption
    cooldown_ms: Annotated[int, Field(ge=0)] = HOUR_MS  # from one firing, or its undoing, to the next
    action: Literal["switch", "alert"] = "switch"
    fallback: Text | None = None  # the arm that is switched to; None: the control

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        rules = [
            self.min is not None or self.max is not None,
            self.change is not None,
            self.worse_than_control,
        ]
        if sum(bool(rule) or isinstance(rule, Margin) for rule in rules) != 1:
            raise ValueError(
                "a guardrail needs exactly one rule: min and/or max, change, or worse_than_control"
            )
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not be above max")
        if self.change == 0:
            raise ValueError(
                'change must not be 0: write "-20%" for less and "+20%" for more than the control'
            )
        return self

    @model_validator(mode="after")
    def _windows_have_rates_only(self) -> Self:
        if self.window is None:
            return self
        if self.metric not in WINDOW_METRICS:
            raise ValueError(f"a window has only {' and '.join(WINDOW_METRICS)}")
        if self.worse_than_control is not None:
            raise ValueError("a window has no intervals: use min, max or change with it")
        return self

    @model_validator(mode="after")
    def _name_is_free(self) -> Self:
        if self.name in RESERVED:
            raise ValueError(f"a guardrail must not be named {self.name}")
        return self

    @property
    def rule(self) -> str:
        """Which kind of rule it is: `range`, `change` or `worse`."""
        if self.worse_than_control is not None:
            return "worse"
        return "range" if self.change is None else "change"

    @property
    def label(self) -> str:
        """Its name, or one made of metric and rule: `ctr-worse`, `ctr-range-5m`."""
        return self.name or "-".join(filter(None, (self.metric, self.rule, self.window)))

    @property
    def direction(self) -> Better:
        """The direction in which its metric improves."""
        return better(self.metric, self.better)


class Promotion(_Part):
    """When an arm should be proposed as the champion: its lift interval lies above the margin, and all is well."""

    metric: Text
    margin: Annotated[Margin, BeforeValidator(_margin)] = Margin()
    better: Better | None = None
    min_runtime_ms: Annotated[int, Field(ge=0)] = 7 * 24 * HOUR_MS  # from the first user on
    min_users: Annotated[int, Field(ge=0)] = 1_000  # in either arm

    @property
    def direction(self) -> Better:
        """The direction in which its metric improves."""
        return better(self.metric, self.better)


def better(metric: str, declared: Better | None) -> Better:
    """The declared direction, else what is known of the metric."""
    if declared is not None:
        return declared
    return Better.LOWER if metric in LOWER_IS_BETTER else Better.HIGHER


def contradictions(
    guardrails: tuple[Guardrail, ...],
    promotion: Promotion | None,
    *,
    arms: tuple[str, ...],
    metrics: tuple[str, ...],
) -> list[str]:
    """What guardrails and promotion say that does not fit the experiment; empty when all is well.

    arms: none where the experiment declares none, then any is right. metrics: the declared ones.
    """
    rules: list[Guardrail | Promotion] = [*guardrails, *([promotion] if promotion else [])]
    found = [
        f"the metric {rule.metric!r} is not among {', '.join((*METRICS, *metrics))}"
        for rule in rules
        if rule.metric not in METRICS and rule.metric not in metrics
    ]
    found += [
        f'better = "higher" or "lower" must be said for the declared metric {rule.metric!r}'
        for rule in rules
        if rule.metric in metrics and rule.better is None and _needs_direction(rule)
    ]
    named = [
        arm for guardrail in guardrails for arm in (guardrail.arm, guardrail.fallback) if arm is not None
    ]
    found += [
        f"a guardrail names the arm {arm!r}, which is not among the arms"
        for arm in named
        if arms and arm not in arms
    ]
    labels = [guardrail.label for guardrail in guardrails]
    found += [
        f"two guardrails are called {label!r}: give them different names"
        for label in sorted({label for label in labels if labels.count(label) > 1})
    ]
    return found


def _needs_direction(rule: Guardrail | Promotion) -> bool:
    return isinstance(rule, Promotion) or rule.rule == "worse"
