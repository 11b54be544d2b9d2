"""`liftstream worker`: the process that counts."""

import click

from stream.app import run_worker
from stream.cli import SUMMARIES
from stream.settings import Settings


@click.command("worker", short_help=SUMMARIES["worker"])
@click.pass_context
def command(ctx: click.Context) -> None:
    """Consume the topics and keep the database up to date, until stopped.

    Start several, on one or more machines, to share the partitions. SIGTERM and Ctrl-C stop it cleanly; after a crash
    it goes on where it was, and nothing is counted twice.
    """
    ctx.exit(run_worker(Settings.load()))
