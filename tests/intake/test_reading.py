import numpy as np
import pytest

from stream.contracts.avro import Encoder
from stream.contracts.models import MODELS
from stream.contracts.topics import Topic
from stream.contracts.versions import newest
from stream.engine.batch import Batch
from stream.intake.avro_program import Program
from stream.intake.decode import columns_of, decode
from stream.intake.reading import Reading, Readings
from tests.engine.makers import an_impression

TOPIC = Topic.IMPRESSIONS
SCHEMA = newest(TOPIC).schema
SLOW = SCHEMA | {
    "fields": [
        f | {"type": ["null", "string", "bytes"]} if f["name"] == "item_id" else f for f in SCHEMA["fields"]
    ]
}


def a_reading(*ids: int) -> Reading:
    return Reading.of(Program.of(TOPIC, dict.fromkeys(ids, SCHEMA)), 4)


def a_batch(reading: Reading, *ids: int) -> Batch:
    event = MODELS[TOPIC].model_construct(**an_impression())
    values = [Encoder(TOPIC, schema_id).encode(event) for schema_id in ids]
    columns = columns_of([*values, b"junk", None], np.arange(len(ids) + 2), np.zeros(len(ids) + 2, np.int64))
    return decode(TOPIC, columns, reading.program, partition=1, partitions=4)


def the_same(a: Batch, b: Batch) -> bool:
    names = ("offset", "record_at_ms", "status", "misrouted", "value_len")
    valid = a.status == 0
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names) and np.array_equal(
        a.fields[valid], b.fields[valid]
    )


def test_records_decoded_again_are_as_if_decoded_so_at_first() -> None:
    few, more = a_reading(7), a_reading(7, 9)
    assert (a_batch(few, 7, 9, 8).status == 0).tolist() == [True, False, False, False, False]
    assert the_same(more.decode_again(a_batch(few, 7, 9, 8), 1), a_batch(more, 7, 9, 8))
    assert the_same(few.decode_again(a_batch(more, 7, 9, 8), 1), a_batch(few, 7, 9, 8))
    assert the_same(few.decode_again(a_batch(few, 7, 9).rows(1, 3), 1), a_batch(few, 7, 9).rows(1, 3))


def test_a_batch_with_texts_that_were_added_is_decoded_again_from_its_records() -> None:
    slow = Reading.of(Program.of(TOPIC, {7: SLOW}), 4)
    assert slow.program.slow
    assert the_same(a_reading(7).decode_again(a_batch(slow, 9, 9), 1), a_batch(a_reading(7), 9, 9))


def test_a_reading_comes_back_from_its_document_under_the_same_digest() -> None:
    found = Readings(4).from_json(TOPIC, a_reading(9, 7).to_json())
    assert found.digest == a_reading(7, 9).digest == a_reading(9, 7).digest
    assert found.digest != a_reading(7).digest
    assert the_same(found.decode_again(a_batch(a_reading(), 7, 9), 1), a_batch(found, 7, 9))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        b"[]",
        b'{"topic":"interactions","schemas":{}}',
        b'{"topic":"impressions","schemas":{"1":7}}',
    ],
)
def test_anything_else_is_no_document(document: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Readings(4).from_json(TOPIC, document)
