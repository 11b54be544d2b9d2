"""CPU time by stage and by thread of a real worker on real services."""

import json
import sys
from collections.abc import Callable

from rich.table import Table

from benchmarks.job import Job
from benchmarks.runs import run_worker
from benchmarks.services import Services
from benchmarks.stages.budget import STAGES

NAME = "stages"


def measure_in_worker(services: Services, make: Callable[[], Job]) -> Table:
    """Count what `make` makes with one worker that has a clock in every stage."""
    job = make()
    expected = job.expected
    services.load(job.records, NAME)
    del job
    result = services.folder / "stages.json"
    command = (sys.executable, "-m", "benchmarks.stages.real_worker", str(result))
    run = run_worker(services, NAME, expected, command=command)
    found = json.loads(result.read_text())
    return to_table(found["stages"], found["threads"], run.events)


def to_table(stages: dict[str, float], threads: dict[str, float], events: int) -> Table:
    """Stages next to their budget, then the threads, which have them and all the rest."""
    table = Table("stage or thread", "CPU us/event", "budget", title=f"{events:,} events, one real worker")
    for stage in STAGES:
        table.add_row(stage.name, _us(stages.get(stage.name, 0.0), events), f"{stage.budget_us:.2f}")
    outside = sum(threads.values()) - sum(stages.values())
    table.add_row("no stage's", _us(outside, events), "", end_section=True)
    for thread, seconds in sorted(threads.items(), key=lambda item: -item[1]):
        table.add_row(thread, _us(seconds, events), "")
    return table


def _us(seconds: float, events: int) -> str:
    return f"{seconds / events * 1e6:.3f}"
