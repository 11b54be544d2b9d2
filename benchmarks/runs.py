"""The runs of a benchmark, each with the machine to itself: the floor, the worker, the peer.

A run reads a backlog and is measured from its first record to its last result.
"""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from clickhouse_connect.driver.client import Client

from benchmarks.check import consumed_of, differences
from benchmarks.job import Job
from benchmarks.meter import Cost, MemoryAtHand, sample
from benchmarks.oracle import Expected, impression_cells
from benchmarks.services import Services
from tests.services.process import free_port

LIFTSTREAM = (sys.executable, "-m", "stream.cli")
WORKER = (*LIFTSTREAM, "worker")
PATIENCE_SECONDS = 900
FAUST_SECONDS = 240  # plain Faust sometimes stands still for ever after its first rebalance
FAUST_ATTEMPTS = 3
SETTLE_SECONDS = 15  # how long the views may take to be right once every event is in the ledger
POLL_SECONDS = 0.2
START_POLL_SECONDS = 0.05
JOIN_SECONDS = 10.0  # for a worker to take over a partition after the first one did
FLOOR_RUNS = 3


class WorkerEnded(Exception):
    """A worker did not go on to the end; with the last lines of its log."""


class PeerFailed(Exception):
    """A peer came to no result; the sentence says how."""


@dataclass(frozen=True, slots=True)
class Run:
    """What counting so many events cost the process itself; broker and database are not in it.

    wrong: how its results differ from the oracle's, one sentence each.
    """

    events: int
    cost: Cost
    wrong: tuple[str, ...] = ()

    @property
    def events_per_second(self) -> float:
        """By the wall clock."""
        return self.events / self.cost.seconds

    @property
    def cpu_us_per_event(self) -> float:
        """User and system time, microseconds."""
        return self.cost.cpu_seconds / self.events * 1e6


def run_floor(services: Services, name: str, events: int) -> Run:
    """Fetch the records with aiokafka and drop them; the cheapest of a few times, for that is what a floor is."""
    command = [sys.executable, "-m", "benchmarks.floor", services.bootstrap, f"{name}.", str(events)]
    costs = []
    for _ in range(FLOOR_RUNS):
        MemoryAtHand().give_back()  # it begins at once
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        costs.append(Cost(**json.loads(answer)))
    return Run(events, min(costs, key=lambda cost: cost.cpu_seconds))


def run_worker(
    services: Services,
    name: str,
    expected: Expected,
    *,
    workers: int = 1,
    command: Sequence[str] = WORKER,
) -> Run:
    """Let real workers count the records, with everything on, until the views are complete."""
    folder = services.folder / name
    folder.mkdir()
    environment = services.environment(name)
    migrate(environment)
    with ExitStack() as stack:
        memory = stack.enter_context(MemoryAtHand())
        client = stack.enter_context(services.client(name))
        processes = [
            stack.enter_context(running_worker(environment, folder / f"worker{i}.log", command))
            for i in range(workers)
        ]
        while not any(process.has_begun for process in processes):
            _watch(processes, pause=START_POLL_SECONDS)
        memory.give_back()
        wrong, cost = _await_results(client, expected, processes)
        return Run(expected.events, cost, tuple(wrong))


def migrate(environment: dict[str, str]) -> None:
    """Make the tables of a worker's database."""
    subprocess.run([*LIFTSTREAM, "migrate"], env=environment, check=True, stdout=sys.stderr)


