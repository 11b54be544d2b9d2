"""`make bench`: events per second, CPU and memory of the worker, next to the floor, plain Faust and other peers."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.clickhouse_peer import run_clickhouse
from benchmarks.flink_peer import run_flink
from benchmarks.job import EVENTS_OF_SCALE, Job, generated, recorded, refuse_without_impressions
from benchmarks.log import RecordedLog, read_log
from benchmarks.runs import PeerFailed, Run, WorkerEnded, run_faust, run_floor, run_worker
from benchmarks.services import Services, services
from benchmarks.stages.in_worker import measure_in_worker
from benchmarks.workload import PARTITIONS
from stream.cli.options import Finite
from stream.contracts.topics import Topic
from stream.errors import ConfigurationError
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
    left_out: Mapping[str, int] | None = None  # records of a log that were not sent, by reason

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
            "ratio_to_floor": _ratio(own, self.floor.cpu_us_per_event, 2),
            "ratio_to_plain_faust": None,
            **{
                f"ratio_to_{name}": _ratio(peer.cpu_us_per_event, own, 1) for name, peer in self.peers.items()
            },
            **({} if self.left_out is None else {"left_out": dict(self.left_out)}),
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


def _ratio(cost: float, other: float, digits: int) -> float | None:
    """None where a run was so short that the system counted no CPU for it."""
    return round(cost / other, digits) if other else None


def _files(topic: Topic) -> Callable[[Any], Any]:
    return click.option(
        f"--{topic.word}", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
        help=f"Count this log's {topic.word} instead of the workload (.jsonl, .avro, .parquet); again for another.",
    )  # fmt: skip


@click.command()
@click.option(
    "--scale",
    default=1.0,
    show_default=True,
    type=Finite(min=0, min_open=True),
    help="1.0 is 2.4 million events.",
)
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, PARTITIONS), help="Worker processes."
)
@_files(Topic.IMPRESSIONS)
@_files(Topic.INTERACTIONS)
@_files(Topic.ASSIGNMENTS)
@click.option(
    "--events",
    default=5_000_000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Of a log, the first so many by time.",
)
@click.option(
    "--peer",
    "peers",
    type=click.Choice(["faust", *ASKED, "none"]),
    multiple=True,
    help="Also measure this peer; again for another. Plain Faust always is, unless it is `none`.",
)
@click.option(
    "--peer-scale",
    default=0.02,
    show_default=True,
    type=Finite(min=0, min_open=True),
    help="Plain Faust's own, for it is slow.",
)
@click.option(
    "--stages", is_flag=True, help="Also time the worker's stages and threads, in a run of its own."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def main(
    scale: float,
    workers: int,
    impressions: tuple[Path, ...],
    interactions: tuple[Path, ...],
    assignments: tuple[Path, ...],
    events: int,
    peers: tuple[str, ...],
    peer_scale: float,
    stages: bool,
    as_json: bool,
) -> None:
    """Measure the worker on real Kafka and ClickHouse and check its results against an oracle.

    With --impressions, what is counted is a recorded log: see benchmarks/README.md.
    """
    files = dict(zip(Topic, (assignments, impressions, interactions), strict=True))
    try:
        log = _read(files, events) if any(files.values()) else None
        if log and not {"faust", "none"}.issuperset(peers):
            raise ConfigurationError("ClickHouse and Flink count the workload only: leave out --peer.")
        make = partial(recorded, log) if log else partial(generated, scale)
        sample = log.first(round(EVENTS_OF_SCALE * peer_scale)) if log else None
        make_sample = partial(recorded, sample) if sample else partial(generated, peer_scale)
        with services() as running:
            faust = {} if "none" in peers else _measure_faust(running, make_sample)
            report = _measure(running, make, workers, faust, peers)
            report = replace(report, left_out=log.left_out if log else None)
            if stages:
                with terminal.status("counting once more, with a clock in every stage"):
                    terminal.print(measure_in_worker(running, make))
    except ServiceMissing as why:
        raise click.ClickException(f"The benchmark needs real services: {why}.") from None
    except (ConfigurationError, WorkerEnded) as why:
        raise click.ClickException(str(why)) from None
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        Console().print(report.to_table())
    for sentence in report.wrong[:20]:
        terminal.print(f"wrong: {sentence}", highlight=False, soft_wrap=True)
    raise SystemExit(0 if report.exact else 1)


def _read(files: Mapping[Topic, Sequence[Path]], events: int) -> RecordedLog:
    with terminal.status("reading the log"):
        log = read_log(files, events)
    for reason, count in log.left_out.items():
        terminal.print(f"{count:,} records are not sent: they {reason}.", highlight=False, soft_wrap=True)
    for bad in log.first_bad:
        terminal.print(f"{bad}", highlight=False, soft_wrap=True)
    if log.seems_in_seconds:
        terminal.print(
            "The newest event is of the 1970s: `at` counts milliseconds, and these look like seconds."
        )
    refuse_without_impressions(log)
    return log


def _measure(
    running: Services,
    make: Callable[[], Job],
    workers: int,
    measured: Mapping[str, Run],
    wanted: Collection[str],
) -> Report:
    with terminal.status("warming up: one small run, so that every kernel is compiled"):
        small = generated(WARM_UP_SCALE)
        running.load(small.records, "warm")
        run_worker(running, "warm", small.expected)
    with terminal.status("making the records"):
        job = make()
        expected = job.expected
        running.load(job.records, "bench")
        del job
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


def _measure_faust(running: Services, make: Callable[[], Job]) -> dict[str, Run]:
    """Its run by its name; nothing where it comes to no end."""
    job = make()
    running.load(job.records, "faust")
    try:
        with terminal.status(f"plain Faust counts {job.expected.events:,} events"):
            return {"plain_faust": run_faust(running, "faust", job)}
    except PeerFailed as why:
        terminal.print(f"no ratio to plain Faust: {why}", highlight=False, soft_wrap=True)
        return {}


if __name__ == "__main__":
    main(prog_name="make bench")
