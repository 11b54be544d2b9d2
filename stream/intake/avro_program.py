"""Writer schemas compiled into the small programs that the decoding kernel runs.

A program has one instruction per field of the writer's record, in the writer's order: read it into a column, or
skip it. Evolution is settled here: a nullable field that the writer does not have is null, a field that we do not
know is skipped, and numbers and texts are promoted where nothing can be lost. A schema that cannot give us a
required field is refused with the reason. One that only Avro's per-record resolution can serve (a union of several
types) is `slow`: those records take the way through fastavro.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from fastavro.schema import SchemaParseException, UnknownType, parse_schema

from stream.contracts.topics import Topic
from stream.engine.batch import I64
from stream.intake.validate import RULES, Kind, Rule

Schema = Any  # parsed JSON of an Avro schema

# Instructions: rows of (what, field, branch of the union that is null or -1, argument, number of symbols).
ABSENT, TEXT, LONG, DOUBLE, FLOAT, LONG_AS_DOUBLE, SYMBOL, SKIP = range(8)
# Nodes of the trees that SKIP walks: rows of (kind, argument, number of kids).
NOTHING, VARINT, BYTES, FIXED, CHOICE, RECORD, UNION, ARRAY, MAP = range(9)

_READ: dict[Kind, dict[str, int]] = {
    Kind.TEXT: {"string": TEXT, "bytes": TEXT, "enum": SYMBOL},
    Kind.CURRENCY: {"string": TEXT, "bytes": TEXT, "enum": SYMBOL},
    Kind.LONG: {"int": LONG, "long": LONG},
    Kind.DOUBLE: {"double": DOUBLE, "float": FLOAT, "int": LONG_AS_DOUBLE, "long": LONG_AS_DOUBLE},
}
# Logical types under which the same bytes mean something else than our field does.
_OTHER_MEANING = frozenset(
    (
        "decimal", "duration", "date", "time-millis", "time-micros", "timestamp-micros", "timestamp-nanos",
        "local-timestamp-millis", "local-timestamp-micros", "local-timestamp-nanos",
    )
)  # fmt: skip
_FIXED_BYTES = {"boolean": 1, "float": 4, "double": 8}
# What fastavro raises for JSON that is no schema.
_INVALID = (SchemaParseException, UnknownType, LookupError, TypeError, AttributeError, RecursionError)


class _Refused(Exception):
    """The schema cannot be read as this topic's event; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """How to read one topic's records, by Confluent schema id. Immutable: adding a schema makes a new one.

    schemas: as given, those in `refused` left out.  refused: why records of these ids become UNKNOWN_SCHEMA.
    slow: fastavro's form of the schemas whose records must be resolved one by one.
    ids: int64 (schemas,).  spans: int64 (schemas, 2), the schema's instructions in `code`, -1 for a slow one.
    code: int64 (instructions, 5).  nodes: int64 (nodes, 3).  kids: int64, indexes into `nodes`.
    symbols: the enum symbols' bytes, joined.  symbol_at: int64 (symbols, 2), position and length in `symbols`.
    """

    topic: Topic
    schemas: Mapping[int, Schema]
    refused: Mapping[int, str]
    slow: Mapping[int, Schema]
    ids: I64
    spans: I64
    code: I64
    nodes: I64
    kids: I64
    symbols: bytes
    symbol_at: I64

    @classmethod
    def of(
        cls, topic: Topic, schemas: Mapping[int, Schema], refused: Mapping[int, str] | None = None
    ) -> "Program":
        """Compile the schemas; those that do not fit are in `.refused` with one sentence each."""
        tape, kept, slow, spans = _Tape(), {}, {}, []
        why = dict(refused or {})
        for schema_id, schema in schemas.items():
            start = len(tape.code)
            try:
                is_slow = _compile(topic, schema, tape)
            except _Refused as reason:
                why[schema_id] = f"schema {schema_id} cannot be read as {topic.word}: {reason}"
                continue
            kept[schema_id] = schema
            spans.append((-1, -1) if is_slow else (start, len(tape.code)))
            if is_slow:
                slow[schema_id] = parse_schema(_without_logical_types(schema))
        return cls(
            topic=topic,
            schemas=kept,
            refused=why,
            slow=slow,
            ids=np.array(list(kept), np.int64),
            spans=_rows(spans, 2),
            code=_rows(tape.code, 5),
            nodes=_rows(tape.nodes, 3),
            kids=np.array(tape.kids, np.int64),
            symbols=bytes(tape.symbols),
            symbol_at=_rows(tape.symbol_at, 2),
        )

    def adding(self, schema_id: int, schema: Schema) -> "Program":
        """A program that knows one more schema (or has it in `.refused`)."""
        refused = {known: why for known, why in self.refused.items() if known != schema_id}
        return Program.of(self.topic, {**self.schemas, schema_id: schema}, refused)

    def refusing(self, schema_id: int, why: str) -> "Program":
        """A program that rejects this id's records, for one that no registry knows."""
        return replace(self, refused={**self.refused, schema_id: why})


