"""`liftstream doctor`: is everything there that a worker needs?"""

from dataclasses import asdict

import click
from rich.console import Console

from stream.cli import SUMMARIES, options
from stream.cli.checks import findings
from stream.cli.printing import print_json, print_table


@click.command("doctor", short_help=SUMMARIES["doctor"])
@options.as_json
@click.option(
    "--impressions", type=options.Finite(min=0), help="Expected impressions a second, for the memory."
)
@click.option("--interactions", type=options.Finite(min=0), help="Expected interactions a second.")
@click.option("--users", type=click.IntRange(min=0), help="Expected users, each counted once per experiment.")
@click.pass_context
def command(
    ctx: click.Context,
    as_json: bool,
    impressions: float | None,
    interactions: float | None,
    users: int | None,
) -> None:
    """Check Python, packages, settings, broker, topics, ClickHouse, clocks, checkpoint store and memory.

    Each line says ok or what to do. The exit code is 1 if there is a problem. Memory is computed for the traffic that
    is said, else for the busiest hour that was counted, else for 100 impressions and 10 interactions a second and a
    million users.
    """
    said = {
        "impressions_per_second": impressions,
        "interactions_per_second": interactions,
        "user_experiments": users,
    }
    with Console(stderr=True).status("looking; what is away is waited for"):
        found = list(findings({name: value for name, value in said.items() if value is not None}))
    if as_json:
        print_json([asdict(finding) | {"ok": finding.is_ok} for finding in found])
    else:
        rows = [
            {"": "ok" if f.is_ok else "PROBLEM", "check": f.check, "found": f.found, "what to do": f.advice}
            for f in found
        ]
        print_table(rows, rows[0])
    ctx.exit(0 if all(finding.is_ok for finding in found) else 1)
