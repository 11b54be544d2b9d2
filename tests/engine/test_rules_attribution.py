"""Attribution: which impression an interaction is credited to, who waits, who is an orphan and why."""

from typing import Any

import pytest

from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from tests.engine.makers import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    T0,
    Run,
    an_assignment,
    an_impression,
    an_interaction,
)

SHOWN = T0 + HOUR
BY_ITEM: dict[str, Any] = {"impression_id": None, "item_id": "x"}


def credits(run: Run) -> dict[str, int]:
    """What counted interactions are further."""
    ledger = run.outcomes(Topic.INTERACTIONS)
    return {
        name: n
        for name, n in ledger.items()
        if name not in ("consumed", "counted", "duplicate", "late", "outside")
    }


@pytest.mark.parametrize(
    ("delta", "credit"),
    [
        (-5 * MINUTE - 1, "outside_window"), (-5 * MINUTE, "attributed"), (0, "attributed"), (DAY, "attributed"),
        (DAY + 1, "outside_window"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("waits", [False, True])
def test_a_named_impression_is_credited_from_five_minutes_before_it_to_the_end_of_the_window(
    delta: int, credit: str, waits: bool
) -> None:
    run = Run(Definitions(allowed_lateness_ms=7 * DAY))
    shown, done = an_impression(at=SHOWN), an_interaction(at=SHOWN + delta)
    run.step(assignments=[an_assignment()])
    if waits:
        run.step(interactions=[done])
        assert credits(run) == {"waiting": 1}
        run.step(impressions=[shown])
    else:
        run.step(impressions=[shown])
        run.step(interactions=[done])
    assert credits(run) == {credit: 1}
    assert run.total()["clicked_impressions"] == (credit == "attributed")
    assert run.total()["clicks"] == 1


def test_the_window_is_a_setting() -> None:
    run = Run(Definitions(attribution_window_ms=10 * MINUTE))
    run.step(
        assignments=[an_assignment()], impressions=[an_impression(at=SHOWN)],
        interactions=[an_interaction("n1", SHOWN + 10 * MINUTE), an_interaction("n2", SHOWN + 10 * MINUTE + 1)],
    )  # fmt: skip
    assert credits(run) == {"attributed": 1, "outside_window": 1}


def test_without_impression_and_item_an_interaction_is_an_orphan_without_reference() -> None:
    run = Run()
    run.step(assignments=[an_assignment()], interactions=[an_interaction(impression_id=None)])
    assert credits(run) == {"no_reference": 1}
    assert run.total()["clicks"] == 1


@pytest.mark.parametrize("waits", [False, True])
def test_another_users_impression_gives_no_credit(waits: bool) -> None:
    run = Run()
    run.step(assignments=[an_assignment(), an_assignment("a2", user_id="u2")])
    for topic in ("interactions", "impressions") if waits else ("impressions", "interactions"):
        event = an_impression() if topic == "impressions" else an_interaction(user_id="u2")
        run.step(**{topic: [event]})  # type: ignore[arg-type]
    assert credits(run) == {"other_user": 1}
    assert (run.total()["clicks"], run.total()["clicked_impressions"]) == (1, 0)


def test_a_named_impression_goes_before_a_named_item() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment()], impressions=[an_impression("i1", SHOWN, item_id="x")],
        interactions=[an_interaction(at=SHOWN, impression_id="imp-other", item_id="x")],
    )  # fmt: skip
    assert credits(run) == {"waiting": 1}


def test_who_waits_is_attributed_when_the_impression_comes() -> None:
    run = Run()
    run.step(assignments=[an_assignment()], interactions=[an_interaction(at=SHOWN + MINUTE)])
    assert credits(run) == {"waiting": 1}
    run.step(impressions=[an_impression(at=SHOWN)])
    assert credits(run) == {"attributed": 1}
    assert run.panes()["e1", "treatment", "all", "", SHOWN]["clicked_impressions"] == 1
    assert run.panes()["e1", "treatment", "surface", "home", SHOWN + MINUTE]["clicks"] == 1
    assert ("e1", "treatment", "surface", "__unknown__", SHOWN + MINUTE) not in run.panes()


@pytest.mark.parametrize("reference", [{}, BY_ITEM])
def test_who_waits_becomes_an_orphan_when_the_horizon_passes(reference: dict[str, Any]) -> None:
    run = Run()
    run.step(assignments=[an_assignment()], interactions=[an_interaction(at=T0, **reference)])
    run.step(impressions=[an_impression("later", T0 + DAY, item_id="y")])
    run.step()  # the horizon stands at T0: it waits
    assert credits(run) == {"waiting": 1}
    run.step(impressions=[an_impression("later still", T0 + DAY + 1, item_id="y")])
    run.step()
    assert credits(run) == {"unknown_impression": 1}
    assert run.ledger()["interactions", T0 // HOUR] == {"consumed": 1, "counted": 1, "unknown_impression": 1}


def test_many_wait_for_one_impression() -> None:
    run = Run()
    waiting = [
        an_interaction(f"n{i}", SHOWN + i, kind=("click", "purchase")[i % 2], value_minor=1)
        for i in range(100)
    ]
    run.step(assignments=[an_assignment()], interactions=waiting)
    run.step(impressions=[an_impression(at=SHOWN)])
    assert credits(run) == {"attributed": 100}
    total = run.total()
    assert [
        total[name] for name in ("clicked_impressions", "converted_impressions", "clicks", "conversions")
    ] == [1, 1, 50, 50]


@pytest.mark.parametrize(
    ("delta", "credit"), [(-1, "waiting"), (0, "attributed"), (DAY, "attributed"), (DAY + 1, "waiting")]
)
@pytest.mark.parametrize("waits", [False, True])
def test_by_item_only_an_impression_at_or_before_the_interaction_is_credited(
    delta: int, credit: str, waits: bool
) -> None:
    run = Run(Definitions(allowed_lateness_ms=7 * DAY))
    shown, done = an_impression(at=SHOWN), an_interaction(at=SHOWN + delta, **BY_ITEM)
    run.step(assignments=[an_assignment()])
    if waits:
        run.step(interactions=[done])
        run.step(impressions=[shown])
    else:
        run.step(impressions=[shown])
        run.step(interactions=[done])
    assert credits(run) == {credit: 1}


def test_by_item_the_users_own_latest_impression_of_that_item_is_credited() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment(), an_assignment("a2", user_id="u2", arm="control")],
        impressions=[
            an_impression("best", SHOWN + MINUTE, device="best"), an_impression("old", SHOWN, device="old"),
            an_impression("after", SHOWN + HOUR, device="after"),
            an_impression("other item", SHOWN + 2 * MINUTE, item_id="y", device="other item"),
            an_impression("other user", SHOWN + 2 * MINUTE, user_id="u2", device="other user"),
        ],
    )  # fmt: skip
    run.step(interactions=[an_interaction(at=SHOWN + 5 * MINUTE, **BY_ITEM)])
    clicked = {k[3] for k, v in run.panes().items() if k[2] == "device" and v["clicked_impressions"]}
    assert clicked == {"best"}


