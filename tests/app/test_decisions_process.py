"""An arm collapses: one decision, told and acted on, on real services, while the worker is killed again and again."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer

from stream.local.database import open_database
from stream.producer import Producer
from stream.sink.queries import Database
from tests.app.process import WorkerProcess, ask, worker_settings
from tests.decisions.receiver import SECRET, ReceiverServer
from tests.services.clickhouse import ClickHouseServer
from tests.services.kafka import KafkaServer

RANKER = """
control = "old"
[arms.old]
role = "baseline"
[arms.new]
[[guardrails]]
metric = "ctr"
worse_than_control = 0.02
"""
USERS = 400  # of each arm and half
COLLAPSED = "SELECT arm, baseline FROM baseline_lift WHERE metric = 'ctr' AND lift_high < 0"
DECISION = "ranker/ctr-worse/new/1"


@pytest.fixture
def settings(
    kafka: KafkaServer, clickhouse_server: ClickHouseServer, unique: str, tmp_path: Path
) -> dict[str, str]:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "ranker.toml").write_text(RANKER)
    return worker_settings(
        kafka, clickhouse_server.url_of(unique), tmp_path, unique,
        armed="true", webhook_secret=SECRET, flag_file=str(tmp_path / "flags.json"),
    )  # fmt: skip


@pytest.fixture
def receiver() -> Iterator[ReceiverServer]:
    with ReceiverServer() as server:
        yield server


@pytest.fixture
def worker(settings: dict[str, str], receiver: ReceiverServer, tmp_path: Path) -> Iterator[WorkerProcess]:
    process = WorkerProcess(tmp_path, **settings, webhook_url=receiver.url)
    process.start()
    yield process
    process.kill()


def send_users(settings: dict[str, str], half: int, *, ctr_of_new: float) -> None:
    """One impression each; the control's users click every fifth time."""
    at = int(time.time() * 1000) - 60_000
    with Producer(settings["broker"], topic_prefix=settings["topic_prefix"]) as producer:
        for number in range(2 * USERS):
            user, arm = f"user-{half}-{number}", "new" if number % 2 else "old"
            producer.assignment(event_id=f"a-{user}", at=at, user_id=user, experiment="ranker", arm=arm)
            producer.impression(
                event_id=f"i-{user}", at=at + 1, user_id=user, impression_id=f"s-{user}", request_id=f"r-{user}",
                item_id="item", surface="home", position=0, model=arm, model_version="1",
            )  # fmt: skip
            if (number // 2) % 100 < 100 * (ctr_of_new if arm == "new" else 0.2):
                producer.interaction(
                    event_id=f"c-{user}", at=at + 2, user_id=user, impression_id=f"s-{user}", kind="click"
                )


def flag(settings: dict[str, str]) -> dict[str, Any]:
    path = Path(settings["flag_file"])
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"flags": {"ranker": {}}}
    found: dict[str, Any] = document["flags"]["ranker"]
    return found


def decided(db: Database) -> list[dict[str, Any]]:
    return db.query("SELECT * FROM decisions").dicts()


def messages(settings: dict[str, str]) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": settings["broker"].removeprefix("kafka://"),
            "group.id": f"{settings['group']}-decisions",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([settings["topic_prefix"] + "decisions"])
    found: list[bytes] = []
    deadline = time.monotonic() + 20
    while not found and time.monotonic() < deadline:
        found += [record.key() for record in consumer.consume(100, 2) if not record.error()]
    consumer.close()
    return found


def test_an_arm_that_collapses_is_switched_off_once_whatever_is_killed(
    worker: WorkerProcess, settings: dict[str, str], receiver: ReceiverServer
) -> None:
    worker.wait_for(lambda: ask(settings["web_port"], "readyz")[0] == 200)
    send_users(settings, 1, ctr_of_new=0.2)
    worker.wait_for(lambda: flag(settings).get("state") == "DISABLED")
    with open_database(settings["clickhouse_url"]) as db:
        worker.wait_for(lambda: db.query("SELECT count() FROM baseline_lift WHERE metric = 'ctr'").rows[0][0])
        assert decided(db) == []
        send_users(settings, 2, ctr_of_new=0.0)
        worker.kill()
        worker.start()
        worker.wait_for(lambda: receiver.received)
        worker.kill()
        worker.start()
        worker.wait_for(lambda: decided(db))
        send_users(settings, 3, ctr_of_new=0.0)
        worker.wait_for(lambda: db.query("SELECT sum(impressions) FROM arm_totals").rows[0][0] >= 6 * USERS)
        (row,) = decided(db)
        worker.wait_for(lambda: db.query(COLLAPSED).rows == [("new", "old")])
    assert (row["id"], row["armed"], row["fallback"]) == (DECISION, True, "old")
    assert row["always_high"] < -0.02
    assert {received.key for received in receiver.received} == {DECISION}
    assert all(received.authentic for received in receiver.received)
    assert (flag(settings)["state"], flag(settings)["defaultVariant"]) == ("ENABLED", "old")
    assert set(messages(settings)) == {DECISION.encode()}
    assert worker.stop() == 0
    assert "Traceback" not in worker.log.read_text()
