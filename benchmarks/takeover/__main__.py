"""`make takeover`: how long partitions stand still when workers die, stop, return, come and go."""

import json
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.services import services
from benchmarks.takeover.measure import KINDS, measure
from benchmarks.takeover.traffic import USERS
from tests.services.tools import ServiceMissing

BUDGETS = {  # seconds
    "killed": 10.0,
    "handed over": 3.0,
    "restarted after SIGKILL": 6.0,
    "restarted after SIGTERM": 6.0,
}
terminal = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Figure:
    """One kind's measurements in seconds; the budget is for p95."""

    kind: str
    n: int
    p50: float
    p95: float
    max: float
    budget: float | None

    @classmethod
    def of(cls, kind: str, seconds: Sequence[float]) -> "Figure":
        """From at least one measurement."""
        ordered = sorted(seconds)
        p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
        return cls(kind, len(ordered), statistics.median(ordered), p95, ordered[-1], BUDGETS.get(kind))

    @property
    def is_kept(self) -> bool:
        """Whether the budget is, if there is one."""
        return self.budget is None or self.p95 <= self.budget


@click.command()
@click.option("--rounds", default=3, show_default=True, help="How often each kind is measured.")
@click.option("--per-second", default=400, show_default=True, help="Events of the traffic.")
@click.option("--users", default=USERS, show_default=True, help="Whose state is taken over.")
@click.option("--only", multiple=True, type=click.Choice(KINDS), help="Leave the other kinds out.")
@click.option("--logs", type=click.Path(path_type=Path), help="Leave the workers' logs in this folder.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def main(
    rounds: int, per_second: int, users: int, only: tuple[str, ...], logs: Path | None, as_json: bool
) -> None:
    """Measure takeovers with default settings on real Kafka and ClickHouse, and check the count."""
    found: dict[str, list[float]] = {}
    wrong = ["The measurement was interrupted, so nothing was compared."]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started
    try:
        with services() as running, tempfile.TemporaryDirectory() as folder:
            logs = logs or Path(folder)
            logs.mkdir(parents=True, exist_ok=True)
            wrong = measure(
                running, logs, found, rounds=rounds, per_second=per_second, users=users, kinds=only or KINDS
            )
    except KeyboardInterrupt:
        pass
    except ServiceMissing as why:
        raise click.ClickException(f"The measurement needs real services: {why}.") from None
    figures = [Figure.of(kind, seconds) for kind, seconds in sorted(found.items()) if seconds]
    if as_json:
        click.echo(json.dumps({"figures": [asdict(figure) for figure in figures], "wrong": wrong}))
    else:
        Console().print(_table(figures))
    for sentence in wrong:
        terminal.print(f"wrong: {sentence}", highlight=False)
    sys.exit(1 if wrong or not all(figure.is_kept for figure in figures) else 0)


def _table(figures: Sequence[Figure]) -> Table:
    table = Table("kind", "n", "p50", "p95", "max", "budget")
    for figure in figures:
        seconds = (f"{value:.1f}" for value in (figure.p50, figure.p95, figure.max))
        budget = "-" if figure.budget is None else f"{figure.budget:g}{'' if figure.is_kept else ' MISSED'}"
        table.add_row(figure.kind, str(figure.n), *seconds, budget)
    return table


if __name__ == "__main__":
    main(prog_name="make takeover")
