"""A real worker whose stages are timed: `python -m benchmarks.stages.real_worker RESULT` is `liftstream worker`.

At its end it writes CPU seconds since it began to fetch, by stage and by thread, to the file RESULT.
"""

import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import ClassVar

from benchmarks.stages.budget import STAGES
from benchmarks.stages.clock import StageClock, installed
from stream.app import worker
from stream.app.held import Counters, Decodes, Held
from stream.app.run import run_worker
from stream.settings import Settings

EVERY_SECONDS = 0.5
TICKS = os.sysconf("SC_CLK_TCK")
KINDS = {
    "MainThread": "event loop",
    "Thread-": "Kafka consumer",
    "asyncio": "step thread",
    "ThreadPoolExecutor": "step thread",
    "clickhouse-writer": "sink thread",
}


def threads_seconds() -> Counter[str]:
    """CPU seconds of this process by kind of thread; those that Python did not start belong to libraries."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    seconds: Counter[str] = Counter()
    for task in Path("/proc/self/task").iterdir():
        head, _, rest = (task / "stat").read_text().rpartition(")")
        name = names.get(int(task.name))
        kind = next((kind for start, kind in KINDS.items() if (name or "").startswith(start)), None)
        kind = kind or (f"Python thread {name}" if name else f"library thread {head.partition('(')[2]}")
        seconds[kind] += sum(map(int, rest.split()[11:13])) / TICKS
    return seconds


class Reporter:
    """Writes what was spent since the first partition began to take data, now and then."""

    def __init__(self, clock: StageClock, result: Path) -> None:
        self._clock = clock
        self._result = result
        self._start: tuple[Counter[str], Counter[str]] | None = None
        self._next = 0.0

    def begin(self) -> None:
        """A partition begins."""
        self._start = self._start or self._now()

    def report(self) -> None:
        """Called after each turn; costs a few milliseconds when it is time."""
        if self._start is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_SECONDS
        spent = [now - then for now, then in zip(self._now(), self._start, strict=True)]
        self._result.write_text(json.dumps(dict(zip(("stages", "threads"), spent, strict=True))))

    def _now(self) -> tuple[Counter[str], Counter[str]]:
        return Counter(self._clock.seconds), threads_seconds()


class ReportingHeld(Held):
    """Tells the reporter when it begins and after each turn."""

    reporter: ClassVar[Reporter]

    def begin(self, *, is_ours: bool) -> None:
        """See Held."""
        self.reporter.begin()
        super().begin(is_ours=is_ours)

    def turn(self, decoder: Decodes, counters: Counters) -> bool:
        """See Held."""
        again = super().turn(decoder, counters)
        self.reporter.report()
        return again


def main() -> int:
    """The worker's exit code."""
    with installed(STAGES) as clock:
        ReportingHeld.reporter = Reporter(clock, Path(sys.argv[1]))
        worker.Held = ReportingHeld  # type: ignore[misc]
        return run_worker(Settings.load())


if __name__ == "__main__":
    raise SystemExit(main())
