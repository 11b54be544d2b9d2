"""The writer against a database that fails on demand."""

import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, DataError, OperationalError

from stream.local.database import open_database
from stream.sink.connect import connect
from stream.sink.queries import results
from stream.sink.refusals import advice
from stream.sink.tables import SHAPES
from stream.sink.writer import Writer, WriterStopped
from tests.services.clickhouse import ClickHouseServer
from tests.sink.conftest import fill
from tests.sink.fakes import FakeClickHouse, away
from tests.sink.makers import a_dead_letter, a_ledger_row, a_pane, a_total, an_emission


@contextmanager
def a_writer(database: FakeClickHouse, **options: Any) -> Iterator[Writer]:
    writer = Writer(database.client, interval_seconds=0, **options)
    yield writer
    writer.close(0)


class Gate(FakeClickHouse):
    """Its first insert waits until the test opens it."""

    def __init__(self, *answers: Exception | None) -> None:
        super().__init__(*answers)
        self.reached, self.opened = threading.Event(), threading.Event()

    def insert_arrow(self, table: str, arrow_table: pa.Table, *, settings: dict[str, Any]) -> None:
        self.reached.set()
        assert self.opened.wait(10)
        super().insert_arrow(table, arrow_table, settings=settings)


def test_a_step_is_acknowledged_once_all_its_tables_and_its_status_are_written() -> None:
    database = FakeClickHouse()
    with a_writer(database) as writer:
        assert writer.acked(0) == -1
        writer.put(
            an_emission(
                4,
                panes=[a_pane()],
                totals=[a_total()],
                ledger=[a_ledger_row()],
                dead_letters=[a_dead_letter()],
            )
        )
        assert writer.drain(10)
        assert writer.acked(0) == 4
        assert writer.acked(1) == -1
        assert writer.rows_written == 4
    assert [name for name, _ in database.inserts] == [
        "panes", "user_sums", "ledger_rows", "dead_letter_rows", "partition_status",
    ]  # fmt: skip
    assert database.generations == [1]


def test_nothing_is_acknowledged_while_one_table_is_missing() -> None:
    database = Gate(None, away())
    with a_writer(database) as writer:
        writer.put(an_emission(1, panes=[a_pane()], totals=[a_total()]))
        assert database.reached.wait(10)
        assert writer.acked(0) == -1
        assert writer.waiting_rows == 2
        database.opened.set()
        assert writer.drain(10)
        assert writer.acked(0) == 1
        assert writer.waiting_rows == 0
    assert [name for name, _ in database.inserts] == ["panes", "panes", "user_sums", "partition_status"]


def test_steps_that_wait_are_written_as_one_with_only_the_newest_rows() -> None:
    database = Gate()
    with a_writer(database) as writer:
        writer.put(an_emission(1, panes=[a_pane(impressions=1)]))
        assert database.reached.wait(10)
        for step in (2, 3, 4):
            panes = [a_pane(impressions=step), a_pane(arm="b", impressions=step, fragment=step)]
            writer.put(an_emission(step, panes=panes))
        writer.put(an_emission(9, partition=1, panes=[a_pane(impressions=50)]))
        database.opened.set()
        assert writer.drain(10)
        assert (writer.acked(0), writer.acked(1)) == (4, 9)
    first, second = (rows for name, rows in database.inserts if name == "panes")
    assert first["impressions"].to_pylist() == [1]
    assert second["impressions"].to_pylist() == [2, 3, 4, 4, 50]
    assert second["version"].to_pylist() == [2, 3, 4, 4, 9]
    status = [rows for name, rows in database.inserts if name == "partition_status"][-1]
    assert status["last_step"].to_pylist() == [4, 9]


def test_an_outage_loses_nothing_and_ends_with_the_newest_rows(caplog: pytest.LogCaptureFixture) -> None:
    database = FakeClickHouse(away(), away())
    with caplog.at_level(logging.WARNING), a_writer(database, now=lambda: 1000.0) as writer:
        writer.put(an_emission(1, panes=[a_pane(impressions=1), a_pane(arm="b", impressions=1)]))
        writer.put(an_emission(2, panes=[a_pane(impressions=2)], dead_letters=[a_dead_letter(offset=5)]))
        assert writer.drain(10)
        assert writer.acked(0) == 2
        assert writer.unavailable_since is None
    assert {(r["arm"], r["impressions"]) for r in database.rows("panes")} == {("a", 2), ("b", 1)}
    assert len(database.rows("dead_letter_rows")) == 1
    assert database.clients_made == database.clients_closed == 3
    assert ["cannot be written" in r.message for r in caplog.records] == [True, False]


