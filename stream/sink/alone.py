"""One process at a time may change a database's tables: many workers may start on an empty one at the same moment."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

_TABLE_EXISTS = 57
_RETRY_SECONDS = 0.2
_ABANDONED_SECONDS = 30  # much longer than all migrations together


@contextmanager
def alone(client: Client) -> Iterator[None]:
    """Hold the database's lock, a table that only one can create; that of a process which died is removed."""
    while not _locked(client):
        time.sleep(_RETRY_SECONDS)
    try:
        yield
    finally:
        client.command("DROP TABLE IF EXISTS migrating")


def _locked(client: Client) -> bool:
    try:
        client.command("CREATE TABLE migrating (nothing UInt8) ENGINE = Memory")
    except DatabaseError as error:
        if error.code != _TABLE_EXISTS:
            raise
        if _seconds_held(client) > _ABANDONED_SECONDS:
            client.command("DROP TABLE IF EXISTS migrating")
        return False
    return True


def _seconds_held(client: Client) -> int:
    rows = client.query(
        "SELECT toUnixTimestamp(now()) - toUnixTimestamp(metadata_modification_time) FROM system.tables "
        "WHERE database = currentDatabase() AND name = 'migrating'"
    ).result_rows
    return int(rows[0][0]) if rows else 0
