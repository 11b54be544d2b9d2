"""The servers that other tests rely on behave like servers."""

import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.services.clickhouse import ClickHouseServer
from tests.services.kafka import KafkaServer
from tests.services.tools import ServiceMissing, command_for, docker_answers


def ask(url: str, query: str) -> str:
    parts = urllib.parse.urlsplit(url)
    request = urllib.request.Request(f"http://{parts.hostname}:{parts.port}/", data=query.encode())
    request.add_header(
        "Authorization", "Basic " + b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


@pytest.mark.usefixtures("kafka")  # skips where none can run
def test_kafka_keeps_its_records_over_a_crash(tmp_path: Path) -> None:
    with KafkaServer(tmp_path) as server:
        server.create_topics("t", partitions=1)
        producer = Producer({"bootstrap.servers": server.bootstrap})
        producer.produce("t", b"value", b"key")
        assert producer.flush(30) == 0
        server.kill()
        server.start()
        consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "g"})
        consumer.assign([TopicPartition("t", 0, 0)])
        record = consumer.poll(30)
        consumer.close()
    assert record is not None
    assert (record.key(), record.value()) == (b"key", b"value")


@pytest.mark.usefixtures("clickhouse_server")
def test_clickhouse_keeps_its_rows_over_a_crash_and_checks_passwords(tmp_path: Path) -> None:
    with ClickHouseServer(tmp_path) as server:
        ask(server.url, "CREATE DATABASE d")
        ask(server.url, "CREATE TABLE d.t (n Int64) ENGINE = ReplacingMergeTree ORDER BY n")
        ask(server.url, "INSERT INTO d.t VALUES (7)")
        server.kill()
        server.start()
        assert ask(server.url, "SELECT n, currentUser() FROM d.t") == "7\tliftstream\n"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(server.url_of("d", password="wrong"), "SELECT 1")


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    docker_answers.cache_clear()
    with pytest.raises(ServiceMissing, match="neither `mvn` nor a Docker engine was found"):
        command_for("mvn", writable=tmp_path)
    docker_answers.cache_clear()
