"""The writer's columns and the reference of the views against the real tables."""

import fnmatch
import re
from pathlib import Path

from stream.sink.queries import Database, sql
from stream.sink.tables import SHAPES

ENGINE = "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = {table:String}"
ARROW_OF = {"UInt32": "uint32", "UInt64": "uint64", "Int64": "int64", "Int128": "fixed_size_binary[16]"}


def test_every_column_the_writer_sends_is_a_column_of_its_table(db: Database) -> None:
    for shape in SHAPES.values():
        answer = db.query(
            "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {table:String}",
            {"table": shape.name},
        )
        columns = {str(name): str(kind) for name, kind in answer.rows}
        assert columns.keys() == set(shape.schema.names), shape.name
        for name, kind in columns.items():
            if kind in ARROW_OF:
                assert str(shape.schema.field(name).type) == ARROW_OF[kind], (shape.name, name)


def test_rows_are_told_apart_by_the_sorting_key_of_their_table(db: Database) -> None:
    for shape in SHAPES.values():
        answer = db.query(
            "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String} "
            "AND is_in_sorting_key",
            {"table": shape.name},
        )
        key = {name for (name,) in answer.rows}
        assert key | {"partition"} == set(shape.stored_key), shape.name


def test_the_reference_lists_every_view_with_its_columns_and_types(db: Database) -> None:
    text = Path("docs/sql.md").read_text("utf-8")
    documented = {
        view: re.findall(r"^\| (`[^|]+) \| ([^|]*?) ?\|", section, re.MULTILINE)
        for view, section in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    }
    steps_on_the_way = ("newest_", "largest_")
    views = {
        name
        for (name,) in db.query("SHOW TABLES").rows
        if db.query(ENGINE, {"table": name}).rows == [("View",)]
    }
    assert documented.keys() == {view for view in views if not view.startswith(steps_on_the_way)}
    for view, lines in documented.items():
        columns = {name: kind for name, kind, *_ in db.query(f"DESCRIBE {view}").rows}
        described = {}
        for names, kind in lines:
            for name in matching(names, columns):
                described.setdefault(name, kind or columns[name])
        assert described == columns, view


def matching(names: str, columns: dict[str, str]) -> list[str]:
    """The columns that a line of the reference is about: `a`, `b` are names, `*_sq` a pattern, `a` ... more like it."""
    found = []
    for name in re.findall(r"`([^`]+)`", names):
        pattern = re.sub(r"\d$", "*", name) if "..." in names else name
        found += fnmatch.filter(columns, pattern) or [name]
    return found


def test_the_examples_of_the_reference_run(db: Database) -> None:
    (examples,) = re.findall(r"```sql\n(.*?)```", Path("docs/sql.md").read_text("utf-8"), re.DOTALL)
    for example in filter(str.strip, examples.split(";\n")):
        sql(db, example)
