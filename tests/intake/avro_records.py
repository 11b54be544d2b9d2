"""Makers of events, their Avro encoding and the way back, for the decoder's tests."""

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
from hypothesis import strategies as st

from stream.contracts import limits
from stream.contracts.topics import FIELDS, Topic
from stream.engine.batch import NULL, TEXT_MASK, TEXT_SHIFT, Batch
from stream.intake.avro_program import Program, Schema
from stream.intake.decode import columns_of, decode
from stream.intake.validate import RULES, Kind

SCHEMA_ID = 7
_FILES = {
    Topic.ASSIGNMENTS: "assignment.v1.avsc",
    Topic.IMPRESSIONS: "impression.v1.avsc",
    Topic.INTERACTIONS: "interaction.v1.avsc",
}
_SCHEMAS = Path(__file__).parents[2] / "schemas"


def schema_of(topic: Topic) -> Schema:
    return json.loads((_SCHEMAS / _FILES[topic]).read_text())


def plain(schema: Schema) -> Schema:
    """Without logical types: fastavro then gives the numbers on the wire."""
    if isinstance(schema, list):
        return [plain(branch) for branch in schema]
    if isinstance(schema, dict):
        return {key: plain(value) for key, value in schema.items() if key != "logicalType"}
    return schema


def schema_with(topic: Topic, *extra: Schema, **types: Schema) -> Schema:
    """The topic's first schema, some fields written with other types, and others added before the fifth."""
    schema = plain(schema_of(topic))
    fields = [{"name": f["name"], "type": types.get(f["name"], f["type"])} for f in schema["fields"]]
    return {**schema, "fields": [*fields[:4], *extra, *fields[4:]]}


def schema_without(topic: Topic, *names: str) -> Schema:
    schema = plain(schema_of(topic))
    return {**schema, "fields": [f for f in schema["fields"] if f["name"] not in names]}


def an_assignment(**changes: Any) -> dict[str, Any]:
    own = {"experiment": "checkout", "arm": "treatment"}
    return {**dict.fromkeys(FIELDS[Topic.ASSIGNMENTS]), **_who_and_when(), **own, **changes}


def an_impression(**changes: Any) -> dict[str, Any]:
    own = {
        "impression_id": "i1", "request_id": "r1", "item_id": "item-1", "surface": "home", "position": 3,
        "model": "two-tower", "model_version": "2025-10",
    }  # fmt: skip
    return {**dict.fromkeys(FIELDS[Topic.IMPRESSIONS]), **_who_and_when(), **own, **changes}


def an_interaction(**changes: Any) -> dict[str, Any]:
    return {**dict.fromkeys(FIELDS[Topic.INTERACTIONS]), **_who_and_when(), "kind": "click", **changes}


def _who_and_when() -> dict[str, Any]:
    return {"event_id": "e1", "at": 1_760_000_000_000, "user_id": "user-1"}


MAKERS = {
    Topic.ASSIGNMENTS: an_assignment,
    Topic.IMPRESSIONS: an_impression,
    Topic.INTERACTIONS: an_interaction,
}


def encoded(schema: Schema, record: dict[str, Any], schema_id: int = SCHEMA_ID) -> bytes:
    """The record in Confluent's wire format."""
    out = io.BytesIO()
    out.write(b"\0" + schema_id.to_bytes(4, "big"))
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), record)
    return out.getvalue()


def decoded(topic: Topic, schema: Schema, values: list[bytes | None], *, partition=0, partitions=1) -> Batch:
    program = Program.of(topic, {SCHEMA_ID: schema})
    assert not program.refused
    rows = np.arange(len(values))
    return decode(topic, columns_of(values, rows, rows), program, partition=partition, partitions=partitions)


def event_of(batch: Batch, row: int) -> dict[str, Any]:
    """One decoded row as the record it came from."""
    return {
        rule.name: _value_of(batch, rule.kind, batch.fields[row, index])
        for index, rule in enumerate(RULES[batch.topic])
    }


def _value_of(batch: Batch, kind: Kind, packed: np.int64) -> Any:
    if packed == NULL:
        return None
    if kind is Kind.LONG:
        return int(packed)
    if kind is Kind.DOUBLE:
        return float(packed.view(np.float64))
    pos, length = int(packed) >> TEXT_SHIFT, int(packed) & TEXT_MASK
    return batch.buf[pos : pos + length].tobytes().decode()


_TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=64)
_WILD_TEXT = _TEXT | st.text("aé", min_size=120, max_size=270) | st.sampled_from(["", "x" * 256, "x" * 257])
_LONG = st.integers(-(2**63), 2**63 - 1)
_CURRENCY = st.text("ABCXYZ", min_size=3, max_size=3)


def _valid(topic: Topic) -> st.SearchStrategy[dict[str, Any]]:
    values = {}
    for rule in RULES[topic]:
        bounds = {"min_value": rule.low, "max_value": rule.high}
        value = {
            Kind.TEXT: lambda: _TEXT,
            Kind.CURRENCY: lambda: _CURRENCY,
            Kind.LONG: lambda bounds=bounds: st.integers(**bounds),
            Kind.DOUBLE: lambda bounds=bounds: st.floats(**bounds),
        }[rule.kind]()
        values[rule.name] = value if rule.required else st.none() | value
    return st.fixed_dictionaries(values)


def _wild(topic: Topic) -> st.SearchStrategy[dict[str, Any]]:
    values = {}
    for rule in RULES[topic]:
        edges = st.sampled_from([rule.low, rule.low - 1, rule.high, rule.high + 1])
        value = {
            Kind.TEXT: _WILD_TEXT,
            Kind.CURRENCY: _CURRENCY | st.sampled_from(["", "EU", "eur", "EUR\n", "ÉUR", "EUROS"]),
            Kind.LONG: edges | _LONG | st.sampled_from([NULL, limits.MAX_AT_MS * 1000]),
            Kind.DOUBLE: st.floats()
            | st.sampled_from([-2.0, rule.low, rule.high, limits.MAX_LATENCY_MS * 1.01]),
        }[rule.kind]
        if rule.name == "position":
            value = edges | st.integers(-(2**31), 2**31 - 1)
        values[rule.name] = value if rule.required else st.none() | value
    return st.fixed_dictionaries({}, optional=values).map(lambda changes: MAKERS[topic](**changes))


VALID = {topic: _valid(topic) for topic in Topic}  # records that keep every rule
WILD = {topic: _wild(topic) for topic in Topic}  # records of the right types, some of which break rules
