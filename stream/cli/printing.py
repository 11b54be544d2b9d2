"""What commands print: tables for people, JSON for programs, progress on standard error."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

Row = Mapping[str, Any]


def note(text: str) -> None:
    """One line to standard error."""
    click.echo(text, err=True)


def print_json(value: Any) -> None:
    """To standard output; times in ISO 8601, NaN and infinities as null, whatever else JSON does not know as text."""
    click.echo(json.dumps(_finite(value), indent=2, default=_as_text, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {key: _finite(part) for key, part in value.items()}
        case list() | tuple():
            return [_finite(part) for part in value]
        case _:
            return value


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, (date, datetime)) else str(value)


def print_table(rows: Sequence[Row], columns: Iterable[str], *, title: str = "") -> None:
    """A table to standard output; without a terminal it is as wide as it needs to be."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=1_000)
    console.print(table_of(rows, columns, title=title))


def table_of(rows: Sequence[Row], columns: Iterable[str], *, title: str = "") -> Table:
    """Rows as a rich table: numbers to the right, no value as a dash."""
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name in columns:
        values = [row.get(name) for row in rows]
        number = all(isinstance(value, (int, float, type(None))) for value in values)
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(shown(row.get(name)) for name in table_columns(table)))
    return table


def table_columns(table: Table) -> list[str]:
    """The names of a table's columns."""
    return [str(column.header) for column in table.columns]


def shown(value: Any) -> str:
    """A value for people: 10,000; 0.0046; yes; 2026-11-22 06:31:39; a dash for none."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.4g}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case _:
            return str(value)


def progress() -> Progress:
    """A progress bar on standard error; nothing where that is not a terminal. Use it in a `with`."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
