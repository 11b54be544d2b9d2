"""Questions change nothing and read nothing else: directly, on a server, and through the owner of a directory."""

from collections.abc import Iterator

import pytest

from stream.errors import ConfigurationError
from stream.local.database import open_database
from stream.local.query_server import QueryServer
from stream.sink import queries
from stream.sink.connect import Connection
from stream.sink.queries import Database
from tests.services.clickhouse import ClickHouseServer
from tests.sink.conftest import a_database, fill


@pytest.fixture(scope="module", params=["directory", "owner", "server"])
def db(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """The same rows opened in three ways."""
    folder = tmp_path_factory.mktemp("read_only")
    with a_database("server" if request.param == "server" else "chdb", request, folder) as connection:
        fill(connection)
        if request.param == "server":
            with open_database(url_of(connection, request)) as db:
                yield db
        if request.param == "owner":
            server = QueryServer(connection, folder / "database")
            with open_database(folder / "database") as db:
                yield db
            server.close()
    if request.param == "directory":
        with open_database(f"chdb://{folder}/database") as db:
            yield db


def url_of(connection: Connection, request: pytest.FixtureRequest) -> str:
    server: ClickHouseServer = request.getfixturevalue("clickhouse_server")
    return server.url_of(connection.where.rpartition("/")[2])


def test_results_are_the_same_python_values_everywhere(db: Database) -> None:
    (row,) = queries.results(db, "shelf")
    assert (row["impressions"], row["ctr"], row["revenue_minor"]) == (4, 0.25, 2**80)
    assert queries.results(db, "it's \\ \t {x:String} \n é") == []
    assert queries.ledger(db) == queries.ledger_imbalances(db) == []
    assert [r["partition"] for r in queries.status(db)] == [0]


@pytest.mark.parametrize(
    "text",
    [
        "select arm from arm_totals",
        "  -- why\n(SELECT arm FROM arm_totals);",
        "WITH t AS (SELECT * FROM arm_totals) SELECT arm FROM t WHERE arm != 'file(1) INTO OUTFILE'",
        "SELECT arm, 'drop table panes; {x:String} %s' FROM arm_totals",
    ],
)
def test_questions_are_answered(db: Database, text: str) -> None:
    assert [row[0] for row in queries.sql(db, text).rows] == ["a"]


@pytest.mark.parametrize(
    "text", ["SHOW TABLES", "DESCRIBE arm_rates", "EXPLAIN SELECT 1", "EXISTS arm_rates"]
)
def test_questions_about_the_tables_are_answered(db: Database, text: str) -> None:
    assert queries.sql(db, text).rows


REFUSED = {
    "INSERT INTO user_sums (generation) VALUES (1)": "not INSERT",
    "DROP TABLE user_sums": "not DROP",
    "CREATE TABLE x (a Int8) ENGINE = Memory": "not CREATE",
    "ALTER TABLE user_sums DELETE WHERE 1": "not ALTER",
    "KILL QUERY WHERE 1": "not KILL",
    "SET readonly = 0": "not SET",
    "USE system": "not USE",
    "SELECT 1; DROP TABLE user_sums": "Multi-statements are not allowed",
    "SELECT 1 SETTINGS readonly = 0": "open for reading only",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')": r"file\(\) reads from outside",
    "SELECT file('/etc/passwd')": r"file\(\) reads from outside",
    "SELECT `file`/**/('/etc/passwd')": r"file\(\) reads from outside",
    "DESCRIBE file('/etc/passwd')": r"file\(\) reads from outside",
    "SELECT * FROM (SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString'))": r"url\(\) reads from outside",
    "SELECT * FROM remote('127.0.0.1', 'system.one')": r"remote\(\) reads from outside",
    "SELECT * FROM S3('http://127.0.0.1:1/b/x', 'CSV', 'a Int8')": "reads from outside|Unknown table function",
    "SELECT 1 INTO OUTFILE '/tmp/never'": "INTO OUTFILE is not allowed",
    "SELECT 1 FORMAT JSON": "Leave FORMAT out",
    "SELEC": "ClickHouse refused the query: Unknown expression identifier `SELEC`$",
    "SELECT FROM WHERE": "does not understand this SQL",
    "": "does not understand this SQL",
}


@pytest.mark.parametrize(("text", "why"), REFUSED.items(), ids=[text or "nothing" for text in REFUSED])
def test_everything_else_is_refused_with_a_sentence(db: Database, text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        queries.sql(db, text)
    assert "\n" not in str(caught.value)
    assert len(queries.results(db)) == 1


def test_the_database_itself_refuses_changes(db: Database) -> None:
    for statement in (
        "DROP TABLE user_sums",
        "INSERT INTO user_sums (generation) VALUES (1)",
        "SET readonly = 0",
    ):
        with pytest.raises(ConfigurationError, match=r"open for reading only"):
            db.query(statement)
    assert len(queries.results(db)) == 1
