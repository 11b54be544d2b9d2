import io
import random
import struct
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.contracts.reasons import Reason, explain, status_of
from stream.contracts.topics import FIELDS, Topic
from stream.engine.batch import NULL, SPARE_BYTES, Batch, Columns
from stream.intake.avro_datum import MAX_DEPTH
from stream.intake.avro_program import Program
from stream.intake.decode import USER_ID, columns_of, decode, unknown_ids
from stream.intake.decode import _collect_unknown as unknown_kernel
from stream.intake.decode import _decode as decode_kernel
from tests.intake.avro_records import (
    MAKERS,
    SCHEMA_ID,
    VALID,
    an_impression,
    an_interaction,
    decoded,
    encoded,
    event_of,
    plain,
    schema_of,
    schema_with,
)

IMPRESSIONS, INTERACTIONS = Topic.IMPRESSIONS, Topic.INTERACTIONS
RULE_REASONS = {
    Reason.EMPTY, Reason.TOO_LONG, Reason.OUT_OF_RANGE, Reason.NOT_FINITE, Reason.BAD_CURRENCY,
}  # fmt: skip
EXTRA = (
    {"name": "context", "type": {"type": "map", "values": ["null", "string", "long"]}},
    {"name": "tags", "type": {"type": "array", "items": "double"}},
    {"name": "mood", "type": {"type": "enum", "name": "Mood", "symbols": ["good", "bad"]}},
    {
        "name": "chain",
        "type": [
            "null",
            {
                "type": "record",
                "name": "Link",
                "fields": [{"name": "first", "type": "boolean"}, {"name": "next", "type": ["null", "Link"]}],
            },
        ],
    },
    {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 3}},
    {"name": "nothing", "type": {"type": "array", "items": "null"}},
)


def with_extra(event: dict[str, Any], **changes: Any) -> dict[str, Any]:
    extra = {
        "context": {"a": None, "b": "text", "c": 5}, "tags": [0.5, 1.5], "mood": "bad", "hash": b"abc",
        "chain": {"first": True, "next": {"first": False, "next": None}}, "nothing": [None] * 300,
    }  # fmt: skip
    return {**event, **extra, **changes}


def status_word(batch: Any, row: int = 0) -> str:
    status = int(batch.status[row])
    return " ".join(explain(batch.topic, status)[:2]).strip() if status else "fine"


@pytest.mark.parametrize("topic", list(Topic))
def test_user_id_is_where_the_kernel_looks_for_it(topic):
    assert FIELDS[topic][USER_ID] == "user_id"


@pytest.mark.parametrize("topic", list(Topic))
def test_every_field_arrives_as_it_was_sent(topic):
    @settings(max_examples=40, deadline=None)
    @given(st.lists(VALID[topic], max_size=8))
    def check(events):
        schema = plain(schema_of(topic))
        batch = decoded(topic, schema, [encoded(schema, event) for event in events])
        assert batch.status.tolist() == [0] * len(events)
        assert [event_of(batch, row) for row in range(len(events))] == events

    check()


@settings(max_examples=60, deadline=None)
@given(
    VALID[IMPRESSIONS], st.lists(st.floats(), max_size=5), st.dictionaries(st.text(), st.none() | st.text())
)
def test_fields_that_nobody_asked_for_are_skipped(event, tags, context):
    schema = schema_with(IMPRESSIONS, *EXTRA)
    batch = decoded(IMPRESSIONS, schema, [encoded(schema, with_extra(event, tags=tags, context=context))])
    assert status_word(batch) == "fine"
    assert event_of(batch, 0) == event


def test_a_score_of_minus_two_is_a_score():
    # Its bits were once those of NULL.
    schema = schema_of(IMPRESSIONS)
    assert (
        event_of(decoded(IMPRESSIONS, schema, [encoded(schema, an_impression(score=-2.0))]), 0)["score"]
        == -2.0
    )


