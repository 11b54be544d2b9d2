import json
from pathlib import Path
from typing import Any

import pytest

from stream.contracts.versions import Version, incompatibilities, incompatible_versions, load_schemas
from stream.errors import ConfigurationError

AT = {"type": "long", "logicalType": "timestamp-millis"}


def a_schema(**fields: Any) -> dict[str, Any]:
    """Fields by name: a type, or a whole field's description."""
    listed = [
        {"name": name} | (kind if "default" in kind else {"type": kind}) for name, kind in fields.items()
    ]
    return {"type": "record", "name": "Event", "namespace": "liftstream", "fields": listed}


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        (a_schema(a="string"), a_schema(a="string")),
        (a_schema(a="string", b={"type": ["null", "string"], "default": None}), a_schema(a="string")),
        (a_schema(a="string"), a_schema(a="string", gone="int")),
        (a_schema(a="long"), a_schema(a="int")),
        (a_schema(a="double"), a_schema(a="long")),
        (a_schema(a=["null", "string"]), a_schema(a="string")),
        (a_schema(a=["null", "long"]), a_schema(a=["null", "int"])),
        (a_schema(a=AT), a_schema(a=AT | {"doc": "other words"})),
        (a_schema(new={"type": "int", "default": 0, "aliases": ["old"]}), a_schema(old="int")),
    ],
)
def test_a_newer_version_may_widen_and_add_with_a_default(
    reader: dict[str, Any], writer: dict[str, Any]
) -> None:
    assert incompatibilities(reader, writer) == []


@pytest.mark.parametrize(
    ("reader", "writer", "sentence"),
    [
        (a_schema(a="string", b="int"), a_schema(a="string"), "b is new and has no default"),
        (a_schema(a="int"), a_schema(a="long"), 'a was "long" and is "int"'),
        (a_schema(a="string"), a_schema(a=["null", "string"]), 'a was ["null", "string"] and is "string"'),
        (a_schema(a="string"), a_schema(a="int"), 'a was "int" and is "string"'),
        (a_schema(a="long"), a_schema(a=AT), "a was"),
        (a_schema() | {"name": "Other"}, a_schema(), "the record is called liftstream.Other"),
    ],
)
def test_what_a_newer_version_cannot_read_is_said(
    reader: dict[str, Any], writer: dict[str, Any], sentence: str
) -> None:
    (problem,) = incompatibilities(reader, writer)
    assert problem.startswith(sentence)


def test_every_pair_of_versions_is_checked() -> None:
    versions = tuple(
        Version("event", n, n, a_schema(a=kind)) for n, kind in enumerate(("int", "long", "int"), 1)
    )
    assert [problem.split(":")[0] for problem in incompatible_versions({"event": versions})] == [
        "event.v3 cannot read event.v2"
    ]


def a_folder(folder: Path, ids: dict[str, int], *files: str) -> Path:
    (folder / "ids.json").write_text(json.dumps(ids))
    for name in files:
        (folder / name).write_text(json.dumps(a_schema(a="int")))
    return folder


def test_versions_are_ordered_by_number(tmp_path: Path) -> None:
    ids = {"event.v10": 3, "event.v2": 2, "event.v1": 1}
    loaded = load_schemas(a_folder(tmp_path, ids, *(f"{label}.avsc" for label in ids)))
    assert [version.label for version in loaded["event"]] == ["event.v1", "event.v2", "event.v10"]


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [({}, "event.v1 must be both"), ({"event.v1": 1, "event.v2": 2}, "event.v2 must be both")],
)
def test_a_file_without_an_id_or_an_id_without_a_file_is_refused(
    tmp_path: Path, ids: dict[str, int], sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        load_schemas(a_folder(tmp_path, ids, "event.v1.avsc"))


def test_an_id_used_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="used twice"):
        load_schemas(a_folder(tmp_path, {"event.v1": 1, "event.v2": 1}, "event.v1.avsc", "event.v2.avsc"))
