from collections import Counter

import pytest

from benchmarks.oracle import expected_of
from benchmarks.workload import EXPERIMENTS, Workload, make_workload
from stream.contracts.avro import decode
from stream.contracts.models import MODELS
from stream.contracts.topics import Topic

SCALE = 0.001


@pytest.fixture(scope="module")
def workload() -> Workload:
    return make_workload(SCALE)


def test_every_run_makes_the_same_records(workload):
    assert make_workload(SCALE).records == workload.records


def test_records_come_in_the_order_of_their_arrival(workload):
    arrivals = [record.arrival_ms for record in workload.records]
    assert arrivals == sorted(arrivals)


def test_every_record_is_a_valid_event_of_its_topic(workload):
    for record in workload.records:
        event = decode(record.topic, record.value)
        MODELS[record.topic].model_validate(event)
        assert event["user_id"].encode() == record.key


def test_the_shares_are_those_of_the_description(workload):
    assert Counter(record.topic for record in workload.records) == {
        Topic.ASSIGNMENTS: 200, Topic.IMPRESSIONS: 2_000, Topic.INTERACTIONS: 200,
    }  # fmt: skip
    assert workload.duplicates == 20 + 2
    events = Counter(decode(record.topic, record.value)["event_id"] for record in workload.records)
    assert sum(n - 1 for n in events.values()) == workload.duplicates


def test_the_oracle_counts_what_the_records_say(workload):
    once = {event["event_id"]: event for event in (decode(r.topic, r.value) for r in workload.records)}
    shown = [event for event in once.values() if "request_id" in event]
    acted = [event for event in once.values() if "kind" in event]
    arms = expected_of(workload).arms
    totals = Counter[str]()
    for counts in arms.values():
        totals.update(counts)
    per_experiment = {column: count // len(EXPERIMENTS) for column, count in totals.items()}
    assert per_experiment == {
        "assigned_users": 100,
        "exposed_users": len({event["user_id"] for event in shown}),
        "impressions": len(shown),
        "clicked_impressions": len(_answered(shown, acted, "click")),
        "converted_impressions": len(_answered(shown, acted, "purchase")),
        "clicks": sum(event["kind"] == "click" for event in acted),
        "conversions": sum(event["kind"] == "purchase" for event in acted),
        "revenue_minor": sum(event["value_minor"] or 0 for event in acted),
    }


def _answered(shown, acted, kind):
    ids = {event["impression_id"] for event in acted if event["kind"] == kind}
    return ids & {event["impression_id"] for event in shown}
