"""The runs of a benchmark, each with the machine to itself: the floor, the worker, the peer.

A run reads a backlog and is measured from its first record to its last result.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from clickhouse_connect.driver.client import Client

from benchmarks.check import consumed_of, differences
from benchmarks.meter import Meter
from benchmarks.oracle import Expected
from benchmarks.services import STEP_SECONDS, Services
from tests.services.process import free_port

LIFTSTREAM = (sys.executable, "-m", "stream.cli")
PATIENCE_SECONDS = 900
SETTLE_SECONDS = 15  # how long the views may take to be right once every event is in the ledger
POLL_SECONDS = 0.2
FLOOR_RUNS = 3


@dataclass(frozen=True, slots=True)
class Run:
    """What a run cost. CPU and memory are the process's own: broker and database are not in it.

    wrong: how its results differ from the oracle's, one sentence each.
    """

    events: int
    seconds: float
    cpu_seconds: float
    peak_rss_mb: float
    wrong: tuple[str, ...] = ()

    @property
    def events_per_second(self) -> float:
        """By the wall clock."""
        return self.events / self.seconds

    @property
    def cpu_us_per_event(self) -> float:
        """User and system time, microseconds."""
        return self.cpu_seconds / self.events * 1e6


def run_floor(services: Services, name: str, events: int) -> Run:
    """Fetch the records with aiokafka and drop them; the cheapest of a few times, for that is what a floor is."""
    command = [sys.executable, "-m", "benchmarks.floor", services.bootstrap, f"{name}.", str(events)]
    runs = [
        Run(events, **json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
        for _ in range(FLOOR_RUNS)
    ]
    return min(runs, key=lambda run: run.cpu_seconds)


def run_worker(services: Services, name: str, expected: Expected, *, workers: int = 1) -> Run:
    """Let real workers count the records, with everything on, until the views are complete."""
    folder = services.folder / name
    folder.mkdir()
    environment = services.environment(name)
    subprocess.run([*LIFTSTREAM, "migrate"], env=environment, check=True, stdout=sys.stderr)
    with ExitStack() as stack:
        client = stack.enter_context(services.client(name))
        children = [
            stack.enter_context(_worker(environment, folder / f"worker{i}.log")) for i in range(workers)
        ]
        meter = stack.enter_context(Meter(*(child.pid for child in children)))
        wrong = _await_results(client, expected, children, folder)
        end = meter.sample()
        # Records of the first step were fetched during the pause before it.
        start = meter.last_before(_first_plan(services.checkpoints(name)) - STEP_SECONDS)
        cpu_seconds = end.cpu_seconds - start.cpu_seconds
        return Run(expected.events, end.at - start.at, cpu_seconds, meter.peak_rss_mb, tuple(wrong))


def run_faust(services: Services, name: str, expected: Expected) -> Run:
    """Let plain Faust do the same job, one event at a time."""
    result = services.folder / f"{name}.json"
    job = {
        "bootstrap": services.bootstrap,
        "prefix": f"{name}.",
        "events": expected.events,
        "result": str(result),
    }
    command = [sys.executable, "-m", "benchmarks.faust_peer", json.dumps(job)]
    with (
        (services.folder / f"{name}.log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as child,
        Meter(child.pid) as meter,
    ):
        assert child.stdout is not None
        start = meter.sample()
        for line in child.stdout:  # ends with the process, which /proc shows until somebody waits for it
            if b"START" in line:
                start = meter.sample()
        end = meter.sample()
    wrong = () if _cells(result) == _impression_cells(expected) else ("The peer's counts are wrong.",)
    cpu_seconds = end.cpu_seconds - start.cpu_seconds
    return Run(expected.events, end.at - start.at, cpu_seconds, meter.peak_rss_mb, wrong)


@contextmanager
def _worker(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    port = {"LIFTSTREAM_WEB_PORT": str(free_port())}
    with log.open("wb") as out:
        child = subprocess.Popen([*LIFTSTREAM, "worker"], env=environment | port, stdout=out, stderr=out)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _await_results(
    client: Client, expected: Expected, children: Sequence[subprocess.Popen[bytes]], folder: Path
) -> list[str]:
    """Wait until every event is in the ledger and the views are right; what is wrong if they do not become so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while consumed_of(client) < expected.events:
        if any(child.poll() is not None for child in children) or time.monotonic() > deadline:
            logs = "\n".join(log.read_text()[-3000:] for log in sorted(folder.glob("worker*.log")))
            raise RuntimeError(f"a worker did not finish:\n{logs}")
        time.sleep(POLL_SECONDS)
    deadline = time.monotonic() + SETTLE_SECONDS
    while (wrong := differences(client, expected)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return wrong


def _first_plan(checkpoints: Path) -> float:
    """When the first step with records was planned (epoch seconds), by the journal."""
    entries = [json.loads(path.read_bytes()) for path in checkpoints.rglob("step/*") if path.is_file()]
    planned = [entry["planned_at_ms"] for entry in entries if any(r["rows"] for r in entry["ranges"])]
    return float(min(planned)) / 1000


def _cells(result: Path) -> dict[tuple[str, ...], int]:
    return {tuple(key.split("|")): count for key, count in json.loads(result.read_text()).items()}


def _impression_cells(expected: Expected) -> dict[tuple[str, ...], int]:
    return {
        (column, experiment, arm, str(pane_start_ms)): count
        for (experiment, arm, pane_start_ms), counts in expected.panes.items()
        for column, count in counts.items()
        if column.endswith("impressions")
    }
