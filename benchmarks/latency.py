"""`make latency`: seconds from an event's origin to ClickHouse, at a steady rate, as the pipeline itself measures them.

The peers' workload is sent live: each event at its moment, with that moment as its Kafka time. For `arm_rates` each
flush reports the quantiles of its records' ages in `pipeline_status`; they are pooled by the numbers of records. A row
of `arm_rolling` says up to when it counts (`as_of`, a multiple of the pane of 10 s): its age, when the row is first
seen, is that of the newest event it can hold.
"""

import json
import os
import time
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

import click
import numpy as np
from clickhouse_connect.driver.client import Client
from rich.console import Console
from rich.table import Table

from benchmarks.check import arm_differences, consumed_of
from benchmarks.live import LiveTraffic
from benchmarks.oracle import PANE_MS, Expected, expected_of
from benchmarks.runs import migrate, running_worker
from benchmarks.services import Services, services
from benchmarks.workload import PARTITIONS, make_workload
from stream.cli.options import Finite
from tests.services.tools import ServiceMissing

NAME = "latency"
BUDGET_SECONDS = {
    "arm_rates_p50": 1.2,
    "arm_rates_p95": 2.0,
    "arm_rates_p99": 3.0,
    "arm_rolling_p95": 4.0,
}
EVENTS_OF_SCALE = 2_200_000  # of scale 1.0, without the assignments before its beginning
WARM_UP_SECONDS = 15.0  # of traffic that is not judged
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 120.0
PARTS = np.linspace(0.0025, 0.9975, 200)  # where a flush's distribution is read
terminal = Console(stderr=True)


@dataclass(slots=True)
class Seen:
    """What was visible, and when. Milliseconds; a flush: (partition, step): p50, p95, p99, records."""

    flushes: dict[tuple[int, int], tuple[int, int, int, int]] = field(default_factory=dict)
    windows: dict[int, int] = field(default_factory=dict)  # as_of: when it was first seen

    def look(self, client: Client, *, is_judged: bool) -> None:
        """Note what is new in the views."""
        status = client.query(
            "SELECT partition, last_step, latency_p50_ms, latency_p95_ms, latency_p99_ms, records FROM pipeline_status"
        )
        as_of = client.query("SELECT toUnixTimestamp64Milli(max(as_of)) FROM arm_rolling WHERE slice = 'all'")
        now_ms = time.time_ns() // 1_000_000
        if is_judged:
            for partition, step, p50, *rest in status.result_rows:
                if p50 is not None:
                    self.flushes.setdefault((partition, step), (p50, *rest))
            self.windows.setdefault(int(as_of.result_rows[0][0]), now_ms)
        else:
            self.windows = {int(as_of.result_rows[0][0] or 0): now_ms}

    def rates_seconds(self) -> dict[str, float]:
        """Quantiles over the records of all flushes."""
        ages = np.concatenate([_ages_ms(*of[:3]) for of in self.flushes.values()])
        weights = np.repeat([of[3] for of in self.flushes.values()], len(PARTS))
        order = np.argsort(ages)
        reached = np.cumsum(weights[order]) / weights.sum()
        return {
            f"arm_rates_p{part}": float(ages[order][np.searchsorted(reached, part / 100)] / 1000)
            for part in (50, 95, 99)
        }

    def rolling_seconds(self) -> dict[str, float]:
        """How old a window was when it was first seen; the first one was there before."""
        ages = [seen_ms - as_of_ms for as_of_ms, seen_ms in list(self.windows.items())[1:]]
        return {
            f"arm_rolling_p{part}": float(np.quantile(ages, part / 100, method="higher") / 1000)
            for part in (50, 95)
        }


def _ages_ms(p50: int, p95: int, p99: int) -> np.ndarray[Any, Any]:
    """A flush's ages at PARTS: between the reported quantiles, and below the median as symmetric as it can be."""
    low = max(0, 2 * p50 - p95)
    return np.interp(PARTS, (0.05, 0.5, 0.95, 0.99), (low, p50, p95, p99))


