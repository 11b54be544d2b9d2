"""`liftstream migrate`: the database and the topics."""

import click

from stream.cli import SUMMARIES
from stream.cli.printing import note
from stream.settings import Settings
from stream.sink.connect import connect
from stream.sink.migrate import migrate
from stream.topics import create_topics


@click.command("migrate", short_help=SUMMARIES["migrate"])
@click.option("--cluster", help="Create replicated tables on this ClickHouse cluster.")
@click.option("--topics/--no-topics", default=True, help="Also create the topics that are missing (default).")
def command(cluster: str | None, topics: bool) -> None:
    """Create the database's tables and views, or bring them up to date, and create the topics that are missing.

    A second run changes nothing.
    """
    settings = Settings.load()
    with connect(settings.clickhouse_url) as connection:
        applied = connection.ask(lambda client: migrate(client, cluster=cluster))
    note(_said("migration applied", [migration.name for migration in applied], "The database is up to date."))
    if topics:
        note(_said("topic created", create_topics(settings), "All topics are there."))


def _said(what: str, names: tuple[str, ...] | list[str], otherwise: str) -> str:
    return f"{what}: {', '.join(names)}".capitalize() if names else otherwise