def test_a_nan_with_the_bits_of_null_is_not_null():
    schema = schema_of(IMPRESSIONS)
    value = encoded(schema, an_impression(score=1.5))
    value = value.replace(struct.pack("<d", 1.5), struct.pack("<q", NULL))
    assert status_word(decoded(IMPRESSIONS, schema, [value])) == "not_finite score"


def test_a_long_with_the_value_of_null_is_not_null():
    schema = schema_of(INTERACTIONS)
    batch = decoded(INTERACTIONS, schema, [encoded(schema, an_interaction(value_minor=NULL))])
    assert status_word(batch) == "out_of_range value_minor"


def test_records_without_a_readable_header_say_so():
    schema = schema_of(IMPRESSIONS)
    good = encoded(schema, an_impression())
    values = [None, b"", good[:4], b"\1" + good[1:], b"\0\0\0\0\x63" + good[5:], good]
    batch = decoded(IMPRESSIONS, schema, values)
    words = [status_word(batch, row) for row in range(len(values))]
    assert words == ["null_value", "bad_header", "bad_header", "bad_header", "unknown_schema", "fine"]


def test_a_broken_record_names_the_field_where_it_broke():
    schema = schema_of(IMPRESSIONS)
    good = encoded(schema, an_impression())
    cut = good[: good.index(b"item-1") + 2]
    batch = decoded(IMPRESSIONS, schema, [cut, good + b"\0", good])
    assert [status_word(batch, row) for row in range(3)] == ["malformed item_id", "trailing_bytes", "fine"]


@pytest.mark.parametrize("length", [257, 70_000, 1 << 20, (1 << 20) + 5, 3 << 20])
def test_a_text_of_any_size_is_too_long_and_its_neighbours_are_read(length):
    schema = schema_of(IMPRESSIONS)
    long = encoded(schema, an_impression(item_id="x" * length))
    batch = decoded(IMPRESSIONS, schema, [long, encoded(schema, an_impression())])
    assert [status_word(batch, row) for row in range(2)] == ["too_long item_id", "fine"]


def test_a_skipped_text_may_be_of_any_size():
    schema = schema_with(IMPRESSIONS, {"name": "html", "type": "string"})
    batch = decoded(IMPRESSIONS, schema, [encoded(schema, {**an_impression(), "html": "x" * (2 << 20)})])
    assert event_of(batch, 0) == an_impression()


def chain_of(links: int) -> Any:
    chain = None
    for _ in range(links):
        chain = {"first": True, "next": chain}
    return chain


@pytest.mark.parametrize(
    ("links", "word"), [(MAX_DEPTH, "fine"), (MAX_DEPTH + 1, "malformed"), (300, "malformed")]
)
def test_skipped_data_may_be_nested_so_deep_and_no_deeper(links, word):
    schema = schema_with(IMPRESSIONS, *EXTRA)
    batch = decoded(
        IMPRESSIONS, schema, [encoded(schema, with_extra(an_impression(), chain=chain_of(links)))]
    )
    assert status_word(batch) == word


def test_blocks_that_state_their_size_are_read():
    schema = schema_with(IMPRESSIONS, {"name": "tags", "type": {"type": "array", "items": "int"}})
    value = encoded(schema, {**an_impression(), "tags": [5, 6]})
    # Two items in a block of two bytes: count -2, size 2.
    sized = value.replace(b"\x04\x0a\x0c\x00", b"\x03\x04\x0a\x0c\x00")
    assert sized != value
    assert event_of(decoded(IMPRESSIONS, schema, [sized]), 0) == an_impression()


@pytest.mark.parametrize("count", [2**62, -(2**62), -(2**63), 2**63 - 1])
def test_absurd_item_counts_end_at_once(count):
    schema = schema_with(IMPRESSIONS, {"name": "tags", "type": {"type": "array", "items": "int"}})
    zigzag = (count << 1) ^ (count >> 63)
    out = bytearray()
    while zigzag > 127:
        out.append(zigzag & 127 | 128)
        zigzag >>= 7
    out.append(zigzag)
    value = encoded(schema, {**an_impression(), "tags": [5, 6]}).replace(
        b"\x04\x0a\x0c\x00", bytes(out) + b"\x04\x0a"
    )
    assert status_word(decoded(IMPRESSIONS, schema, [value])) == "malformed"


