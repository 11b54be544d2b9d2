"""Opening databases: what works, and the sentence when it does not."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from stream.errors import ConfigurationError, DirectoryInUse, Unavailable
from stream.sink.connect import connect, ensure_database
from tests.services.clickhouse import ClickHouseServer

HOLD = """
import sys
from pathlib import Path
from stream.sink.directory import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    "url",
    [
        "clickhouse://host/db",
        "http:///db",
        "localhost:8123",
        "",
        "chdb://",
        "http://host:port/db",
        "http://[::1/db",
    ],
)
def test_a_malformed_url_is_explained(url: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"write http\(s\)://user:password@host:port/database or chdb:///path"
    ):
        connect(url)


@pytest.mark.usefixtures("clickhouse_server")
def test_a_server_that_goes_away_in_the_middle_is_one_sentence(tmp_path: Path) -> None:
    with ClickHouseServer(tmp_path) as server, connect(server.url) as connection:
        server.kill()
        with pytest.raises(Unavailable, match="stopped answering: check that it runs"):
            connection.ask(lambda client: client.query("SELECT 1"))
        with pytest.raises(Unavailable, match="stopped answering: check that it runs"):
            connection.read_only_client()
        server.start()
        assert connection.ask(lambda client: client.query("SELECT 1").result_rows) == [(1,)]
        with pytest.raises(ConfigurationError, match="refuses: "):
            connection.ask(lambda client: client.query("SELECT nothing"))


def test_no_message_shows_the_password() -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect("ftp://me:hunter2@host/db")
    assert "hunter2" not in str(caught.value)


def test_a_missing_database_is_created_and_its_name_may_need_quotes(
    clickhouse_server: ClickHouseServer, unique: str
) -> None:
    with connect(clickhouse_server.url_of(f"{unique}-%C3%A9")) as connection:
        client = connection.client()
        assert client.query("SELECT currentDatabase()").result_rows == [(f"{unique}-é",)]
        client.command(f"DROP DATABASE `{unique}-é`")
        client.close()


def test_a_missing_database_is_not_created_for_a_reader(
    clickhouse_server: ClickHouseServer, unique: str
) -> None:
    with pytest.raises(ConfigurationError, match="There is no liftstream database"):
        connect(clickhouse_server.url_of(unique), create=False)


def test_a_wrong_password_is_one_sentence(clickhouse_server: ClickHouseServer) -> None:
    with pytest.raises(ConfigurationError, match=r"refused the user or password") as caught:
        connect(clickhouse_server.url_of("liftstream", password="wrong"))
    assert "wrong" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_silent_server_is_unavailable_after_the_time() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(
            Unavailable, match=rf"ClickHouse at http://127.0.0.1:{port}/x did not answer within 0.1 s"
        ):
            connect(f"http://me:secret@127.0.0.1:{port}/x", timeout_seconds=0.1)


def test_an_embedded_database_lives_in_its_directory(tmp_path: Path) -> None:
    for expected in (0, 1):
        with connect(f"chdb://{tmp_path}/a b") as connection:
            client = connection.client()
            client.command("CREATE TABLE IF NOT EXISTS t (a Int8) ENGINE = MergeTree ORDER BY a")
            assert client.query("SELECT count() FROM t").result_rows == [(expected,)]
            client.command("INSERT INTO t VALUES (1)")


def test_a_directory_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"The directory .*file cannot be used: "):
        connect(f"chdb://{tmp_path}/file")


def test_a_reader_of_a_missing_directory_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="There is no database in"):
        connect(f"chdb://{tmp_path}/nowhere", create=False)
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_has_one_owner_who_is_named(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=os.getcwd(),
    )
    assert holder.stdin
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(DirectoryInUse, match=rf"is in use by process {holder.pid}:"):
        connect(f"chdb://{tmp_path}")
    holder.kill()  # the lock dies with its owner
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    connect(f"chdb://{tmp_path}").close()


def test_a_second_connection_to_a_directory_of_this_process_is_refused(tmp_path: Path) -> None:
    with connect(f"chdb://{tmp_path}"), pytest.raises(DirectoryInUse, match=f"process {os.getpid()}"):
        connect(f"chdb://{tmp_path}/.")


def test_a_user_who_may_not_create_the_database_is_told_so() -> None:
    with pytest.raises(
        ConfigurationError, match="'x' does not exist at http://h and this user may not create it"
    ):
        ensure_database(PoorClient(), "x", True, "http://h")  # type: ignore[arg-type]


class PoorClient:
    """Sees no database and may create none."""

    result_rows: ClassVar = [(0,)]

    def query(self, *_: Any, **__: Any) -> "PoorClient":
        return self

    def command(self, *_: Any) -> None:
        raise DatabaseError("Not enough privileges", code=497)
