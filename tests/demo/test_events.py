"""The demo's events say what the Open Bandit sample says."""

from collections import Counter
from itertools import pairwise

import pytest

from stream.contracts.models import Assignment, Impression, Interaction
from stream.contracts.topics import Topic
from stream.demo.events import DemoEvent, demo_events, event_counts

CLICKED = {
    ("obd-all", "random"): 38, ("obd-all", "bts"): 42,
    ("obd-men", "random"): 46, ("obd-men", "bts"): 69,
    ("obd-women", "random"): 46, ("obd-women", "bts"): 46,
}  # fmt: skip


@pytest.fixture(scope="module")
def events() -> list[DemoEvent]:
    return demo_events()


def arms_of(events: list[DemoEvent]) -> dict[str, tuple[str, str]]:
    return {
        event.user_id: (event.experiment, event.arm) for _, event in events if isinstance(event, Assignment)
    }


def test_each_arm_has_ten_thousand_impressions(events: list[DemoEvent]) -> None:
    arms = arms_of(events)
    shown = Counter(arms[event.user_id] for _, event in events if isinstance(event, Impression))
    assert shown == dict.fromkeys(CLICKED, 10_000)


def test_each_arm_has_the_clicks_of_the_sample(events: list[DemoEvent]) -> None:
    arms = arms_of(events)
    clicks = {event.impression_id: event.user_id for _, event in events if isinstance(event, Interaction)}
    assert Counter(arms[user] for user in clicks.values()) == CLICKED


def test_every_impression_is_its_own_user_and_assigned_before_it(events: list[DemoEvent]) -> None:
    assigned = {event.user_id: event.at for _, event in events if isinstance(event, Assignment)}
    shown = {event.user_id: event.at for _, event in events if isinstance(event, Impression)}
    assert len(assigned) == len(shown) == 60_000
    assert all(assigned[user] == at - 1 for user, at in shown.items())


def test_events_come_in_order_of_event_time(events: list[DemoEvent]) -> None:
    assert all(left.event.at <= right.event.at for left, right in pairwise(events))


def test_event_ids_are_unique(events: list[DemoEvent]) -> None:
    assert len({event.event_id for _, event in events}) == len(events)


def test_events_are_the_same_every_time(events: list[DemoEvent]) -> None:
    assert demo_events() == events


def test_events_are_counted_by_topic(events: list[DemoEvent]) -> None:
    assert event_counts(events) == {
        Topic.ASSIGNMENTS: 60_000, Topic.IMPRESSIONS: 60_000, Topic.INTERACTIONS: sum(CLICKED.values()),
    }  # fmt: skip
