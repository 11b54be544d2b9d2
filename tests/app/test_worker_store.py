"""`liftstream worker` with its checkpoints on a real S3 server that is killed under it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.local.database import open_database
from stream.producer import Producer
from stream.sink.queries import Database, ledger_imbalances
from tests.app.process import WorkerProcess, ask, worker_settings
from tests.services.clickhouse import ClickHouseServer
from tests.services.kafka import KafkaServer
from tests.services.s3 import BUCKET, S3Server

USERS = 500  # of each half


@pytest.fixture
def store_server(s3_server: S3Server, tmp_path: Path) -> Iterator[S3Server]:
    """One of the test's own, for it is killed."""
    with S3Server(tmp_path / "s3") as own:
        yield own


@pytest.fixture
def settings(
    kafka: KafkaServer, clickhouse_server: ClickHouseServer, unique: str, tmp_path: Path
) -> dict[str, str]:
    url = clickhouse_server.url_of(unique)
    return worker_settings(kafka, url, tmp_path, unique, checkpoints=f"s3://{BUCKET}")


def send_half(settings: dict[str, str], half: int) -> None:
    at = int(time.time() * 1000) - 60_000
    with Producer(settings["broker"], topic_prefix=settings["topic_prefix"]) as producer:
        for number in range(USERS):
            user = f"user-{half}-{number}"
            producer.assignment(event_id=f"a-{user}", at=at, user_id=user, experiment="exp", arm="b")
            producer.impression(
                event_id=f"i-{user}", at=at + 1, user_id=user, impression_id=f"s-{user}", request_id="r",
                item_id="t", surface="home", position=0, model="m", model_version="1",
            )  # fmt: skip


def shown(db: Database) -> Any:
    return db.query("SELECT sum(impressions) FROM arm_totals WHERE slice = 'all'").rows[0][0]


def test_a_worker_waits_for_its_store_and_goes_on_exactly(
    settings: dict[str, str], store_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store_server.environment.items():
        monkeypatch.setenv(name, value)
    worker = WorkerProcess(tmp_path, **settings)
    worker.start()
    try:
        worker.wait_for(lambda: ask(settings["web_port"], "readyz")[0] == 200)
        with open_database(settings["clickhouse_url"]) as db:
            send_half(settings, 1)
            worker.wait_for(lambda: shown(db) == USERS)
            store_server.kill()
            send_half(settings, 2)
            worker.wait_for(
                lambda: "checkpoint store does not answer" in ask(settings["web_port"], "readyz")[1]
            )
            assert shown(db) == USERS
            store_server.start()
            worker.wait_for(lambda: shown(db) == 2 * USERS)
            assert ledger_imbalances(db) == []
        worker.wait_for(lambda: ask(settings["web_port"], "readyz")[0] == 200)
        assert worker.stop() == 0
    finally:
        worker.kill()
    assert "Traceback" not in worker.log.read_text()