def test_rows_that_come_while_a_flush_fails_are_written_with_those_it_held() -> None:
    database = Gate(away())
    with a_writer(database) as writer:
        writer.put(an_emission(1, panes=[a_pane(impressions=1), a_pane(arm="b", impressions=1)]))
        assert database.reached.wait(10)
        writer.put(an_emission(2, panes=[a_pane(impressions=2)], totals=[a_total()]))
        writer.put(an_emission(5, partition=1))
        database.opened.set()
        assert writer.drain(10)
        assert (writer.acked(0), writer.acked(1)) == (2, 5)
    assert {(r["arm"], r["impressions"]) for r in database.rows("panes")} == {("a", 2), ("b", 1)}
    assert len(database.rows("user_sums")) == 1


def test_a_real_server_that_dies_and_comes_back_has_every_row(
    clickhouse_server: ClickHouseServer, unique: str
) -> None:
    with connect(clickhouse_server.url_of(unique)) as connection:
        fill(connection)
        writer = Writer(connection.client, interval_seconds=0)
        clickhouse_server.kill()
        writer.put(an_emission(2, totals=[a_total(arm="b", impressions=1)]))
        wait_until(lambda: writer.unavailable_since is not None)
        writer.put(an_emission(3, totals=[a_total(arm="b", impressions=7)]))
        clickhouse_server.restart()
        assert writer.drain(60)
        assert writer.acked(0) == 3
        writer.close()
        with open_database(clickhouse_server.url_of(unique)) as db:
            assert [(r["arm"], r["impressions"]) for r in results(db)] == [("a", 4), ("b", 7)]
        with closing(connection.client()) as client:
            client.command(f"DROP DATABASE {unique}")


def test_while_the_database_is_away_the_writer_says_since_when_and_when_it_is_full() -> None:
    away_for_good = FakeClickHouse(*(away() for _ in range(1000)))
    with a_writer(away_for_good, max_rows=3, now=lambda: 1000.0) as writer:
        writer.put(an_emission(1, panes=[a_pane(impressions=1)]))
        wait_until(lambda: writer.unavailable_since == 1000.0)
        for step in range(2, 30):  # one row, whatever its age
            writer.put(an_emission(step, panes=[a_pane(impressions=step)]))
        wait_until(lambda: writer.waiting_rows == 1)
        assert not writer.is_full
        writer.put(an_emission(30, dead_letters=[a_dead_letter(offset=i) for i in range(3)]))
        assert writer.waiting_rows == 4
        assert writer.is_full
        assert not writer.drain(0)
        assert writer.acked(0) == -1


def test_large_rows_fill_it_by_their_bytes() -> None:
    away_for_good = FakeClickHouse(*(away() for _ in range(1000)))
    with a_writer(away_for_good, max_bytes=1_000) as writer:
        writer.put(an_emission(1, dead_letters=[a_dead_letter(payload=bytes(500))]))
        assert not writer.is_full
        writer.put(an_emission(2, dead_letters=[a_dead_letter(offset=2, payload=bytes(500))]))
        assert writer.is_full


def test_while_nobody_answers_old_versions_are_dropped_now_and_then() -> None:
    def nobody() -> Any:
        raise away()

    writer = Writer(nobody, interval_seconds=0)
    for step in range(1, 40):
        letters = [a_dead_letter(offset=i) for i in range(500)]
        writer.put(an_emission(step, dead_letters=letters))
    wait_until(lambda: writer.waiting_rows < 39 * 500)
    assert writer.waiting_rows >= 500
    writer.close(0)


def test_an_answer_that_trying_again_cannot_change_stops_the_writer() -> None:
    refusal = DatabaseError("Code: 53. DB::Exception: Type mismatch", code=53)
    with a_writer(FakeClickHouse(refusal)) as writer:
        writer.put(an_emission(1, panes=[a_pane()]))
        with pytest.raises(WriterStopped, match="Type mismatch"):
            writer.drain(10)
        assert writer.error is not None
        assert writer.error.__cause__ is refusal
        with pytest.raises(WriterStopped):
            writer.put(an_emission(2))
        assert writer.acked(0) == -1


