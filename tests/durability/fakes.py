"""Hand-written stand-ins for the checkpoint store, the engine, the sink with its database, the log and the clock."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stream.contracts.definitions import Definitions
from stream.contracts.reasons import Reason
from stream.contracts.topics import FIELDS, Topic
from stream.durability.machine import Executed, Export, State
from stream.durability.surroundings import Clock
from stream.engine.batch import SPARE_BYTES, Batch
from stream.engine.engine import Step
from stream.engine.outputs import Chunk, Outputs
from stream.engine.rows import flat

ENGINE_VERSION = 7
UNKNOWN = int(Reason.UNKNOWN_SCHEMA)


class Crash(Exception):
    """The process is gone."""


@dataclass
class Doom:
    """Ends the process at its k-th effect, right before or right after it; 0: never."""

    at: int = 0
    after: bool = False
    effects: int = 0

    def before_effect(self) -> None:
        self.effects += 1
        if self.effects == self.at and not self.after:
            raise Crash

    def after_effect(self) -> None:
        if self.effects == self.at and self.after:
            raise Crash


class DictStore:
    """A Store in a dictionary; share one between owners to play several processes."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def create(self, path: str, data: bytes) -> bool:
        if path in self.objects:
            return False
        self.objects[path] = bytes(data)
        return True

    def put(self, path: str, data: bytes) -> None:
        self.objects[path] = bytes(data)

    def get(self, path: str) -> bytes | None:
        return self.objects.get(path)

    def names(self, folder: str, after: str = "") -> list[str]:
        return sorted(path for path in self.objects if path.startswith(f"{folder}/") and path > after)

    def delete(self, paths: Iterable[str]) -> None:
        for path in list(paths):
            self.objects.pop(path, None)


class DoomedStore:
    """One process's way to a shared store."""

    def __init__(self, store: DictStore, doom: Doom) -> None:
        self.get, self.names = store.get, store.names
        self._store = store
        self._doom = doom

    def create(self, path: str, data: bytes) -> bool:
        self._doom.before_effect()
        created = self._store.create(path, data)
        self._doom.after_effect()
        return created

    def put(self, path: str, data: bytes) -> None:
        self._doom.before_effect()
        self._store.put(path, data)
        self._doom.after_effect()

    def delete(self, paths: Iterable[str]) -> None:
        for path in list(paths):
            self._doom.before_effect()
            self._store.delete([path])
            self._doom.after_effect()


@dataclass(frozen=True)
class Record:
    offset: int
    at_ms: int
    key: str

    @property
    def value(self) -> bytes:
        return self.key.encode()

    @property
    def schema_id(self) -> int:
        return schema_id_of(self.key)


@dataclass(frozen=True)
class FakeReading:
    """Knows some schema ids."""

    known: frozenset[int] = frozenset({1})

    @property
    def digest(self) -> str:
        return "-".join(map(str, sorted(self.known)))

    def to_json(self) -> bytes:
        return json.dumps(sorted(self.known)).encode()

    def decode_again(self, batch: Batch, partition: int) -> Batch:
        rows = zip(batch.value_pos, batch.value_len, strict=True)
        values = [bytes(batch.buf[pos : pos + length]).decode() for pos, length in rows]
        status = [0 if schema_id_of(value) in self.known else UNKNOWN for value in values]
        return replace(batch, status=np.array(status, np.int64))


class FakeReadings:
    def from_json(self, topic: Topic, data: bytes) -> FakeReading:
        return FakeReading(frozenset(json.loads(data)))


def schema_id_of(key: str) -> int:
    """Keys that begin with `new` are written with a schema that not everybody knows."""
    return 2 if key.startswith("new") else 1


def a_batch(topic: Topic, records: Sequence[Record], known: Collection[int] = (1, 2)) -> Batch:
    values = [record.value for record in records]
    value_len = np.array([len(value) for value in values], np.int64)
    fields = np.zeros((len(records), len(FIELDS[topic])), np.int64)
    fields[:, 1] = [record.at_ms for record in records]
    status = [0 if record.schema_id in known else UNKNOWN for record in records]
    return Batch(
        topic=topic,
        buf=np.frombuffer(b"".join(values) + bytes(SPARE_BYTES), np.uint8),
        offset=np.array([record.offset for record in records], np.int64),
        record_at_ms=np.array([record.at_ms for record in records], np.int64),
        value_pos=np.cumsum(value_len) - value_len,
        value_len=value_len,
        fields=fields,
        status=np.array(status, np.int64),
        misrouted=np.zeros(len(records), np.bool_),
    )


