"""CPU time and memory of processes and their children, read from /proc."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_HOLD = "import sys; held = b'.' * int(sys.argv[1]); print(flush=True); sys.stdin.read()"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """What work took. cpu_seconds: user and system time. peak_rss_mb: since the processes started."""

    seconds: float
    cpu_seconds: float
    peak_rss_mb: float


@dataclass(frozen=True, slots=True)
class Sample:
    """A reading; `at` in seconds of the monotonic clock."""

    at: float
    cpu_seconds: float
    peak_rss_mb: float

    def cost_since(self, earlier: "Sample") -> Cost:
        """From the earlier reading to this one."""
        return Cost(self.at - earlier.at, self.cpu_seconds - earlier.cpu_seconds, self.peak_rss_mb)


class MemoryAtHand:
    """Memory that the machine has found and cleared, until it is given back for whoever asks next.

    The host of a virtual machine takes back what is free for some seconds, and finding a page again costs up to seven
    times as much as clearing it. Give it back at the moment when measuring begins: a run's CPU time would depend on
    what ran before it, and on how long its process took to start.
    """

    def __init__(self, nbytes: int = 3 << 30) -> None:
        """nbytes: more than a run takes anew; at most half of what is free is held, by a process of its own."""
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        command = [sys.executable, "-c", _HOLD, str(min(nbytes, free // 2))]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        if not self._holder.stdout.readline():  # one line when it holds all
            self.give_back()
            raise RuntimeError(
                f"{nbytes:,} bytes could not be held, and figures would be too high: free memory."
            )

    def give_back(self) -> None:
        """Nothing is held from here on."""
        if self._holder.returncode is None:
            self._holder.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()


def sample(*pids: int) -> Sample:
    """Read now; memory is the sum of the processes' own peaks."""
    tree = [pid for root in pids for pid in _tree(root)]
    peak_kb = sum(_peak_rss_kb(pid) for pid in tree)
    return Sample(time.monotonic(), sum(_cpu_seconds(pid) for pid in tree), peak_kb / 1024)


def _tree(root: int) -> list[int]:
    pids = [root]
    for pid in pids:  # grows while it is walked
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            pids += [int(child) for child in _read(task).split()]
    return pids


def _cpu_seconds(pid: int) -> float:
    """Of the process and of its children that have ended."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _peak_rss_kb(pid: int) -> int:
    lines = _read(Path(f"/proc/{pid}/status")).splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended
        return ""