def _rows(rows: Sequence[tuple[int, ...]], width: int) -> I64:
    return np.array(rows, np.int64).reshape(len(rows), width)


@dataclass(slots=True)
class _Tape:
    """What compiling writes; shared by all schemas of a program."""

    code: list[tuple[int, ...]] = field(default_factory=list)
    nodes: list[tuple[int, ...]] = field(default_factory=list)
    kids: list[int] = field(default_factory=list)
    symbols: bytearray = field(default_factory=bytearray)
    symbol_at: list[tuple[int, ...]] = field(default_factory=list)

    def node(self, kind: int, argument: int = 0, kids: Iterable[int] = ()) -> tuple[int, int, int]:
        """A node row; its kids, if any, become neighbours in `kids` and `argument` their start."""
        kids = list(kids)
        if kids:
            argument = len(self.kids)
            self.kids += kids
        return kind, argument, len(kids)

    def add_symbols(self, names: list[str]) -> int:
        """The index of the first of these symbols in `symbol_at`."""
        first = len(self.symbol_at)
        for name in names:
            text = name.encode()
            self.symbol_at.append((len(self.symbols), len(text)))
            self.symbols += text
        return first


def _compile(topic: Topic, schema: Schema, tape: _Tape) -> bool:
    """Write the schema's program; true when its records must go through fastavro. Raises _Refused."""
    named: dict[str, Schema] = {}
    try:
        parsed = parse_schema(schema, named)
    except _INVALID as error:
        raise _Refused(f"it is not a valid Avro schema ({type(error).__name__}: {error})") from None
    if _type_of(parsed) != "record":
        raise _Refused("it is not a record")
    wanted = {rule.name: (index, rule) for index, rule in enumerate(RULES[topic])}
    trees = _Trees(tape, named)
    first_node, slow = len(tape.nodes), False
    for writer_field in parsed["fields"]:
        found = wanted.pop(writer_field["name"], None)
        if found is None:
            tape.code.append((SKIP, -1, -1, trees.index_of(writer_field["type"]), 0))
            continue
        instruction = _instruction(*found, writer_field["type"], named, tape)
        slow |= instruction is None
        tape.code.append(instruction or (ABSENT, found[0], -1, 0, 0))
    for index, rule in wanted.values():
        if rule.required:
            raise _Refused(f"it has no field `{rule.name}`")
        tape.code.append((ABSENT, index, -1, 0, 0))
    skipped = tape.nodes[first_node:]
    if slow and any(kind == ARRAY and tape.nodes[item][0] == NOTHING for kind, item, _ in skipped):
        raise _Refused("it has both a union of several types and an array of empty items")
    return slow


