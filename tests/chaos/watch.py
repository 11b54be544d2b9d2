"""Looks at the database at random moments while everything breaks: what must always be true."""

import random
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition

from stream.contracts.topics import Topic
from stream.errors import LiftstreamError
from stream.local.database import open_database
from stream.sink.queries import Database, ledger_imbalances
from tests.chaos.fleet import Fleet
from tests.chaos.stage import PREFIX, Stage
from tests.chaos.traffic import STEADY
from tests.chaos.truth import Truth

_LONGEST_PAUSE_SECONDS = 2.0
_COMMAND_SHARE = 0.08  # of the looks that also run `liftstream ledger --check`
_RISING = ("assigned_users", "exposed_users", "impressions", "clicks")
_SUMS = ", ".join(f"sum({name})" for name in _RISING)


@dataclass
class Seen:
    """What was looked at, and what was wrong."""

    looks: int = 0
    commands: int = 0
    unanswered: int = 0
    wrong: list[str] = field(default_factory=list)
    totals: list[dict[str, Counter[str]]] = field(
        default_factory=list
    )  # of `steady`, by arm, in the order of looks
    replayed: dict[str, float] = field(default_factory=dict)  # steps, by process


class Watch(threading.Thread):
    """Runs until `end`. It has a connection of its own, and waits as long as the database does."""

    def __init__(self, stage: Stage, partitions: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.seen = Seen()
        self._stage = stage
        self._partitions = partitions
        self._draw = random.Random(seed)
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.wait(self._draw.uniform(0, _LONGEST_PAUSE_SECONDS)):
            self._guarded(self._look)
            if self._draw.random() < _COMMAND_SHARE:
                self._guarded(self._run_command)
            self._scrape(self._stage.fleet)

    def end(self) -> None:
        """No more looks."""
        self._ending.set()
        self.join()

    def _guarded(self, what: Callable[[], None]) -> None:
        try:
            what()
        except (LiftstreamError, KafkaException):
            self.seen.unanswered += 1
        except Exception as error:  # a look must not end the watch
            self.seen.wrong.append(f"a look failed: {error!r}")

    def _look(self) -> None:
        with open_database(self._stage.clickhouse.url, timeout_seconds=2) as db:
            self.seen.wrong += [f"ledger during the run: {row}" for row in ledger_imbalances(db)]
            self._compare_with_ends(db)
            rows = db.query(
                f"SELECT arm, {_SUMS} FROM arm_totals WHERE experiment = '{STEADY}' AND slice = 'all' GROUP BY arm"
            ).rows
            self.seen.totals.append(
                {arm: Counter(dict(zip(_RISING, map(int, n), strict=True))) for arm, *n in rows}
            )
        self.seen.looks += 1

    def _compare_with_ends(self, db: Database) -> None:
        """Never more records than the topics hold."""
        rows = db.query("SELECT topic, partition, sum(consumed) FROM ledger GROUP BY topic, partition").rows
        consumer = Consumer(
            {"bootstrap.servers": self._stage.kafka.bootstrap, "group.id": "watch", "log_level": 0}
        )
        try:
            for topic, partition, consumed in rows:
                _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=2)
                if consumed > end:
                    self.seen.wrong.append(
                        f"{consumed} records of {topic} {partition} are counted, it holds {end}"
                    )
        finally:
            consumer.close()

    def _run_command(self) -> None:
        done = run_liftstream(self._stage, "ledger", "--check")
        if done.returncode == 0:
            self.seen.commands += 1
        elif "do not add up" in done.stderr:
            self.seen.wrong.append(f"liftstream ledger --check: {done.stdout} {done.stderr}")
        else:
            self.seen.unanswered += 1

    def _scrape(self, fleet: Fleet) -> None:
        for member in [member for member in fleet.members if member.is_up]:
            with suppress(OSError):
                with urllib.request.urlopen(f"http://127.0.0.1:{member.port}/metrics", timeout=1) as answer:
                    text = answer.read().decode()
                for line in text.splitlines():
                    if line.startswith("liftstream_replayed_steps_total "):
                        self.seen.replayed[f"{member.name} {member.pid}"] = float(line.split()[1])


def too_much(seen: Seen, truth: Truth) -> list[str]:
    """Totals of an experiment in which nobody changes the arm never fall, and never exceed the truth."""
    wrong = []
    latest: dict[str, Counter[str]] = {}
    final = {arm: counts for (e, arm, d, _), counts in truth.totals.items() if (e, d) == (STEADY, "all")}
    for at, totals in enumerate(seen.totals):
        for arm, counts in totals.items():
            for name in _RISING:
                if (
                    counts[name] > final.get(arm, Counter())[name]
                    or counts[name] < latest.get(arm, Counter())[name]
                ):
                    wrong.append(
                        f"look {at}: {name} of {STEADY} {arm} was {counts[name]}, before {latest.get(arm)}, at the end "
                        f"{final.get(arm)}"
                    )
        latest.update(totals)
    return wrong[:5]


def run_liftstream(stage: Stage, *words: str) -> subprocess.CompletedProcess[str]:
    """A command with the workers' settings."""
    command = [sys.executable, "-m", "stream.cli", *words]
    folder: Path = stage.folder
    return subprocess.run(
        command, cwd=folder, env=stage.environment, capture_output=True, text=True, timeout=120, check=False
    )


def topic_names() -> dict[Topic, str]:
    """Full names of the input topics."""
    return {topic: PREFIX + topic.word for topic in Topic}
