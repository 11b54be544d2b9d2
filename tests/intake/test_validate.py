import numpy as np
import pytest
from aiokafka.partitioner import murmur2 as kafka_murmur2
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stream.contracts import limits
from stream.contracts.models import MODELS
from stream.contracts.topics import FIELDS, Topic
from stream.engine.batch import SPARE_BYTES
from stream.intake.murmur2 import murmur2, partition_of
from stream.intake.validate import RULES, is_ascii, is_utf8, rule_table
from tests.intake.avro_records import (
    WILD,
    an_assignment,
    an_impression,
    an_interaction,
    decoded,
    encoded,
    plain,
    schema_of,
)
from tests.intake.test_decode import status_word

ASSIGNMENTS, IMPRESSIONS, INTERACTIONS = Topic
LONGEST = "é" * (limits.MAX_ID_BYTES // 2)


def padded(text: bytes, before: bytes = b"\xff" * 3) -> tuple[np.ndarray, int, int]:
    """(buffer, position, length) of a text between bytes that are neither ASCII nor UTF-8."""
    return np.frombuffer(bytearray(before + text + b"\xff" * SPARE_BYTES), np.uint8), len(before), len(text)


def is_python_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("topic", list(Topic))
def test_there_is_one_rule_per_field_in_the_same_order(topic):
    assert tuple(rule.name for rule in RULES[topic]) == FIELDS[topic]
    assert len(rule_table(topic)) == len(FIELDS[topic])


@pytest.mark.parametrize("topic", list(Topic))
def test_the_required_fields_are_those_of_the_schema(topic):
    in_schema = {f["name"] for f in schema_of(topic)["fields"] if "default" not in f}
    assert {rule.name for rule in RULES[topic] if rule.required} == in_schema


@pytest.mark.parametrize("topic", list(Topic))
def test_the_rules_and_the_models_accept_the_same_records(topic):
    model = MODELS[topic]
    schema = plain(schema_of(topic))

    def accepts(event: dict) -> bool:
        try:
            model.model_validate(event)
        except ValidationError:
            return False
        return True

    @settings(max_examples=200, deadline=None)
    @given(st.lists(WILD[topic], min_size=1, max_size=4))
    def check(events):
        batch = decoded(topic, schema, [encoded(schema, event) for event in events])
        assert [status_word(batch, row) == "fine" for row in range(len(events))] == [
            accepts(e) for e in events
        ]

    check()


@pytest.mark.parametrize(
    ("event", "word"),
    [
        (an_impression(user_id=""), "empty user_id"),
        (an_impression(user_id=LONGEST), "fine"),
        (an_impression(user_id=LONGEST + "x"), "too_long user_id"),
        (an_impression(country=""), "empty country"),
        (an_impression(at=limits.MIN_AT_MS), "fine"),
        (an_impression(at=limits.MIN_AT_MS - 1), "out_of_range at"),
        (an_impression(at=limits.MAX_AT_MS), "fine"),
        (an_impression(at=limits.MAX_AT_MS + 1), "out_of_range at"),
        (an_impression(position=-1), "out_of_range position"),
        (an_impression(position=limits.MAX_POSITION), "fine"),
        (an_impression(position=limits.MAX_POSITION + 1), "out_of_range position"),
        (an_impression(score=float("nan")), "not_finite score"),
        (an_impression(score=float("-inf")), "not_finite score"),
        (an_impression(score=-1.7e308), "fine"),
        (an_impression(latency_ms=-0.0), "fine"),
        (an_impression(latency_ms=-0.1), "out_of_range latency_ms"),
        (an_impression(latency_ms=limits.MAX_LATENCY_MS), "fine"),
        (an_impression(latency_ms=limits.MAX_LATENCY_MS * 1.001), "out_of_range latency_ms"),
        (an_impression(event_id="", position=-1), "empty event_id"),
    ],
)
def test_an_impression_breaks_the_rule_it_breaks(event, word):
    schema = plain(schema_of(IMPRESSIONS))
    assert status_word(decoded(IMPRESSIONS, schema, [encoded(schema, event)])) == word


@pytest.mark.parametrize(
    ("event", "word"),
    [
        (an_interaction(value_minor=limits.MAX_VALUE_MINOR), "fine"),
        (an_interaction(value_minor=-limits.MAX_VALUE_MINOR), "fine"),
        (an_interaction(value_minor=limits.MAX_VALUE_MINOR + 1), "out_of_range value_minor"),
        (an_interaction(value_minor=-limits.MAX_VALUE_MINOR - 1), "out_of_range value_minor"),
        (an_interaction(currency="EUR"), "fine"),
        *(
            (an_interaction(currency=c), "bad_currency currency")
            for c in ("", "EU", "eur", "EURO", "E1R", "ÉU")
        ),
    ],
)
def test_an_interaction_breaks_the_rule_it_breaks(event, word):
    schema = plain(schema_of(INTERACTIONS))
    assert status_word(decoded(INTERACTIONS, schema, [encoded(schema, event)])) == word


def test_a_pre_value_has_a_range():
    schema = plain(schema_of(ASSIGNMENTS))
    values = [
        limits.MAX_PRE_VALUE,
        -limits.MAX_PRE_VALUE,
        limits.MAX_PRE_VALUE + 1,
        -limits.MAX_PRE_VALUE - 1,
    ]
    batch = decoded(
        ASSIGNMENTS, schema, [encoded(schema, an_assignment(pre_value=value)) for value in values]
    )
    bad = "out_of_range pre_value"
    assert [status_word(batch, row) for row in range(4)] == ["fine", "fine", bad, bad]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=24) | st.text(max_size=8).map(str.encode))
