"""Brings the tables and views of a database up to date with the numbered SQL files in migrations/."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template

from clickhouse_connect.driver.client import Client

from stream.errors import ConfigurationError
from stream.sink.alone import alone

_APPLIED = """
CREATE TABLE IF NOT EXISTS migrations ${on_cluster}
(
    number     UInt32,
    name       String,
    checksum   String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    version    UInt64 DEFAULT 0
)
ENGINE = ${engine}(version)
ORDER BY number
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file; files are only ever added, never changed."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """Of the file before its variables are filled in."""
        return hashlib.blake2b(self.sql.encode(), digest_size=16).hexdigest()


def migrations() -> tuple[Migration, ...]:
    """All files of migrations/, in order."""
    folder = files("stream.sink").joinpath("migrations")
    names = sorted(f.name for f in folder.iterdir() if f.name.endswith(".sql"))
    return tuple(
        Migration(int(n[:4]), n.removesuffix(".sql"), folder.joinpath(n).read_text("utf-8")) for n in names
    )


def migrate(
    client: Client, *, cluster: str | None = None, known: Sequence[Migration] | None = None
) -> tuple[Migration, ...]:
    """Apply what is missing to the client's database and return it; applying twice changes nothing.

    cluster: create replicated tables on this cluster; its servers need the macros of
        `default_replica_path` (ClickHouse's own defaults fit).
    Raises ConfigurationError when the database was migrated by a newer liftstream or by changed files.
    """
    known = migrations() if known is None else known
    _execute(client, _APPLIED, cluster)
    if not _missing(client, known):
        return ()
    with alone(client):
        missing = _missing(client, known)
        for migration in missing:
            _apply(client, migration, cluster)
    return missing


def _missing(client: Client, known: Sequence[Migration]) -> tuple[Migration, ...]:
    rows = client.query("SELECT number, name, checksum FROM migrations FINAL").result_rows
    applied = {number: (name, checksum) for number, name, checksum in rows}
    _check(applied, known)
    return tuple(m for m in known if m.number not in applied)


def _apply(client: Client, migration: Migration, cluster: str | None) -> None:
    _execute(client, migration.sql, cluster)
    client.command(
        "INSERT INTO migrations (number, name, checksum) SELECT {number:UInt32}, {name:String}, {checksum:String}",
        parameters={"number": migration.number, "name": migration.name, "checksum": migration.checksum},
    )


def _check(applied: dict[int, tuple[str, str]], known: Sequence[Migration]) -> None:
    newest = max((m.number for m in known), default=0)
    newer = sorted(name for number, (name, _) in applied.items() if number > newest)
    if newer:
        raise ConfigurationError(
            f"The database was migrated by a newer liftstream ({newer[-1]}); this one knows migrations up to "
            f"{newest:04}: upgrade liftstream."
        )
    for migration in known:
        if migration.number in applied and applied[migration.number][1] != migration.checksum:
            raise ConfigurationError(
                f"Migration {migration.name} was applied to this database from a different file; use the liftstream "
                "that created the database, or an empty database."
            )


def _execute(client: Client, sql: str, cluster: str | None) -> None:
    quoted = (cluster or "").replace("\\", "\\\\").replace("'", "\\'")
    filled = Template(sql).substitute(
        engine="ReplicatedReplacingMergeTree" if cluster else "ReplacingMergeTree",
        on_cluster=f"ON CLUSTER '{quoted}'" if cluster else "",
    )
    for statement in filled.split(";\n"):
        if statement.strip():
            client.command(statement.strip().removesuffix(";"))
