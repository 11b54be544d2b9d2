"""`liftstream worker` on a real broker and a real ClickHouse: killed again and again, and exact."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer
from confluent_kafka import Producer as RawProducer

from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.durability.snapshot import Snapshots
from stream.durability.store import open_store
from stream.local.database import open_database
from stream.producer import Producer
from stream.results.rows import Verdict
from stream.results.rules import Rules
from stream.sink.as_json import result_row
from stream.sink.queries import Database, ledger_imbalances
from stream.sink.standings import read_standings
from tests.app.process import WorkerProcess, ask, worker_settings
from tests.services.clickhouse import ClickHouseServer
from tests.services.kafka import KafkaServer

USERS = 3_000
SHOWN = 3
GARBAGE = 50
EVENTS = USERS * (1 + SHOWN) + USERS // 5 + USERS // 10


@pytest.fixture
def settings(
    kafka: KafkaServer, clickhouse_server: ClickHouseServer, unique: str, tmp_path: Path
) -> dict[str, str]:
    return worker_settings(kafka, clickhouse_server.url_of(unique), tmp_path, unique)


@pytest.fixture
def worker(settings: dict[str, str], tmp_path: Path) -> Iterator[WorkerProcess]:
    process = WorkerProcess(tmp_path, **settings)
    process.start()
    yield process
    process.kill()


def send_events(settings: dict[str, str], begin: int, end: int) -> None:
    now_ms = int(time.time() * 1000)
    with Producer(settings["broker"], topic_prefix=settings["topic_prefix"]) as producer:
        for i in range(begin, end):
            user, at = f"user-{i}", now_ms - 600_000 + i
            producer.assignment(
                event_id=f"a{i}", at=at, user_id=user, experiment="exp", arm="control" if i % 2 else "b"
            )
            for place in range(SHOWN):
                producer.impression(
                    event_id=f"i{i}-{place}", at=at + 1 + place, user_id=user, impression_id=f"s{i}-{place}",
                    request_id=f"r{i}", item_id=f"t{place}", surface="home", position=place, model="m",
                    model_version="1",
                )  # fmt: skip
            if i % 5 == 0:
                producer.interaction(
                    event_id=f"c{i}", at=at + 9_000, user_id=user, impression_id=f"s{i}-0", kind="click"
                )
            if i % 10 == 0:
                producer.interaction(
                    event_id=f"p{i}", at=at + 10_000, user_id=user, impression_id=f"s{i}-0", kind="purchase",
                    value_minor=i, currency="EUR",
                )  # fmt: skip


def expected(arm: str) -> dict[str, int]:
    users = [i for i in range(USERS) if (arm == "control") == bool(i % 2)]
    buyers = [i for i in users if i % 10 == 0]
    clickers = sum(i % 5 == 0 for i in users)
    return {
        "assigned_users": len(users),
        "exposed_users": len(users),
        "impressions": SHOWN * len(users),
        "clicked_impressions": clickers,
        "clicks": clickers,
        "converted_impressions": len(buyers),
        "conversions": len(buyers),
        "revenue_minor": sum(buyers),
    }


def consumed(db: Database) -> int:
    return int(db.query("SELECT sum(consumed) FROM ledger").rows[0][0] or 0)


def written_results(db: Database) -> set[tuple[Any, ...]]:
    """What the worker has concluded."""
    return {comparable(row) for row in db.query("SELECT * FROM experiment_results").dicts()}


def comparable(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(str(row[name]) for name in sorted(row))


def produce_garbage(settings: dict[str, str]) -> None:
    producer = RawProducer({"bootstrap.servers": settings["broker"].removeprefix("kafka://")})
    for i in range(GARBAGE):
        producer.produce(settings["topic_prefix"] + Topic.IMPRESSIONS.word, b"\xff\x00garbage", f"user-{i}")
    assert producer.flush(30) == 0


def dead_letters(settings: dict[str, str], count: int) -> list[Any]:
    consumer = Consumer(
        {
            "bootstrap.servers": settings["broker"].removeprefix("kafka://"),
            "group.id": f"{settings['group']}-letters",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([settings["topic_prefix"] + "dead-letters"])
    found: list[Any] = []
    deadline = time.monotonic() + 30
    while len({record.key() for record in found}) < count and time.monotonic() < deadline:
        found += [record for record in consumer.consume(100, 1) if not record.error()]
    consumer.close()
    return found


def test_a_worker_that_is_killed_again_and_again_counts_everything_once(
    worker: WorkerProcess, settings: dict[str, str]
) -> None:
    worker.wait_for(lambda: ask(settings["web_port"], "readyz")[0] == 200)
    with open_database(settings["clickhouse_url"]) as db:
        for part in range(3):
            send_events(settings, part * USERS // 3, (part + 1) * USERS // 3)
            before = consumed(db)
            worker.wait_for(lambda before=before: consumed(db) > before)
            worker.kill()
            if part == 1:
                produce_garbage(settings)
            worker.start()
        worker.wait_for(lambda: consumed(db) == EVENTS + GARBAGE)
        totals = db.query("SELECT * FROM arm_totals WHERE slice = 'all'").dicts()
        assert {row["arm"] for row in totals} == {"control", "b"}
        for row in totals:
            counts = expected(row["arm"])
            assert {name: row[name] for name in counts} == counts
        assert ledger_imbalances(db) == []
        worker.wait_for(lambda: db.query("SELECT count() FROM dead_letters").rows[0][0] == GARBAGE)
        worker.wait_for(lambda: db.query("SELECT count() FROM arm_rolling").rows[0][0])
        (truth,) = read_standings(db, Definitions(), Rules())
        assert truth.health.verdict is Verdict.OK
        worker.wait_for(lambda: written_results(db) == {comparable(result_row(row)) for row in truth.results})
    letters = dead_letters(settings, GARBAGE)
    assert {record.value() for record in letters} == {b"\xff\x00garbage"}
    assert dict(letters[0].headers())["reason"] == b"bad_header"
    worker.wait_for(lambda: ask(settings["web_port"], "readyz")[0] == 200)
    status, health = ask(settings["web_port"], "healthz")
    assert (status, json.loads(health)) == (200, {"ok": True, "problems": []})
    assert "liftstream_records_total" in ask(settings["web_port"], "metrics")[1]
    assert worker.stop() == 0
    store = open_store(settings["checkpoints"])
    for folder in ("g000001/p00000", "g000001/p00001"):
        last_step = store.names(f"{folder}/step")[-1].rpartition("/")[2]
        assert Snapshots(store, folder).newest_step() == int(last_step)
    assert "Traceback" not in worker.log.read_text()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"clickhouse_url": "http://default:wrong@{host}/x"}, "refused the user or password"),
        ({"checkpoints": "{file}"}, "checkpoint directory"),
    ],
)
def test_what_is_wrong_at_the_start_is_one_sentence(
    settings: dict[str, str], tmp_path: Path, changed: dict[str, str], words: str
) -> None:
    (tmp_path / "file").write_text("")
    host = settings["clickhouse_url"].rpartition("@")[2].partition("/")[0]
    filled = {name: value.format(host=host, file=tmp_path / "file") for name, value in changed.items()}
    process = WorkerProcess(tmp_path, **(settings | filled))
    process.start()
    assert process.child is not None
    assert process.child.wait(60) == 1
    last = process.log.read_text().strip().splitlines()[-1]
    assert last.startswith("liftstream: ")
    assert words in last
    assert "Traceback" not in process.log.read_text()
