"""The workers, as processes; one that ends by itself is noted and started again, as a supervisor would."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.services.process import die_with_us, free_port

_STOP_SECONDS = 60.0  # after SIGTERM; a worker that takes longer is a finding
_RESTART_SECONDS = 1.0
_STARTED = " starts: deployment "  # in the log of a worker that has found broker, store and database


@dataclass
class Member:
    """A place in the fleet: one web port, and so one name in the consumer group; one process after the other."""

    name: str
    port: int
    log: Path
    child: subprocess.Popen[bytes] | None = None
    is_wanted: bool = True  # to be running
    is_paused: bool = False
    is_spare: bool = False  # comes and goes
    start_at: float | None = None  # monotonic: when to start it (again)
    told_to_stop_at: float | None = None
    log_begins: int = 0

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self.child.pid if self.child is not None else None

    @property
    def is_up(self) -> bool:
        """Whether it runs, is not paused and was not told to stop."""
        return self.child is not None and not self.is_paused and self.told_to_stop_at is None

    @property
    def output(self) -> str:
        """What the present or the last process has logged."""
        with self.log.open("rb") as log:
            log.seek(self.log_begins)
            return log.read().decode(errors="replace")


@dataclass
class Fleet:
    """Starts, kills, pauses and stops workers. `tend` must be called often.

    may_refuse_to_start: whether broker or database were away lately. findings: what no fault explains. excuses:
    ended by themselves before they had begun, because something was away.
    """

    environment: Mapping[str, str]
    folder: Path
    may_refuse_to_start: Callable[[], bool]
    members: list[Member] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    excuses: list[str] = field(default_factory=list)
    stop_seconds: list[float] = field(default_factory=list)

    def add(self) -> Member:
        """One more worker."""
        name = f"worker{len(self.members) + 1}"
        member = Member(name, free_port(), self.folder / f"{name}.log")
        member.log.touch()
        self.members.append(member)
        self.start(member)
        return member

    def start(self, member: Member) -> None:
        """Start its process; a running one is left alone."""
        member.is_wanted, member.start_at = True, None
        if member.child is not None:
            return
        member.log_begins = member.log.stat().st_size
        environment = {**self.environment, "LIFTSTREAM_WEB_PORT": str(member.port)}
        command = [*die_with_us(), sys.executable, "-m", "stream.cli", "worker"]
        with member.log.open("ab") as log:
            member.child = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        member.is_paused, member.told_to_stop_at = False, None

    def kill(self, member: Member) -> None:
        """SIGKILL; it stays away until started."""
        member.is_wanted = False
        if member.child is not None:
            member.child.kill()
            member.child.wait()
            member.child = None

    def pause(self, member: Member) -> None:
        """SIGSTOP."""
        if member.child is not None:
            member.child.send_signal(signal.SIGSTOP)
            member.is_paused = True

    def resume(self, member: Member) -> None:
        """SIGCONT."""
        if member.child is not None:
            member.child.send_signal(signal.SIGCONT)
        member.is_paused = False

    def stop(self, member: Member) -> None:
        """SIGTERM; `tend` sees it end."""
        member.is_wanted = False
        if member.child is not None and member.told_to_stop_at is None:
            member.child.send_signal(signal.SIGTERM)
            member.told_to_stop_at = time.monotonic()

    def tend(self) -> None:
        """Notice who has ended, and start who should run."""
        now = time.monotonic()
        for member in self.members:
            if member.child is not None:
                self._look_at(member, now)
            if member.child is None and member.is_wanted and member.start_at is None:
                member.start_at = now + _RESTART_SECONDS
            if member.start_at is not None and now >= member.start_at:
                self.start(member)

    def stop_all(self) -> None:
        """Stop every worker and wait."""
        for member in self.members:
            member.start_at = None
            self.stop(member)
        while any(member.child is not None for member in self.members):
            self.tend()
            time.sleep(0.05)

    def kill_all(self) -> None:
        """Leave nothing behind."""
        for member in self.members:
            self.kill(member)

    def _look_at(self, member: Member, now: float) -> None:
        assert member.child is not None
        code = member.child.poll()
        told = member.told_to_stop_at
        if code is None:
            if told is not None and now - told > _STOP_SECONDS:
                self.findings.append(f"{member.name} did not stop within {_STOP_SECONDS:.0f} s of SIGTERM")
                self.kill(member)
            return
        member.child = None
        if told is not None:
            self.stop_seconds.append(now - told)
        if told is not None and code == 0:
            return
        last = (member.output.strip().splitlines() or ["it said nothing"])[-1]
        ended = f"{member.name} ended with code {code}{' when told to stop' if told else ''}: {last}"
        is_excused = _STARTED not in member.output and (told is not None or self.may_refuse_to_start())
        (self.excuses if is_excused else self.findings).append(ended)


def outer_environment() -> dict[str, str]:
    """Ours without settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LIFTSTREAM_")}