def _instruction(
    index: int, rule: Rule, schema: Schema, named: Mapping[str, Schema], tape: _Tape
) -> tuple[int, ...] | None:
    """Read this writer's field into column `index`; None when that needs fastavro. Raises _Refused."""
    branches = schema if isinstance(schema, list) else [schema]
    types = [branch for branch in branches if _type_of(branch) != "null"]
    readable = [resolved for branch in types if (resolved := _readable(rule, branch, named)) is not None]
    if types and not readable:
        raise _Refused(f"`{rule.name}` is written as {' or '.join(_name_of(branch) for branch in types)}")
    if not types and rule.required:
        raise _Refused(f"`{rule.name}` is always null")
    if isinstance(schema, list) and (len(branches) != 2 or len(types) != 1):
        return None
    if not types:
        return ABSENT, index, -1, 0, 0
    null = [_type_of(branch) for branch in branches].index("null") if len(branches) == 2 else -1
    what = _READ[rule.kind][_type_of(readable[0])]
    if what == SYMBOL:
        names = readable[0]["symbols"]
        return SYMBOL, index, null, tape.add_symbols(names), len(names)
    return what, index, null, 0, 0


def _readable(rule: Rule, schema: Schema, named: Mapping[str, Schema]) -> Schema | None:
    """The schema behind a name, if the rule's field can be read from it."""
    resolved = named.get(schema, schema) if isinstance(schema, str) else schema
    if _type_of(resolved) not in _READ[rule.kind] or _logical_type_of(resolved) in _OTHER_MEANING:
        return None
    return resolved


def _type_of(schema: Schema) -> str:
    """`record`, `string`, ...; `union` for a list; the name for a reference."""
    if isinstance(schema, list):
        return "union"
    return str(schema["type"]) if isinstance(schema, dict) else str(schema)


def _logical_type_of(schema: Schema) -> str | None:
    return schema.get("logicalType") if isinstance(schema, dict) else None


def _name_of(schema: Schema) -> str:
    logical = _logical_type_of(schema)
    return f"{_type_of(schema)} ({logical})" if logical else _type_of(schema)


def _without_logical_types(schema: Schema) -> Schema:
    """A copy under which fastavro gives plain numbers and texts."""
    if isinstance(schema, list):
        return [_without_logical_types(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _without_logical_types(value) for key, value in schema.items() if key != "logicalType"}


class _Trees:
    """Nodes of skipped types. A named type has one node, so a recursive one ends in itself."""

    def __init__(self, tape: _Tape, named: Mapping[str, Schema]) -> None:
        self._tape = tape
        self._named = named
        self._index_by_name: dict[str, int] = {}

    def index_of(self, schema: Schema) -> int:
        """The index of the type's node, with all below it."""
        if isinstance(schema, str) and schema in self._named:
            schema = self._named[schema]
        name = schema.get("name") if isinstance(schema, dict) else None
        if name in self._index_by_name:
            return self._index_by_name[name]
        nodes = self._tape.nodes
        index = len(nodes)
        nodes.append((RECORD, 0, 0))  # replaced below; kids that lead back here find the index
        if name is not None:
            self._index_by_name[name] = index
        nodes[index] = self._node(schema)
        return index

    def _node(self, schema: Schema) -> tuple[int, int, int]:
        kind, node = _type_of(schema), self._tape.node
        if kind == "union":
            return node(UNION, kids=map(self.index_of, schema))
        if kind in ("record", "error"):
            # Kids that take no bytes are left out, so that every loop over items eats bytes or ends.
            kids = [self.index_of(f["type"]) for f in schema["fields"]]
            kids = [kid for kid in kids if self._tape.nodes[kid][0] != NOTHING]
            return node(RECORD, kids=kids) if kids else node(NOTHING)
        if kind == "array":
            return node(ARRAY, self.index_of(schema["items"]))
        if kind == "map":
            return node(MAP, self.index_of(schema["values"]))
        if kind == "enum":
            return node(CHOICE, len(schema["symbols"]))
        if kind == "fixed":
            return node(FIXED, schema["size"]) if schema["size"] else node(NOTHING)
        if kind == "null":
            return node(NOTHING)
        if kind in ("string", "bytes"):
            return node(BYTES)
        return node(FIXED, _FIXED_BYTES[kind]) if kind in _FIXED_BYTES else node(VARINT)
