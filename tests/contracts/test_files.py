import gzip
import json
import tracemalloc
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream.contracts.files import MAX_LINE_BYTES, BadRecord, read_events
from stream.contracts.models import Event, Interaction
from stream.contracts.reasons import Reason
from stream.contracts.topics import Topic
from stream.contracts.versions import newest
from stream.errors import ConfigurationError
from tests.contracts.makers import AT_MS, an_interaction

MOMENT = datetime.fromtimestamp(AT_MS / 1000, UTC)


def as_lines(rows: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def write_jsonl(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (path := folder / "events.jsonl").write_bytes(as_lines(rows))
    return path


def write_gzip(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (path := folder / "events.jsonl.gz").write_bytes(gzip.compress(as_lines(rows)))
    return path


def write_avro(folder: Path, rows: list[dict[str, Any]]) -> Path:
    with (path := folder / "events.avro").open("wb") as file:
        fastavro.writer(file, newest(Topic.INTERACTIONS).schema, rows, codec="deflate", sync_interval=200)
    return path


def write_parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path := folder / "events.parquet", row_group_size=2)
    return path


WRITERS = [write_jsonl, write_gzip, write_avro, write_parquet]
Writer = Callable[[Path, list[dict[str, Any]]], Path]


def read(path: Path) -> list[Event | BadRecord]:
    return list(read_events(path, Topic.INTERACTIONS))


def an_interaction_event(**changes: Any) -> Interaction:
    return Interaction.model_validate(an_interaction(**changes))


@pytest.mark.parametrize("write", WRITERS)
def test_events_come_in_the_file_s_order(tmp_path: Path, write: Writer) -> None:
    rows = [an_interaction(event_id=f"c-{n}", item_id="ü" if n % 2 else None) for n in range(50)]
    assert read(write(tmp_path, rows)) == [Interaction.model_validate(row) for row in rows]


@pytest.mark.parametrize("write", WRITERS)
def test_one_bad_record_does_not_stop_the_rest(tmp_path: Path, write: Writer) -> None:
    rows = [an_interaction(event_id=f"c-{n}", value_minor=10**13 if n == 2 else n) for n in range(5)]
    path = write(tmp_path, rows)
    found = read(path)
    bad = found.pop(2)
    assert found == [Interaction.model_validate(row) for n, row in enumerate(rows) if n != 2]
    assert isinstance(bad, BadRecord)
    assert (bad.path, bad.line, bad.field, bad.reason) == (path, 3, "value_minor", Reason.OUT_OF_RANGE)
    assert bad.rule == "must be at most 1000000000000 (got 10000000000000)"
    assert str(bad) == f"{path}, line 3: value_minor {bad.rule}"
    assert json.loads(bad.raw)["event_id"] == "c-2"


@pytest.mark.parametrize(
    ("line", "field", "rule"),
    [
        (b'{"event_id": "x"', "", "the record is not valid JSON"),
        (b"[1, 2]", "", "the record must be an object of fields"),
        (b"\x00\xff\xfe", "", "the record is not valid JSON"),
        (as_lines([{"event_id": "x", "at": 1, "user_id": "u"}])[:-1], "kind", "is required"),
        (as_lines([an_interaction(value_minor="5")])[:-1], "value_minor", "must be a whole number (got '5')"),
        (as_lines([an_interaction(position=5)])[:-1], "position", "is not a field of this event (got 5)"),
    ],
)
def test_a_bad_line_names_line_field_rule_and_holds_its_bytes(
    tmp_path: Path, line: bytes, field: str, rule: str
) -> None:
    good = as_lines([an_interaction()])
    (path := tmp_path / "e.jsonl").write_bytes(good + b"\n \r\n" + line + b"\r\n" + good)
    first, bad, last = read(path)
    assert first == last == an_interaction_event()
    assert isinstance(bad, BadRecord)
    assert (bad.line, bad.field, bad.raw) == (4, field, line)
    assert bad.rule.startswith(rule)


def test_lines_may_end_in_crlf_begin_with_a_byte_order_mark_and_lack_the_last_end(tmp_path: Path) -> None:
    line = as_lines([an_interaction()])[:-1]
    (path := tmp_path / "e.ndjson").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n" + line)
    assert read(path) == [an_interaction_event()] * 2


def test_a_line_without_end_is_bad_and_does_not_fill_the_memory(tmp_path: Path) -> None:
    with (path := tmp_path / "e.jsonl").open("wb") as file:
        for _ in range(64):
            file.write(b"x" * MAX_LINE_BYTES)
        file.write(b"\n" + as_lines([an_interaction()]))
    tracemalloc.start()
    bad, good = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert good == an_interaction_event()
    assert isinstance(bad, BadRecord)
    assert (bad.line, bad.reason, len(bad.raw)) == (1, Reason.TOO_LONG, MAX_LINE_BYTES)
    assert peak < 8 * MAX_LINE_BYTES


def test_a_line_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    line = as_lines([an_interaction()])[:-1]
    padded = line + b" " * (MAX_LINE_BYTES - len(line) - 1) + b"\n"
    (path := tmp_path / "e.jsonl").write_bytes(padded + padded)
    assert read(path) == [an_interaction_event()] * 2


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Warsaw"])
def test_parquet_timestamps_of_any_unit_and_zone_are_the_same_moment(
    tmp_path: Path, unit: str, zone: str | None
) -> None:
    rows = pa.Table.from_pylist([an_interaction()])
    at = pa.array([AT_MS], pa.int64()).cast(pa.timestamp("ms")).cast(pa.timestamp(unit))
    at = at.cast(pa.timestamp(unit, zone)) if zone else at
    pq.write_table(
        rows.set_column(rows.schema.get_field_index("at"), "at", at), path := tmp_path / "e.parquet"
    )
    assert read(path) == [an_interaction_event()]


def test_parquet_timestamps_lose_what_is_finer_than_a_millisecond(tmp_path: Path) -> None:
    rows = pa.Table.from_pylist([an_interaction()])
    at = pa.array([AT_MS * 1_000_000 + 999_999]).cast(pa.timestamp("ns", "UTC"))
    pq.write_table(
        rows.set_column(rows.schema.get_field_index("at"), "at", at), path := tmp_path / "e.parquet"
    )
    assert read(path) == [an_interaction_event()]


def test_parquet_dictionaries_and_columns_of_nulls_are_read(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([an_interaction(), an_interaction()])
    kind = table["kind"].dictionary_encode()
    table = table.set_column(table.schema.get_field_index("kind"), "kind", kind)
    table = table.append_column("item_id", pa.nulls(2)).append_column("currency", pa.nulls(2, pa.string()))
    pq.write_table(table, path := tmp_path / "e.parquet")
    assert read(path) == [an_interaction_event()] * 2


def test_an_unknown_parquet_column_is_named_in_every_record(tmp_path: Path) -> None:
    found = read(write_parquet(tmp_path, [an_interaction(klicks=1)] * 3))
    assert [(bad.line, bad.field) for bad in found if isinstance(bad, BadRecord)] == [
        (n, "klicks") for n in (1, 2, 3)
    ]


def test_an_avro_schema_of_one_s_own_works_when_the_fields_fit(tmp_path: Path) -> None:
    micros = {"type": "long", "logicalType": "timestamp-micros"}
    fields = [
        {"name": "at", "type": micros},
        *({"name": n, "type": "string"} for n in ("event_id", "user_id", "kind")),
    ]
    with (path := tmp_path / "e.avro").open("wb") as file:
        fastavro.writer(
            file,
            {"type": "record", "name": "Own", "fields": fields},
            [an_interaction(at=MOMENT)],
            codec="null",
        )
    assert read(path) == [an_interaction_event()]


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_cut_short_gives_what_can_be_read_and_says_where_it_ends(
    tmp_path: Path, write: Writer
) -> None:
    path = write(tmp_path, [an_interaction(event_id=f"c-{n}" * 20) for n in range(200)])
    whole = path.read_bytes()
    if write is write_parquet:  # the footer is at the end, so the damage is made in the middle
        path.write_bytes(whole[:8000] + bytes(2000) + whole[10_000:])
    else:
        path.write_bytes(whole[: len(whole) // 2])
    *found, bad = read(path)
    assert isinstance(bad, BadRecord)
    assert bad.line == len(found) + 1
    assert write is write_jsonl or "damaged from here on" in bad.rule
    assert all(isinstance(event, Interaction) for event in found)


@pytest.mark.parametrize("name", ["e.csv", "e", "e.gz", "e.csv.gz", "e.jsonl.zip"])
def test_a_file_of_an_unknown_kind_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"is of an unknown kind; name it \.jsonl"):
        read_events(tmp_path / name, Topic.INTERACTIONS)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing.jsonl", "cannot be read: No such file or directory"),
        ("folder.jsonl", "cannot be read: Is a directory"),
        ("text.jsonl.gz", "is not a gzip file"),
        ("text.avro", "is not an Avro object container"),
        ("text.parquet", "is not a Parquet file"),
        ("empty.avro", "is not an Avro object container"),
        ("empty.parquet", "is not a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_at_the_call(tmp_path: Path, name: str, sentence: str) -> None:
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    elif not name.startswith("missing"):
        (tmp_path / name).write_text("plain text" * 10 if name.startswith("text") else "")
    with pytest.raises(ConfigurationError, match=sentence):
        read_events(tmp_path / name, Topic.INTERACTIONS)


def test_an_empty_file_has_no_events(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").touch()
    assert read(tmp_path / "e.jsonl") == []