def corrupted(value: bytes, chance: random.Random) -> bytes:
    out = bytearray(value)
    at = chance.randrange(5, len(out))
    match chance.randrange(5):
        case 0:
            del out[chance.randrange(len(out)) :]
        case 1:
            out[at] = chance.randrange(256)
        case 2:
            out[at] ^= 1 << chance.randrange(8)
        case 3:
            out[5:] = chance.randbytes(chance.randrange(60))
        case _:
            out += chance.randbytes(chance.randrange(1, 3))
    return bytes(out)


def oracle(schema: Any, value: bytes) -> tuple[str, bool]:
    """fastavro's verdict, and whether the bytes it read are those it would write itself."""
    stream = io.BytesIO(value[5:])
    if len(value) < 5:
        return "bad_header", True
    try:
        record = fastavro.schemaless_reader(stream, schema, None)
    except UnicodeDecodeError:
        return "text", True
    except Exception:
        return "malformed", True
    rest, out = stream.read(), io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return ("trailing_bytes" if rest else "fine"), value[5:] == out.getvalue() + rest


def agree(status: int, verdict: str, canonical: bool) -> bool:
    reason = Reason(status & 255) if status else None
    if verdict == "fine":
        return reason is None or reason in RULE_REASONS or (reason is Reason.MALFORMED and not canonical)
    if verdict == "trailing_bytes":
        return reason is Reason.TRAILING_BYTES or (reason is Reason.MALFORMED and not canonical)
    if verdict == "text":  # a skipped text is not looked at, and the record may be broken further on
        return True
    return reason is not None and reason.word == verdict


@pytest.mark.parametrize("topic", list(Topic))
def test_corrupted_records_are_told_as_fastavro_tells_them(topic):
    chance = random.Random(topic)
    schema = schema_with(topic, *EXTRA)
    parsed = fastavro.parse_schema(schema)
    links = [0, 1, 3]
    good = [encoded(schema, with_extra(MAKERS[topic](user_id="usér"), chain=chain_of(n))) for n in links]
    values = [corrupted(chance.choice(good), chance) for _ in range(8_000)]
    batch = decoded(topic, schema, values)
    for value, status in zip(values, batch.status.tolist(), strict=True):
        verdict, canonical = oracle(parsed, value)
        assert agree(status, verdict, canonical), (value, verdict, canonical, status)
    told = {Reason(status & 255) for status in batch.status.tolist() if status}
    assert told >= {Reason.MALFORMED, Reason.TRAILING_BYTES, Reason.INVALID_UTF8, Reason.BAD_HEADER}


def test_a_poisoned_record_never_changes_its_neighbours():
    chance = random.Random(3)
    schema = schema_with(IMPRESSIONS, *EXTRA)
    program = Program.of(IMPRESSIONS, {SCHEMA_ID: schema})
    good = [encoded(schema, with_extra(an_impression(event_id=f"e{i}"))) for i in range(12)]
    clean = decoded(IMPRESSIONS, schema, good)
    events = [event_of(clean, row) for row in range(12)]
    for _ in range(300):
        values: list[bytes | None] = list(good)
        poisoned = chance.randrange(12)
        values[poisoned] = corrupted(good[poisoned], chance)
        columns = columns_of(values, range(12), range(12))
        batch = decode(IMPRESSIONS, columns, program, partition=0, partitions=1)
        others = [row for row in range(12) if row != poisoned]
        assert not batch.status[others].any()
        assert [event_of(batch, row) for row in others] == [events[row] for row in others]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=80)))
