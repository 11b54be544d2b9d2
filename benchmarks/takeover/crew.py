"""The workers of a measurement, as processes that can be killed, stopped and started again."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.services.process import free_port

STOP_SECONDS = 30


@dataclass
class Member:
    """One worker. Its web port is its own, so that it has the same name in the group after a restart."""

    environment: Mapping[str, str]
    log: Path
    port: int = field(default_factory=free_port)
    stays_in_group: bool = False  # the setting, from the next start on
    child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs, or ran last; 0 before the first."""
        return self.child.pid if self.child else 0

    def start(self) -> None:
        """Begin to run."""
        own = {
            "LIFTSTREAM_WEB_PORT": str(self.port),
            "LIFTSTREAM_STAY_IN_GROUP": str(self.stays_in_group),
            "PYTHONDONTWRITEBYTECODE": "",  # an installed package has its byte code
        }
        with self.log.open("ab") as out:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "stream.cli", "worker"],
                env={**self.environment, **own},
                stdout=out,
                stderr=out,
            )

    def signal(self, number: signal.Signals) -> int:
        """Send a signal; the time at which it was sent, wall clock in milliseconds."""
        assert self.child is not None
        self.child.send_signal(number)
        return time.time_ns() // 1_000_000

    def wait(self) -> int:
        """Until it has ended; the exit code."""
        assert self.child is not None
        return self.child.wait(STOP_SECONDS)

    def end(self) -> None:
        """Kill it if it still runs."""
        if self.child is not None and self.child.poll() is None:
            self.child.kill()
            self.child.wait()


@contextmanager
def crew(environment: Mapping[str, str], folder: Path, size: int) -> Iterator[list[Member]]:
    """So many members, not started; all are ended with the block."""
    members = [Member(environment, folder / f"worker{number}.log") for number in range(size)]
    try:
        yield members
    finally:
        for member in members:
            member.end()
