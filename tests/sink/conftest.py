"""The same contract on chDB and on a real server."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from stream.sink.connect import Connection, connect
from stream.sink.emission import Emission
from stream.sink.migrate import migrate
from stream.sink.queries import Database
from stream.sink.tables import SHAPES
from stream.sink.writer import Writer
from tests.services.clickhouse import ClickHouseServer
from tests.sink.makers import a_total, an_emission

Write = Callable[..., None]


PLACES = ["chdb", "server"]


@contextmanager
def a_database(place: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Connection]:
    """An empty database on chDB or on the real server. chDB: close it before the process opens another one."""
    if place == "chdb":
        with connect(f"chdb://{folder}/database") as connection:
            yield connection
        return
    server: ClickHouseServer = request.getfixturevalue("clickhouse_server")
    name = f"t{uuid.uuid4().hex[:10]}"
    with connect(server.url_of(name)) as connection:
        yield connection
        with closing(connection.client()) as client:
            client.command(f"DROP DATABASE {name}")


def fill(connection: Connection) -> None:
    """Migrate, and write one row of totals: experiment shelf, arm a, 4 impressions."""
    with closing(connection.client()) as client:
        migrate(client)
    writer = Writer(connection.client)
    writer.put(an_emission(1, totals=[a_total(impressions=4, clicked_impressions=1, revenue_minor=2**80)]))
    writer.close()


@pytest.fixture(params=PLACES)
def empty_connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    """An empty database of the test's own; not to be used in one module with `connection`."""
    with a_database(request.param, request, tmp_path) as connection:
        yield connection


@pytest.fixture(scope="module", params=PLACES)
def migrated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Connection]:
    """A migrated database for a module."""
    with a_database(request.param, request, tmp_path_factory.mktemp("database")) as connection:
        with closing(connection.client()) as client:
            migrate(client)
        yield connection


@pytest.fixture
def connection(migrated: Connection) -> Iterator[Connection]:
    """A migrated database without rows."""
    yield migrated
    with closing(migrated.client()) as client:
        for table in ("generations", *(shape.name for shape in SHAPES.values())):
            client.command(f"TRUNCATE TABLE {table}")


@pytest.fixture
def write(connection: Connection) -> Iterator[Write]:
    """Writes emissions in the given order, each in a flush of its own."""
    writer = Writer(connection.client, interval_seconds=0)

    def write(*emissions: Emission) -> None:
        for emission in emissions:
            writer.put(emission)
            assert writer.drain(30)

    yield write
    writer.close()


@pytest.fixture
def db(connection: Connection) -> Iterator[Database]:
    """The same database, for reading."""
    with Database(connection.read_only_client(), lambda: None) as db:
        yield db