def test_ascii_is_what_python_calls_ascii(text):
    assert is_ascii(*padded(text)) == text.isascii()


def test_one_byte_that_is_not_ascii_is_seen_anywhere():
    for length in range(34):
        assert is_ascii(*padded(b"a" * length))
        for at in range(length):
            assert not is_ascii(*padded(b"a" * at + b"\x80" + b"a" * (length - at - 1)))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=8), st.text(max_size=6), st.binary(max_size=4))
def test_utf8_is_what_python_calls_utf8(head, middle, tail):
    for text in (head, middle.encode(), middle.encode() + tail, head + middle.encode()):
        assert is_utf8(*padded(text)) == is_python_utf8(text)


def test_every_pair_of_lead_and_second_byte_is_judged_as_python_judges_it():
    for first in range(0x80, 0x100):
        for second in range(0x70, 0x100, 1):
            for rest in (b"", b"\x80", b"\x80\x80"):
                text = bytes((first, second)) + rest
                assert is_utf8(*padded(text)) == is_python_utf8(text), text


@pytest.mark.parametrize(
    ("key", "expected"),
    [  # Apache Kafka's own vectors (UtilsTest.testMurmur2)
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_kafkas_vectors(key, expected):
    assert int(murmur2(*padded(key))) == expected & 0xFFFFFFFF


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), st.integers(1, 300))
def test_murmur2_is_that_of_aiokafka(key, partitions):
    assert int(murmur2(*padded(key))) == kafka_murmur2(key) & 0xFFFFFFFF
    assert partition_of(*padded(key), partitions) == (kafka_murmur2(key) & 0x7FFFFFFF) % partitions


def test_a_record_in_a_partition_where_its_user_does_not_belong_is_misrouted():
    schema = plain(schema_of(IMPRESSIONS))
    users = [f"usér-{i}" for i in range(50)]
    values = [encoded(schema, an_impression(user_id=user)) for user in users] + [b"poison"]
    homes = [(kafka_murmur2(user.encode()) & 0x7FFFFFFF) % 4 for user in users]
    for partition in range(4):
        batch = decoded(IMPRESSIONS, schema, values, partition=partition, partitions=4)
        assert batch.misrouted.tolist() == [home != partition for home in homes] + [False]
    assert not decoded(IMPRESSIONS, schema, values, partition=0, partitions=1).misrouted.any()
