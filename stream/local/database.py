"""Opens a database for questions, wherever it is and whoever owns it."""

import logging
from pathlib import Path

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from stream.errors import ConfigurationError, DirectoryInUse
from stream.local.query_server import USER, Address
from stream.sink.connect import DEFAULT_DATABASE, connect, embedded_path
from stream.sink.queries import Database


def open_database(place: str | Path, *, timeout_seconds: float = 20.0) -> Database:
    """Open for reading the database of a URL or, embedded, of a directory.

    When another process owns the directory, that process is asked instead.
    Raises ConfigurationError (no database there, bad URL, wrong password), Unavailable, or DirectoryInUse when the
    owner answers no questions.
    """
    url = str(place) if "://" in str(place) else f"chdb://{Path(place).expanduser().resolve()}"
    try:
        connection = connect(url, create=False, timeout_seconds=timeout_seconds)
    except DirectoryInUse:
        owned = ask_owner(embedded_path(url))
        if owned is None:
            raise
        db, where = owned, url
    else:
        db, where = Database(connection.read_only_client(), connection.close), connection.where
    tables = db.query(
        "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'arm_totals'"
    )
    if not tables.rows[0][0]:
        db.close()
        raise ConfigurationError(
            f"The database at {where} has no liftstream tables yet: run a worker, a backfill or "
            "`liftstream migrate` first."
        )
    return db


def ask_owner(directory: Path) -> Database | None:
    """The database in `directory` through the process that owns it; None when none answers. Never opens it itself."""
    client = _owner_of(directory)
    return Database(client, _nothing) if client else None


def _owner_of(directory: Path) -> Client | None:
    address = Address.of(directory)
    if address is None:
        return None
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())  # its errors are raised as well
    try:
        return clickhouse_connect.get_client(
            host=address.host,
            port=address.port,
            username=USER,
            password=address.token,
            database=DEFAULT_DATABASE,
            autogenerate_session_id=False,
            connect_timeout=5,
        )
    except ClickHouseError:  # the file of an earlier owner
        return None


def _nothing() -> None:
    """The owner keeps the directory."""