def test_a_client_that_cannot_be_made_is_tried_again() -> None:
    database = FakeClickHouse()
    attempts = [away(), away()]

    def client() -> FakeClickHouse:
        if attempts:
            raise attempts.pop()
        return database

    writer = Writer(client, interval_seconds=0)
    writer.put(an_emission(1, panes=[a_pane()]))
    assert writer.drain(10)
    writer.close()


def test_the_steps_of_a_round_are_written_together_when_it_is_over() -> None:
    database = Gate()
    database.opened.set()
    with a_writer(database, gather_seconds=60) as writer:
        for partition in range(3):
            writer.put(an_emission(1, partition=partition, panes=[a_pane()]))
        assert not database.reached.wait(0.1)
        assert writer.waiting_rows == 3
        writer.flush()
        assert writer.drain(10)
        assert [name for name, _ in database.inserts].count(SHAPES["panes"].name) == 1


def test_closing_writes_what_waits() -> None:
    database = FakeClickHouse()
    writer = Writer(database.client, interval_seconds=60)
    for step in (1, 2, 3):
        writer.put(an_emission(step, panes=[a_pane(impressions=step)]))
    writer.close()
    assert [r["impressions"] for r in database.rows("panes")] == [3]


def test_closing_gives_up_when_the_database_stays_away() -> None:
    writer = Writer(FakeClickHouse(*(away() for _ in range(1000))).client)
    writer.put(an_emission(1, panes=[a_pane()]))
    writer.close(0.2)
    assert writer.acked(0) == -1


def test_a_step_without_rows_is_acknowledged_too() -> None:
    with a_writer(FakeClickHouse()) as writer:
        writer.put(an_emission(1))
        assert writer.drain(10)
        assert writer.acked(0) == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OperationalError("no route"), None),
        (OSError(28, "No space left on device"), None),
        *(
            (DatabaseError("not now", code=code), None)
            for code in (159, 209, 241, 242, 243, 252, 319, 999, 1001)
        ),
        (DatabaseError("a proxy's 502"), None),
        *((DatabaseError("no such thing", code=code), "liftstream migrate") for code in (16, 60, 81)),
        *((DatabaseError("not you", code=code), "INSERT into") for code in (164, 497)),
        (DatabaseError("who are you", code=516), "user:password"),
        (DatabaseError("not a number", code=53), "a fault of liftstream"),
        (DataError("cannot serialise"), "a fault of liftstream"),
    ],
)
def test_what_may_help_itself_is_tried_again_and_the_rest_says_what_to_do(
    error: Exception, words: str | None
) -> None:
    said = advice(error)
    assert (said is None) if words is None else (said is not None and words in said)


def test_a_server_that_is_busy_or_full_is_tried_again_until_it_takes_everything(
    clickhouse_server: ClickHouseServer, unique: str
) -> None:
    with connect(clickhouse_server.url_of(unique)) as connection, closing(connection.client()) as client:
        fill(connection)
        client.command("SYSTEM STOP MERGES user_sums")
        few_parts = "parts_to_delay_insert = 1, parts_to_throw_insert = 1, max_delay_to_insert = 1"
        client.command(f"ALTER TABLE user_sums MODIFY SETTING {few_parts}")
        writer = Writer(connection.client, interval_seconds=0)
        writer.put(an_emission(2, totals=[a_total(arm="b", impressions=7)]))
        wait_until(lambda: writer.trouble is not None)
        assert "Too many parts" in str(writer.trouble)
        client.command("ALTER TABLE user_sums RESET SETTING parts_to_delay_insert, parts_to_throw_insert")
        assert writer.drain(60)
        writer.close()
        client.command(f"DROP DATABASE {unique}")


def test_tables_that_are_gone_stop_the_writer_with_what_to_do(
    clickhouse_server: ClickHouseServer, unique: str
) -> None:
    with connect(clickhouse_server.url_of(unique)) as connection, closing(connection.client()) as client:
        fill(connection)
        client.command("DROP TABLE user_sums SYNC")
        writer = Writer(connection.client, interval_seconds=0)
        writer.put(an_emission(2, totals=[a_total()]))
        with pytest.raises(WriterStopped, match=r"ClickHouse refuses .*user_sums.*run `liftstream migrate`"):
            writer.drain(30)
        writer.close()
        client.command(f"DROP DATABASE {unique}")


def wait_until(condition: Any) -> None:
    done = threading.Event()
    for _ in range(1000):
        if condition():
            return
        done.wait(0.01)
    raise AssertionError("it did not happen within 10 s")
