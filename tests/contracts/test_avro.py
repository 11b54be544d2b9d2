import json
import struct
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.contracts.avro import Encoder, decode, encode
from stream.contracts.models import MODELS
from stream.contracts.topics import FIELDS, Topic
from stream.contracts.versions import (
    SCHEMA_NAMES,
    Schemas,
    incompatible_versions,
    local_schemas,
    newest,
    schema_folder,
)
from stream.errors import Rejected
from tests.contracts.makers import an_event

EXAMPLES = sorted((schema_folder() / "examples").glob("*.json"))
TOPIC_OF = {name: topic for topic, name in SCHEMA_NAMES.items()}


class OneSchema:
    """A registry that knows one schema."""

    def __init__(self, schema_id: int, schema: dict[str, Any]) -> None:
        self.known = {schema_id: schema}

    def schema(self, schema_id: int) -> dict[str, Any] | None:
        return self.known.get(schema_id)


@pytest.mark.parametrize("topic", Topic)
def test_the_newest_schema_has_the_fields_of_the_model(topic: Topic) -> None:
    fields = newest(topic).schema["fields"]
    assert tuple(field["name"] for field in fields) == FIELDS[topic]
    for field in fields:
        assert ("default" in field) == (not MODELS[topic].model_fields[field["name"]].is_required())


def test_the_local_ids_never_change() -> None:
    ids = {version.label: version.schema_id for some in local_schemas().values() for version in some}
    assert ids == {"assignment.v1": 1, "impression.v1": 2, "interaction.v1": 3}


def test_every_version_reads_every_earlier_one() -> None:
    assert incompatible_versions(local_schemas()) == []


@pytest.mark.parametrize(
    "version", [v for some in local_schemas().values() for v in some], ids=lambda v: v.label
)
def test_every_version_has_an_example_with_all_fields_and_one_with_nulls(version: Any) -> None:
    ours = [json.loads(path.read_text()) for path in EXAMPLES if path.name.startswith(version.label + ".")]
    names = {field["name"] for field in version.schema["fields"]}
    assert any(set(example) == names and None not in example.values() for example in ours)
    assert any(None in example.values() for example in ours)
    assert any(not json.dumps(example, ensure_ascii=False).isascii() for example in ours)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_valid_and_survives_the_wire(path: Any) -> None:
    topic = TOPIC_OF[path.name.partition(".")[0]]
    event = MODELS[topic].model_validate_json(path.read_bytes())
    assert decode(topic, encode(topic, event)) == vars(event)


@pytest.mark.parametrize("topic", Topic)
def test_the_value_is_byte_0_the_schema_id_and_plain_avro(topic: Topic) -> None:
    event = an_event(topic)
    value = encode(topic, event)
    version = newest(topic)
    assert struct.unpack_from(">bI", value) == (0, version.schema_id)
    fields = fastavro.schemaless_reader(BytesIO(value[5:]), version.schema, None)
    assert isinstance(fields, dict)
    assert fields["at"].timestamp() * 1000 == event.at
    assert fields["user_id"] == event.user_id


text = st.text(min_size=1, max_size=64)


@given(
    event_id=text,
    user_id=text,
    at=st.integers(0, 253_402_300_799_999),
    position=st.integers(0, 1_000_000),
    score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    country=st.none() | text,
)
def test_any_valid_event_survives_the_wire(**fields: Any) -> None:
    event = an_event(Topic.IMPRESSIONS, **fields)
    assert decode(Topic.IMPRESSIONS, encode(Topic.IMPRESSIONS, event)) == vars(event)


def test_a_registry_s_id_stands_in_the_header_and_its_schema_reads_the_value() -> None:
    event = an_event(Topic.INTERACTIONS)
    value = Encoder(Topic.INTERACTIONS, schema_id=100_042).encode(event)
    schemas = Schemas(OneSchema(100_042, newest(Topic.INTERACTIONS).schema))  # type: ignore[arg-type]
    assert decode(Topic.INTERACTIONS, value, schemas) == vars(event)
    with pytest.raises(Rejected, match="schema id 100042 is neither in schemas/ nor in the registry"):
        decode(Topic.INTERACTIONS, value)


def test_with_a_registry_the_local_ids_mean_nothing() -> None:
    value = encode(Topic.INTERACTIONS, an_event(Topic.INTERACTIONS))
    schemas = Schemas(OneSchema(77, newest(Topic.INTERACTIONS).schema))  # type: ignore[arg-type]
    with pytest.raises(Rejected, match="schema id 3"):
        decode(Topic.INTERACTIONS, value, schemas)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (b"", "does not start with byte 0"),
        (b"\x00\x00\x00\x00", "does not start with byte 0"),
        (b'{"user_id": "u"}', "does not start with byte 0"),
        (b"\x00\x00\x00\x00\x09abc", "schema id 9"),
        (b"\x00\x00\x00\x00\x03", "not a record of schema 3"),
        (b"\x00\x00\x00\x00\x03\x02\xff\x00\x02u", "not a record of schema 3"),
        (encode(Topic.INTERACTIONS, an_event(Topic.INTERACTIONS)) + b"?", "1 bytes remain"),
        (encode(Topic.IMPRESSIONS, an_event(Topic.IMPRESSIONS)), "not a record of schema 2"),
    ],
)
def test_bytes_that_are_no_event_of_the_topic_are_rejected(value: bytes, sentence: str) -> None:
    with pytest.raises(Rejected, match=sentence):
        decode(Topic.INTERACTIONS, value)
