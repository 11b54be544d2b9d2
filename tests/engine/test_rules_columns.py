"""Columns: what impressions, clicks, conversions and users are, where each is counted, and the sums of squares."""

from typing import Any

from stream.contracts.definitions import Definitions, Experiment, Policy
from tests.engine.makers import HOUR, MINUTE, SECOND, T0, Run, an_assignment, an_impression, an_interaction

SHOWN = T0 + MINUTE


def test_clicked_impressions_are_distinct_and_in_the_pane_of_the_impression() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment()], impressions=[an_impression(at=SHOWN)],
        interactions=[an_interaction(f"n{i}", SHOWN + i * MINUTE) for i in range(1, 4)],
    )  # fmt: skip
    panes = {key[4] - T0: counts for key, counts in run.panes().items() if key[2] == "all"}
    assert panes[MINUTE] == {"impressions": 1, "clicked_impressions": 1, "converted_impressions": 0, "clicks": 0,
                             "conversions": 0, "revenue_minor": 0}  # fmt: skip
    assert [panes[k * MINUTE]["clicks"] for k in (2, 3, 4)] == [1, 1, 1]
    assert run.total()["clicked_impressions"] == 1
    assert run.total()["clicks"] == 3


def test_clicked_impressions_are_in_the_arm_of_the_impression_and_clicks_in_the_arm_of_their_time() -> None:
    run = Run(Definitions(experiments=(Experiment(name="e1", policy=Policy.AS_OF),)))
    run.step(
        assignments=[an_assignment("1", T0, arm="a"), an_assignment("2", SHOWN + 1, arm="b")],
        impressions=[an_impression(at=SHOWN)], interactions=[an_interaction(at=SHOWN + 1)],
    )  # fmt: skip
    assert (run.total(arm="a")["clicked_impressions"], run.total(arm="a")["clicks"]) == (1, 0)
    assert (run.total(arm="b")["clicked_impressions"], run.total(arm="b")["clicks"]) == (0, 1)


def test_a_click_just_before_its_impression_and_before_the_assignment_is_only_flagged_yet_makes_it_clicked() -> (
    None
):
    run = Run()
    run.step(
        assignments=[an_assignment(at=SHOWN)], impressions=[an_impression(at=SHOWN)],
        interactions=[an_interaction(at=SHOWN - SECOND)],
    )  # fmt: skip
    total = run.total()
    assert (total["clicked_impressions"], total["clicks"], total["before_assignment"]) == (1, 0, 1)


def test_rates_never_exceed_one() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment()], impressions=[an_impression(at=SHOWN)],
        interactions=[
            an_interaction(f"n{i}", SHOWN + i, kind=("click", "purchase")[i % 2]) for i in range(50)
        ],
    )  # fmt: skip
    for counts in [run.total(), *run.panes().values()]:
        assert counts["clicked_impressions"] <= counts["impressions"]
        assert counts["converted_impressions"] <= counts["impressions"]


def test_orphans_count_as_clicks_conversions_and_revenue_but_click_no_impression() -> None:
    run = Run()
    orphan: dict[str, Any] = {"impression_id": None}
    run.step(
        assignments=[an_assignment()], impressions=[an_impression(at=SHOWN)],
        interactions=[
            an_interaction("n1", SHOWN, **orphan),
            an_interaction("n2", SHOWN, kind="purchase", value_minor=5, **orphan),
        ],
    )  # fmt: skip
    names = ("clicks", "conversions", "revenue_minor", "clicked_impressions", "converted_impressions")
    assert [run.total()[name] for name in names] == [1, 1, 5, 0, 0]


def test_conversion_kinds_are_a_setting_and_purchase_is_one_only_if_named() -> None:
    run = Run(Definitions(conversion_kinds=("order", "subscribe")))
    run.step(
        assignments=[an_assignment()],
        interactions=[
            an_interaction(kind, kind=kind, value_minor=3)
            for kind in ("order", "subscribe", "purchase", "click")
        ],
    )
    assert [run.total()[name] for name in ("clicks", "conversions", "revenue_minor")] == [1, 2, 6]


def test_other_kinds_count_in_no_column_but_are_attributed() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment()], impressions=[an_impression()],
        interactions=[an_interaction(kind="add_to_cart", value_minor=100)],
    )  # fmt: skip
    assert [run.total()[n] for n in ("clicks", "conversions", "revenue_minor", "clicked_impressions")] == [
        0
    ] * 4
    assert run.ledger()["interactions", T0 // HOUR] == {"consumed": 1, "counted": 1, "attributed": 1}


def test_exposed_users_have_an_impression_after_their_assignment() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment(f"a{u}", T0, f"u{u}") for u in range(4)],
        impressions=[
            an_impression("i1", T0, "u1"), an_impression("i2", T0 - 1, "u2"), an_impression("i3", T0 + 1, "u1"),
        ],
        interactions=[an_interaction("n", T0 + 1, "u3", impression_id=None)],
    )  # fmt: skip
    assert (run.total()["assigned_users"], run.total()["exposed_users"]) == (4, 1)


def test_moments_are_sums_over_users_of_squares_and_products() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment("a1", user_id="u1"), an_assignment("a2", user_id="u2")],
        impressions=[
            *(an_impression(f"u1-{k}", SHOWN + k, "u1") for k in range(3)), an_impression("u2-0", SHOWN, "u2"),
        ],
        interactions=[
            an_interaction("c1", SHOWN + 9, "u1", impression_id="imp-u1-0"),
            an_interaction("c2", SHOWN + 9, "u1", impression_id="imp-u1-1"),
            an_interaction("c3", SHOWN + 9, "u1", impression_id="imp-u1-1"),
            an_interaction("b1", SHOWN + 9, "u1", impression_id="imp-u1-2", kind="purchase", value_minor=10),
            an_interaction("b2", SHOWN + 9, "u2", impression_id="imp-u2-0", kind="purchase", value_minor=7),
            an_interaction("b3", SHOWN + 9, "u2", impression_id=None, kind="purchase", value_minor=20),
        ],
    )  # fmt: skip
    # u1: 3 impressions, 2 clicked, 1 converted, 3 clicks, 1 conversion, 10; u2: 1, 0, 1, 0, 2, 27
    expected = {
        "assigned_users": 2, "exposed_users": 2, "impressions": 4, "clicked_impressions": 2, "converted_impressions": 2,
        "clicks": 3, "conversions": 3, "revenue_minor": 37,
        "impressions_sq": 9 + 1, "clicked_sq": 4, "clicked_x_impressions": 6, "converted_sq": 1 + 1,
        "converted_x_impressions": 3 + 1, "clicks_sq": 9, "conversions_sq": 1 + 4, "revenue_sq": 100 + 729,
        "revenue_x_conversions": 10 + 54,
    }  # fmt: skip
    assert {name: run.total()[name] for name in expected} == expected


def test_moments_do_not_depend_on_the_cutting_into_steps() -> None:
    run = Run()
    run.step(assignments=[an_assignment()])
    for k in range(5):
        run.step(impressions=[an_impression(f"i{k}", SHOWN + k)])
        run.step(interactions=[an_interaction(f"n{k}", SHOWN + k, impression_id=f"imp-i{k}")])
    total = run.total()
    assert (
        total["impressions_sq"],
        total["clicked_sq"],
        total["clicked_x_impressions"],
        total["clicks_sq"],
    ) == (25,) * 4
