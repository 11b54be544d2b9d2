"""Broker, database, workers and load of one run, and what is done to them. One thread, which never waits."""

import heapq
import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from stream.settings import Settings
from tests.chaos.fleet import Fleet, Member, outer_environment
from tests.chaos.generator import Load
from tests.chaos.schedule import Act, Fault
from tests.chaos.traffic import write_experiments
from tests.services.clickhouse import ClickHouseServer
from tests.services.kafka import KafkaServer
from tests.services.process import ServerProcess, die_with_us

PREFIX = "chaos."
ROOT = Path(__file__).parents[2]
_TICK_SECONDS = 0.1
_AFTERMATH_SECONDS = 60.0  # a worker that starts waits 20 s for broker and database, one after the other
_HEALING_SECONDS = 120.0
_MAX_RELAUNCHED = 20
_LOAD_ENDS_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault that happened. at_ms: wall clock. pids: of the workers that were hit. ends_at_ms: back again."""

    fault: Fault
    at_ms: int
    ends_at_ms: int
    pids: tuple[int, ...] = ()


class Stage:
    """Everything that runs. Use it in a `with`."""

    def __init__(self, folder: Path, *, workers: int, partitions: int, load: Load) -> None:
        """folder: for data and logs. Raises ServiceMissing where the real services cannot run."""
        self.folder = folder
        self.load = load
        self.hits: list[Hit] = []
        self.skipped: Counter[Fault] = Counter()
        self.relaunched: list[str] = []  # servers that ended by themselves
        self._workers = workers
        self._stack = ExitStack()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._away_at = {"broker": 0.0, "clickhouse": 0.0}  # when it was last seen away
        self._wanted = {"broker": False, "clickhouse": False}
        write_experiments(folder / "experiments")
        self.kafka = self._stack.enter_context(KafkaServer(folder / "kafka"))
        self.clickhouse = self._stack.enter_context(ClickHouseServer(folder / "clickhouse"))
        self._servers = {"broker": self.kafka.process, "clickhouse": self.clickhouse.process}
        self._wanted = dict.fromkeys(self._servers, True)
        self.environment = outer_environment() | {
            "LIFTSTREAM_BROKER": f"kafka://{self.kafka.bootstrap}",
            "LIFTSTREAM_CLICKHOUSE_URL": self.clickhouse.url,
            "LIFTSTREAM_CHECKPOINTS": str(folder / "checkpoints"),
            "LIFTSTREAM_EXPERIMENTS": str(folder / "experiments"),
            "LIFTSTREAM_TOPIC_PREFIX": PREFIX,
            "LIFTSTREAM_TOPIC_PARTITIONS": str(partitions),
        }
        self.fleet = Fleet(self.environment, folder, self._was_away)
        self._stack.callback(self.fleet.kill_all)
        self._generator: subprocess.Popen[str] | None = None

    @property
    def settings(self) -> Settings:
        """Those of the workers."""
        names = {name for name in self.environment if name.startswith("LIFTSTREAM_")}
        return Settings(**{n.removeprefix("LIFTSTREAM_").lower(): self.environment[n] for n in names})

    def __enter__(self) -> Self:
        """Everything starts at once: the workers find neither topics nor tables nor a checkpoint store."""
        for _ in range(self._workers):
            self.fleet.add()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stack.close()

    # The load

    def start_load(self) -> None:
        """Begin to send."""
        arguments = [
            self.kafka.bootstrap,
            PREFIX,
            *map(str, (self.load.seed, self.load.start_ms, self.load.rate)),
        ]
        with (self.folder / "generator.log").open("ab") as log:
            self._generator = subprocess.Popen(
                [*die_with_us(), sys.executable, "-m", "tests.chaos.generator", *arguments],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self._stack.callback(self._end_generator)

    def end_load(self) -> tuple[int, int]:
        """Let it send its last records; how many of the traffic there were, and the time of the closing ones."""
        assert self._generator is not None
        out, _ = self._generator.communicate("\n", timeout=_LOAD_ENDS_SECONDS)
        answer = json.loads(out)
        return int(answer["sent"]), int(answer["closing_ms"])

    def _end_generator(self) -> None:
        assert self._generator is not None
        self._generator.kill()
        self._generator.wait()

    # Time

    def tend(self, seconds: float) -> None:
        """Let so much time pass while everything is looked after."""
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
            self._look_after_servers(now)
            self.fleet.tend()
            if now >= until:
                return
            time.sleep(min(_TICK_SECONDS, until - now))

    def make_everything_well(self) -> None:
        """End every fault now and return when broker and database answer."""
        deadline = time.monotonic() + _HEALING_SECONDS
        while self._due:
            self._due = [(0.0, serial, call) for _, serial, call in sorted(self._due)]
            self.tend(_TICK_SECONDS)
            if time.monotonic() > deadline:
                raise RuntimeError("the faults do not come to an end")
        for server in self._servers.values():
            server.wait_until_up()

    def _in(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._serial), call))

    def _look_after_servers(self, now: float) -> None:
        for name, server in self._servers.items():
            if self._wanted[name] and not server.is_running:
                self.relaunched.append(name)
                if len(self.relaunched) > _MAX_RELAUNCHED:
                    raise RuntimeError(f"{name} does not start, see its log in {self.folder / name}")
                server.launch()
            if not self._wanted[name]:
                self._away_at[name] = now

    def _was_away(self) -> bool:
        return any(time.monotonic() - at < _AFTERMATH_SECONDS for at in self._away_at.values())

    # Faults

    def apply(self, act: Act) -> None:
        """Begin a fault; it ends by itself. One for which there is nobody to be hit is skipped."""
        actions: dict[Fault, Callable[[Act], bool]] = {
            Fault.KILL: self._kill_worker,
            Fault.ZOMBIE: self._pause_worker,
            Fault.BLINK: self._pause_worker,
            Fault.RESTART: self._restart_worker,
            Fault.ROLL: self._roll,
            Fault.ADD: self._add_worker,
            Fault.REMOVE: self._restart_worker,
            Fault.BROKER_KILL: lambda act: self._end_server(act, "broker", ServerProcess.kill),
            Fault.BROKER_LONG: lambda act: self._end_server(act, "broker", ServerProcess.kill),
            Fault.BROKER_STOP: lambda act: self._end_server(act, "broker", ServerProcess.terminate),
            Fault.BROKER_PAUSE: lambda act: self._pause_server(act, "broker"),
            Fault.CLICKHOUSE_KILL: lambda act: self._end_server(act, "clickhouse", ServerProcess.kill),
            Fault.CLICKHOUSE_LONG: lambda act: self._end_server(act, "clickhouse", ServerProcess.kill),
            Fault.CLICKHOUSE_STOP: lambda act: self._end_server(act, "clickhouse", ServerProcess.terminate),
            Fault.CLICKHOUSE_PAUSE: lambda act: self._pause_server(act, "clickhouse"),
            Fault.POWER_CUT: self._cut_power,
        }
        if not actions[act.fault](act):
            self.skipped[act.fault] += 1

    def _hit(self, act: Act, *members: Member) -> bool:
        now_ms = time.time_ns() // 1_000_000
        pids = tuple(member.pid for member in members if member.pid is not None)
        self.hits.append(Hit(act.fault, now_ms, now_ms + int(act.seconds * 1000), pids))
        return True

    def _one_of(self, act: Act) -> Member | None:
        healthy = [member for member in self.fleet.members if member.is_up]
        return healthy[act.choice % len(healthy)] if healthy else None

    def _kill_worker(self, act: Act) -> bool:
        if (member := self._one_of(act)) is None:
            return False
        self._hit(act, member)
        self.fleet.kill(member)
        self._in(act.seconds, lambda: self.fleet.start(member))
        return True

    def _pause_worker(self, act: Act) -> bool:
        if (member := self._one_of(act)) is None:
            return False
        self._hit(act, member)
        self.fleet.pause(member)
        self._in(act.seconds, lambda: self.fleet.resume(member))
        return True

    def _restart_worker(self, act: Act) -> bool:
        if (member := self._one_of(act)) is None:
            return False
        self._hit(act, member)
        self._stop_and_start(member, act.seconds)
        return True

    def _stop_and_start(
        self, member: Member, away_seconds: float, then: Callable[[], None] | None = None
    ) -> None:
        self.fleet.stop(member)

        def start_when_ended() -> None:
            if member.child is not None:
                return self._in(_TICK_SECONDS, start_when_ended)
            self._in(away_seconds, lambda: self.fleet.start(member))
            if then is not None:
                self._in(away_seconds + 1, then)
            return None

        start_when_ended()

    def _roll(self, act: Act) -> bool:
        members = [member for member in self.fleet.members if member.is_up]
        if not members:
            return False
        self._hit(act, *members)

        def next_one() -> None:
            if members:
                self._stop_and_start(members.pop(), act.seconds, next_one)

        next_one()
        return True

    def _add_worker(self, act: Act) -> bool:
        self._hit(act)
        spare = next((m for m in self.fleet.members if m.child is None and m.is_spare), None)
        if spare is None:
            spare = self.fleet.add()
            spare.is_spare = True
        self.fleet.start(spare)
        self._in(act.seconds, lambda: self.fleet.stop(spare))
        return True

    def _end_server(self, act: Act, name: str, end: Callable[[ServerProcess], None]) -> bool:
        if not self._wanted[name]:
            return False
        self._hit(act)
        self._wanted[name] = False
        end(self._servers[name])
        self._in(act.seconds, lambda: self._start_server(name))
        return True

    def _start_server(self, name: str) -> None:
        if self._servers[name].is_running:  # told to end, and still about it
            self._in(_TICK_SECONDS, lambda: self._start_server(name))
            return
        self._servers[name].launch()
        self._wanted[name] = True

    def _pause_server(self, act: Act, name: str) -> bool:
        if not self._wanted[name]:
            return False
        self._hit(act)
        self._wanted[name] = False
        self._servers[name].pause()

        def resume() -> None:
            self._servers[name].resume()
            self._wanted[name] = True

        self._in(act.seconds, resume)
        return True

    def _cut_power(self, act: Act) -> bool:
        members = [member for member in self.fleet.members if member.is_up]
        if not members or not all(self._wanted.values()):
            return False
        self._hit(act, *members)
        for member in members:
            self.fleet.kill(member)
            self._in(act.seconds, lambda member=member: self.fleet.start(member))
        for name in self._servers:
            self._wanted[name] = False
            self._servers[name].kill()
            self._in(act.seconds, lambda name=name: self._start_server(name))
        return True
