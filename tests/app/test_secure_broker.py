"""Migrate, send, count and produce through brokers that ask for a password or a certificate."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stream.local.database import open_database
from tests.app.process import WorkerProcess, worker_settings
from tests.services.clickhouse import ClickHouseServer
from tests.services.kafka import KafkaServer
from tests.services.secure_kafka import PASSWORD, USER, SecureKafka

USERS, ARMS = 200, ("control", "b")


@pytest.fixture(scope="module")
def secure(kafka: KafkaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    assert kafka  # where it cannot run, this one cannot either, and the test is skipped
    with SecureKafka(tmp_path_factory.mktemp("secure")) as server:
        yield server


def access(secure: SecureKafka, way: str) -> dict[str, str]:
    authority = {"ssl_cafile": str(secure.authority)}
    if way == "certificate":
        return {
            "broker": secure.ours, "security_protocol": "SSL", "ssl_certfile": str(secure.certificate),
        } | authority  # fmt: skip
    return {
        "broker": secure.login, "security_protocol": "SASL_SSL", "sasl_mechanism": way, "sasl_username": USER,
        "sasl_password": PASSWORD,
    } | authority  # fmt: skip


def liftstream(
    settings: dict[str, str], folder: Path, *words: str, program: Sequence[str] = ("-m", "stream.cli")
) -> subprocess.CompletedProcess[str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("LIFTSTREAM_")}
    ours = {f"LIFTSTREAM_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, *program, *words]
    return subprocess.run(command, cwd=folder, env=others | ours, capture_output=True, text=True, timeout=120)


def sends(folder: Path) -> list[list[str]]:
    """The commands that send a user's assignment and an impression each."""
    now_ms = int(time.time() * 1000) - 60_000
    assignments, impressions = folder / "assignments.jsonl", folder / "impressions.jsonl"
    with assignments.open("w") as given, impressions.open("w") as shown:
        for i in range(USERS):
            user = {"user_id": f"u{i}", "at": now_ms + i}
            print(
                json.dumps(user | {"event_id": f"a{i}", "experiment": "exp", "arm": ARMS[i % 2]}), file=given
            )
            where = {"item_id": "x", "surface": "home", "position": 0, "model": "m", "model_version": "1"}
            what = {"event_id": f"i{i}", "impression_id": f"i{i}", "request_id": f"r{i}"}
            print(json.dumps(user | where | what), file=shown)
    return [["send", "--topic", file.stem, "--from", str(file)] for file in (assignments, impressions)]


@pytest.mark.parametrize("way", ["PLAIN", "SCRAM-SHA-512", "certificate"])
def test_a_worker_counts_through_it(
    secure: SecureKafka, clickhouse_server: ClickHouseServer, way: str, unique: str, tmp_path: Path
) -> None:
    url = clickhouse_server.url_of(unique)
    settings = worker_settings(secure, url, tmp_path, unique, **access(secure, way))
    for words in (["migrate"], *sends(tmp_path)):
        done = liftstream(settings, tmp_path, *words)
        assert done.returncode == 0, done.stderr
    worker = WorkerProcess(tmp_path, **settings)
    worker.start()
    try:
        with open_database(url) as db:
            sql = "SELECT arm, impressions FROM arm_totals WHERE slice = 'all'"
            worker.wait_for(lambda: sum(n for _, n in db.query(sql).rows) == USERS)
            assert dict(db.query(sql).rows) == dict.fromkeys(ARMS, USERS // 2)
            windows = "SELECT count() FROM arm_rolling"
            worker.wait_for(lambda: db.query(windows).rows[0][0])  # through the partials topic
        assert worker.stop() == 0
    finally:
        worker.kill()
    log = worker.log.read_text()
    assert PASSWORD not in log
    assert "ONE BY ONE" not in log, log
    assert "Copying" not in log, log


IMPATIENT = """
import sys

import stream.topics
from stream.cli import main

stream.topics.CONNECT_MS = 4_000
main(sys.argv[1:])
"""
WITHOUT = ("sasl_username", "sasl_password", "sasl_mechanism", "ssl_cafile")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"sasl_password": "wrong"}, "Invalid username or password|refuses the login"),
        ({"sasl_mechanism": "SCRAM-SHA-256"}, "Unsupported.*Mechanism|refuses the login"),
        ({"ssl_cafile": None}, "certificate verify failed"),
        (
            {"security_protocol": "PLAINTEXT", **dict.fromkeys(WITHOUT)},
            "refuses the login or the protocol|Invalid frame",
        ),
    ],
)
def test_who_is_refused_is_told_why(
    secure: SecureKafka, tmp_path: Path, changed: dict[str, str | None], told: str
) -> None:
    given = {name: value for name, value in (access(secure, "PLAIN") | changed).items() if value is not None}
    refused = liftstream(given, tmp_path, "worker", program=("-c", IMPATIENT))
    assert refused.returncode == 1
    assert re.search(told, refused.stderr), refused.stderr
    assert refused.stderr.count("\n") == 1
    assert PASSWORD not in refused.stderr
