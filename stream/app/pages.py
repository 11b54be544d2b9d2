"""What a worker says about itself over HTTP: health, readiness, metrics."""

import time
from collections.abc import Iterator
from dataclasses import asdict

from stream.app.held import Held
from stream.app.worker import Worker
from stream.durability.partition import Pause

STALL_SECONDS = 120.0  # a cold compilation of the kernels takes up to 30
_EXCUSES = (Pause.SINK_IS_FULL, Pause.MEMORY_LIMIT)


def stalls(worker: Worker, now: float) -> list[str]:
    """Partitions that have records, no excuse, and have not taken a step for long: the process should be replaced.

    now: monotonic seconds.
    """
    return [
        f"partition {number} has taken no step for {now - held.stepped_at:.0f} s"
        for number, held in worker.held.items()
        if held.is_running and _is_stalled(held, now)
    ]


def _is_stalled(held: Held, now: float) -> bool:
    return held.rows > 0 and held.pause not in _EXCUSES and now - held.stepped_at > STALL_SECONDS


def unready(worker: Worker) -> list[str]:
    """Why results are not up to date, in words; empty when they are."""
    reasons = [worker.trouble] if worker.trouble else []
    if not worker.has_assignment:
        reasons.append("no partitions are assigned yet")
    for number, held in worker.held.items():
        if held.is_assigned and not held.is_running:
            reasons.append(f"partition {number} is being loaded")
        elif held.is_running and held.partition.has_replay:
            reasons.append(f"partition {number} repeats journaled steps")
        elif held.is_running and held.pause in _EXCUSES:
            reasons.append(f"partition {number} pauses: {held.pause}")
        if held.is_running and held.breaker.trouble:
            reasons.append(held.breaker.trouble)
    return reasons


def metrics(worker: Worker) -> str:
    """Prometheus' text format."""
    return "\n".join([*_counters(worker), *_gauges(worker), ""])


def _counters(worker: Worker) -> Iterator[str]:
    for name, value in asdict(worker.counters).items():
        yield f"# TYPE liftstream_{name}_total counter"
        yield f"liftstream_{name}_total {value}"


def _gauges(worker: Worker) -> Iterator[str]:
    running = {number: held for number, held in worker.held.items() if held.is_running}
    gauges: dict[str, dict[int, float]] = {
        "step": {number: held.partition.step for number, held in running.items()},
        "lag_records": {number: held.partition.lag for number, held in running.items()},
        "queued_records": {number: held.rows for number, held in running.items()},
        "state_bytes": {number: held.partition.machine.nbytes for number, held in running.items()},
        "seconds_since_step": {
            number: round(time.monotonic() - held.stepped_at, 3) for number, held in running.items()
        },
    }
    for name, values in gauges.items():
        yield f"# TYPE liftstream_partition_{name} gauge"
        for number, value in values.items():
            yield f'liftstream_partition_{name}{{partition="{number}"}} {value}'
