"""Two checkpoint stores on one database: exactly one of them may write."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from stream.errors import DamagedStore
from stream.sink.claim import claim
from stream.sink.connect import Connection, connect
from stream.sink.migrate import migrate
from tests.services.clickhouse import ClickHouseServer


def claimed(connection: Connection, deployment: str, generation: int = 1) -> bool:
    try:
        connection.ask(
            lambda client: claim(
                client, generation=generation, deployment=deployment, has_written=lambda: False
            )
        )
    except DamagedStore:
        return False
    return True


@pytest.fixture
def url(clickhouse_server: ClickHouseServer, unique: str) -> str:
    return clickhouse_server.url_of(unique)


def test_the_rows_of_a_generation_belong_to_one_store(url: str) -> None:
    with connect(url) as connection:
        connection.ask(migrate)
        assert claimed(connection, "b")
        with pytest.raises(
            DamagedStore, match="point LIFTSTREAM_CHECKPOINTS of all workers at the same store"
        ):
            connection.ask(
                lambda client: claim(client, generation=1, deployment="a", has_written=lambda: False)
            )
        assert claimed(connection, "b")
        assert claimed(connection, "a", generation=2)


def test_of_stores_that_come_at_the_same_moment_one_may_write_and_goes_on_to(url: str) -> None:
    with connect(url) as connection, ThreadPoolExecutor(4) as pool:
        connection.ask(migrate)
        stores = ["a", "b", "c", "c"]
        won = {
            name
            for name, ok in zip(stores, pool.map(lambda s: claimed(connection, s), stores), strict=True)
            if ok
        }
        assert len(won) == 1
        assert {name for name in stores if claimed(connection, name)} == won


def test_a_store_that_has_counted_into_another_database_is_refused(url: str) -> None:
    with connect(url) as connection:
        connection.ask(migrate)
        with pytest.raises(
            DamagedStore, match="point LIFTSTREAM_CLICKHOUSE_URL at the database that has them"
        ):
            connection.ask(
                lambda client: claim(client, generation=1, deployment="a", has_written=lambda: True)
            )
        connection.ask(
            lambda client: client.command("INSERT INTO generations VALUES (1, now(), 0)")
        )  # of an older version
        connection.ask(lambda client: claim(client, generation=1, deployment="a", has_written=lambda: True))
