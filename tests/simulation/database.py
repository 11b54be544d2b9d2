"""The simulated ClickHouse, and the real Writer flushed by hand instead of by its thread."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
from clickhouse_connect.driver.exceptions import OperationalError

from stream.sink.tables import SHAPES, Shape
from stream.sink.writer import Writer
from tests.simulation.schedule import Schedule
from tests.simulation.trouble import Trouble

_SHAPES = {shape.name: shape for shape in SHAPES.values()}
_OUTCOMES = ("counted", "duplicate", "late", "outside", "rejected")
Key = tuple[Any, ...]  # the shape's key columns, generation, partition


class Database:
    """Of each row the newest version, as ReplacingMergeTree shows it. Objects to two values of one version."""

    def __init__(self, schedule: Schedule, exempt: Mapping[str, Callable[[], bool]]) -> None:
        """exempt: by table (as in SHAPES), whether one version may have several values now."""
        self.rows: dict[str, dict[Key, tuple[int, tuple[Any, ...]]]] = {name: {} for name in _SHAPES}
        self.newest_step: Counter[int] = Counter()  # by partition: the largest version in the ledger
        self.away_until_ms = 0.0
        self._seen: dict[tuple[str, Key, int], int] = {}
        self._exempt = {SHAPES[name].name: may for name, may in exempt.items()}
        self._schedule = schedule

    def insert(self, table: str, arrow: pa.Table) -> None:
        """Take rows, all or none."""
        shape = _SHAPES[table]
        rows = self.rows[table]
        for key, values, version in _rows(shape, arrow):
            self._object_to_two_values(table, key, version, values)
            if table == SHAPES["ledger"].name:
                self._balance(key, values)
                self.newest_step[key[-1]] = max(self.newest_step[key[-1]], version)
            if (old := rows.get(key)) is None or old[0] <= version:
                rows[key] = version, values

    def columns(self, table: str) -> list[tuple[int, dict[str, Any]]]:
        """(partition, row as columns) of all rows of a table of SHAPES."""
        shape = SHAPES[table]
        return [
            (key[-1], dict(zip((*shape.key, *shape.values), (*key[:-2], *values), strict=True)))
            for key, (_, values) in self.rows[shape.name].items()
        ]

    def consumed(self) -> dict[int, Counter[str]]:
        """By partition and topic."""
        topic = SHAPES["ledger"].key.index("topic")
        consumed = SHAPES["ledger"].values.index("consumed")
        found: dict[int, Counter[str]] = defaultdict(Counter)
        for key, (_, values) in self.rows[SHAPES["ledger"].name].items():
            found[key[-1]][key[topic]] += values[consumed]
        return found

    def _object_to_two_values(self, table: str, key: Key, version: int, values: tuple[Any, ...]) -> None:
        if table in self._exempt and self._exempt[table]():
            return
        now = hash(values)
        if self._seen.setdefault((table, key, version), now) != now:
            raise self._schedule.fail(f"two values of version {version} of {table} {key}")

    def _balance(self, key: Key, values: tuple[Any, ...]) -> None:
        row = dict(zip(SHAPES["ledger"].values, values, strict=True))
        if row["consumed"] != sum(row[name] for name in _OUTCOMES):
            raise self._schedule.fail(f"the ledger does not balance: {key} {row}")


class Connection:
    """One process's way to the database: an Inserter (see stream.sink.writer)."""

    def __init__(self, database: Database, trouble: Trouble, now_ms: Callable[[], float]) -> None:
        self._database = database
        self._trouble = trouble
        self._now_ms = now_ms

    def command(self, cmd: str, parameters: dict[str, Any]) -> None:
        with self._trouble.around("announce the generation", _away):
            self._refuse_when_away()

    def insert_arrow(self, table: str, arrow_table: pa.Table, *, settings: dict[str, Any]) -> None:
        with self._trouble.around(f"insert {arrow_table.num_rows} {table}", _away):
            self._refuse_when_away()
            self._database.insert(table, arrow_table)

    def close(self) -> None:
        pass

    def _refuse_when_away(self) -> None:
        if self._now_ms() < self._database.away_until_ms:
            raise _away()


class HandWriter(Writer):
    """The product's Writer without its thread: `flush` is one turn of it."""

    def _run(self) -> None:
        """The thread ends at once."""

    @property
    def has_work(self) -> bool:
        """Something waits."""
        return self._has_work()

    def flush(self) -> None:
        """Write all that waits, or put it back."""
        if not self._has_work():
            return
        batch = self._take()
        assert batch is not None
        try:
            self._write(batch)
        except OperationalError as error:
            self._put_back(batch, error)
        else:
            self._acknowledge(batch)


def _away() -> OperationalError:
    return OperationalError("the simulated database does not answer")


def _rows(shape: Shape, arrow: pa.Table) -> list[tuple[Key, tuple[Any, ...], int]]:
    """(key with generation and partition, values, version) by row."""
    columns = [_plain(column) for column in arrow.columns]
    keys = list(zip(*columns[: len(shape.key)], *columns[-3:-1], strict=True))
    values = list(zip(*columns[len(shape.key) : -3], strict=True))
    return list(zip(keys, values, columns[-1], strict=True))


def _plain(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_fixed_size_binary(column.type):
        return [int.from_bytes(word, "little", signed=True) for word in column.to_pylist()]
    found: list[Any] = column.to_pylist()
    return found
