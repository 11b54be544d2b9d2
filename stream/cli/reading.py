"""Opens the database that a command reads: the configured one, or the embedded one in a folder."""

from pathlib import Path

from stream.local.database import open_database
from stream.settings import Settings
from stream.sink.queries import Database

CLICKHOUSE = "clickhouse"  # the embedded database's folder inside DIR
CHECKPOINTS = "checkpoints"  # the checkpoint store's


def opened(folder: Path | None) -> Database:
    """The database in `folder`, else that of LIFTSTREAM_CLICKHOUSE_URL. Use it in a `with`."""
    return open_database(folder / CLICKHOUSE if folder else Settings.load().clickhouse_url)
