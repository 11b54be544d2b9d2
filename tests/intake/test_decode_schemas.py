"""How other writers' schemas are read, refused or handed to fastavro."""

from typing import Any

import pytest

from stream.contracts.topics import FIELDS, Topic
from stream.intake.avro_program import Program
from stream.intake.decode import columns_of, decode
from tests.intake.avro_records import (
    MAKERS,
    SCHEMA_ID,
    an_impression,
    an_interaction,
    decoded,
    encoded,
    event_of,
    schema_of,
    schema_with,
    schema_without,
)
from tests.intake.test_decode import status_word

IMPRESSIONS, INTERACTIONS = Topic.IMPRESSIONS, Topic.INTERACTIONS
KINDS = {"type": "enum", "name": "Kind", "symbols": ["click", "purchase", "add_to_cart"]}
THREE_WAYS = ["null", "string", "long"]


def refusal(topic: Topic, schema: Any) -> str:
    program = Program.of(topic, {SCHEMA_ID: schema})
    columns = columns_of([b"\0\0\0\0\7\0\0"], [0], [0])
    batch = decode(topic, columns, program, partition=0, partitions=1)
    assert status_word(batch) == "unknown_schema"
    return program.refused[SCHEMA_ID]


@pytest.mark.parametrize("topic", list(Topic))
def test_optional_fields_that_the_writer_lacks_are_null(topic):
    event = MAKERS[topic]()
    optional = [name for name in FIELDS[topic] if event[name] is None]
    schema = schema_without(topic, *optional)
    assert event_of(decoded(topic, schema, [encoded(schema, event)]), 0) == event


@pytest.mark.parametrize("topic", list(Topic))
def test_a_writer_without_a_required_field_is_refused(topic):
    for name in FIELDS[topic]:
        if MAKERS[topic]()[name] is not None:
            assert refusal(topic, schema_without(topic, name)).endswith(f"it has no field `{name}`")


def test_fields_may_come_in_another_order():
    schema = schema_of(IMPRESSIONS)
    schema["fields"].reverse()
    assert event_of(decoded(IMPRESSIONS, schema, [encoded(schema, an_impression())]), 0) == an_impression()


@pytest.mark.parametrize(
    ("written", "value", "read"),
    [
        ({"position": "long"}, {"position": 4}, {"position": 4}),
        ({"at": "int"}, {"at": 5}, {"at": 5}),
        ({"at": ["null", "long"]}, {"at": 5}, {"at": 5}),
        ({"score": "double"}, {"score": 0.1}, {"score": 0.1}),
        ({"score": "float"}, {"score": 0.25}, {"score": 0.25}),
        ({"score": ["float", "null"]}, {"score": None}, {"score": None}),
        ({"score": ["null", "int"]}, {"score": -3}, {"score": -3.0}),
        ({"latency_ms": "long"}, {"latency_ms": 12}, {"latency_ms": 12.0}),
        ({"country": "null"}, {"country": None}, {"country": None}),
        ({"country": "string"}, {"country": "DE"}, {"country": "DE"}),
        ({"item_id": "bytes"}, {"item_id": b"i\xc3\xa9"}, {"item_id": "ié"}),
        ({"item_id": {"type": "string", "logicalType": "uuid"}}, {"item_id": "i"}, {"item_id": "i"}),
        ({"surface": KINDS}, {"surface": "purchase"}, {"surface": "purchase"}),
        ({"device": ["null", KINDS]}, {"device": "click"}, {"device": "click"}),
        ({"device": ["null", KINDS]}, {"device": None}, {"device": None}),
        ({"surface": KINDS, "device": "Kind"}, {"surface": "click", "device": "add_to_cart"}, None),
    ],
)
def test_promotions_keep_the_value(written, value, read):
    schema = schema_with(IMPRESSIONS, **written)
    batch = decoded(IMPRESSIONS, schema, [encoded(schema, an_impression(**value))])
    assert status_word(batch) == "fine"
    assert event_of(batch, 0) == an_impression(**(value if read is None else read))


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ({"at": "string"}, "`at` is written as string"),
        (
            {"at": {"type": "long", "logicalType": "timestamp-micros"}},
            "`at` is written as long (timestamp-micros)",
        ),
        ({"position": "double"}, "`position` is written as double"),
        ({"item_id": "long"}, "`item_id` is written as long"),
        ({"item_id": {"type": "fixed", "name": "Id", "size": 16}}, "`item_id` is written as fixed"),
        ({"item_id": "null"}, "`item_id` is always null"),
        ({"item_id": ["int", "null", "long"]}, "`item_id` is written as int or long"),
        ({"country": {"type": "array", "items": "string"}}, "`country` is written as array"),
    ],
)
def test_types_that_cannot_be_the_field_are_refused_by_name(written, named):
    assert refusal(IMPRESSIONS, schema_with(IMPRESSIONS, **written)).endswith(named)


@pytest.mark.parametrize(
    "schema",
    ["string", ["null", "string"], {}, {"type": "record"}, {"type": "nonsense"}, None, 5, {"type": "enum"}],
)
def test_what_is_no_schema_of_a_record_is_refused(schema):
    assert refusal(IMPRESSIONS, schema).startswith(
        f"schema {SCHEMA_ID} cannot be read as impressions: it is not a"
    )


