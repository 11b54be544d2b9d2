"""`make bench`: events per second, CPU and memory of the worker, next to the floor, plain Faust and other peers."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.clickhouse_peer import run_clickhouse
from benchmarks.flink_peer import run_flink
from benchmarks.oracle import expected_of
from benchmarks.runs import Run, run_faust, run_floor, run_worker
from benchmarks.services import Services, services
from benchmarks.stages.in_worker import measure_in_worker
from benchmarks.workload import make_workload
from tests.services.tools import ServiceMissing

WARM_UP_SCALE = 0.002
LABELS = {
    "plain_faust": "plain Faust",
    "clickhouse": "ClickHouse: Kafka engine, raw tables, one query",
    "flink": "Flink SQL: state on the heap, no checkpoints",
}
ASKED = {"clickhouse": run_clickhouse, "flink": run_flink}  # measured where they are asked for
terminal = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Report:
    """The runs of one benchmark."""

    workers: int
    ours: Run
    floor: Run
    peers: Mapping[str, Run]  # by name, in the order of the table

    @property
    def exact(self) -> bool:
        """Whether every pane, arm and outcome of the worker is the oracle's."""
        return not self.ours.wrong

    @property
    def wrong(self) -> list[str]:
        """One sentence for each difference, the peers' among them."""
        return [*self.ours.wrong, *(sentence for peer in self.peers.values() for sentence in peer.wrong)]

    def to_json(self) -> dict[str, Any]:
        """The figures by name; ratios are of CPU per event."""
        own = self.ours.cpu_us_per_event
        return {
            "events": self.ours.events,
            "exact": self.exact,
            "workers": self.workers,
            "events_per_second": round(self.ours.events_per_second),
            "cpu_us_per_event": round(own, 3),
            "peak_rss_mb": round(self.ours.cost.peak_rss_mb),
            "ratio_to_floor": round(own / self.floor.cpu_us_per_event, 2),
            "ratio_to_plain_faust": None,
            **{
                f"ratio_to_{name}": round(peer.cpu_us_per_event / own, 1) for name, peer in self.peers.items()
            },
        }

    def to_table(self) -> Table:
        """The runs side by side."""
        table = Table("run", "events", "events/s", "CPU us/event", "peak RSS MB", "result")
        rows = [("fetch and drop (aiokafka)", self.floor, "-"), (self._label, self.ours, None)]
        rows += [(LABELS[name], peer, None) for name, peer in self.peers.items()]
        for label, run, result in rows:
            table.add_row(
                label,
                f"{run.events:,}",
                f"{run.events_per_second:,.0f}",
                f"{run.cpu_us_per_event:.2f}",
                f"{run.cost.peak_rss_mb:,.0f}",
                result or ("WRONG" if run.wrong else "exact"),
            )
        return table

    @property
    def _label(self) -> str:
        return f"liftstream, {self.workers} worker{'s' if self.workers > 1 else ''}"


@click.command()
@click.option("--scale", default=0.25, show_default=True, help="1.0 is 2.4 million events.")
@click.option("--workers", default=1, show_default=True, help="Worker processes.")
@click.option(
    "--peer",
    "peers",
    type=click.Choice(["faust", *ASKED, "none"]),
    multiple=True,
    help="Also measure this peer; again for another. Plain Faust always is, unless it is `none`.",
)
@click.option("--peer-scale", default=0.02, show_default=True, help="Plain Faust's own, for it is slow.")
@click.option(
    "--stages", is_flag=True, help="Also time the worker's stages and threads, in a run of its own."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def main(
    scale: float, workers: int, peers: tuple[str, ...], peer_scale: float, stages: bool, as_json: bool
) -> None:
    """Measure the worker on real Kafka and ClickHouse and check its results against an oracle."""
    try:
        with services() as running:
            faust = {} if "none" in peers else {"plain_faust": _measure_faust(running, peer_scale)}
            report = _measure(running, scale, workers, faust, peers)
            if stages:
                with terminal.status("counting once more, with a clock in every stage"):
                    terminal.print(measure_in_worker(running, scale))
    except ServiceMissing as why:
        raise click.ClickException(f"The benchmark needs real services: {why}.") from None
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        Console().print(report.to_table())
    for sentence in report.wrong[:20]:
        terminal.print(f"wrong: {sentence}", highlight=False)
    raise SystemExit(0 if report.exact else 1)


def _measure(
    running: Services, scale: float, workers: int, measured: Mapping[str, Run], wanted: Collection[str]
) -> Report:
    with terminal.status("warming up: one small run, so that every kernel is compiled"):
        small = make_workload(WARM_UP_SCALE)
        running.load(small, "warm")
        run_worker(running, "warm", expected_of(small))
    with terminal.status("making the workload"):
        workload = make_workload(scale)
        expected = expected_of(workload)
        running.load(workload, "bench")
        del workload
    with terminal.status(f"fetching {expected.events:,} events"):
        floor = run_floor(running, "bench", expected.events)
    with terminal.status(f"counting {expected.events:,} events"):
        ours = run_worker(running, "bench", expected, workers=workers)
    peers = dict(measured)
    for name, run in ASKED.items():
        if name in wanted:
            with terminal.status(f"{LABELS[name]}: {expected.events:,} events"):
                peers[name] = run(running, "bench", expected)
    return Report(workers, ours, floor, peers)


def _measure_faust(running: Services, scale: float) -> Run:
    workload = make_workload(scale)
    running.load(workload, "faust")
    with terminal.status(f"plain Faust counts {len(workload.records):,} events"):
        return run_faust(running, "faust", expected_of(workload))


if __name__ == "__main__":
    main(prog_name="make bench")
