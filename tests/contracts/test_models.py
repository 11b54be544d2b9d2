import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stream.contracts.limits import MAX_AT_MS, MAX_POSITION, MAX_VALUE_MINOR
from stream.contracts.models import MODELS, Impression
from stream.contracts.reasons import Reason
from stream.contracts.topics import FIELDS, Topic
from stream.contracts.violations import Violation, violations
from tests.contracts.makers import AT_MS, MAKERS, an_event, an_impression, an_interaction


def broken(topic: Topic, fields: dict[str, Any]) -> list[Violation]:
    model = MODELS[topic]
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(json.dumps(fields))
    return violations(caught.value, model.model_fields)


def the_rule(topic: Topic, **changes: Any) -> Violation:
    found = broken(topic, MAKERS[topic](**changes))
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("topic", Topic)
def test_a_model_has_the_fields_of_its_topic_in_their_order(topic: Topic) -> None:
    assert tuple(MODELS[topic].model_fields) == FIELDS[topic]


@pytest.mark.parametrize("topic", Topic)
def test_absent_means_null(topic: Topic) -> None:
    event = an_event(topic)
    absent = set(FIELDS[topic]) - set(MAKERS[topic]())
    assert {getattr(event, field) for field in absent} <= {None}
    assert MODELS[topic].model_validate(vars(event)) == event


def test_events_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        an_event(Topic.IMPRESSIONS).position = 3  # type: ignore[misc, union-attr]


@pytest.mark.parametrize(
    ("written", "at_ms"),
    [
        (AT_MS, AT_MS),
        (float(AT_MS), AT_MS),
        (0, 0),
        (1_772_352_000, 1_772_352_000),  # seconds by mistake: taken as milliseconds, never guessed
        ("2026-03-01T08:00:00Z", AT_MS),
        ("2026-03-01T08:00:00", AT_MS),
        ("2026-03-01 08:00:00", AT_MS),
        ("2026-03-01", AT_MS - 8 * 3_600_000),
        ("2026-03-01T10:00:00.250+02:00", AT_MS + 250),
        ("2026-03-01T08:00:00.999999Z", AT_MS + 999),
        ("1970-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59.999Z", MAX_AT_MS),
    ],
)
def test_at_is_epoch_milliseconds_or_iso_8601_with_utc_where_no_offset_is_given(
    written: object, at_ms: int
) -> None:
    assert Impression.model_validate_json(json.dumps(an_impression(at=written))).at == at_ms


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 3, 1, 8, tzinfo=UTC),
        datetime(2026, 3, 1, 8),
        datetime(2026, 3, 1, 10, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_at_takes_datetimes(moment: datetime) -> None:
    assert Impression.model_validate(an_impression(at=moment)).at == AT_MS


@pytest.mark.parametrize(
    "written", ["yesterday", "1772352000000", "", True, 1.5, [1], {}, None, "2026-13-01T00:00:00Z"]
)
def test_at_that_is_no_time_is_named(written: object) -> None:
    rule = the_rule(Topic.IMPRESSIONS, at=written)
    assert (rule.field, rule.reason) == ("at", Reason.MALFORMED)
    assert rule.rule == "must be ISO 8601 text or a whole number of epoch milliseconds"


@pytest.mark.parametrize(
    "written", [-1, MAX_AT_MS + 1, "1969-12-31T23:59:59.999Z", "0001-01-01T00:00:00+14:00", 10**30]
)
def test_at_outside_its_range_is_named(written: object) -> None:
    rule = the_rule(Topic.IMPRESSIONS, at=written)
    assert (rule.field, rule.reason) == ("at", Reason.OUT_OF_RANGE)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 12, 31)))
