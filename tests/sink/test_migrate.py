"""Bringing a database up to date, on chDB and on a real server."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from string import Template
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from stream.errors import ConfigurationError
from stream.sink import alone
from stream.sink.connect import Connection, connect
from stream.sink.migrate import Migration, migrate, migrations
from tests.services.clickhouse import ClickHouseServer


def test_the_files_are_numbered_without_gaps() -> None:
    assert [m.number for m in migrations()] == list(range(1, len(migrations()) + 1))


def test_migrating_twice_applies_each_file_once(empty_connection: Connection) -> None:
    client = empty_connection.client()
    assert migrate(client) == migrations()
    assert migrate(client) == ()
    rows = client.query("SELECT number, name, checksum FROM migrations ORDER BY number").result_rows
    assert rows == [(m.number, m.name, m.checksum) for m in migrations()]
    client.close()


def test_an_interrupted_migration_is_finished_by_the_next(empty_connection: Connection) -> None:
    client = empty_connection.client()
    first, *_ = migrations()
    migrate(
        client, known=[replace(first, sql=first.sql.split(";\n")[0])]
    )  # some tables, then the process died
    client.command("TRUNCATE TABLE migrations")
    assert migrate(client) == migrations()
    client.close()


def test_many_workers_may_start_on_an_empty_database_at_once(
    clickhouse_server: ClickHouseServer, unique: str
) -> None:
    with connect(clickhouse_server.url_of(unique)) as connection, ThreadPoolExecutor(6) as pool:
        applied = list(pool.map(lambda _: connection.ask(migrate), range(6)))
        assert sorted(applied, key=len) == [(), (), (), (), (), migrations()]
        tables = connection.ask(lambda client: client.query("SHOW TABLES").result_rows)
    assert ("arm_totals",) in tables
    assert ("migrating",) not in tables


def test_the_lock_of_a_process_that_died_is_removed(
    empty_connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = empty_connection.client()
    client.command("CREATE TABLE migrating (nothing UInt8) ENGINE = Memory")
    monkeypatch.setattr(alone, "_ABANDONED_SECONDS", 0.5)  # ClickHouse's clock counts whole seconds
    assert migrate(client) == migrations()
    client.close()


class Late:
    """A client that finds the lock an hour old and then stands still until it is told to go on."""

    def __init__(self, client: Client) -> None:
        self.command = client.command
        self.has_looked, self.go_on = Event(), Event()
        self._client = client

    def query(self, question: str) -> Any:
        if self.has_looked.is_set():
            return self._client.query(question)
        ((holder, _),) = self._client.query(question).result_rows
        self.has_looked.set()
        assert self.go_on.wait(60)
        return SimpleNamespace(result_rows=[(holder, 3_600)])


def test_a_lock_that_two_find_abandoned_is_held_by_one_at_a_time(
    clickhouse_server: ClickHouseServer, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = Event()

    def enter(client: Late) -> None:
        with alone.alone(client):  # type: ignore[arg-type]
            inside.set()

    with connect(clickhouse_server.url_of(unique)) as connection, ThreadPoolExecutor(1) as pool:
        client, late = connection.client(), Late(connection.client())
        client.command("CREATE TABLE migrating (nothing UInt8) ENGINE = Memory COMMENT 'dead'")
        monkeypatch.setattr(alone, "_ABANDONED_SECONDS", -1)
        entering = pool.submit(enter, late)
        assert late.has_looked.wait(60)
        with alone.alone(client):
            monkeypatch.setattr(alone, "_ABANDONED_SECONDS", 30)
            late.go_on.set()
            assert not inside.wait(1)
        entering.result()
        assert inside.is_set()
        assert client.query("SHOW TABLES").result_rows == []


def test_who_was_taken_for_dead_leaves_the_lock_to_its_successor(empty_connection: Connection) -> None:
    client = empty_connection.client()
    with alone.alone(client):
        client.command("RENAME TABLE migrating TO migrating_slow")
        client.command("CREATE TABLE migrating (nothing UInt8) ENGINE = Memory COMMENT 'successor'")
    assert ("migrating",) in client.query("SHOW TABLES").result_rows
    client.close()


def test_only_missing_files_are_applied(empty_connection: Connection) -> None:
    client = empty_connection.client()
    first, second = (
        Migration(1, "0001_a", "CREATE VIEW a AS SELECT 1"),
        Migration(2, "0002_b", "CREATE VIEW b AS SELECT 2"),
    )
    assert migrate(client, known=[first]) == (first,)
    assert migrate(client, known=[first, second]) == (second,)
    client.close()


def test_a_database_of_a_newer_liftstream_is_refused(empty_connection: Connection) -> None:
    client = empty_connection.client()
    migrate(client)
    client.command("INSERT INTO migrations (number, name, checksum) VALUES (999, '0999_later', 'x')")
    with pytest.raises(ConfigurationError, match=r"newer liftstream \(0999_later\).*upgrade"):
        migrate(client)
    client.close()


def test_a_changed_file_is_refused(empty_connection: Connection) -> None:
    client = empty_connection.client()
    migrate(client)
    first, *others = migrations()
    with pytest.raises(
        ConfigurationError, match="0001_tables was applied to this database from a different file"
    ):
        migrate(client, known=[replace(first, sql=first.sql + "\n-- changed"), *others])
    client.close()


def test_on_a_cluster_tables_are_replicated_and_every_object_is_made_on_all_servers() -> None:
    for migration in migrations():
        sql = Template(migration.sql).substitute(
            engine="ReplicatedReplacingMergeTree", on_cluster="ON CLUSTER 'c'"
        )
        statements = [s for s in sql.split(";\n") if s.strip()]
        assert all(re.search("^(CREATE|ALTER TABLE|DROP) ", s, re.M) for s in statements)
        assert all("ON CLUSTER 'c'" in s for s in statements)
        assert all(
            "ENGINE = ReplicatedReplacingMergeTree(version)" in s for s in statements if "CREATE TABLE" in s
        )
