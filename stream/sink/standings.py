"""Draws conclusions from a database, writes them, and notes the rules that everything was counted by."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from stream.contracts.definitions import Definitions
from stream.results.columns import health_columns, history_columns, result_columns
from stream.results.rows import Standing
from stream.results.rules import Rules
from stream.results.standing import standing
from stream.sink.counted import counted
from stream.sink.queries import Database


class Rows(Protocol):
    """What we need of sink.writer.Writer."""

    def put_rows(self, table: str, columns: Mapping[str, Any], *, generation: int, version: Any) -> None:
        """Take rows that belong to no step."""
        ...


def read_standings(
    db: Database, definitions: Definitions, rules: Rules, names: Collection[str] | None = None
) -> list[Standing]:
    """How all experiments stand now, or those with these names, sorted by name."""
    rules = replace(rules, attribution_window_ms=definitions.attribution_window_ms)
    return [standing(definitions.experiment(one.experiment), one, rules) for one in counted(db, names)]


def put_standings(writer: Rows, standings: Iterable[Standing]) -> None:
    """Queue the rows of conclusions; those of a later reading replace them, whoever wrote which."""
    readings = defaultdict(list)
    for one in standings:
        readings[one.generation, one.version].append(one)
    for (generation, version), together in readings.items():
        rows = [row for one in together for row in one.results]
        tables = {
            "results": result_columns(rows),
            "results_history": history_columns(rows),
            "health": health_columns(one.health for one in together),
        }
        for name, columns in tables.items():
            writer.put_rows(name, columns, generation=generation, version=version)


def put_definitions(writer: Rows, definitions: Definitions, *, generation: int, now_ms: int) -> None:
    """Note the rules of a run that begins; those of the run that began last show."""
    columns = {"definitions": [definitions.to_json().decode()]}
    writer.put_rows("definitions", columns, generation=generation, version=now_ms)
