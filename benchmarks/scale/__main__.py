"""`make scale`: CPU per event, bytes, pauses and restores as the state grows, next to what the project promises."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.scale.point import Size

MILLION = 1_000_000
SIZES = (
    Size(users=MILLION // 10, events=MILLION),
    Size(users=MILLION, events=5 * MILLION),
    Size(users=5 * MILLION, events=50 * MILLION),
    Size(users=10 * MILLION, events=50 * MILLION),
)
OTHER_STAGES_US = 1.0  # of a worker beside its engine, the same at every size: `make bench` less its engine
# What is promised.
MOST_GROWTH = 1.15
MOST_STEADY_MB, MOST_PEAK_MB = 6 * 1024, 7 * 1024  # at 5 million users
MOST_PAUSE_MS = 200
MOST_RESTORE_SECONDS = 30.0  # of 10 million users
terminal = Console(stderr=True)

Point = dict[str, Any]


@click.command()
@click.option("--users", multiple=True, type=float, help="Only these sizes, in millions of users.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def main(users: Sequence[float], as_json: bool) -> None:
    """Fill engines, one size after the other, each in a process of its own. The largest needs 12 GB."""
    sizes = [size for size in SIZES if not users or size.users / MILLION in users]
    if not sizes:
        known = ", ".join(f"{size.users / MILLION:g}" for size in SIZES)
        raise click.UsageError(f"no such size; there are: {known}")
    points = []
    for size in sizes:
        with terminal.status(f"{size.users:,} users, {size.events:,} events"):
            points.append(measure(size))
    report = {"points": points, "growth": growth(points), "missed": missed(points)}
    if as_json:
        click.echo(json.dumps(report))
    else:
        Console().print(table(points))
        for sentence in report["missed"]:
            Console().print(f"missed: {sentence}", highlight=False)


def measure(size: Size) -> Point:
    """Of a process that counts and stores, and of another that loads."""
    with tempfile.TemporaryDirectory(prefix="liftstream-scale-") as folder:
        point: Point = {}
        for do in ("count", "restore"):
            command = [sys.executable, "-m", "benchmarks.scale.point", do, folder, json.dumps(asdict(size))]
            point |= json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        return point


def growth(points: Sequence[Point]) -> float:
    """How much more the whole worker costs per event at the costliest size than at the first one."""
    costs = [point["engine_us_per_event"] + OTHER_STAGES_US for point in points]
    return round(max(costs) / costs[0], 2)


def missed(points: Sequence[Point]) -> list[str]:
    """The promises that do not hold, one sentence each."""
    return [sentence for sentence in _complaints(points) if sentence]


def _complaints(points: Sequence[Point]) -> list[str]:
    found = [_above("growth of CPU per event", growth(points), MOST_GROWTH)]
    for point in points:
        at = f"at {point['users'] / MILLION:g} million users"
        if point["users"] <= 5 * MILLION:
            found.append(_above(f"steady memory {at}, MB", point["steady_rss_mb"], MOST_STEADY_MB))
            found.append(_above(f"peak memory {at}, MB", point["peak_rss_mb"], MOST_PEAK_MB))
        found.append(_above(f"restore {at}, s", point["restore_s"], MOST_RESTORE_SECONDS))
        found.append(_above(f"pause of a snapshot {at}, CPU ms", pause_ms(point), MOST_PAUSE_MS))
    return found


def _above(what: str, value: float, most: float) -> str:
    return f"{what}: {value:g}, at most {most:g}" if value > most else ""


def pause_ms(point: Point) -> int:
    """The longest time for which a snapshot kept the step loop from its work; CPU, for the machine may be busy."""
    return max(
        int(point[which][f"longest_{what}_cpu_ms"])
        for which in ("first_snapshot", "next_snapshot")
        for what in ("copy", "write")
    )


def table(points: Sequence[Point]) -> Table:
    """A column for each size."""
    heads = [
        f"{point['users'] / MILLION:g} M users, {point['events'] / MILLION:g} M events" for point in points
    ]
    shown = Table("", *heads)
    rows = {
        "engine, CPU us/event": "engine_us_per_event",
        "steady memory, MB": "steady_rss_mb",
        "peak with growth and snapshots, MB": "peak_rss_mb",
        "stored, MB": "stored_mb",
        "next snapshot wrote, MB": "next_wrote_mb",
        "restore, s": "restore_s",
        "restore, CPU s": "restore_cpu_s",
        "load": "load",
    }
    for label, name in rows.items():
        shown.add_row(label, *(f"{point[name]:,}" for point in points))
    for stage in points[0]["stages_us_per_event"]:
        shown.add_row(f"of which {stage}", *(f"{point['stages_us_per_event'][stage]}" for point in points))
    for kind in points[0]["bytes_per"]:
        shown.add_row(f"bytes per {kind}", *(f"{point['bytes_per'][kind]:,}" for point in points))
    for which in ("first_snapshot", "next_snapshot"):
        for what in ("copy", "write"):
            pauses = [point[which] for point in points]
            label = f"{which.replace('_', ' ')}, longest {what}, ms wall (CPU)"
            cells = (f"{p[f'longest_{what}_wall_ms']} ({p[f'longest_{what}_cpu_ms']})" for p in pauses)
            shown.add_row(label, *cells)
    return shown


if __name__ == "__main__":
    main(prog_name="make scale")