def test_text_and_datetime_mean_the_same_moment(moment: datetime) -> None:
    by_text = Impression.model_validate(an_impression(at=moment.isoformat())).at
    assert by_text == Impression.model_validate(an_impression(at=moment)).at
    exact = moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    assert by_text == exact // timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("topic", "change", "reason", "rule"),
    [
        (Topic.IMPRESSIONS, {"position": "3"}, Reason.MALFORMED, "must be a whole number"),
        (Topic.IMPRESSIONS, {"position": True}, Reason.MALFORMED, "must be a whole number"),
        (Topic.IMPRESSIONS, {"position": 1.5}, Reason.MALFORMED, "must be a whole number"),
        (Topic.IMPRESSIONS, {"position": None}, Reason.MALFORMED, "must be a whole number"),
        (Topic.IMPRESSIONS, {"position": -1}, Reason.OUT_OF_RANGE, "must be at least 0"),
        (Topic.IMPRESSIONS, {"position": MAX_POSITION + 1}, Reason.OUT_OF_RANGE, "must be at most 1000000"),
        (Topic.IMPRESSIONS, {"score": "0.5"}, Reason.MALFORMED, "must be a number"),
        (Topic.IMPRESSIONS, {"score": True}, Reason.MALFORMED, "must be a number"),
        (Topic.IMPRESSIONS, {"score": math.nan}, Reason.NOT_FINITE, "must be a finite number"),
        (Topic.IMPRESSIONS, {"score": -math.inf}, Reason.NOT_FINITE, "must be a finite number"),
        (Topic.IMPRESSIONS, {"latency_ms": -0.1}, Reason.OUT_OF_RANGE, "must be at least 0.0"),
        (Topic.IMPRESSIONS, {"latency_ms": 1.1e9}, Reason.OUT_OF_RANGE, "must be at most 1000000000.0"),
        (Topic.IMPRESSIONS, {"item_id": 7}, Reason.MALFORMED, "must be text"),
        (Topic.IMPRESSIONS, {"item_id": None}, Reason.MALFORMED, "must be text"),
        (Topic.IMPRESSIONS, {"item_id": ""}, Reason.EMPTY, "must not be empty"),
        (Topic.IMPRESSIONS, {"country": ""}, Reason.EMPTY, "must not be empty"),
        (Topic.IMPRESSIONS, {"item_id": "x" * 257}, Reason.TOO_LONG, "must be at most 256 UTF-8 bytes"),
        (Topic.IMPRESSIONS, {"item_id": "商" * 86}, Reason.TOO_LONG, "must be at most 256 UTF-8 bytes"),
        (
            Topic.INTERACTIONS,
            {"value_minor": 10**12 + 1},
            Reason.OUT_OF_RANGE,
            "must be at most 1000000000000",
        ),
        (Topic.INTERACTIONS, {"value_minor": 10**40}, Reason.OUT_OF_RANGE, "must be at most 1000000000000"),
        (Topic.INTERACTIONS, {"value_minor": "100"}, Reason.MALFORMED, "must be a whole number"),
        (
            Topic.INTERACTIONS,
            {"currency": "eur"},
            Reason.BAD_CURRENCY,
            "must be three upper-case letters (ISO 4217)",
        ),
        (
            Topic.INTERACTIONS,
            {"currency": "EUR\n"},
            Reason.BAD_CURRENCY,
            "must be three upper-case letters (ISO 4217)",
        ),
        (
            Topic.INTERACTIONS,
            {"currency": "ÀÀÀ"},
            Reason.BAD_CURRENCY,
            "must be three upper-case letters (ISO 4217)",
        ),
        (Topic.ASSIGNMENTS, {"pre_value": 10**12 + 1}, Reason.OUT_OF_RANGE, "must be at most 1000000000000"),
        (Topic.ASSIGNMENTS, {"arm": ["a"]}, Reason.MALFORMED, "must be text"),
    ],
)
def test_a_broken_rule_names_field_value_and_rule(
    topic: Topic, change: dict[str, Any], reason: Reason, rule: str
) -> None:
    found = the_rule(topic, **change)
    ((field, value),) = change.items()
    assert (found.field, found.reason, found.rule) == (field, reason, rule)
    assert found.value[:20] == repr(value)[:20]
    assert len(found.value) <= 80


def test_values_at_the_limits_are_fine() -> None:
    an_event(Topic.IMPRESSIONS, item_id="x" * 256, country="商" * 85, position=MAX_POSITION, latency_ms=1e9)
    an_event(Topic.INTERACTIONS, value_minor=-MAX_VALUE_MINOR, currency="JPY")


def test_a_whole_number_may_be_written_with_a_point_as_pandas_does() -> None:
    assert an_event(Topic.INTERACTIONS, value_minor=1250.0) == an_event(Topic.INTERACTIONS, value_minor=1250)


def test_a_missing_field_is_named() -> None:
    fields = an_interaction()
    del fields["kind"]
    assert str(broken(Topic.INTERACTIONS, fields)[0]) == "kind is required"


def test_an_unknown_field_is_named_with_the_nearest_known_one() -> None:
    found = the_rule(Topic.INTERACTIONS, value_minro=5)
    assert (found.field, found.rule) == (
        "value_minro",
        "is not a field of this event (did you mean value_minor?)",
    )
    assert the_rule(Topic.INTERACTIONS, zzz=5).rule == "is not a field of this event"


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b'{"at": 1,', "the record is not valid JSON: EOF while parsing a value at character 9"),
        (b"hello", "the record is not valid JSON: expected value at character 1"),
        (b'{"user_id": "\xff"}', "the record is not valid JSON"),
        (b'{"user_id": "\\ud800"}', "the record is not valid JSON"),
        (b"[]", "the record must be an object of fields"),
        (b"null", "the record must be an object of fields"),
        (b"7", "the record must be an object of fields"),
    ],
)
def test_a_record_that_is_no_json_object_says_so(line: bytes, rule: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Impression.model_validate_json(line)
    (found,) = violations(caught.value)
    assert found.field == ""
    assert found.reason == Reason.MALFORMED
    assert found.rule.startswith(rule)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=3)
)
def test_any_value_in_any_field_is_taken_or_named(value: object) -> None:
    for field in FIELDS[Topic.IMPRESSIONS]:
        try:
            Impression.model_validate_json(json.dumps(an_impression(**{field: value})))
        except ValidationError as error:
            (found,) = violations(error, Impression.model_fields)
            assert found.field in (field, "")
            assert not found.rule.startswith("Input should")
