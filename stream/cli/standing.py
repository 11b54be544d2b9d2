"""How experiments stand, computed when a command asks, from the database that it names."""

from pathlib import Path

from stream.contracts.definitions import Definitions, load_experiments
from stream.errors import ConfigurationError
from stream.results.rows import Standing
from stream.settings import Settings
from stream.sink.counted import definitions
from stream.sink.queries import Database, experiments
from stream.sink.standings import read_standings


def standings_of(db: Database, folder: Path | None, experiment: str | None) -> list[Standing]:
    """Of all experiments or of the one named. folder: of experiment files; None: the rules they were counted by.

    Raises ConfigurationError when there are experiments but none of that name.
    """
    settings = Settings.load()
    names = None if experiment is None else [experiment]
    found = read_standings(db, _rules_of(db, settings, folder), settings.rules(), names)
    found = [standing for standing in found if standing.results]
    if experiment is not None and not found and (known := experiments(db)):
        raise ConfigurationError(
            f"There are no results of an experiment {experiment!r}: known are {', '.join(known)}."
        )
    return found


def _rules_of(db: Database, settings: Settings, folder: Path | None) -> Definitions:
    found = definitions(db) or settings.definitions()
    if folder is None:
        return found
    return found.model_copy(update={"experiments": load_experiments(folder)})
