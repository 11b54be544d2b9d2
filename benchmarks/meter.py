"""CPU time and memory of a process and its children, read from /proc."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """At `at` (time.time) these processes had used `cpu_seconds` (user and system)."""

    at: float
    cpu_seconds: float


class Meter:
    """Samples processes every `pause` seconds while the context is open.

    samples: in order of time. peak_rss_mb: the sum of the processes' own peaks so far.
    """

    def __init__(self, *pids: int, pause: float = 0.05) -> None:
        self.samples: list[Sample] = []
        self.peak_rss_mb = 0.0
        self._pids = pids
        self._pause = pause
        self._peaks_kb: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    def __enter__(self) -> "Meter":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.sample()

    def sample(self) -> Sample:
        """Read now, and keep what was read."""
        pids = [pid for root in self._pids for pid in _tree(root)]
        for pid in pids:
            self._peaks_kb[pid] = max(self._peaks_kb.get(pid, 0), peak_rss_kb(pid))
        self.peak_rss_mb = sum(self._peaks_kb.values()) / 1024
        sample = Sample(time.time(), sum(_cpu_seconds(pid) for pid in pids))
        self.samples.append(sample)
        return sample

    def last_before(self, at: float) -> Sample:
        """The last sample not after `at`."""
        return max((s for s in self.samples if s.at <= at), key=lambda s: s.at, default=self.samples[0])

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            self.sample()


def _tree(root: int) -> list[int]:
    pids = [root]
    for pid in pids:  # grows while it is walked
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            pids += [int(child) for child in _read(task).split()]
    return pids


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its children that have ended."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def peak_rss_kb(pid: int | str) -> int:
    """Largest resident memory of a process so far; 0 when it has ended."""
    lines = _read(Path(f"/proc/{pid}/status")).splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended
        return ""
