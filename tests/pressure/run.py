"""Takes ClickHouse away from a worker under load: what becomes of memory, of the group and of the numbers?"""

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from stream.local.database import open_database
from stream.sink.queries import Database
from tests.app.process import WorkerProcess, ask, has_written_all
from tests.hostile.records import Hostile
from tests.hostile.run import GOOD, Sender, expected, good_user
from tests.services.clickhouse import ClickHouseServer

_EXPERIMENT = 'control = "control"\n[arms.control]\n[arms.b]\n'
_TICK_SECONDS = 0.1


@dataclass
class Sample:
    """One look at the worker."""

    second: int
    memory_mb: int
    outbox_bytes: int
    outbox_rows: int
    lag: int
    is_paused: bool
    page_ms: int  # until /metrics answered


@dataclass
class Report:
    """What a run found; `wrong` is empty when all is well."""

    samples: list[Sample] = field(default_factory=list)
    sent: int = 0
    catch_up_seconds: float = 0.0
    most_memory_bytes: int = 0
    reasons: list[str] = field(default_factory=list)  # that /readyz gave, each sentence's beginning once
    wrong: list[str] = field(default_factory=list)


class Load(threading.Thread):
    """Sends good users, and a part of noise, at a steady rate until it is stopped."""

    def __init__(self, sender: Sender, rate: float, noise_share: float) -> None:
        super().__init__(daemon=True)
        self._sender = sender
        self._users_per_tick = rate * _TICK_SECONDS * (1 - noise_share) / 2.5
        self._noise_per_tick = rate * _TICK_SECONDS * noise_share
        self._stopping = threading.Event()
        self.users = 0

    def run(self) -> None:
        noise = Hostile(1, 1).records(1 << 40)
        users = letters = 0.0
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due += _TICK_SECONDS
            users, letters = users + self._users_per_tick, letters + self._noise_per_tick
            while users >= 1:
                for record in good_user(self.users, int(time.time() * 1000)):
                    self._sender.send(record)
                self.users += 1
                users -= 1
            while letters >= 1:
                record = next(noise)
                if record.is_bad and len(record.value or b"") < 10_000:
                    self._sender.send(record)
                    letters -= 1
        self._sender.flush()

    def stop(self) -> None:
        """Until all was taken by the broker."""
        self._stopping.set()
        self.join()


def outage(
    settings: dict[str, str],
    folder: Path,
    clickhouse: ClickHouseServer,
    *,
    seconds: float,
    rate: float,
    noise_share: float,
    needs_pause: bool,
) -> Report:
    """Kill ClickHouse under load for so long, bring it back, and compare."""
    report = Report()
    note = report.wrong.append
    (folder / "experiments").mkdir(exist_ok=True)
    (folder / "experiments" / f"{GOOD}.toml").write_text(_EXPERIMENT)
    worker = WorkerProcess(folder, **settings)
    worker.start()
    port = settings["web_port"]
    try:
        worker.wait_for(lambda: ask(port, "readyz")[0] == 200)
        before = _numbers(port)["liftstream_assignments_total"]
        sender = Sender(settings["broker"].removeprefix("kafka://"), settings["topic_prefix"], note)
        load = Load(sender, rate, noise_share)
        load.start()
        with open_database(settings["clickhouse_url"]) as db:
            worker.wait_for(lambda: _consumed(db))
        clickhouse.kill()
        began = time.monotonic()
        pause = min(5.0, seconds / 20)

        def is_over() -> bool:
            _look(worker, port, report, int(time.monotonic() - began))
            time.sleep(pause)
            is_long_enough = time.monotonic() - began > seconds
            return is_long_enough and (not needs_pause or report.samples[-1].is_paused)

        worker.wait_for(is_over, 4 * seconds + 60)
        clickhouse.start()
        load.stop()
        back = time.monotonic()
        report.sent = sum(sender.sent.values())
        with open_database(settings["clickhouse_url"]) as db:
            worker.wait_for(lambda: _consumed(db) >= report.sent and has_written_all(port), 600)
            report.catch_up_seconds = time.monotonic() - back
            _compare(db, sender, load.users, report)
        if _numbers(port)["liftstream_assignments_total"] != before:
            note("the group rebalanced")
        report.most_memory_bytes = worker.memory_bytes("VmHWM")
    except AssertionError as failure:
        note(f"the worker ended or stood still: {str(failure)[-2_000:]}")
    finally:
        worker.kill()
    return report


def _consumed(db: Database) -> int:
    return int(db.query("SELECT sum(consumed) FROM ledger").rows[0][0] or 0)


def _numbers(port: str) -> dict[str, float]:
    """Sums over labels by sample name."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(ask(port, "metrics")[1]):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def _look(worker: WorkerProcess, port: str, report: Report, second: int) -> None:
    started = time.monotonic()
    numbers = _numbers(port)
    page_ms = int((time.monotonic() - started) * 1000)
    reasons = json.loads(ask(port, "readyz")[1])["reasons"]
    report.reasons += [said for said in (r[:60] for r in reasons) if said[:30] not in str(report.reasons)]
    report.samples.append(
        Sample(
            second=second,
            memory_mb=worker.memory_bytes() >> 20,
            outbox_bytes=int(numbers["liftstream_outbox_bytes"]),
            outbox_rows=int(numbers["liftstream_outbox_rows"]),
            lag=int(numbers.get("liftstream_lag_records", 0)),
            is_paused=any("has reached its limit" in reason for reason in reasons),
            page_ms=page_ms,
        )
    )


def _compare(db: Database, sender: Sender, users: int, report: Report) -> None:
    note = report.wrong.append
    if not any("ClickHouse cannot be written to" in reason for reason in report.reasons):
        note("/readyz did not say that ClickHouse is away")
    if unbalanced := db.query("SELECT count() FROM ledger WHERE NOT balanced").rows[0][0]:
        note(f"{unbalanced} rows of the ledger do not balance")
    consumed = dict(db.query("SELECT topic, sum(consumed) FROM ledger GROUP BY topic").rows)
    if consumed != dict(sender.sent):
        note(f"sent {dict(sender.sent)} but the ledger has consumed {consumed}")
    letters = {tuple(row) for row in db.query('SELECT topic, partition, "offset" FROM dead_letters').rows}
    if letters != sender.bad:
        note(f"{len(sender.bad)} records are bad but there are {len(letters)} dead letters")
    totals = db.query(f"SELECT * FROM arm_totals WHERE slice = 'all' AND experiment = '{GOOD}'").dicts()
    counted = {row["arm"]: {name: row[name] for name in expected(0)["b"]} for row in totals}
    if counted != expected(users):
        note(f"the experiment must be {expected(users)} but is {counted}")
