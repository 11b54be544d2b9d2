"""Events as bytes and back: Avro in Confluent's framing (byte 0, 4-byte big-endian schema id, datum), with fastavro."""

import struct
from functools import cache
from io import BytesIO
from typing import Any

import fastavro

from stream.contracts.models import Event
from stream.contracts.topics import Topic
from stream.contracts.versions import Schemas, newest
from stream.errors import Rejected

HEADER_BYTES = 5
_HEADER = struct.Struct(">bI")


class Encoder:
    """Encodes events of one topic with its newest schema.

    schema_id: what the header says; by default the id of schemas/ids.json. A registry hands out its own.
    """

    def __init__(self, topic: Topic, schema_id: int | None = None) -> None:
        local_id = newest(topic).schema_id
        self._header = _HEADER.pack(0, local_id if schema_id is None else schema_id)
        self._schema = _local().parsed(local_id)

    def encode(self, event: Event) -> bytes:
        """Header and datum of a validated event."""
        out = BytesIO()
        out.write(self._header)
        fastavro.schemaless_writer(out, self._schema, vars(event))
        return out.getvalue()


@cache
def _encoder(topic: Topic) -> Encoder:
    return Encoder(topic)


@cache
def _local() -> Schemas:
    return Schemas()


def encode(topic: Topic, event: Event) -> bytes:
    """The record value of a validated event of `topic`, with the local schema id."""
    return _encoder(topic).encode(event)


def decode(topic: Topic, value: bytes, schemas: Schemas | None = None) -> dict[str, Any]:
    """The fields of a record value, read with the newest schema of `topic`; `at` as epoch milliseconds UTC.

    Raises Rejected when the bytes are not an event of the topic; Unavailable when a registry does not answer.
    """
    if len(value) < HEADER_BYTES or value[0] != 0:
        raise Rejected("the value does not start with byte 0 and a 4-byte schema id")
    _, schema_id = _HEADER.unpack_from(value)
    writer = (schemas or _local()).parsed(schema_id)
    if writer is None:
        raise Rejected(f"schema id {schema_id} is neither in schemas/ nor in the registry")
    reader = _local().parsed(newest(topic).schema_id)
    datum = BytesIO(value)
    datum.seek(HEADER_BYTES)
    try:
        fields = fastavro.schemaless_reader(datum, writer, reader)
    except (
        Exception
    ) as error:  # the decoder's own range is open: EOFError, KeyError, SchemaResolutionError, ...
        raise Rejected(f"the value is not a record of schema {schema_id}: {error!r}") from error
    if datum.tell() != len(value):
        raise Rejected(f"{len(value) - datum.tell()} bytes remain after the record")
    assert isinstance(fields, dict)
    return fields