@click.command()
@click.option(
    "--rate", default=20_000, show_default=True, type=click.IntRange(min=1000), help="Events a second."
)
@click.option(
    "--seconds",
    default=90.0,
    show_default=True,
    type=Finite(min=WARM_UP_SECONDS + 3 * PANE_MS / 1000),
    help="Of steady traffic, the first 15 not judged.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def main(rate: int, seconds: float, as_json: bool) -> None:
    """Measure event to visible; exit 1 when a budget is missed or the totals are wrong."""
    with terminal.status("making the traffic"):
        workload = make_workload(rate * seconds / EVENTS_OF_SCALE)
        expected = expected_of(workload)
        traffic = LiveTraffic(workload, rate)
        del workload
    try:
        with services() as running:
            report = _measure(running, traffic, expected)
    except ServiceMissing as why:
        raise click.ClickException(f"This needs real services: {why}.") from None
    if as_json:
        click.echo(json.dumps(report))
    else:
        Console().print(_table(report))
    is_kept = all(report[name] <= budget for name, budget in BUDGET_SECONDS.items())
    raise SystemExit(0 if is_kept and report["exact"] else 1)


def _measure(running: Services, traffic: LiveTraffic, expected: Expected) -> dict[str, Any]:
    folder = running.folder / NAME
    folder.mkdir()
    environment = running.environment(NAME)
    running.create_topics(NAME)
    migrate(environment)
    seen, is_over = Seen(), Event()
    with running.client(NAME) as client, running_worker(environment, folder / "worker.log") as worker:
        traffic.send_first(running.bootstrap, f"{NAME}.")
        with terminal.status("waiting for the worker"):
            _await_consumed(client, traffic.first)
        sender = Thread(target=traffic.send, args=(running.bootstrap, f"{NAME}.", is_over), daemon=True)
        began = time.monotonic()
        sender.start()
        with terminal.status("sending and looking"):
            while sender.is_alive() and not is_over.is_set():
                worker.watch()
                is_warm = time.monotonic() - began > WARM_UP_SECONDS
                if traffic.is_steady:
                    seen.look(client, is_judged=is_warm)
                time.sleep(POLL_SECONDS)
        _await_consumed(client, expected.events)
        cost = worker.cost()
        wrong = arm_differences(client, expected)
    for sentence in wrong[:20]:
        terminal.print(f"wrong: {sentence}", highlight=False)
    figures = seen.rates_seconds() | seen.rolling_seconds()
    return {
        "events": expected.events,
        "exact": not wrong,
        "events_per_second": round(traffic.steady_rate),
        "flushes": len(seen.flushes),
        "windows": len(seen.windows) - 1,
        **{name: round(value, 3) for name, value in figures.items()},
        "cpu_us_per_event": round(cost.cpu_seconds / expected.events * 1e6, 2),
        "load_average": round(os.getloadavg()[0], 1),
    }


def _await_consumed(client: Client, events: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while consumed_of(client) < events:
        if time.monotonic() > deadline:
            raise click.ClickException("The worker did not get there in time.")
        time.sleep(POLL_SECONDS)


def _table(report: dict[str, Any]) -> Table:
    about = (
        f"{report['events']:,} events at {report['events_per_second']:,} a second, {PARTITIONS} partitions"
    )
    result = "exact" if report["exact"] else "WRONG"
    table = Table(
        "figure", "seconds", "budget", "", title=f"{about}, {result}, load {report['load_average']}",
        caption=f"worker: {report['cpu_us_per_event']} us of CPU an event",
    )  # fmt: skip
    for name in ("arm_rates_p50", "arm_rates_p95", "arm_rates_p99", "arm_rolling_p50", "arm_rolling_p95"):
        budget = BUDGET_SECONDS.get(name)
        is_missed = budget is not None and report[name] > budget
        table.add_row(name, f"{report[name]:.2f}", f"{budget or '-'}", "missed" if is_missed else "")
    return table


if __name__ == "__main__":
    main(prog_name="make latency")
