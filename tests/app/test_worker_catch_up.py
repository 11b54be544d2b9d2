"""`liftstream worker` on a real broker with a week's backlog: killed in the middle, and nothing is late."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.local.database import open_database
from stream.producer import Producer
from stream.settings import Settings
from stream.sink.queries import Database, ledger_imbalances
from stream.topics import create_topics
from tests.app.process import WorkerProcess, worker_settings
from tests.services.clickhouse import ClickHouseServer
from tests.services.kafka import KafkaServer

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
USERS, SHOWN, CLICKED = 300, 20_000, 1_000
EVENTS = USERS + SHOWN + CLICKED


@pytest.fixture
def settings(
    kafka: KafkaServer, clickhouse_server: ClickHouseServer, unique: str, tmp_path: Path
) -> dict[str, str]:
    url = clickhouse_server.url_of(unique)
    return worker_settings(kafka, url, tmp_path, unique, allowed_lateness="2h")


@pytest.fixture
def worker(settings: dict[str, str], tmp_path: Path) -> Iterator[WorkerProcess]:
    process = WorkerProcess(tmp_path, **settings)
    yield process
    process.kill()


def send_backlog(settings: dict[str, str]) -> None:
    """A week, topic by topic; producers up to an hour behind and four minutes ahead of each other."""
    draw = random.Random(3)
    begin_ms = int(time.time() * 1000) - 7 * DAY - HOUR
    shown = sorted(draw.randrange(7 * DAY) for _ in range(SHOWN))

    def at(after_ms: int) -> int:
        return begin_ms + after_ms + draw.choice([4 * MINUTE, 0, 0, -HOUR])

    with Producer(settings["broker"], topic_prefix=settings["topic_prefix"]) as producer:
        for i, after_ms in enumerate(shown):
            producer.impression(
                event_id=f"i{i}", at=at(after_ms), user_id=f"u{i % USERS}", impression_id=f"s{i}", request_id="r",
                item_id="t", surface="home", position=0, model="m", model_version="1",
            )  # fmt: skip
        for i in sorted(draw.sample(range(SHOWN), CLICKED)):
            producer.interaction(
                event_id=f"c{i}",
                at=at(shown[i] + 10_000),
                user_id=f"u{i % USERS}",
                item_id="elsewhere",
                kind="click",
            )
        for i in range(USERS):
            producer.assignment(
                event_id=f"a{i}", at=begin_ms - DAY, user_id=f"u{i}", experiment="exp",
                arm="control" if i % 2 else "b",
            )  # fmt: skip


def outcomes(db: Database) -> dict[str, Any]:
    names = "sum(consumed) AS consumed, sum(counted) AS counted, sum(late) AS late"
    return db.query(f"SELECT {names} FROM ledger").dicts()[0]


def test_a_week_of_backlog_is_counted_without_making_anything_late(
    worker: WorkerProcess, settings: dict[str, str]
) -> None:
    create_topics(
        Settings.load(**{name: settings[name] for name in ("broker", "topic_prefix", "topic_partitions")})
    )
    send_backlog(settings)
    worker.start()
    worker.wait_for(lambda: any(Path(settings["checkpoints"]).rglob("step/*")))
    worker.kill()
    worker.start()
    with open_database(settings["clickhouse_url"]) as db:
        worker.wait_for(lambda: outcomes(db)["consumed"] == EVENTS)
        assert outcomes(db) == {"consumed": EVENTS, "counted": EVENTS, "late": 0}
        totals = db.query(
            "SELECT sum(impressions) AS i, sum(clicks) AS c FROM arm_totals WHERE slice = 'all'"
        ).dicts()
        assert totals == [{"i": SHOWN, "c": CLICKED}]
        assert ledger_imbalances(db) == []
    assert worker.stop() == 0
