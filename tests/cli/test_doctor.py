"""The doctor finds what is wrong and says what to do."""

import json
import math
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scale.made import START_MS, Crowd, Maker
from stream.cli.checks import check_memory
from stream.cli.memory import Load, counted_load, table_bytes, terms, told
from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.engine.engine import Engine, Step
from stream.engine.layout import IDS, IDS_USED
from stream.engine.tables import Store
from stream.local.broker import EmbeddedBroker
from stream.settings import Settings
from stream.sink.connect import connect
from stream.sink.migrate import migrate
from stream.sink.queries import Database
from stream.topics import create_topics
from tests.cli.conftest import Run
from tests.services.process import free_port

DAY = timedelta(days=1)
NAMES = {topic: f"rec.{topic.word}" for topic in Topic}


@pytest.fixture
def healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker with topics and a migrated database."""
    with EmbeddedBroker() as broker:
        monkeypatch.setenv("LIFTSTREAM_BROKER", broker.url)
        monkeypatch.setenv("LIFTSTREAM_CLICKHOUSE_URL", f"chdb://{tmp_path}/clickhouse")
        settings = Settings.load()
        create_topics(settings)
        with connect(settings.clickhouse_url) as connection:
            client = connection.client()
            migrate(client)
            client.close()
        yield


@pytest.mark.usefixtures("healthy")
def test_all_is_well(run: Run) -> None:
    result = run("doctor", "--json")
    found = {row["check"]: row for row in json.loads(result.stdout)}
    assert [name for name, row in found.items() if not row["ok"]] == []
    assert result.exit_code == 0
    assert set(found) >= {
        "python",
        "packages",
        "settings",
        "broker",
        "topics",
        "database",
        "checkpoints",
        "memory",
    }


@pytest.mark.usefixtures("healthy")
def test_a_missing_topic_is_a_problem(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFTSTREAM_TOPIC_PREFIX", "other.")
    result = run("doctor")
    assert result.exit_code == 1
    assert "other.impressions" in result.stdout
    assert "run liftstream migrate" in result.stdout


def test_services_that_are_away_are_problems_beside_each_other(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.topics.CONNECT_MS", 300)
    monkeypatch.setenv("LIFTSTREAM_BROKER", f"kafka://127.0.0.1:{free_port()}")
    monkeypatch.setenv("LIFTSTREAM_CLICKHOUSE_URL", "chdb:///not/there")
    result = run("doctor", "--json")
    problems = {row["check"] for row in json.loads(result.stdout) if not row["ok"]}
    assert (result.exit_code, problems) == (1, {"broker", "database"})


def test_wrong_settings_end_the_visit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFTSTREAM_WEB_PORT", "many")
    result = run("doctor")
    assert result.exit_code == 1
    assert "LIFTSTREAM_WEB_PORT" in result.stdout


@pytest.mark.parametrize(
    "wrong", ["--impressions=-1", "--interactions=nan", "--impressions=inf", "--users=-5"]
)
def test_a_load_that_cannot_be_is_refused(run: Run, wrong: str) -> None:
    result = run("doctor", wrong)
    assert result.exit_code == 2
    assert f"Invalid value for '{wrong.partition('=')[0]}'" in result.stderr


def test_memory_is_rate_times_horizon_times_bytes() -> None:
    found = terms(Load(1, 0, 0), DAY, DAY, partitions=1)
    assert [(term.kind, term.why, term.rows) for term in found[:2]] == [
        ("ids", "1/s x 24 h", 86_400),
        ("impressions", "1/s x 48 h", 172_800),
    ]
    assert found[0].nbytes == 131_072 * 12 + int(86_400 / 0.35) * 8  # the table doubles
    assert told(found).startswith("0.0 GiB = ids 1/s x 24 h x 41 B = 0.0 GiB + impressions 1/s x 48 h x ")
    many = terms(Load(100, 0, 0), DAY, DAY, partitions=1)[0]
    assert many.nbytes == (1 << 24) * 12 + int(8_640_000 / 0.56) * 8


def test_memory_above_a_million_ids_is_what_an_engine_takes_that_grew() -> None:
    store, rows = Store(), 1_200_000
    for count in range(0, rows, 50_000):
        store.m[[IDS, IDS_USED]] = count
        store.room_for_ids(50_000)
    taken = sum(store.a[name].nbytes for name in ("id_keys", "id_tags", "id_slots"))
    assert taken <= table_bytes(rows, row_bytes=12, partitions=1) <= 1.3 * taken


@pytest.mark.parametrize("rows", [3_000, 30_000, 70_000])
def test_memory_is_about_what_an_engine_takes(rows: int) -> None:
    engine = Engine(key=bytes(16), partition=0, partitions=1, definitions=Definitions())
    maker = Maker(Crowd(rows, partition=0, partitions=1), at_step_us=100)
    members = np.array_split(maker.crowd.members(), rows // 1_000)
    assigned = (maker.assignments(users, b"ranker") for users in members)
    shown = (maker.shown(len(users)) for users in members)
    for number, batch in enumerate((*assigned, *shown), 1):
        step = Step(number, START_MS, (True, True, True), Definitions())
        engine.execute(step, {batch.topic: [batch]})
    held = {name: array.nbytes for name, array in engine._store.a.items()}
    _, impressions, _, users = terms(Load(1, 0, rows), timedelta(seconds=rows), timedelta(0), 1)
    ids = terms(Load(2, 0, 0), timedelta(seconds=rows), timedelta(0), 1)[0]  # assignments have ids as well
    for term, names in (
        (impressions, ("imps", "imp_keys", "imp_tags", "imp_slots")),
        (users, ("users", "user_keys", "user_tags", "user_slots", "assigned", "arena")),
        (ids, ("id_keys", "id_tags", "id_slots")),
    ):
        taken = sum(held[name] for name in names)
        assert 0.8 * taken <= term.nbytes <= 1.6 * taken  # an index has just grown, or is about to


def test_a_load_that_does_not_fit_says_how_many_workers() -> None:
    settings = Settings.load(memory_limit="1GiB")
    found = check_memory(settings, Load(1_000, 0, 0), partitions=4)
    workers = math.ceil(float(found.found.split(" GiB")[0]))
    assert workers > 15
    assert f"Run {workers} workers" in found.advice
    assert check_memory(settings, Load(10, 1, 1_000), partitions=4).is_ok


def test_the_load_is_that_of_the_busiest_hour(tmp_path: Path) -> None:
    with connect(f"chdb://{tmp_path}/counted") as connection:
        client = connection.client()
        migrate(client)
        assert counted_load(Database(client, lambda: None), NAMES) is None
        client.command("INSERT INTO generations SELECT 1, now64(3), 0")
        for topic, hour, consumed in (
            ("rec.impressions", 1, 3_600), ("rec.impressions", 2, 7_200), ("rec.interactions", 2, 360),
        ):  # fmt: skip
            client.command(
                "INSERT INTO ledger_rows (generation, topic, partition, hour, consumed) "
                f"VALUES (1, '{topic}', 0, '2026-01-01 0{hour}:00:00', {consumed})"
            )
        assert counted_load(Database(client, lambda: None), NAMES) == Load(2.0, 0.1, 0)
        client.close()
