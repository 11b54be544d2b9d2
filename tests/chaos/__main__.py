"""`make chaos`: real workers, a real broker and a real database, broken for as long as asked, and still exact."""

import json
import shutil
import signal
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.chaos.run import Plan, Report, run
from tests.services.tools import ServiceMissing

terminal = Console(stderr=True, highlight=False)


@click.command()
@click.option("--minutes", default=5.0, show_default=True, help="How long the storm lasts.")
@click.option("--seed", default=1, show_default=True, help="Decides traffic and faults.")
@click.option("--workers", default=3, show_default=True, help="Worker processes; more come and go.")
@click.option("--partitions", default=4, show_default=True, help="Of each topic.")
@click.option("--rate", default=500.0, show_default=True, help="Records a second.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Leave data and logs here.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def main(
    minutes: float, seed: int, workers: int, partitions: int, rate: float, keep: Path | None, as_json: bool
) -> None:
    """Break everything and compare with the oracle to the last unit; exit code 1 and the evidence if it differs."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = Plan(seed, minutes * 60, workers, partitions, rate)
    folder = keep or Path(tempfile.mkdtemp(prefix="liftstream-chaos-"))
    terminal.print(f"Seed {seed}. The faults, in seconds from the begin of the storm:")
    for act in plan.acts:
        terminal.print(f"  {act}", soft_wrap=True)
    try:
        report = run(plan, folder.absolute(), _tell)
    except ServiceMissing as why:
        raise click.ClickException(f"Chaos needs real services: {why}.") from None
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1))
    else:
        Console(highlight=False).print(_table(report))
    for sentence in [*report.notes, *(f"WRONG: {sentence}" for sentence in report.wrong)]:
        terminal.print(sentence, markup=False, soft_wrap=True)
    if not report.is_exact:
        terminal.print(
            f"Seed {seed} differs from the truth; logs, data and checkpoints are in {folder}.", soft_wrap=True
        )
    elif keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(0 if report.is_exact else 1)


def _tell(what: str) -> None:
    terminal.print(f"{time.strftime('%H:%M:%S')} {what}", markup=False, soft_wrap=True)


def _table(report: Report) -> Table:
    table = Table("what", "figure", show_header=False)
    table.add_row("result", "exact" if report.is_exact else "WRONG")
    table.add_row("events", f"{report.events:,}")
    table.add_row("faults", ", ".join(f"{name} {n}" for name, n in sorted(report.faults.items())))
    for name, figures in report.takeovers.items():
        table.add_row(
            f"seconds to the next step after {name}", ", ".join(f"{k} {v}" for k, v in figures.items())
        )
    table.add_row("replayed steps, at least", f"{report.replayed_steps:,}")
    table.add_row("looks during the run", f"{report.looks:,}")
    table.add_row("seconds to catch up", f"{report.drain_seconds:.1f}")
    return table


if __name__ == "__main__":
    main(prog_name="make chaos")
