"""Sends hostile records among good ones to one worker, and says whether it lived, lost nothing and counted right."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from stream.contracts.topics import Topic
from stream.local.database import open_database
from stream.sink.queries import Database
from tests.app.process import WorkerProcess, ask, has_written_all
from tests.hostile.records import Hostile, Record, encoded

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
GOOD = "good-experiment-with-a-long-name"
GOOD_SHARE = 0.1  # a good user (3 events) for so many hostile records
BOMB_BYTES = 80 << 20  # unpacked
BOMBS = ("gzip", "lz4", "zstd")  # snappy does not pack as well: 1 MiB of it is 21 MiB at most
_EXPERIMENT = 'control = "control"\n[arms.control]\n[arms.b]\n'


@dataclass
class Report:
    """What a run found; `wrong` is empty when all is well."""

    hostile: int
    seconds: float = 0.0
    sent: Counter[str] = field(default_factory=Counter)  # by topic
    bad: int = 0  # of them that must be rejected
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    most_memory_bytes: int = 0
    was_tripped: bool = False
    wrong: list[str] = field(default_factory=list)


class Sender:
    """One producer for each codec; notes where the records that must be rejected came to stand."""

    def __init__(self, bootstrap: str, prefix: str, note: Callable[[str], None]) -> None:
        self.sent: Counter[str] = Counter()
        self.bad: set[tuple[str, int, int]] = set()
        self._prefix = prefix
        self._note = note
        shared = {
            "bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "message.max.bytes": 200 << 20,
            "queue.buffering.max.kbytes": 300 << 10, "batch.size": 500_000, "linger.ms": 20,
        }  # fmt: skip
        self._producers = [Producer(shared | {"compression.type": codec}) for codec in CODECS]
        self._turn = 0

    def send(self, record: Record, codec: str | None = None) -> None:
        """Produce it, each record with the next codec unless one is said."""
        self._turn += 1
        place = CODECS.index(codec) if codec else self._turn % len(CODECS)
        if record.value and len(record.value) > 500_000 and codec is None:
            place = 0
        producer = self._producers[place]
        where = {} if record.partition is None else {"partition": record.partition}
        topic = self._prefix + record.topic.word
        while True:
            try:
                producer.produce(
                    topic, record.value, record.key, on_delivery=self._noting(record), **where
                )  # fmt: skip
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
        self.sent[topic] += 1

    def _noting(self, record: Record) -> Callable[[Any, Any], None]:
        def delivered(error: Any, message: Any) -> None:
            if error is not None:
                self._note(f"the broker refused a record of {len(record.value or b'')} bytes: {error}")
            elif record.is_bad:
                self.bad.add((message.topic(), message.partition(), message.offset()))

        return delivered

    def flush(self) -> None:
        """Until the broker has all."""
        for producer in self._producers:
            if producer.flush(120):
                self._note("the broker did not take everything within 120 s")


def good_user(number: int, now_ms: int) -> Iterator[Record]:
    """An assignment, an impression and, of each second user, a click; no flipped bit of a hostile id makes theirs."""
    user, at = f"user-{number}", now_ms - 300_000 + number % 1_000
    key = user.encode()
    arm = "control" if number % 3 else "b"
    yield Record(
        Topic.ASSIGNMENTS,
        key,
        encoded(
            Topic.ASSIGNMENTS,
            {"event_id": f"good-a{number}", "at": at, "user_id": user, "experiment": GOOD, "arm": arm},
        ),
    )
    shown = {
        "event_id": f"good-i{number}", "at": at + 1, "user_id": user, "impression_id": f"good-s{number}",
        "request_id": "r", "item_id": "t", "surface": "home", "position": 0, "model": "m", "model_version": "1",
    }  # fmt: skip
    yield Record(Topic.IMPRESSIONS, key, encoded(Topic.IMPRESSIONS, shown))
    if number % 2:
        click = {
            "event_id": f"good-c{number}", "at": at + 2, "user_id": user,
            "impression_id": f"good-s{number}", "kind": "click",
        }  # fmt: skip
        yield Record(Topic.INTERACTIONS, key, encoded(Topic.INTERACTIONS, click))


def expected(users: int) -> dict[str, dict[str, int]]:
    """Columns of arm_totals by arm."""
    found = {}
    for arm in ("control", "b"):
        numbers = [n for n in range(users) if (n % 3 != 0) == (arm == "control")]
        found[arm] = {
            "assigned_users": len(numbers),
            "exposed_users": len(numbers),
            "impressions": len(numbers),
            "clicks": sum(n % 2 for n in numbers),
            "clicked_impressions": sum(n % 2 for n in numbers),
            "mixed_users": 0,
        }
    return found


def attack(
    settings: dict[str, str], folder: Path, *, hostile: int, seed: int, bombs: int = 2, minutes: float = 30
) -> Report:
    """Start a worker with these settings, send it everything, and compare."""
    report = Report(hostile)
    note = report.wrong.append
    (folder / "experiments").mkdir(exist_ok=True)
    (folder / "experiments" / f"{GOOD}.toml").write_text(_EXPERIMENT)
    worker = WorkerProcess(folder, **settings)
    worker.start()
    assert worker.child is not None
    pid = worker.child.pid
    try:
        worker.wait_for(lambda: ask(settings["web_port"], "readyz")[0] == 200)
        started = time.monotonic()
        sender = Sender(settings["broker"].removeprefix("kafka://"), settings["topic_prefix"], note)
        users = _send_all(sender, hostile, seed, int(settings.get("topic_partitions", 4)), bombs)
        report.sent, report.bad = sender.sent, len(sender.bad)
        with open_database(settings["clickhouse_url"]) as db:
            _await_all(worker, db, settings, report, minutes)
            report.seconds = time.monotonic() - started
            _compare(db, sender, users, report)
        report.most_memory_bytes = worker.memory_bytes("VmHWM")
        _check_ledger(settings, folder, note)
        if worker.child.pid != pid or worker.child.poll() is not None:
            note("the worker ended")
        if worker.stop() != 0:
            note("the worker did not stop cleanly")
        if "Traceback" in worker.log.read_text():
            note("there is a traceback in the worker's log")
    except AssertionError as failure:
        note(f"the worker ended or stood still: {str(failure)[-2_000:]}")
    finally:
        worker.kill()
    return report


def _send_all(sender: Sender, hostile: int, seed: int, partitions: int, bombs: int) -> int:
    """Hostile and good records mixed, bombs in the middle; how many good users there were."""
    users, now_ms = 0, int(time.time() * 1000)
    for place, record in enumerate(Hostile(seed, partitions).records(hostile)):
        sender.send(record)
        if place % int(1 / GOOD_SHARE) == 0:
            for good in good_user(users, now_ms):
                sender.send(good)
            users += 1
        if place == hostile // 2:
            for codec in BOMBS * bombs:
                sender.send(Record(Topic.IMPRESSIONS, b"bomb", bytes(BOMB_BYTES), is_bad=True), codec)
    sender.flush()
    return users


def _await_all(
    worker: WorkerProcess, db: Database, settings: dict[str, str], report: Report, minutes: float
) -> None:
    total = sum(report.sent.values())

    def is_done() -> bool:
        report.was_tripped |= "were rejected" in ask(settings["web_port"], "readyz")[1]
        consumed = db.query("SELECT sum(consumed) FROM ledger").rows[0][0] or 0
        return bool(consumed >= total) and has_written_all(settings["web_port"])

    worker.wait_for(is_done, minutes * 60)


def _compare(db: Database, sender: Sender, users: int, report: Report) -> None:
    note = report.wrong.append
    consumed = dict(db.query("SELECT topic, sum(consumed) FROM ledger GROUP BY topic").rows)
    if consumed != dict(sender.sent):
        note(f"sent {dict(sender.sent)} but the ledger has consumed {consumed}")
    (report.rejected,) = db.query("SELECT sum(rejected) FROM ledger").rows[0]
    letters = {tuple(row) for row in db.query('SELECT topic, partition, "offset" FROM dead_letters').rows}
    if len(letters) != report.rejected:
        note(f"the ledger has {report.rejected} rejected records but there are {len(letters)} dead letters")
    if missing := sender.bad - letters:
        note(f"{len(missing)} bad records are no dead letters, such as {min(missing)}")
    reasons = db.query("SELECT reason, count() FROM dead_letters GROUP BY reason ORDER BY reason").rows
    report.reasons = {str(reason): int(count) for reason, count in reasons}
    totals = db.query(f"SELECT * FROM arm_totals WHERE slice = 'all' AND experiment = '{GOOD}'").dicts()
    counted = {row["arm"]: {name: row[name] for name in expected(0)["b"]} for row in totals}
    if counted != expected(users):
        note(f"the good experiment must be {expected(users)} but is {counted}")


def _check_ledger(settings: dict[str, str], folder: Path, note: Callable[[str], None]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIFTSTREAM_")}
    environment |= {f"LIFTSTREAM_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "stream.cli", "ledger", "--check"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        note(f"liftstream ledger --check: {(done.stdout + done.stderr).strip()[:500]}")


def as_json(report: Report) -> str:
    """For programs."""
    return json.dumps(vars(report), indent=2)
