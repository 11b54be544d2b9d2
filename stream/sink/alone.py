"""One process at a time may change a database's tables: many workers may start on an empty one at the same moment."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

_TABLE_EXISTS, _UNKNOWN_TABLE = 57, 60
_RETRY_SECONDS = 0.2
_ABANDONED_SECONDS = 30  # much longer than all migrations together


@contextmanager
def alone(client: Client) -> Iterator[None]:
    """Hold the database's lock, a table that only one can create; that of a process which died is put aside."""
    holder = uuid.uuid4().hex
    while not _is_taken(client, holder):
        time.sleep(_RETRY_SECONDS)
    try:
        yield
    finally:
        _release(client, holder)


def _is_taken(client: Client, holder: str) -> bool:
    create = f"CREATE TABLE migrating (nothing UInt8) ENGINE = Memory COMMENT '{holder}'"
    if _is_done(client, create, _TABLE_EXISTS):
        return True
    other, seconds_held = _lock(client)
    if seconds_held > _ABANDONED_SECONDS:
        # To a name that can be taken once: whoever comes late must not put aside the lock of who was quicker.
        _is_done(client, f"RENAME TABLE migrating TO migrating_{other}", _TABLE_EXISTS, _UNKNOWN_TABLE)
    return False


def _release(client: Client, holder: str) -> None:
    if _lock(client)[0] != holder:
        return  # it took so long that another has put it aside
    aside = (
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND startsWith(name, 'migrating_')"
    )
    for (table,) in client.query(aside).result_rows:
        client.command(f"DROP TABLE IF EXISTS {table}")
    client.command("DROP TABLE IF EXISTS migrating")


def _lock(client: Client) -> tuple[str, int]:
    """Who holds it, and for how many seconds."""
    rows = client.query(
        "SELECT comment, toUnixTimestamp(now()) - toUnixTimestamp(metadata_modification_time) FROM system.tables "
        "WHERE database = currentDatabase() AND name = 'migrating'"
    ).result_rows
    return (str(rows[0][0]), int(rows[0][1])) if rows else ("", 0)


def _is_done(client: Client, statement: str, *refusals: int) -> bool:
    """Execute it; False when the answer is one of these errors."""
    try:
        client.command(statement)
    except DatabaseError as error:
        if error.code not in refusals:
            raise
        return False
    return True
