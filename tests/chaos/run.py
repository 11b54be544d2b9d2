"""One run: a storm of faults under load, calm until everything is counted, then the truth."""

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from stream.app.warm import warm_up
from stream.contracts.definitions import Definitions
from stream.durability.store import open_store
from stream.errors import LiftstreamError
from stream.local.database import open_database
from tests.chaos.compare import differences, result_differences
from tests.chaos.generator import Load
from tests.chaos.schedule import Act, schedule_of
from tests.chaos.stage import PREFIX, Stage
from tests.chaos.takeover import Times, percentiles, takeover_times
from tests.chaos.truth import Place, Stored, Truth, journals, read_topics, truth_of
from tests.chaos.watch import Seen, Watch, run_liftstream, too_much, topic_names

_START_SECONDS = 600.0  # a cold machine compiles the kernels first
_DRAIN_SECONDS = 240.0
_SETTLE_SECONDS = 30.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run."""

    seed: int
    seconds: float
    workers: int = 3
    partitions: int = 4
    rate: float = 500.0

    @property
    def acts(self) -> list[Act]:
        """The faults."""
        return schedule_of(self.seed, self.seconds)


@dataclass
class Report:
    """How a run ended. wrong: every difference from the truth, and everything no fault explains."""

    plan: Plan
    events: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    takeovers: dict[str, dict[str, float]] = field(default_factory=dict)
    replayed_steps: int = 0
    looks: int = 0
    drain_seconds: float = 0.0
    stop_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def is_exact(self) -> bool:
        """Whether everything is as it must be."""
        return not self.wrong

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "seed": self.plan.seed,
            "minutes": round(self.plan.seconds / 60, 2),
            "workers": self.plan.workers,
            "partitions": self.plan.partitions,
            "events": self.events,
            "exact": self.is_exact,
            "wrong": self.wrong,
            "faults": dict(self.faults),
            "takeover_seconds": self.takeovers,
            "stop_seconds": self.stop_seconds,
            "replayed_steps": self.replayed_steps,
            "looks": self.looks,
            "drain_seconds": round(self.drain_seconds, 1),
            "notes": self.notes,
        }


def run(plan: Plan, folder: Path, tell: Tell) -> Report:
    """Raises ServiceMissing where the real services cannot run."""
    report = Report(plan)
    tell("preparing the kernels")
    warm_up(Definitions())  # once, and not in every worker at the same time
    load = Load(plan.seed, time.time_ns() // 1_000_000, plan.rate)
    with Stage(folder, workers=plan.workers, partitions=plan.partitions, load=load) as stage:
        watch = Watch(stage, plan.partitions, plan.seed)
        try:
            _Run(plan, stage, watch, report, tell).go()
        except (
            Exception
        ) as error:  # the report is worth more than a traceback: it has the seed and the evidence
            report.wrong.append(f"the run did not come to its end: {error!r}")
        finally:
            watch.end() if watch.is_alive() else None
    _judge_logs(stage, report)
    return report


class _Run:
    def __init__(self, plan: Plan, stage: Stage, watch: Watch, report: Report, tell: Tell) -> None:
        self._plan = plan
        self._stage = stage
        self._watch = watch
        self._report = report
        self._tell = tell

    def go(self) -> None:
        stage, report = self._stage, self._report
        self._tell("waiting for the first step")
        self._wait_for_topics()
        stage.start_load()
        self._wait(lambda: self._consumed() > 0, _START_SECONDS, "no worker counts anything")
        self._watch.start()
        self._storm()
        self._tell("the storm is over: every fault ends, the load ends, everything is counted")
        stage.make_everything_well()
        sent, closing_ms = stage.end_load()
        began = time.monotonic()
        logs = read_topics(stage.kafka.bootstrap, PREFIX, self._plan.partitions)
        report.events = sum(map(len, logs.values()))
        self._wait(lambda: self._consumed() >= report.events, _DRAIN_SECONDS, "not everything is counted")
        report.drain_seconds = time.monotonic() - began
        self._watch.end()
        report.wrong += _lost(stage.load, sent, closing_ms, logs)
        self._tell(f"counting {report.events:,} records with the oracle")
        self._compare(logs)

    def _storm(self) -> None:
        began = time.monotonic()
        for act in self._plan.acts:
            self._stage.tend(max(0.0, began + act.at_s - time.monotonic()))
            self._tell(str(act))
            self._stage.apply(act)
        self._stage.tend(max(0.0, began + self._plan.seconds - time.monotonic()))

    def _compare(self, logs: dict[Place, list[Stored]]) -> None:
        stage, report = self._stage, self._report
        steps = journals(open_store(stage.settings.checkpoints), self._plan.partitions)
        truth = truth_of(logs, steps, stage.settings.definitions())
        report.wrong += truth.wrong
        self._settle(lambda: self._differences(truth))
        checked = run_liftstream(stage, "ledger", "--check")
        if checked.returncode:
            report.wrong.append(f"liftstream ledger --check: {checked.stdout} {checked.stderr}")
        report.wrong += result_differences(
            json.loads(run_liftstream(stage, "results", "--json").stdout), truth
        )
        stage.fleet.stop_all()
        report.wrong += [f"after the stop: {sentence}" for sentence in self._differences(truth)]
        self._conclude(truth, takeover_times(stage.hits, steps), self._watch.seen)

    def _settle(self, ask: Callable[[], list[str]]) -> None:
        """Sinks and rolling windows may be a moment behind the ledger."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while (wrong := ask()) and time.monotonic() < deadline:
            self._stage.tend(1)
        self._report.wrong += wrong

    def _conclude(self, truth: Truth, times: Times, seen: Seen) -> None:
        report, fleet = self._report, self._stage.fleet
        report.wrong += [*seen.wrong[:20], *too_much(seen, truth), *fleet.findings]
        report.faults = Counter(hit.fault.name.lower() for hit in self._stage.hits)
        report.takeovers = {
            "kill, alone": percentiles(times.killed_alone),
            "kill": percentiles(times.killed),
            "stop, alone": percentiles(times.stopped),
        }
        report.stop_seconds = percentiles(fleet.stop_seconds)
        report.replayed_steps = int(sum(seen.replayed.values()))
        report.looks = seen.looks
        report.notes += [*fleet.excuses, *(f"{name} ended by itself" for name in self._stage.relaunched)]

    def _differences(self, truth: Truth) -> list[str]:
        with open_database(self._stage.clickhouse.url) as db:
            return differences(db, truth, topic_names())

    def _consumed(self) -> int:
        try:
            with open_database(self._stage.clickhouse.url, timeout_seconds=1) as db:
                return int(db.query("SELECT sum(consumed) FROM ledger").rows[0][0] or 0)
        except LiftstreamError:
            return 0

    def _wait_for_topics(self) -> None:
        names = set(topic_names().values())
        admin = self._stage.kafka.admin()
        self._wait(
            lambda: names <= set(admin.list_topics(timeout=5).topics), _START_SECONDS, "no topics are made"
        )

    def _wait(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            self._stage.tend(0.3)
            if self._stage.fleet.findings:
                raise RuntimeError(f"{otherwise}: {self._stage.fleet.findings}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{otherwise} within {seconds:.0f} s")


def _lost(load: Load, sent: int, closing_ms: int, logs: dict[Place, list[Stored]]) -> list[str]:
    """Kafka must hold exactly what was acknowledged, some of it perhaps twice: else nothing below means anything."""
    wanted = {(record.topic, record.key, record.value) for record in islice(load.records(), sent)}
    wanted |= {(record.topic, record.key, record.value) for record in load.closing(closing_ms)}
    found = {(topic, record.key, record.value) for (topic, _), log in logs.items() for record in log}
    per_topic = Counter(topic.word for topic, *_ in wanted - found)
    wrong = [f"Kafka lost {n} acknowledged records of {topic}" for topic, n in per_topic.items()]
    return [*wrong, *(["Kafka holds records that nobody sent"] if found - wanted else [])]


def _judge_logs(stage: Stage, report: Report) -> None:
    """A traceback is nothing an operator should have to read."""
    for member in stage.fleet.members:
        lines = member.log.read_text(errors="replace").splitlines()
        found = Counter(_cause(lines, at) for at, line in enumerate(lines) if line.startswith("Traceback"))
        report.notes += [f"{member.name}: {n} tracebacks, {cause}" for cause, n in found.items()]


def _cause(lines: list[str], at: int) -> str:
    """The last line of the traceback that begins at a line."""
    return next((line for line in lines[at + 1 :] if not line.startswith(" ")), "")[:200]
