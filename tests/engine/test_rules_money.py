"""Money: minor units, refunds, currencies, and sums beyond one machine word."""

from typing import Any

import pytest

from stream.contracts.definitions import Definitions, Experiment
from stream.contracts.topics import Topic
from tests.engine.makers import MINUTE, T0, Event, Run, an_assignment, an_impression, an_interaction

NAMES = ("conversions", "revenue_minor", "foreign_currency")


def a_purchase(event_id: str, value_minor: int | None, currency: str | None = None, **fields: Any) -> Event:
    return an_interaction(event_id, kind="purchase", value_minor=value_minor, currency=currency, **fields)


def money(run: Run) -> list[int]:
    return [run.total()[name] for name in NAMES]


def test_a_refund_is_revenue_but_no_conversion() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment()], impressions=[an_impression()], interactions=[a_purchase("n1", -300)]
    )
    assert money(run) == [0, -300, 0]
    assert run.total()["converted_impressions"] == 0
    run.step(interactions=[a_purchase("n2", 300)])
    assert money(run) == [1, 0, 0]
    assert run.total()["revenue_sq"] == 0
    assert run.total()["converted_impressions"] == 1


def test_a_purchase_without_value_or_worth_nothing_is_a_conversion() -> None:
    run = Run()
    run.step(assignments=[an_assignment()], interactions=[a_purchase("n1", None), a_purchase("n2", 0)])
    assert money(run) == [2, 0, 0]


def test_a_null_currency_means_the_settings_one_and_another_is_a_conversion_without_revenue() -> None:
    run = Run(Definitions(currency="EUR"))
    run.step(
        assignments=[an_assignment()],
        interactions=[a_purchase("n1", 100), a_purchase("n2", 10, "EUR"), a_purchase("n3", 1, "USD")],
    )
    assert money(run) == [3, 110, 1]


def test_an_experiments_own_currency_goes_before_the_settings_one() -> None:
    run = Run(Definitions(currency="EUR", experiments=(Experiment(name="e1", currency="USD"),)))
    run.step(
        assignments=[an_assignment(), an_assignment("a2", experiment="e2")],
        interactions=[a_purchase("n1", 100), a_purchase("n2", 10, "EUR"), a_purchase("n3", 1, "USD")],
    )
    assert money(run) == [3, 101, 1]
    assert [run.total("e2")[name] for name in NAMES] == [3, 110, 1]


def test_a_foreign_refund_is_neither_conversion_nor_revenue_and_is_reported() -> None:
    run = Run()
    run.step(assignments=[an_assignment()], interactions=[a_purchase("n1", -5, "JPY")])
    assert money(run) == [0, 0, 1]


def test_a_foreign_currency_of_another_kind_than_a_conversion_is_of_no_concern() -> None:
    run = Run()
    run.step(assignments=[an_assignment()], interactions=[an_interaction(currency="JPY", value_minor=5)])
    assert money(run) == [0, 0, 0]


def test_foreign_purchases_leave_with_an_excluded_user() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment("1", arm="a")],
        interactions=[a_purchase("n1", 5, "JPY"), a_purchase("n2", 9)],
    )
    run.step(assignments=[an_assignment("2", T0 + MINUTE, arm="b")])
    assert [run.total(arm="a")[name] for name in NAMES] == [0, 0, 0]


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_and_squares_of_the_largest_values_are_exact(sign: int) -> None:
    run = Run()
    largest = sign * 10**12
    run.step(
        assignments=[an_assignment(f"a{u}", user_id=f"u{u}") for u in range(30)],
        interactions=[a_purchase(f"n{u}", largest - sign * (u == 0), user_id=f"u{u}") for u in range(30)],
    )
    total = run.total()
    conversions = 30 if sign > 0 else 0
    assert (total["conversions"], total["revenue_minor"]) == (conversions, 30 * largest - sign)
    assert total["revenue_sq"] == 29 * largest**2 + (largest - sign) ** 2
    assert total["revenue_sq"] > 2**64
    assert total["revenue_x_conversions"] == (30 * largest - 1 if sign > 0 else 0)


def test_the_largest_values_of_one_user_are_taken_back_exactly() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment("1", arm="a")], interactions=[a_purchase(f"n{k}", 10**12) for k in range(100)],
    )  # fmt: skip
    assert run.total(arm="a")["revenue_sq"] == (100 * 10**12) ** 2
    assert run.total(arm="a")["revenue_x_conversions"] == 100 * 10**12 * 100
    run.step(assignments=[an_assignment("2", T0 + 1, arm="b")])
    total = run.total(arm="a")
    assert (total["revenue_minor"], total["revenue_sq"], total["revenue_x_conversions"]) == (0, 0, 0)


@pytest.mark.parametrize(("value", "outcome"), [(10**12, "counted"), (-(10**12), "counted"), (10**12 + 1, "rejected"),
                                                (-(10**12) - 1, "rejected")])  # fmt: skip
def test_a_value_is_at_most_ten_to_the_twelve_either_way(value: int, outcome: str) -> None:
    run = Run()
    run.step(assignments=[an_assignment()], interactions=[a_purchase("n", value)])
    assert run.outcomes(Topic.INTERACTIONS)[outcome] == 1
    if outcome == "rejected":
        assert run.dead_letters() == [("interactions", 0, "out_of_range", "value_minor")]
