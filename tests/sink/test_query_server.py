"""The owner of a directory answers questions for others."""

import json
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.errors import ConfigurationError, DirectoryInUse
from stream.local.database import open_database
from stream.local.query_server import QueryServer
from stream.sink import queries
from stream.sink.connect import connect
from stream.sink.counted import counted
from stream.sink.writer import Writer
from tests.sink.conftest import fill
from tests.sink.makers import a_total, an_emission


@pytest.fixture
def server(tmp_path: Path) -> Iterator[QueryServer]:
    with connect(f"chdb://{tmp_path}") as connection:
        fill(connection)
        server = QueryServer(connection, tmp_path)
        yield server
        server.close()


def ask(server: QueryServer, query: str, token: str | None = None) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.address.port}/",
        query.encode(),
        {"X-ClickHouse-Key": token or server.address.token},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


def test_speaks_clickhouses_http_interface(server: QueryServer) -> None:
    assert ask(server, "SELECT arm, impressions FROM arm_totals") == b"a\t4\n"
    assert json.loads(ask(server, "SELECT arm FROM arm_totals FORMAT JSONEachRow")) == {"arm": "a"}


@pytest.mark.parametrize("token", ["wrong", "é"])
def test_refuses_a_wrong_token(server: QueryServer, token: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403") as caught:
        ask(server, "SELECT 1", token.encode().decode("latin-1"))
    caught.value.close()


def test_only_its_owner_may_read_the_token(server: QueryServer, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "query.json").stat().st_mode) == 0o600


def test_answers_while_the_writer_writes(tmp_path: Path) -> None:
    with connect(f"chdb://{tmp_path}") as connection:
        fill(connection)
        server, writer = QueryServer(connection, tmp_path), Writer(connection.client, interval_seconds=0)
        with open_database(tmp_path) as db:
            for step in range(2, 12):
                writer.put(an_emission(step, totals=[a_total(impressions=step + 9)]))
                assert queries.results(db)[0]["impressions"] in (4, *range(11, step + 10))
            assert writer.drain(10)
            assert queries.results(db)[0]["impressions"] == 20
        writer.close()
        server.close()


def test_an_owner_without_a_query_server_is_named(tmp_path: Path) -> None:
    with connect(f"chdb://{tmp_path}"), pytest.raises(DirectoryInUse, match="in use by process"):
        open_database(tmp_path)


def test_the_address_of_a_dead_owner_does_no_harm(server: QueryServer, tmp_path: Path) -> None:
    stale = (tmp_path / "query.json").read_text()
    server.close()
    (tmp_path / "query.json").write_text(stale)
    with pytest.raises(DirectoryInUse):
        open_database(tmp_path)


def test_a_database_without_our_tables_is_a_sentence(tmp_path: Path) -> None:
    connect(f"chdb://{tmp_path}").close()
    with pytest.raises(ConfigurationError, match="has no liftstream tables yet"):
        open_database(tmp_path)
    with pytest.raises(ConfigurationError, match="There is no database in"):
        open_database(tmp_path / "nowhere")


def test_sums_of_experiments_with_any_name_are_read_through_the_owner(
    server: QueryServer, tmp_path: Path
) -> None:
    with open_database(tmp_path) as db:
        assert [found.experiment for found in counted(db, ["exp", "it's"])] == ["exp", "it's"]
