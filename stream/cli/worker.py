"""`liftstream worker`: the process that counts."""

import click

from stream.app import run_worker
from stream.cli import SUMMARIES
from stream.settings import Settings


@click.command("worker", short_help=SUMMARIES["worker"])
@click.option(
    "--new-generation",
    is_flag=True,
    help="Start over from what the topics still hold; the views hide the old numbers.",
)
@click.option(
    "--arm",
    "is_armed",
    is_flag=True,
    help="Let decisions act: message, webhook, flag file. Without it they are only recorded.",
)
@click.pass_context
def command(ctx: click.Context, new_generation: bool, is_armed: bool) -> None:
    """Consume the topics and keep the database up to date, until stopped.

    Start several, on one or more machines, to share the partitions. SIGTERM and Ctrl-C stop it cleanly; after a crash
    it goes on where it was, and nothing is counted twice.
    """
    settings = Settings.load(armed=True) if is_armed else Settings.load()
    ctx.exit(run_worker(settings, new_generation=new_generation))
