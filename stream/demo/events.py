"""The Open Bandit sample as events.

Campaign, policy, time, item, position and whether it was clicked are real. The sample has no user ids and no click
times: every impression is given a user of its own, assigned one millisecond before it, and an invented click delay.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from stream.contracts.models import Assignment, Event, Impression, Interaction
from stream.contracts.topics import Topic

DATA = Path(__file__).with_name("open_bandit.parquet")
EXPERIMENTS = Path(__file__).with_name("experiments")
CLICK_DELAYS_MS = range(1_000, 60_000)  # the invented delay lies in it


class DemoEvent(NamedTuple):
    """One event and the topic it belongs to."""

    topic: Topic
    event: Event


def sample() -> pa.Table:
    """60,000 impressions in order of time; columns as in make_open_bandit.SCHEMA."""
    return pyarrow.parquet.read_table(DATA)


def demo_events() -> list[DemoEvent]:
    """All events of the sample in order of event time."""
    events = [event for number, row in enumerate(_rows(sample())) for event in _story(number, row)]
    return sorted(events, key=lambda event: event.event.at)


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    table = table.set_column(table.schema.get_field_index("at"), "at", table["at"].cast(pa.int64()))
    for batch in table.to_batches(max_chunksize=5_000):
        yield from batch.to_pylist()


def _story(number: int, row: dict[str, Any]) -> Iterator[DemoEvent]:
    """What happens to one user."""
    impression = _impression(row)
    yield DemoEvent(Topic.ASSIGNMENTS, _assignment(row, impression))
    yield DemoEvent(Topic.IMPRESSIONS, impression)
    if row["click"]:
        yield DemoEvent(Topic.INTERACTIONS, _click(impression, number))


def _name(row: dict[str, Any]) -> str:
    return f"{row['campaign']}-{row['policy']}-{row['row']}"


def _assignment(row: dict[str, Any], impression: Impression) -> Assignment:
    return Assignment(
        event_id=f"assigned-{_name(row)}",
        at=impression.at - 1,
        user_id=impression.user_id,
        experiment=f"obd-{row['campaign']}",
        arm=row["policy"],
    )


def _impression(row: dict[str, Any]) -> Impression:
    name = _name(row)
    return Impression(
        event_id=f"shown-{name}",
        at=row["at"],
        user_id=f"user-{name}",
        impression_id=f"impression-{name}",
        request_id=f"request-{name}",
        item_id=f"{row['campaign']}-{row['item']}",
        surface=row["campaign"],
        position=row["position"] - 1,
        model=row["policy"],
        model_version="2019-11",
    )


def _click(impression: Impression, number: int) -> Interaction:
    delay_ms = CLICK_DELAYS_MS[number * 7_919 % len(CLICK_DELAYS_MS)]
    return Interaction(
        event_id=impression.event_id.replace("shown", "clicked"),
        at=impression.at + delay_ms,
        user_id=impression.user_id,
        impression_id=impression.impression_id,
        item_id=impression.item_id,
        kind="click",
    )


def event_counts(events: Sequence[DemoEvent]) -> dict[Topic, int]:
    """Events by topic."""
    counts = dict.fromkeys(Topic, 0)
    for topic, _ in events:
        counts[topic] += 1
    return counts
