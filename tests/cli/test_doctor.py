"""The doctor finds what is wrong and says what to do."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from stream.cli.checks import Load, check_memory, memory_bytes
from stream.local.broker import EmbeddedBroker
from stream.settings import Settings
from stream.sink.connect import connect
from stream.sink.migrate import migrate
from stream.topics import create_topics
from tests.cli.conftest import Run
from tests.services.process import free_port

DAY = timedelta(days=1)


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


def test_memory_is_rate_times_horizon_times_bytes() -> None:
    assert memory_bytes(Load(1, 0, 0), DAY, DAY) == 86_400 * (24 + 2 * 79)
    assert memory_bytes(Load(0, 1, 0), DAY, DAY) == 86_400 * (24 + 59)
    assert memory_bytes(Load(0, 0, 10), DAY, DAY) == 1_040


def test_a_load_that_does_not_fit_says_how_many_workers() -> None:
    settings = Settings.load(memory_limit="1GiB")
    assert "Run 15 workers" in check_memory(settings, Load(1_000, 0, 0)).advice
    assert check_memory(settings, Load(10, 1, 1_000)).is_ok
