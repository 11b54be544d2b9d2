"""The Avro contracts of schemas/: numbered versions with fixed ids, and whose bytes a newer version can read."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import fastavro

from stream.contracts.registry import Registry
from stream.contracts.topics import Topic
from stream.errors import ConfigurationError

Schema = dict[str, Any]

SCHEMA_NAMES: dict[Topic, str] = {
    Topic.ASSIGNMENTS: "assignment",
    Topic.IMPRESSIONS: "impression",
    Topic.INTERACTIONS: "interaction",
}
_FILE = re.compile(r"(?P<name>[a-z]+)\.v(?P<version>[0-9]+)\.avsc")
# What a reader's type may read besides itself (Avro specification, schema resolution).
_PROMOTIONS = {
    "long": {"int"},
    "float": {"int", "long"},
    "double": {"int", "long", "float"},
    "string": {"bytes"},
    "bytes": {"string"},
}


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one contract as it stands in schemas/."""

    name: str
    number: int
    schema_id: int
    schema: Schema

    @property
    def label(self) -> str:
        """As in file names and ids.json: `impression.v1`."""
        return f"{self.name}.v{self.number}"


class Schemas:
    """Writer schemas by id: from the registry when there is one (its ids are its own), from schemas/ otherwise."""

    def __init__(self, registry: Registry | None = None) -> None:
        self._registry = registry
        self._known: dict[int, Schema] = {}
        self._parsed: dict[int, Any] = {}

    def resolve(self, schema_id: int) -> Schema | None:
        """The schema's JSON, or None when nobody knows the id. Raises Unavailable."""
        if schema_id not in self._known:
            found = self._registry.schema(schema_id) if self._registry else _local_by_id().get(schema_id)
            if found is None:
                return None
            self._known[schema_id] = found
        return self._known[schema_id]

    def parsed(self, schema_id: int) -> Any:
        """The schema as fastavro wants it, `at` as a plain number, or None. Raises Unavailable."""
        if schema_id not in self._parsed:
            schema = self.resolve(schema_id)
            if schema is None:
                return None
            self._parsed[schema_id] = fastavro.parse_schema(as_numbers(schema))
        return self._parsed[schema_id]


def schema_folder() -> Path:
    """Where the .avsc files are: inside the installed package, else at the top of the checkout."""
    packaged = Path(__file__).parent / "schemas"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "schemas"


def newest(topic: Topic) -> Version:
    """The version that events of `topic` are written and read with."""
    return local_schemas()[SCHEMA_NAMES[topic]][-1]


@cache
def local_schemas() -> dict[str, tuple[Version, ...]]:
    """The versions of each contract by name, oldest first."""
    return load_schemas(schema_folder())


def load_schemas(folder: Path) -> dict[str, tuple[Version, ...]]:
    """The versions in a folder by contract name, oldest first. Raises ConfigurationError when ids.json disagrees."""
    ids: dict[str, int] = json.loads((folder / "ids.json").read_text())
    files = {match["name"] + ".v" + match["version"]: path for path, match in _schema_files(folder)}
    if differing := sorted(ids.keys() ^ files.keys()):
        raise ConfigurationError(f"{folder}: {differing[0]} must be both a file and an entry of ids.json.")
    if len(set(ids.values())) != len(ids):
        raise ConfigurationError(f"{folder}/ids.json: an id is used twice; ids are never reused.")
    versions: dict[str, list[Version]] = {}
    for label, path in files.items():
        name, _, number = label.partition(".v")
        version = Version(name, int(number), ids[label], json.loads(path.read_text()))
        versions.setdefault(name, []).append(version)
    return {name: tuple(sorted(some, key=lambda v: v.number)) for name, some in sorted(versions.items())}


def _schema_files(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    for path in sorted(folder.glob("*.avsc")):
        if match := _FILE.fullmatch(path.name):
            yield path, match


@cache
def _local_by_id() -> dict[int, Schema]:
    return {version.schema_id: version.schema for some in local_schemas().values() for version in some}


def as_numbers(schema: Any) -> Any:
    """The schema without logical types, so that `at` stays a whole number of milliseconds both ways."""
    if isinstance(schema, dict):
        return {key: as_numbers(value) for key, value in schema.items() if key != "logicalType"}
    return [as_numbers(part) for part in schema] if isinstance(schema, list) else schema


def incompatible_versions(schemas: dict[str, tuple[Version, ...]]) -> list[str]:
    """One sentence for each reason why a version cannot read an earlier one; empty when all can."""
    return [
        f"{newer.label} cannot read {older.label}: {problem}"
        for versions in schemas.values()
        for position, newer in enumerate(versions)
        for older in versions[:position]
        for problem in incompatibilities(newer.schema, older.schema)
    ]


def incompatibilities(reader: Schema, writer: Schema) -> list[str]:
    """Why `reader` cannot read what `writer` wrote (Avro's backward compatibility of flat records); empty: it can."""
    if _full_name(reader) != _full_name(writer):
        return [f"the record is called {_full_name(reader)} instead of {_full_name(writer)}"]
    written = {field["name"]: field for field in writer["fields"]}
    problems = []
    for field in reader["fields"]:
        names = [field["name"], *field.get("aliases", [])]
        old = next((written[name] for name in names if name in written), None)
        if old is None and "default" not in field:
            problems.append(f"{field['name']} is new and has no default")
        elif old is not None and not _reads(field["type"], old["type"]):
            problems.append(
                f"{field['name']} was {json.dumps(old['type'])} and is {json.dumps(field['type'])}"
            )
    return problems


def _full_name(schema: Schema) -> str:
    return f"{schema.get('namespace', '')}.{schema['name']}"


def _reads(reader: Any, writer: Any) -> bool:
    if isinstance(writer, list):
        return all(_reads(reader, branch) for branch in writer)
    if isinstance(reader, list):
        return any(_reads(branch, writer) for branch in reader)
    if _logical(reader) != _logical(writer):
        return False
    reader, writer = _plain(reader), _plain(writer)
    return bool(reader == writer or (isinstance(reader, str) and writer in _PROMOTIONS.get(reader, ())))


def _logical(kind: Any) -> str | None:
    return kind.get("logicalType") if isinstance(kind, dict) else None


def _plain(kind: Any) -> Any:
    """{"type": "long", ...} means "long"; records, enums and the like stay as they are and must be equal."""
    return kind["type"] if isinstance(kind, dict) and set(kind) <= {"type", "logicalType", "doc"} else kind
