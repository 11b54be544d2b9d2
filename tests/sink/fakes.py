"""A database that is away whenever the test says so."""

from typing import Any

import pyarrow as pa
from clickhouse_connect.driver.exceptions import OperationalError

from stream.sink.outbox import newest
from stream.sink.tables import SHAPES

TABLES = {shape.name: name for name, shape in SHAPES.items()}


class FakeClickHouse:
    """Keeps what is inserted. `answers`: what the next inserts do: None succeeds, an error is raised; then all succeed.

    Call `client` for the writer's client_factory.
    """

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.inserts: list[tuple[str, pa.Table]] = []
        self.clients_made = 0
        self.clients_closed = 0
        self.generations: list[int] = []

    def client(self) -> "FakeClickHouse":
        self.clients_made += 1
        return self

    def command(self, cmd: str, parameters: dict[str, Any]) -> None:
        assert "INSERT INTO generations" in cmd
        self.generations.append(parameters["generation"])

    def insert_arrow(self, table: str, arrow_table: pa.Table, *, settings: dict[str, Any]) -> None:
        assert settings["async_insert"] == 0
        if self.answers and (answer := self.answers.pop(0)) is not None:
            raise answer
        self.inserts.append((table, arrow_table))

    def close(self) -> None:
        self.clients_closed += 1

    def rows(self, table: str) -> list[dict[str, Any]]:
        """What the table shows, newest versions only."""
        blocks = [rows for name, rows in self.inserts if name == table]
        found: list[dict[str, Any]] = newest(TABLES[table], blocks).to_pylist() if blocks else []
        return found


def away() -> OperationalError:
    return OperationalError("connection refused")