def run_faust(services: Services, name: str, job: Job) -> Run:
    """Let plain Faust do the same job, one event at a time. Raises PeerFailed."""
    result = services.folder / f"{name}.json"
    told = {
        "bootstrap": services.bootstrap,
        "prefix": f"{name}.",
        "experiments": [*job.experiments],
        "by_item": job.by_item,
        "events": job.expected.events,
        "result": str(result),
    }
    command = [sys.executable, "-m", "benchmarks.faust_peer", json.dumps(told)]
    with (services.folder / f"{name}.log").open("wb") as log:
        for attempt in range(FAUST_ATTEMPTS):
            MemoryAtHand().give_back()
            try:
                subprocess.run(command, check=True, stdout=log, stderr=log, timeout=FAUST_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if attempt + 1 == FAUST_ATTEMPTS:
                    raise PeerFailed(f"Plain Faust stood still {FAUST_ATTEMPTS} times.") from None
                print(f"Plain Faust stood still for {FAUST_SECONDS} s: once more.", file=sys.stderr)
            except subprocess.CalledProcessError:
                raise PeerFailed(f"Plain Faust ended:\n{Path(log.name).read_text()[-2000:]}") from None
    answer = json.loads(result.read_text())
    found = {tuple(key.rsplit("|", 3)): count for key, count in answer["counts"].items() if count}
    wrong = () if found == impression_cells(job.expected) else ("Plain Faust's counts are wrong.",)
    return Run(job.expected.events, Cost(**answer["cost"]), wrong)


class RunningWorker:
    """A running worker. has_begun: it has taken over a partition, and thus begun to fetch."""

    def __init__(self, child: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.has_begun = False
        self._start = sample(child.pid)
        self._child = child
        self._log = log
        self._metrics = f"http://127.0.0.1:{port}/metrics"

    def watch(self) -> None:
        """Notice when it begins. Raises WorkerEnded."""
        if self._child.poll() is not None:
            raise WorkerEnded(f"A worker ended:\n{self._log.read_text()[-3000:]}")
        if not self.has_begun:
            now = sample(self._child.pid)
            self.has_begun = self._has_taken_over()
            self._start = self._start if self.has_begun else now

    def cost(self) -> Cost:
        """Since the last look before it began."""
        return sample(self._child.pid).cost_since(self._start)

    def _has_taken_over(self) -> bool:
        try:
            with urllib.request.urlopen(self._metrics, timeout=5) as answer:
                return b"\nliftstream_takeovers_total 0.0\n" not in answer.read()
        except OSError:  # it does not listen yet
            return False


@contextmanager
def running_worker(
    environment: dict[str, str], log: Path, command: Sequence[str] = WORKER
) -> Iterator[RunningWorker]:
    """A worker as a process, until the end of the block."""
    port = free_port()
    settings = environment | {"LIFTSTREAM_WEB_PORT": str(port)}
    with log.open("wb") as out:
        child = subprocess.Popen(command, env=settings, stdout=out, stderr=out)
    try:
        yield RunningWorker(child, port, log)
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _watch(processes: Sequence[RunningWorker], *, pause: float) -> None:
    for process in processes:
        process.watch()
    time.sleep(pause)


def _together(processes: Sequence[RunningWorker]) -> Cost:
    """Of those that have begun, which worked at the same time, so far."""
    costs = [process.cost() for process in processes if process.has_begun]
    return Cost(
        seconds=max(cost.seconds for cost in costs),
        cpu_seconds=sum(cost.cpu_seconds for cost in costs),
        peak_rss_mb=sum(cost.peak_rss_mb for cost in costs),
    )


def _await_results(
    client: Client, expected: Expected, processes: Sequence[RunningWorker]
) -> tuple[list[str], Cost]:
    """Wait until all events are in the ledger and the views are right: what is wrong if they do not become so.

    And what the processes took until the views were asked for the last time: our own comparing is not in it.
    """
    began = time.monotonic()
    deadline = began + PATIENCE_SECONDS
    while consumed_of(client) < expected.events:
        if time.monotonic() > deadline:
            return [f"The workers did not finish in {PATIENCE_SECONDS} s."], _together(processes)
        is_settled = (
            all(process.has_begun for process in processes) or time.monotonic() > began + JOIN_SECONDS
        )
        _watch(processes, pause=POLL_SECONDS if is_settled else START_POLL_SECONDS)
    deadline = time.monotonic() + SETTLE_SECONDS
    cost = _together(processes)
    while (wrong := differences(client, expected)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        cost = _together(processes)
    return wrong, cost
