"""What rules say of figures."""

import pytest

from stream.contracts.guardrails import Guardrail
from stream.decisions.figures import Figures, WindowCounts
from stream.decisions.guard import Finding, find, findings
from tests.decisions.makers import BETTER, WORSE, a_result, an_experiment

RESULT = a_result()


def said(rule: dict[str, object], **figures: object) -> Finding:
    guardrail = Guardrail.model_validate({"metric": "ctr"} | rule)
    return find(guardrail, "new", Figures.of(a_result(**figures)))


@pytest.mark.parametrize(
    ("rule", "figures", "is_true"),
    [
        ({"min": 0.05}, {"value": 0.049}, True),
        ({"min": 0.05}, {"value": 0.05}, False),
        ({"max": 0.05}, {"value": 0.051}, True),
        ({"min": 0.01, "max": 0.06}, {}, False),
        ({"min": 0.05}, {"value": None}, None),
        ({"change": "-20%"}, {"lift": -0.2}, True),
        ({"change": "-20%"}, {"lift": -0.19}, False),
        ({"change": "+20%"}, {"lift": 0.3}, True),
        ({"change": "+20%"}, {"lift": -0.3}, False),
        ({"change": "-20%"}, {"lift": None}, None),
        ({"worse_than_control": 0}, WORSE, True),
        ({"worse_than_control": 0.026}, WORSE, False),
        ({"worse_than_control": 0.0259}, WORSE, True),
        ({"worse_than_control": "52%"}, WORSE, False),
        ({"worse_than_control": "51%"}, WORSE, True),
        ({"worse_than_control": 0}, {}, False),
        ({"worse_than_control": 0}, BETTER, False),
        ({"worse_than_control": 0, "better": "lower"}, BETTER, True),
        ({"worse_than_control": 0, "better": "lower"}, WORSE, False),
        ({"worse_than_control": 0}, {"always_high": None}, None),
        ({"worse_than_control": 0}, WORSE | {"users": 99}, None),
        ({"worse_than_control": 0}, WORSE | {"control_users": 99}, None),
        ({"min": 0.05}, WORSE | {"control_users": 99}, True),
    ],
)
def test_a_rule_is_true_false_or_cannot_be_judged(
    rule: dict[str, object], figures: dict[str, object], is_true: bool | None
) -> None:
    assert said(rule, **figures).is_true is is_true


def test_the_reason_says_the_figures() -> None:
    finding = said({"worse_than_control": "5%"}, **WORSE)
    assert finding.reason == (
        "ctr is worse than the control by more than 5 %: the always-valid interval of the lift is [-68, -52] %"
    )


def test_every_arm_but_the_control_is_watched_unless_one_is_named() -> None:
    rows = [a_result("old", control=None), a_result("b"), a_result("c")]
    experiment = an_experiment(arms={"old": {}, "b": {}, "c": {}})
    every = Guardrail.model_validate({"metric": "ctr", "min": 0.01})
    one = Guardrail.model_validate({"metric": "ctr", "min": 0.01, "arm": "old"})
    assert [f.arm for f in findings(experiment, every, rows, ())] == ["b", "c"]
    assert [f.arm for f in findings(experiment, one, rows, ())] == ["old"]


def test_adjusted_figures_and_slices_do_not_count() -> None:
    rows = [a_result(slice="country=DE", **WORSE), a_result(variant="cuped", **WORSE), a_result()]
    guardrail = Guardrail.model_validate({"metric": "ctr", "worse_than_control": 0})
    (finding,) = findings(an_experiment(), guardrail, rows, ())
    assert finding.is_true is False


def test_a_window_has_rates_of_its_own() -> None:
    guardrail = Guardrail.model_validate({"metric": "ctr", "change": "-50%", "window": "5m"})
    windows = [
        WindowCounts("old", "5m", 2_000, 100, 0),
        WindowCounts("new", "5m", 2_000, 20, 0),
        WindowCounts("new", "1h", 9_000, 900, 0),
    ]
    rows = [a_result("old", control=None), a_result()]
    (finding,) = findings(an_experiment(), guardrail, rows, windows)
    assert finding.is_true
    assert (finding.figures.value, finding.figures.control_value) == (0.01, 0.05)
    assert finding.reason == "ctr of the last 5m is -80 % against the control, with the limit -50 %"
    few = [WindowCounts("old", "5m", 2_000, 100, 0), WindowCounts("new", "5m", 999, 0, 0)]
    (finding,) = findings(an_experiment(), guardrail, rows, few)
    assert finding.is_true is None
