"""The `liftstream` command. One file per command; none is imported before it is run."""

import difflib
import importlib
import os
import signal

import click

from stream import heap
from stream.errors import LiftstreamError

# Name, as it is typed, and summary. The command is `command` in stream/cli/<name>.py; a test compares the summaries.
SUMMARIES = {
    "demo": "Replay a real sample through an embedded broker, a worker and a database.",
    "worker": "Consume the topics and keep the database up to date.",
    "send": "Check the events of a file and send them to the broker.",
    "simulate": "Make traffic with known true rates.",
    "backfill": "Count the events of files, without a broker.",
    "results": "Show how every arm does against its control.",
    "health": "Show whether experiments can be trusted.",
    "stats": "Compare arms, from sums over users in a file.",
    "status": "Show how far each partition is and how old the numbers are.",
    "ledger": "Show what became of every event.",
    "sql": "Run one read-only query.",
    "experiments": "Check, plan and decide about experiments.",
    "decisions": "Show what was decided, and why.",
    "migrate": "Create or update the database and the topics.",
    "doctor": "Check that everything a worker needs is there.",
}


class Failure(click.ClickException):
    """A LiftstreamError on its way to the terminal: one line, exit code 1."""

    def show(self, file: object = None) -> None:
        """Print the line to standard error."""
        click.echo(f"liftstream: {self.message}", err=True)


class Commands(click.Group):
    """A group that imports a command's module when the command is run, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of SUMMARIES."""
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in SUMMARIES:
            return None
        command: click.Command = importlib.import_module(f"stream.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; an unknown command names the nearest known one."""
        if args and args[0] not in SUMMARIES and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], SUMMARIES, n=1)
            hint = f"Did you mean {near[0]}?" if near else "liftstream --help lists them."
            ctx.fail(f"There is no command {args[0]}. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from SUMMARIES."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what we raise on purpose becomes one line."""
        answer_sigterm()
        heap.use_again()
        try:
            return super().invoke(ctx)
        except LiftstreamError as error:
            raise Failure(str(error)) from None


def answer_sigterm() -> None:
    """End when told to while the imports go on: a container's first process hears no signal without a handler."""
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="liftstream")
def main() -> None:
    """Live CTR, conversion and revenue of recommendation experiments: Kafka in, ClickHouse out.

    Settings are read from liftstream.toml and LIFTSTREAM_* environment variables.
    """
