"""`liftstream doctor`: is everything there that a worker needs?"""

from dataclasses import asdict

import click

from stream.cli import SUMMARIES, options
from stream.cli.checks import Load, findings
from stream.cli.printing import print_json, print_table


@click.command("doctor", short_help=SUMMARIES["doctor"])
@options.as_json
@click.option(
    "--impressions", default=100.0, show_default=True, help="Expected impressions a second, for the memory."
)
@click.option("--interactions", default=10.0, show_default=True, help="Expected interactions a second.")
@click.option(
    "--users", default=1_000_000, show_default=True, help="Expected users, each counted once per experiment."
)
@click.pass_context
def command(ctx: click.Context, as_json: bool, impressions: float, interactions: float, users: int) -> None:
    """Check Python, packages, settings, broker, topics, ClickHouse, clocks, checkpoint store and memory.

    Each line says ok or what to do. The exit code is 1 if there is a problem.
    """
    found = list(findings(Load(impressions, interactions, users)))
    if as_json:
        print_json([asdict(finding) | {"ok": finding.is_ok} for finding in found])
    else:
        rows = [
            {"": "ok" if f.is_ok else "PROBLEM", "check": f.check, "found": f.found, "what to do": f.advice}
            for f in found
        ]
        print_table(rows, rows[0])
    ctx.exit(0 if all(finding.is_ok for finding in found) else 1)
