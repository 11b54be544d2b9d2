"""Rounds of the worker in one process, each with its CPU time by stage."""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from benchmarks.stages.budget import NETWORK_US, STAGES, TOTAL_US
from benchmarks.stages.clock import installed
from benchmarks.stages.in_process import Log, WorkerInProcess
from benchmarks.workload import make_workload
from stream.app.warm import warm_up
from stream.contracts.definitions import Definitions

WARM_UP_SCALE = 0.002
REST = "other threads, and no stage's"


@dataclass(frozen=True, slots=True)
class Round:
    """CPU seconds of one run over the same events."""

    events: int
    steps: int
    process_seconds: float
    seconds: dict[str, float]  # by stage

    def us(self, stage: str) -> float:
        """CPU microseconds per event."""
        return self.seconds.get(stage, 0.0) / self.events * 1e6

    @property
    def total_us(self) -> float:
        """Of the whole process."""
        return self.process_seconds / self.events * 1e6

    @property
    def rest_us(self) -> float:
        """What no stage has: the store's threads, the garbage collector between stages, the loop around them."""
        return self.total_us - sum(self.us(stage.name) for stage in STAGES)


def measure(scale: float, rounds: int) -> list[Round]:
    """Count the workload of this scale so many times, each time from nothing."""
    with tempfile.TemporaryDirectory(prefix="liftstream-stages-") as folder:
        warm_up(Definitions())
        _run(Log(make_workload(WARM_UP_SCALE)), Path(folder) / "warm")
        log = Log(make_workload(scale))
        return [_run(log, Path(folder) / f"round{number}") for number in range(rounds)]


def _run(log: Log, folder: Path) -> Round:
    worker = WorkerInProcess(log, folder)
    try:
        with installed(STAGES) as clock:
            began = time.process_time()
            worker.run()
            spent = time.process_time() - began
        return Round(log.events, worker.steps, spent, clock.seconds)
    finally:
        worker.close()


def to_table(rounds: Sequence[Round]) -> Table:
    """Each stage at its best round, for what disturbs only ever adds, next to its budget."""
    first = rounds[0]
    about = f"{first.events:,} events, {first.steps} steps, {len(rounds)} rounds"
    table = Table("stage", "CPU us/event", "budget", "", title=f"{about}, load {os.getloadavg()[0]:.1f}")
    for stage in STAGES:
        best = min(each.us(stage.name) for each in rounds)
        table.add_row(stage.name, f"{best:.3f}", f"{stage.budget_us:.2f}", _verdict(best, stage.budget_us))
    table.add_row(REST, f"{min(each.rest_us for each in rounds):.3f}", "", "")
    best, budget = min(each.total_us for each in rounds), TOTAL_US - NETWORK_US
    table.add_row("all", f"{best:.3f}", f"{budget:.2f}", _verdict(best, budget))
    return table


def _verdict(us: float, budget_us: float) -> str:
    return "" if us <= budget_us else f"over, {us / budget_us:.1f}x"
