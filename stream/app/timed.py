"""Store and database as they are, with their calls timed."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa

from stream.app.spread import Spread
from stream.durability.store import Store
from stream.engine.batch import I64
from stream.sink.writer import Inserter

T = TypeVar("T")
Spreads = defaultdict[str, Spread]


@dataclass(frozen=True, slots=True)
class SinkTimes:
    """How long inserts take, by table, and how long records take from Kafka until they are in ClickHouse."""

    insert_seconds: Spreads = field(default_factory=lambda: defaultdict(Spread))
    latency_seconds: Spread = field(default_factory=Spread)

    def add_latency(self, ages_ms: I64, weight: float) -> None:
        """See sink.writer.Writer."""
        self.latency_seconds.add_many(ages_ms / 1000, weight)


class TimedStore:
    """A checkpoint store; `seconds` by operation, `written_bytes` by what was written."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self.seconds: Spreads = defaultdict(Spread)
        self.written_bytes: dict[str, int] = {}
        self.snapshot_seconds = Spread()  # from the first piece that is written to the manifest
        self._begun: dict[int, float] = {}
        self.published_at: dict[
            int, float
        ] = {}  # when, by `clock`, the newest snapshot of a partition was published

    def create(self, path: str, data: bytes) -> bool:
        """See Store."""
        is_new = self._timed("create", self._store.create, path, data)
        if is_new:
            self._note(path, data)
        return is_new

    def put(self, path: str, data: bytes) -> None:
        """See Store."""
        self._timed("put", self._store.put, path, data)
        self._note(path, data)

    def get(self, path: str) -> bytes | None:
        """See Store."""
        return self._timed("get", self._store.get, path)

    def names(self, folder: str, after: str = "") -> list[str]:
        """See Store."""
        return self._timed("names", self._store.names, folder, after)

    def delete(self, paths: Iterable[str]) -> None:
        """See Store."""
        self._timed("delete", self._store.delete, paths)

    def _timed(self, name: str, call: Callable[..., T], *args: Any) -> T:
        started = self._clock()
        try:
            return call(*args)
        finally:
            self.seconds[name].add(self._clock() - started)

    def _note(self, path: str, data: bytes) -> None:
        """Paths are generation/partition/kind/..., or generation/kind/...; see durability."""
        parts = path.split("/")
        kind = parts[2] if len(parts) > 3 else parts[min(1, len(parts) - 1)]
        self.written_bytes[kind] = self.written_bytes.get(kind, 0) + len(data)
        if kind in ("state", "snapshot") and parts[1][1:].isdigit():
            self._note_snapshot(int(parts[1][1:]), is_published=kind == "snapshot")

    def _note_snapshot(self, partition: int, *, is_published: bool) -> None:
        now = self._clock()
        began = self._begun.setdefault(partition, now)
        if is_published:
            self.published_at[partition] = now
            self.snapshot_seconds.add(now - began)
            del self._begun[partition]


class TimedInserter:
    """A ClickHouse client whose inserts are timed by table."""

    def __init__(
        self, client: Inserter, seconds: Spreads, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._seconds = seconds
        self._clock = clock

    def command(self, cmd: str, parameters: dict[str, Any]) -> Any:
        """See Inserter."""
        return self._client.command(cmd, parameters=parameters)

    def insert_arrow(self, table: str, arrow_table: pa.Table, *, settings: dict[str, Any]) -> Any:
        """See Inserter."""
        started = self._clock()
        try:
            return self._client.insert_arrow(table, arrow_table, settings=settings)
        finally:
            self._seconds[table].add(self._clock() - started)

    def close(self) -> None:
        """See Inserter."""
        self._client.close()
