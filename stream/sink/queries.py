"""The questions the commands ask, as plain Python values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from stream.errors import ConfigurationError, Unavailable
from stream.sink.readonly import question_of, refusal, says_format

RESULT_COLUMNS = (
    "experiment", "arm", "slice", "assigned_users", "exposed_users", "impressions", "clicked_impressions", "ctr",
    "clicks", "converted_impressions", "conversions", "conversion_rate", "revenue_minor",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of Python values under named columns; times are datetime in UTC."""

    columns: tuple[str, ...]
    rows: list[Sequence[Any]]

    def dicts(self) -> list[dict[str, Any]]:
        """One dictionary per row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Database:
    """A database open for reading, on one thread; see stream.local.database.open_database."""

    def __init__(self, client: Client, close: Callable[[], None]) -> None:
        """`client` must be read-only; `close` gives back what `client` came from."""
        self._client = client
        self._close = close

    def query(self, statement: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        """Ask one question, with {name:Type} for parameters.

        Raises ConfigurationError when ClickHouse refuses it and Unavailable when ClickHouse does not answer.
        """
        try:
            result = self._client.query(statement, parameters=dict(parameters or {}), tz_mode="aware")
        except OperationalError as error:
            raise Unavailable("ClickHouse does not answer: check that it runs and try again.") from error
        except DatabaseError as error:
            raise refusal(error) from error
        return Answer(tuple(result.column_names), list(result.result_rows))

    def question(self, text: str) -> Answer:
        """Ask what a person wrote: one statement that only reads this database, else ConfigurationError."""
        statement = question_of(self._client, text)
        if says_format(statement):
            raise ConfigurationError("Leave FORMAT out: the answer comes as rows.")
        return self.query(statement)

    def close(self) -> None:
        """Let go of the connection, or of the directory."""
        self._client.close()
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def results(db: Database, experiment: str | None = None) -> list[dict[str, Any]]:
    """The cumulative figures of every arm and slice: RESULT_COLUMNS, by experiment, slice (`all` first) and arm.

    Counts and money are int, ctr and conversion_rate float, or None without impressions.
    """
    only = "" if experiment is None else "WHERE experiment = {experiment:String}"
    return db.query(
        f"SELECT {', '.join(RESULT_COLUMNS)} FROM arm_totals {only} ORDER BY experiment, slice != 'all', slice, arm",
        None if experiment is None else {"experiment": experiment},
    ).dicts()


def experiments(db: Database) -> list[str]:
    """The names of the experiments that have results."""
    return [row[0] for row in db.query("SELECT DISTINCT experiment FROM arm_totals ORDER BY experiment").rows]


def unknown_troubles(db: Database) -> dict[str, int]:
    """Late, duplicate, rejected and orphaned events of users who were in no experiment then."""
    columns = ", ".join(f"sum(t.{name}) AS {name}" for name in ("late", "duplicate", "rejected", "orphaned"))
    (found,) = db.query(f"SELECT {columns} FROM arm_troubles AS t WHERE experiment = ''").dicts()
    return {name: int(count) for name, count in found.items()}


def decisions(db: Database, experiment: str | None = None) -> list[dict[str, Any]]:
    """What was decided, the newest first: the columns of the view `decisions`."""
    only = "" if experiment is None else "WHERE experiment = {experiment:String}"
    return db.query(
        f"SELECT * FROM decisions {only} ORDER BY decided_at DESC, id",
        None if experiment is None else {"experiment": experiment},
    ).dicts()


def ledger(db: Database) -> list[dict[str, Any]]:
    """What became of every consumed record, by topic, partition and hour."""
    return db.query("SELECT * FROM ledger ORDER BY topic, partition, hour").dicts()


def ledger_imbalances(db: Database) -> list[dict[str, Any]]:
    """The rows of the ledger whose sums do not agree; empty when every record is accounted for."""
    return db.query("SELECT * FROM ledger WHERE NOT balanced ORDER BY topic, partition, hour").dicts()


def status(db: Database) -> list[dict[str, Any]]:
    """Each partition's watermark, lag, latencies and last step."""
    return db.query("SELECT * FROM pipeline_status ORDER BY partition").dicts()


def workers(db: Database) -> list[dict[str, Any]]:
    """What each worker last said of itself in the last day."""
    return db.query("SELECT * FROM workers ORDER BY heard_at DESC, worker").dicts()


def sql(db: Database, text: str) -> Answer:
    """The answer to one read-only statement."""
    return db.question(text)
