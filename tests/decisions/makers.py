"""Standings, figures and decisions with defaults, and actions that only remember."""

from dataclasses import dataclass, field, replace
from typing import Any

from stream.contracts.definitions import Experiment
from stream.decisions.book import Page, Switches
from stream.decisions.decision import Decision, Kind
from stream.decisions.figures import Figures
from stream.results.rows import (
    Basis,
    Check,
    CheckName,
    ExperimentHealth,
    Result,
    Standing,
    Variant,
    Verdict,
)

NOON_MS = 1_735_732_800_000  # 2025-01-01 12:00 UTC
SECOND_MS = 1_000


def an_experiment(**fields: Any) -> Experiment:
    defaults = {"name": "ranker", "control": "old", "arms": {"old": {}, "new": {}}}
    return Experiment.model_validate(defaults | fields)


def a_result(arm: str = "new", **fields: Any) -> Result:
    """CTR of an arm that is a little better than the control, with an interval that covers 0."""
    row = Result(
        experiment="ranker", metric="ctr", variant=Variant.PLAIN, kind="ratio", slice="all", arm=arm, control="old",
        basis=Basis.EXPOSED, users=5_000, control_users=5_000, value=0.051, control_value=0.05, difference=0.001,
        always_low=-0.002, always_high=0.004, p_always=0.5, lift=0.02, lift_low=-0.04, lift_high=0.08, as_of_ms=NOON_MS,
    )  # fmt: skip
    return replace(row, **fields)


WORSE: dict[str, Any] = {
    "value": 0.02, "difference": -0.03, "always_low": -0.034, "always_high": -0.026, "p_always": 1e-9, "lift": -0.6,
    "lift_low": -0.68, "lift_high": -0.52,
}  # fmt: skip
BETTER: dict[str, Any] = {
    "value": 0.06, "difference": 0.01, "always_low": 0.006, "always_high": 0.014, "p_always": 1e-9, "lift": 0.2,
    "lift_low": 0.12, "lift_high": 0.28,
}  # fmt: skip


def a_health(verdict: Verdict = Verdict.OK) -> ExperimentHealth:
    check = Check(CheckName.SAMPLE_RATIO, verdict, 0.5, 0.001, "the sample ratio")
    return ExperimentHealth("ranker", verdict, "all is well", (check,), (), ())


def a_standing(
    *rows: Result, seconds: float = 0, health: ExperimentHealth | None = None, version: int = 1
) -> Standing:
    as_of_ms = NOON_MS + int(seconds * SECOND_MS)
    control = a_result(
        "old", control=None, control_users=None, value=0.05, control_value=None, difference=None, always_low=None,
        always_high=None, p_always=None, lift=None, lift_low=None, lift_high=None,
    )  # fmt: skip
    return Standing("ranker", 1, version, as_of_ms, (control, *rows), health or a_health())


def a_decision(**fields: Any) -> Decision:
    decision = Decision(
        experiment="ranker", guardrail="ctr-worse", arm="new", number=1, kind=Kind.GUARDRAIL, generation=1,
        as_of_ms=NOON_MS, decided_at_ms=NOON_MS + 2_000, is_armed=True, fallback="old", rule="ctr worse",
        reason="ctr is worse", by="liftstream", why="", figures=Figures("ctr", value=0.02, control_value=0.05),
    )  # fmt: skip
    return replace(decision, **fields)


@dataclass
class Remembered:
    """Actions that only remember what was asked for."""

    begun: list[Page] = field(default_factory=list)
    resumed: list[Page] = field(default_factory=list)
    switched: list[Switches] = field(default_factory=list)

    def begin(self, page: Page) -> None:
        self.begun.append(page)

    def resume(self, page: Page) -> None:
        self.resumed.append(page)

    def switch(self, switches: Switches) -> None:
        self.switched.append(switches)

    @property
    def ids(self) -> list[str]:
        """Of the decisions that were begun."""
        return [page.decision.id for page in self.begun]