def test_random_bytes_are_rejected_or_read_but_never_crash(datums):
    values = [b"\0\0\0\0\7" + datum for datum in datums]
    batch = decoded(IMPRESSIONS, schema_with(IMPRESSIONS, *EXTRA), values)
    assert len(batch) == len(values)


def test_arrays_of_another_kind_do_not_compile_the_kernels_again():
    schema = schema_of(IMPRESSIONS)
    program = Program.of(IMPRESSIONS, {SCHEMA_ID: schema})
    plain_columns = columns_of([encoded(schema, an_impression())] * 4, range(4), range(4))

    def taken(columns: Columns) -> Batch:
        assert unknown_ids(columns, program) == set()
        return decode(IMPRESSIONS, columns, program, partition=0, partitions=1)

    taken(plain_columns)
    kernels = [kernel for kernel in (decode_kernel, unknown_kernel) if hasattr(kernel, "signatures")]
    compiled = [list(kernel.signatures) for kernel in kernels]
    buf = np.frombuffer(plain_columns.buf.tobytes(), np.uint8)
    others = [getattr(plain_columns, name).repeat(2)[::2] for name in Columns.__slots__ if name != "buf"]
    batch = taken(Columns(buf, *others))
    assert [list(kernel.signatures) for kernel in kernels] == compiled
    assert event_of(batch, 3) == an_impression()
    arrays = [getattr(batch, name) for name in Batch.__slots__ if name != "topic"]
    assert all(array.flags.c_contiguous and array.flags.writeable for array in arrays)


def test_no_records_make_an_empty_batch():
    batch = decoded(IMPRESSIONS, schema_of(IMPRESSIONS), [])
    assert batch.fields.shape == (0, len(FIELDS[IMPRESSIONS]))


def test_columns_keep_null_and_empty_values_apart():
    columns = columns_of([b"abc", None, b"", b"de"], [3, 4, 5, 9], [1, 1, 1, 1])
    assert columns.value_len.tolist() == [3, -1, 0, 2]
    assert columns.buf.tobytes() == b"abcde" + bytes(SPARE_BYTES)
    assert columns.buf[columns.value_pos[3] :][:2].tobytes() == b"de"
    assert columns.offset.tolist() == [3, 4, 5, 9]
    assert (columns.key_len == -1).all()


def test_unknown_ids_are_those_neither_known_nor_refused():
    program = Program.of(IMPRESSIONS, {SCHEMA_ID: schema_of(IMPRESSIONS)}).refusing(9, "not in the registry")
    ids = [7, 11, 11, 9, 7, 11, 2**32 - 1]
    values = [None, b"x", *(b"\0" + schema_id.to_bytes(4, "big") for schema_id in ids)]
    columns = columns_of(values, range(9), range(9))
    assert unknown_ids(columns, program) == {11, 2**32 - 1}
    assert unknown_ids(columns_of([], [], []), program) == set()


def test_several_schemas_meet_in_one_batch():
    one, two = schema_of(IMPRESSIONS), schema_with(IMPRESSIONS, *EXTRA)
    program = Program.of(IMPRESSIONS, {1: one}).adding(2, two)
    event, other = an_impression(event_id="a"), an_impression(event_id="b")
    values = [encoded(one, event, 1), encoded(two, with_extra(other), 2)] * 3
    batch = decode(IMPRESSIONS, columns_of(values, range(6), range(6)), program, partition=0, partitions=1)
    assert [event_of(batch, row) for row in range(6)] == [event, other] * 3


def test_the_batch_points_at_the_original_records():
    schema = schema_of(IMPRESSIONS)
    values = [encoded(schema, an_impression()), b"poison"]
    batch = decoded(IMPRESSIONS, schema, values)
    for row, value in enumerate(values):
        assert batch.buf[batch.value_pos[row] :][: batch.value_len[row]].tobytes() == value
    assert batch.status[1] == status_of(Reason.BAD_HEADER)
    assert np.array_equal(batch.offset, [0, 1])
