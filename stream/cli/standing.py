"""How experiments stand, computed when a command asks, from the database that it names."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stream.contracts.definitions import Definitions, load_experiments
from stream.results.rows import Result, Standing
from stream.settings import Settings
from stream.sink.counted import definitions
from stream.sink.queries import Database
from stream.sink.standings import read_standings

Row = dict[str, Any]


def standings_of(db: Database, folder: Path | None, experiment: str | None) -> list[Standing]:
    """Of all experiments or of the one named. folder: of experiment files; None: the rules they were counted by."""
    settings = Settings.load()
    names = None if experiment is None else [experiment]
    return read_standings(db, _rules_of(db, settings, folder), settings.rules(), names)


def _rules_of(db: Database, settings: Settings, folder: Path | None) -> Definitions:
    found = definitions(db) or settings.definitions()
    if folder is None:
        return found
    return found.model_copy(update={"experiments": load_experiments(folder)})


def result_row(result: Result) -> Row:
    """A result as JSON has it: times in ISO 8601, and what may be said."""
    row = asdict(result) | {"direction": result.direction}
    return {name.removesuffix("_ms") if name in _TIMES else name: _plain(name, row[name]) for name in row}


def moment(at_ms: int | None) -> datetime | None:
    """Epoch milliseconds as a time."""
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)


_TIMES = {"since_ms", "as_of_ms"}


def _plain(name: str, value: Any) -> Any:
    return moment(value) if name in _TIMES else value