class CountingMachine:
    """Counts keys. Its outputs also depend on how the records were cut into steps, as those of the engine do."""

    def __init__(self, meta: Mapping[str, Any] | None = None) -> None:
        meta = meta or {}
        self.step: int = meta.get("step", 0)
        self.totals: dict[str, int] = dict(meta.get("totals", {}))
        self.chain: str = meta.get("chain", "")
        self.newest: list[int] = list(meta.get("newest", [-1, -1, -1]))
        self.nbytes = 100

    @property
    def newest_ms(self) -> tuple[int, int, int]:
        return self.newest[0], self.newest[1], self.newest[2]

    def experiments_with_data(self) -> Collection[str]:
        return ["exp"] if self.step else []

    def execute(self, step: Step, batches: Mapping[Topic, Sequence[Batch]]) -> Outputs:
        assert step.number == self.step + 1
        self.step = step.number
        touched: set[str] = set()
        rows = 0
        seen = hashlib.sha256(
            f"{self.chain}{step.planned_at_ms}{step.caught_up}{step.definitions.digest}".encode()
        )
        for topic in Topic:
            for batch in batches[topic]:
                for pos, length, status in zip(batch.value_pos, batch.value_len, batch.status, strict=True):
                    key = bytes(batch.buf[pos : pos + length]).decode() + ("?" if status else "")
                    self.totals[key] = self.totals.get(key, 0) + 1
                    touched.add(key)
                    seen.update(f"{topic}{key}".encode())
                    rows += 1
                self.newest[topic] = max(self.newest[topic], *batch.fields[:, 1].tolist())
        self.chain = seen.hexdigest()
        keys = sorted(touched)
        table = {"key": [*keys, "chain"], "total": [*(self.totals[key] for key in keys), self.chain]}
        return Outputs(self.step, {"totals": table}, [], rows, max(self.newest), -1)

    def export(self) -> Export:
        meta = {"step": self.step, "totals": self.totals, "chain": self.chain, "newest": self.newest}
        return {"meta": flat(np.frombuffer(bytearray(json.dumps(meta, sort_keys=True).encode()), np.uint8))}

    def live_chunks(self) -> Sequence[Chunk]:
        return []


class CountingMachines:
    def create(self, partition: int, definitions: Definitions) -> CountingMachine:
        return CountingMachine()

    def load(self, partition: int, definitions: Definitions, export: Export) -> CountingMachine:
        return CountingMachine(json.loads(bytes(export["meta"].joined)))


@dataclass
class Database:
    """What survives: the newest version of each key, and what every step has ever put out."""

    rows: dict[tuple[int, str], tuple[int, object]] = field(default_factory=dict)
    emitted: dict[tuple[int, int], Outputs] = field(default_factory=dict)
    repeated: int = 0

    def totals(self) -> dict[str, object]:
        return {key: value for (_, key), (_, value) in self.rows.items() if key != "chain"}

    def see(self, partition: int, outputs: Outputs) -> None:
        first = self.emitted.setdefault((partition, outputs.step), outputs)
        self.repeated += first is not outputs
        assert first == outputs, f"step {outputs.step} put out two different things"


class OutboxSink:
    """Writes to the database only when flushed; what was not flushed dies with the process."""

    def __init__(self, database: Database, doom: Doom, room: int = 1_000) -> None:
        self.database = database
        self.room = room
        self.republished: list[State] = []
        self._doom = doom
        self._outbox: list[tuple[int, Outputs]] = []
        self._acked: dict[int, int] = {}

    @property
    def is_full(self) -> bool:
        return len(self._outbox) >= self.room

    def put(self, partition: int, executed: Executed) -> None:
        outputs = executed.outputs
        self._doom.before_effect()
        self.database.see(partition, outputs)
        self._outbox.append((partition, outputs))
        self._doom.after_effect()

    def republish(self, partition: int, state: State, chunks: Sequence[Chunk]) -> None:
        self.republished.append(state)

    def acked(self, partition: int) -> int:
        return self._acked.get(partition, -1)

    def flush(self) -> None:
        while self._outbox:
            partition, outputs = self._outbox[0]
            self._doom.before_effect()
            table = outputs.tables["totals"]
            for key, value in zip(table["key"], table["total"], strict=True):
                if self.database.rows.get((partition, key), (-1, 0))[0] <= outputs.step:
                    self.database.rows[partition, key] = outputs.step, value
            self._outbox.pop(0)
            self._acked[partition] = outputs.step
            self._doom.after_effect()


@dataclass
class HandClock:
    """Moves when told."""

    ms: int = 1_000_000

    @property
    def clock(self) -> Clock:
        return Clock(now_ms=lambda: self.ms, uptime_ms=lambda: self.ms)