def test_a_better_impression_by_item_takes_the_credit_over_with_its_slices() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment()], impressions=[an_impression("old", SHOWN, device="old")],
        interactions=[an_interaction(at=SHOWN + HOUR, kind="purchase", value_minor=9, **BY_ITEM)],
    )  # fmt: skip
    run.step(impressions=[an_impression("better", SHOWN + MINUTE, device="better")])
    run.step(impressions=[an_impression("worse", SHOWN + SECOND, device="worse")])
    panes = run.panes()
    assert panes["e1", "treatment", "device", "old", SHOWN]["converted_impressions"] == 0
    assert panes["e1", "treatment", "device", "better", SHOWN + MINUTE]["converted_impressions"] == 1
    assert panes["e1", "treatment", "device", "better", SHOWN + HOUR]["revenue_minor"] == 9
    assert ("e1", "treatment", "device", "old", SHOWN + HOUR) not in panes
    assert run.total()["converted_impressions"] == run.total()["conversions"] == 1
    assert credits(run) == {"attributed": 1}


def test_an_impression_stays_clicked_while_another_click_is_credited_to_it() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment()], impressions=[an_impression("old", SHOWN)],
        interactions=[
            an_interaction("early", SHOWN + SECOND, **BY_ITEM), an_interaction("late", SHOWN + HOUR, **BY_ITEM),
        ],
    )  # fmt: skip
    assert run.total()["clicked_impressions"] == 1
    run.step(impressions=[an_impression("better", SHOWN + MINUTE)])
    assert run.total()["clicked_impressions"] == 2
    run.step(impressions=[an_impression("best for early", SHOWN + 1)])
    assert run.total()["clicked_impressions"] == 2


def test_an_impression_is_kept_for_the_window_beyond_the_horizon() -> None:
    run = Run()
    run.step(assignments=[an_assignment(at=T0 - DAY)], impressions=[an_impression(at=T0)])
    run.step(impressions=[an_impression("clock", T0 + 2 * DAY)])
    run.step(interactions=[an_interaction(at=T0 + DAY)])  # on time and inside the window
    assert credits(run) == {"attributed": 1}
    assert run.total()["clicked_impressions"] == 1


def test_an_interaction_with_two_meanings_counts_for_both() -> None:
    run = Run(Definitions(conversion_kinds=("click", "purchase")))
    run.step(assignments=[an_assignment()], interactions=[an_interaction(at=SHOWN, value_minor=3)])
    run.step(impressions=[an_impression(at=SHOWN)])
    total = run.total()
    names = ("clicks", "conversions", "clicked_impressions", "converted_impressions", "revenue_minor")
    assert [total[name] for name in names] == [1, 1, 1, 1, 3]
