"""Simulated traffic: reproducible, in order, and as the stated rates say."""

from itertools import pairwise

import pytest

from stream.contracts.models import Assignment, Impression, Interaction
from stream.demo.events import DemoEvent
from stream.demo.traffic import Rates, Tally, Traffic

START_MS = 1_767_225_600_000


def some_traffic(**changed: object) -> Traffic:
    defaults: dict[str, object] = {
        "users": 300, "seconds": 100.0, "rate": 200.0,
        "arms": {"control": Rates(0.05, 0.01), "treatment": Rates(0.10, 0.05)},
    }  # fmt: skip
    return Traffic(**defaults | changed)  # type: ignore[arg-type]


def events_of(traffic: Traffic) -> list[DemoEvent]:
    return list(traffic.events(START_MS))


def test_the_same_seed_gives_the_same_events() -> None:
    assert events_of(some_traffic()) == events_of(some_traffic())
    assert events_of(some_traffic()) != events_of(some_traffic(seed=2))


def test_events_come_in_order_of_event_time_and_ids_are_unique() -> None:
    events = events_of(some_traffic())
    assert all(left.event.at <= right.event.at for left, right in pairwise(events))
    assert len({event.event_id for _, event in events}) == len(events)


def test_users_are_assigned_before_their_first_impression() -> None:
    assigned = set()
    for _, event in events_of(some_traffic()):
        if isinstance(event, Assignment):
            assigned.add(event.user_id)
        assert event.user_id in assigned


@pytest.mark.parametrize("arm", ["control", "treatment"])
def test_rates_are_as_stated(arm: str) -> None:
    traffic = some_traffic(seconds=200.0)
    tally = Tally(traffic)
    for _, event in events_of(traffic):
        tally.add(event)
    sent, rates = tally.sent[arm], traffic.arms[arm]
    deviation = (rates.ctr * (1 - rates.ctr) / sent.impressions) ** 0.5
    assert sent.clicked_impressions / sent.impressions == pytest.approx(rates.ctr, abs=4 * deviation)
    deviation = (rates.conversion * (1 - rates.conversion) / sent.impressions) ** 0.5
    assert sent.conversions / sent.impressions == pytest.approx(rates.conversion, abs=4 * deviation)


def test_the_tally_counts_what_was_sent() -> None:
    traffic = some_traffic()
    events = events_of(traffic)
    tally = Tally(traffic)
    for _, event in events:
        tally.add(event)
    sent = tally.sent.values()
    assert sum(arm.impressions for arm in sent) == sum(isinstance(e, Impression) for _, e in events) == 20_000
    assert sum(arm.clicks + arm.conversions for arm in sent) == sum(
        isinstance(e, Interaction) for _, e in events
    )
