"""Events with defaults, as the dictionaries that a producer's JSON holds."""

from typing import Any

from stream.contracts.models import MODELS, Event
from stream.contracts.topics import Topic

AT_MS = 1_772_352_000_000  # 2026-03-01T08:00:00Z


def an_assignment(**changes: Any) -> dict[str, Any]:
    return {"event_id": "a-1", "at": AT_MS, "user_id": "u-1", "experiment": "e", "arm": "control"} | changes


def an_impression(**changes: Any) -> dict[str, Any]:
    return {
        "event_id": "i-1",
        "at": AT_MS,
        "user_id": "u-1",
        "impression_id": "imp-1",
        "request_id": "req-1",
        "item_id": "sku-1",
        "surface": "home",
        "position": 0,
        "model": "m",
        "model_version": "1",
    } | changes


def an_interaction(**changes: Any) -> dict[str, Any]:
    return {"event_id": "c-1", "at": AT_MS, "user_id": "u-1", "kind": "click"} | changes


MAKERS = {
    Topic.ASSIGNMENTS: an_assignment,
    Topic.IMPRESSIONS: an_impression,
    Topic.INTERACTIONS: an_interaction,
}


def an_event(topic: Topic, **changes: Any) -> Event:
    return MODELS[topic].model_validate(MAKERS[topic](**changes))