def test_a_refused_schema_does_not_harm_the_others():
    schema = schema_of(IMPRESSIONS)
    program = Program.of(IMPRESSIONS, {1: "string", 2: schema, 3: schema_without(IMPRESSIONS, "at")})
    values = [encoded(schema, an_impression(), schema_id) for schema_id in (1, 2, 3)]
    batch = decode(IMPRESSIONS, columns_of(values, range(3), range(3)), program, partition=0, partitions=1)
    assert [status_word(batch, row) for row in range(3)] == ["unknown_schema", "fine", "unknown_schema"]


def test_a_corrected_schema_is_no_longer_refused():
    program = Program.of(IMPRESSIONS, {1: "string"}).adding(1, schema_of(IMPRESSIONS))
    assert program.refused == {}


def test_a_null_in_a_required_field_is_an_empty_one():
    schema = schema_with(IMPRESSIONS, item_id=["null", "string"])
    assert (
        status_word(decoded(IMPRESSIONS, schema, [encoded(schema, an_impression(item_id=None))]))
        == "empty item_id"
    )


def test_a_symbol_beyond_the_enum_is_malformed():
    schema = schema_with(INTERACTIONS, kind=KINDS)
    value = encoded(schema, an_interaction(kind="add_to_cart"))
    for symbol in (b"\x06", b"\x01"):  # 3, -1
        broken = value[:-3] + symbol + value[-2:]
        assert status_word(decoded(INTERACTIONS, schema, [broken])) == "malformed kind"


@pytest.mark.parametrize(
    "tree",
    [
        {"type": "record", "name": "Self", "fields": [{"name": "me", "type": "Self"}]},
        {"type": "array", "items": {"type": "record", "name": "Tree", "fields": [
            {"name": "kids", "type": {"type": "array", "items": "Tree"}}]}},
    ],
)  # fmt: skip
def test_recursive_schemas_compile_and_end(tree):
    schema = schema_with(IMPRESSIONS, {"name": "tree", "type": tree})
    value = encoded(schema_of(IMPRESSIONS), an_impression())
    assert status_word(decoded(IMPRESSIONS, schema, [value])) == "malformed"


def test_empty_records_inside_each_other_take_no_bytes():
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "n", "type": "null"}]}
    outer = {"type": "record", "name": "Outer", "fields": [{"name": "inner", "type": inner}]}
    schema = schema_with(IMPRESSIONS, {"name": "many", "type": {"type": "array", "items": outer}})
    many = [{"inner": {"n": None}}] * 1000
    value = encoded(schema, {**an_impression(), "many": many})
    assert event_of(decoded(IMPRESSIONS, schema, [value]), 0) == an_impression()


@pytest.mark.parametrize(
    "written",
    [
        {"item_id": ["string"]},
        {"item_id": THREE_WAYS},
        {"item_id": ["string", "bytes"]},
        {"item_id": [KINDS, "string"]},
    ],
)
def test_unions_that_only_fastavro_resolves_are_read_through_it(written):
    event = an_impression(item_id="purchase", score=0.5, country="DÉ")
    schema, v1 = schema_with(IMPRESSIONS, **written), schema_of(IMPRESSIONS)
    program = Program.of(IMPRESSIONS, {1: v1, 2: schema})
    assert set(program.slow) == {2}
    values = [encoded(v1, event, 1), encoded(schema, event, 2), b"", encoded(schema, event, 2)]
    batch = decode(IMPRESSIONS, columns_of(values, range(4), range(4)), program, partition=0, partitions=1)
    assert [status_word(batch, row) for row in range(4)] == ["fine", "fine", "bad_header", "fine"]
    assert [event_of(batch, row) for row in (0, 1, 3)] == [event] * 3
    assert batch.buf[batch.value_pos[3] :][: batch.value_len[3]].tobytes() == values[3]


def test_slow_records_are_told_apart_like_quick_ones():
    schema = schema_with(
        IMPRESSIONS, item_id=THREE_WAYS, at={"type": "long", "logicalType": "timestamp-millis"}
    )
    good = encoded(schema, an_impression(score=1.5))
    values = [
        good,
        good[:-3],
        good + b"\0",
        encoded(schema, an_impression(item_id=5)),
        encoded(schema, an_impression(item_id=None)),
        encoded(schema, an_impression(item_id="x" * 300)),
        encoded(schema, an_impression(at=-1)),
        good.replace(b"home", b"ho\xff\xfe"),
        good[:5],
    ]
    batch = decoded(IMPRESSIONS, schema, values)
    assert [status_word(batch, row) for row in range(len(values))] == [
        "fine", "malformed", "trailing_bytes", "malformed", "empty item_id", "too_long item_id",
        "out_of_range at", "invalid_utf8 surface", "malformed",
    ]  # fmt: skip


def test_symbols_and_slow_records_share_a_batch():
    quick = schema_with(INTERACTIONS, kind=KINDS)
    slow = schema_with(INTERACTIONS, item_id=THREE_WAYS)
    program = Program.of(INTERACTIONS, {1: quick, 2: slow})
    event = an_interaction(kind="purchase", item_id="i", currency="EUR", value_minor=-5)
    values = [encoded(quick, event, 1), encoded(slow, event, 2)]
    batch = decode(INTERACTIONS, columns_of(values, [0, 1], [0, 0]), program, partition=0, partitions=1)
    assert [event_of(batch, row) for row in range(2)] == [event, event]
