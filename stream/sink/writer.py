"""Writes outputs to ClickHouse in a thread of its own: one insert per table and flush, retried until it succeeds."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError

from stream.engine.batch import I64
from stream.errors import LiftstreamError
from stream.sink.connect import brief
from stream.sink.emission import Batch, Emission
from stream.sink.refusals import advice
from stream.sink.row_limit import RowLimit
from stream.sink.tables import SHAPES

log = logging.getLogger(__name__)

_ONE_INSERT_EACH = {"async_insert": 0}  # acknowledged means written
_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 0.1, 10.0
_LOOK_SECONDS = 1.0  # at rows that wait for their turn
GATHER_ROWS_SECONDS = 0.3
_NEVER = float("inf")


class Inserter(Protocol):
    """What the writer needs of a clickhouse_connect client."""

    def command(self, cmd: str, parameters: dict[str, Any]) -> Any:
        """Run one statement."""

    def insert_arrow(self, table: str, arrow_table: pa.Table, *, settings: dict[str, Any]) -> Any:
        """Insert columns."""

    def close(self) -> None:
        """Let go of the connection."""


class WriterStopped(LiftstreamError):
    """ClickHouse refused what was written, or the writer has a fault; `__cause__` says which."""


class _TimeIsUp(Exception):
    """The writer must close, and rows still wait for their turn."""


class Writer:
    """Takes outputs at once and writes them in its own time; all methods may be called from any thread.

    While ClickHouse is away it tries for ever and keeps only the newest version of each row.
    An answer that trying again cannot change stops it: `error` is set and `put` raises WriterStopped.
    """

    def __init__(
        self,
        client_factory: Callable[[], Inserter],
        *,
        max_rows: int = 1_000_000,
        max_bytes: int = 256 << 20,
        interval_seconds: float = 0.5,
        gather_seconds: float = 0.0,
        now: Callable[[], float] = time.time,
        on_latency: Callable[[I64, float], None] = lambda latencies_ms, weight: None,
        limit: RowLimit | None = None,
    ) -> None:
        """max_rows, max_bytes: more that waits makes it `is_full`. limit: of the rows that ClickHouse gets.

        interval_seconds: between the starts of two flushes. gather_seconds: the outputs of a step wait so long for
        those of others, or until `flush`; rows that belong to no step at most GATHER_ROWS_SECONDS. on_latency: told,
        after each flush, how long records took from Kafka to here; each value stands for `weight` records.
        """
        self._client_factory = client_factory
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._interval_seconds = interval_seconds
        self._gather_seconds = gather_seconds
        self._flush_at = _NEVER  # by the monotonic clock
        self._now = now
        self._on_latency = on_latency
        self._limit = limit or RowLimit()
        self._oldest: float | None = None  # epoch seconds: since when something has been waiting
        self._client: Inserter | None = None
        self._generations: set[int] = set()  # known to ClickHouse
        self._waiting = Batch()
        self._shrinking = Batch()  # the same, while superseded rows are dropped
        self._in_flight_rows = self._in_flight_bytes = 0
        self._is_writing = False
        self._acked: dict[int, int] = {}
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._give_up_at = float("inf")
        self.error: Exception | None = None
        self.unavailable_since: float | None = None  # epoch seconds
        self.trouble: str | None = None  # what ClickHouse said last, while it is unavailable
        self.rows_written = 0
        self._held_back_since: float | None = None  # epoch seconds: flushes have had to wait for the limit
        self._is_held_back = False  # the present one
        self._thread = threading.Thread(target=self._run, name="clickhouse-writer", daemon=True)
        self._thread.start()

    # Taking

    @property
    def waiting_rows(self) -> int:
        """Rows that are not known to be in ClickHouse."""
        with self._changed:
            return self._waiting.outbox.rows + self._shrinking.outbox.rows + self._in_flight_rows

    @property
    def waiting_bytes(self) -> int:
        """Bytes of these rows."""
        with self._changed:
            return self._waiting.outbox.nbytes + self._shrinking.outbox.nbytes + self._in_flight_bytes

    @property
    def waiting_seconds(self) -> float:
        """For how long something has been waiting without a break; 0 when nothing is."""
        oldest = self._oldest
        return 0.0 if oldest is None else max(0.0, self._now() - oldest)

    @property
    def held_back_seconds(self) -> float:
        """For how long flush after flush has had to wait for the limit of rows; 0 when none has."""
        since = self._held_back_since
        return 0.0 if since is None else max(0.0, self._now() - since)

    @property
    def rows_per_second(self) -> float:
        """The limit."""
        return self._limit.rows_per_second

    @property
    def is_full(self) -> bool:
        """Whether no more should be put now; what is put nevertheless is kept."""
        return self.waiting_rows > self._max_rows or self.waiting_bytes > self._max_bytes

    def put(self, emission: Emission) -> None:
        """Take a step's outputs; the steps of a partition come in order. Arrays must not change afterwards."""
        tables = {
            name: SHAPES[name].rows(
                columns,
                generation=emission.generation,
                partition=emission.partition,
                version=emission.outputs.step,
            )
            for name, columns in emission.outputs.tables.items()
        }
        with self._changed:
            self._refuse_when_stopped()
            for name, rows in tables.items():
                self._waiting.outbox.add(name, rows)
            self._waiting.note(emission, emission.origins)
            self._note_arrival(self._gather_seconds)

    def put_rows(
        self, table: str, columns: Mapping[str, Any], *, generation: int, version: Any, partition: int = 0
    ) -> None:
        """Take rows of SHAPES[table] that belong to no step, such as `rolling`. version: one, or one per row."""
        rows = SHAPES[table].rows(columns, generation=generation, partition=partition, version=version)
        with self._changed:
            self._refuse_when_stopped()
            self._waiting.outbox.add(table, rows)
            self._note_arrival(min(self._gather_seconds, GATHER_ROWS_SECONDS))

    def _note_arrival(self, gather_seconds: float) -> None:
        if self._oldest is None:
            self._oldest = self._now()
        self._flush_at = min(self._flush_at, time.monotonic() + gather_seconds)
        self._changed.notify_all()

    def flush(self) -> None:
        """Let what waits be written at once: nothing will soon come to join it."""
        with self._changed:
            if self._waiting.is_worth_writing:
                self._flush_at = 0.0
                self._changed.notify_all()

    def acked(self, partition: int) -> int:
        """The step up to which all that was put is in ClickHouse; -1 when none is."""
        with self._changed:
            return self._acked.get(partition, -1)

    def drain(self, timeout_seconds: float | None = None) -> bool:
        """Wait until everything is written; False when the time is up. Raises WriterStopped."""
        self.flush()
        with self._changed:
            done = self._changed.wait_for(
                lambda: self.error is not None or not self._has_work(), timeout_seconds
            )
            self._refuse_when_stopped()
            return done

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Write what waits, for at most this time, and stop; what is left was never acknowledged."""
        self._give_up_at = time.monotonic() + timeout_seconds
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(timeout_seconds + _LONGEST_DELAY_SECONDS)  # an insert may hang

    def _refuse_when_stopped(self) -> None:
        if self.error is not None:
            if isinstance(self.error, WriterStopped):
                raise self.error
            raise WriterStopped(f"Writing to ClickHouse stopped: {self.error}") from self.error

    def _has_work(self) -> bool:
        return self._is_writing or self._waiting.is_worth_writing or self._shrinking.is_worth_writing

    # Writing, all in the thread

    def _run(self) -> None:
        delay = _FIRST_DELAY_SECONDS
        try:
            while (batch := self._take()) is not None:
                started = time.monotonic()
                try:
                    self._write(batch)
                except (ClickHouseError, OSError) as error:
                    if what_to_do := advice(error):
                        raise WriterStopped(
                            f"ClickHouse refuses what is written ({brief(error)}): {what_to_do}."
                        ) from error
                    self._put_back(batch, error)
                    self._pause(delay)
                    delay = min(2 * delay, _LONGEST_DELAY_SECONDS)
                    continue
                delay = _FIRST_DELAY_SECONDS
                self._acknowledge(batch)
                self._closing.wait(max(0.0, started + self._interval_seconds - time.monotonic()))
        except _TimeIsUp:
            pass  # what is left was never acknowledged
        except Exception as error:
            with self._changed:
                self.error = error
                self._changed.notify_all()
        finally:
            self._forget_client()

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; close() cuts it short."""
        if self._closing.is_set():
            time.sleep(_FIRST_DELAY_SECONDS)
        self._closing.wait(seconds)

    def _take(self) -> Batch | None:
        """All that waits, once it should be written; None when it is time to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_work() or self._closing.is_set())
            while not self._closing.is_set() and (left := self._flush_at - time.monotonic()) > 0:
                self._changed.wait(left)
            self._flush_at = _NEVER
            if not self._has_work() or time.monotonic() > self._give_up_at:
                return None
        self._is_held_back = False
        while seconds := self._limit.seconds_until(self._waiting.outbox.rows):
            self._hold_back(seconds)
        with self._changed:
            batch, self._waiting = self._waiting, Batch()
            self._note_in_flight(batch)
            return batch

    def _note_in_flight(self, batch: Batch | None) -> None:
        self._is_writing = batch is not None
        self._in_flight_rows = batch.outbox.rows if batch else 0
        self._in_flight_bytes = batch.outbox.nbytes if batch else 0

    def _write(self, batch: Batch) -> None:
        """The rows first and the status last, so that a status never promises rows that are not there."""
        if self._client is None:
            self._client = (
                self._client_factory()
            )  # first: while nobody answers, sorting out old rows is in vain
        tables = batch.outbox.newest()
        with self._changed:
            self._note_in_flight(batch)
        for generation in {emission.generation for emission in batch.newest.values()} - self._generations:
            self._begin(self._client, generation)
        for name, rows in tables.items():
            self._insert(self._client, SHAPES[name].name, rows)
        if batch.newest:
            self._insert(self._client, SHAPES["status"].name, batch.status_rows(int(self._now() * 1000)))

    def _insert(self, client: Inserter, table: str, rows: pa.Table) -> None:
        """One insert, or several with pauses where the limit asks for them."""
        left = rows
        while left.num_rows:
            while seconds := self._limit.seconds_until(left.num_rows):
                self._hold_back(seconds)
            part = left.slice(0, int(min(left.num_rows, self._limit.room())))
            client.insert_arrow(table, part, settings=_ONE_INSERT_EACH)
            self._limit.note(part.num_rows)  # afterwards: they came before now
            left = left.slice(part.num_rows)

    def _hold_back(self, seconds: float) -> None:
        """Wait a little for the limit; rows that come meanwhile take the place of older ones."""
        if time.monotonic() > self._give_up_at:
            raise _TimeIsUp
        self._is_held_back = True
        if self._held_back_since is None:
            self._held_back_since = self._now()
        self._pause(min(seconds, _LOOK_SECONDS))
        self._shrink_waiting()

    def _shrink_waiting(self) -> None:
        """Drop superseded rows of what waits, aside, so that nobody who puts rows has to wait for it."""
        with self._changed:
            batch, self._waiting = self._waiting, Batch()
            self._shrinking = batch
        batch.outbox.shrink_when_doubled()
        with self._changed:
            batch.extend(self._waiting)
            self._waiting, self._shrinking = batch, Batch()

    def _begin(self, client: Inserter, generation: int) -> None:
        client.command(
            "INSERT INTO generations SELECT {generation:UInt32}, now64(3), 0 "
            "WHERE {generation:UInt32} NOT IN (SELECT generation FROM generations)",
            parameters={"generation": generation},
        )
        self._generations.add(generation)

    def _acknowledge(self, batch: Batch) -> None:
        for origins in batch.origins.values():
            if points := len(origins.record_at_ms):
                ages_ms = int(self._now() * 1000) - origins.record_at_ms
                self._on_latency(ages_ms, origins.count / points)
        with self._changed:
            self._oldest = self._now() if self._waiting.is_worth_writing else None
            self.rows_written += self._in_flight_rows
            self._note_in_flight(None)
            for partition, emission in batch.newest.items():
                self._acked[partition] = max(emission.outputs.step, self._acked.get(partition, -1))
            since, self.unavailable_since = self.unavailable_since, None
            if not self._is_held_back:
                self._held_back_since = None
            self.trouble = None
            self._changed.notify_all()
        if since is not None:
            log.warning("ClickHouse answers again after %.0f s.", self._now() - since)

    def _put_back(self, batch: Batch, error: Exception) -> None:
        self._forget_client()
        batch.outbox.shrink_when_doubled()
        with self._changed:
            batch.extend(self._waiting)
            self._waiting = batch
            self._note_in_flight(None)
            self._flush_at = 0.0
            self.trouble = brief(error)
            is_first = self.unavailable_since is None
            if is_first:
                self.unavailable_since = self._now()
            self._changed.notify_all()
        if is_first:
            log.warning(
                "ClickHouse cannot be written to and will be tried again; rows wait meanwhile: %s", error
            )

    def _forget_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(ClickHouseError, OSError):
                client.close()
