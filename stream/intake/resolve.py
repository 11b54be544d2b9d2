"""The slow way for records whose schema the kernel cannot read: fastavro decodes, and we encode in a form it can."""

import io
from functools import cache
from typing import Any

import fastavro

from stream.contracts.topics import Topic
from stream.intake.avro_program import Program, Schema
from stream.intake.validate import RULES, Kind

_HEADER = bytes(5)  # of own_program's only schema
_AVRO = {Kind.TEXT: "bytes", Kind.CURRENCY: "bytes", Kind.LONG: "long", Kind.DOUBLE: "double"}


@cache
def _own_schema(topic: Topic) -> Schema:
    """All fields of the topic, each nullable; the rules see to the required ones."""
    fields = [{"name": rule.name, "type": ["null", _AVRO[rule.kind]]} for rule in RULES[topic]]
    return fastavro.parse_schema({"type": "record", "name": "Resolved", "fields": fields})


@cache
def own_program(topic: Topic) -> Program:
    """The program that reads what `resolved` returns."""
    return Program.of(topic, {0: _own_schema(topic)})


def resolved(topic: Topic, schema: Schema, datum: bytes) -> bytes:
    """The datum in own_program's schema with header; what is not a record of `schema` stays malformed."""
    stream = io.BytesIO(datum)
    out = io.BytesIO(_HEADER)
    out.seek(0, io.SEEK_END)
    try:
        # Bytes that are not UTF-8 pass through both ways, for the rules to name them.
        record: Any = fastavro.schemaless_reader(
            stream, schema, None, handle_unicode_errors="surrogateescape"
        )
        own = {rule.name: _plain(rule.kind, record.get(rule.name)) for rule in RULES[topic]}
        fastavro.schemaless_writer(out, _own_schema(topic), own)
    except Exception:  # fastavro raises nearly anything on bytes that are not its schema's
        return _HEADER
    return out.getvalue() + stream.read()


def _plain(kind: Kind, value: object) -> object:
    """The value as the own schema takes it. Raises TypeError when the field cannot be read from it."""
    if value is None:
        return None
    if kind in (Kind.TEXT, Kind.CURRENCY):
        if isinstance(value, bytes):
            return value
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
    elif type(value) is int or (type(value) is float and kind is Kind.DOUBLE):
        return value
    raise TypeError
