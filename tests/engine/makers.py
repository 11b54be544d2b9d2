"""Events with defaults, batches and engines for tests, and what an engine has put out so far."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stream.contracts.avro import encode
from stream.contracts.definitions import Definitions
from stream.contracts.models import MODELS
from stream.contracts.topics import Topic
from stream.contracts.versions import newest
from stream.durability.image import Image, Sizes
from stream.engine.batch import Batch
from stream.engine.engine import Engine, Step
from stream.engine.outputs import COUNTS, TABLES, Outputs
from stream.engine.primitives import int128_of
from stream.intake.avro_program import Program
from stream.intake.decode import columns_of, decode

T0 = 1_800_000_000_000  # a full hour
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
PROGRAMS = {topic: Program.of(topic, {newest(topic).schema_id: newest(topic).schema}) for topic in Topic}
KEY = bytes(range(16))
Event = dict[str, Any]
Arrival = tuple[Event | bytes, int]  # an event, or raw bytes, and its Kafka record time


def an_assignment(event_id: str = "a1", at: int = T0, user_id: str = "u1", **fields: Any) -> Event:
    """An assignment of u1 to arm `treatment` of experiment `e1`."""
    return {
        "event_id": event_id, "at": at, "user_id": user_id, "experiment": "e1", "arm": "treatment", "country": None,
        "device": None, "segment": None, "pre_value": None,
    } | fields  # fmt: skip


def an_impression(event_id: str = "i1", at: int = T0 + MINUTE, user_id: str = "u1", **fields: Any) -> Event:
    """An impression of item x on surface home; its impression_id is `imp-` and the event_id."""
    return {
        "event_id": event_id, "at": at, "user_id": user_id, "impression_id": f"imp-{event_id}", "request_id": "r1",
        "item_id": "x", "surface": "home", "position": 0, "model": "m", "model_version": "v1", "score": None,
        "latency_ms": None, "country": None, "device": None, "category": None,
    } | fields  # fmt: skip


def an_interaction(
    event_id: str = "n1", at: int = T0 + 2 * MINUTE, user_id: str = "u1", **fields: Any
) -> Event:
    """A click on imp-i1."""
    return {
        "event_id": event_id, "at": at, "user_id": user_id, "impression_id": "imp-i1", "item_id": None,
        "kind": "click", "value_minor": None, "currency": None,
    } | fields  # fmt: skip


def a_batch(topic: Topic, arrivals: Sequence[Arrival], first_offset: int = 0, partitions: int = 1) -> Batch:
    """Encoded and decoded as in the stream."""
    values = [
        event if isinstance(event, bytes) else encode(topic, MODELS[topic].model_construct(**event))
        for event, _ in arrivals
    ]
    offsets = np.arange(first_offset, first_offset + len(values), dtype=np.int64)
    columns = columns_of(values, offsets, np.array([at for _, at in arrivals], np.int64))
    return decode(topic, columns, PROGRAMS[topic], partition=0, partitions=partitions)


def plain(column: Any) -> list[Any]:
    """A column as a list; two-word integers become one."""
    return [int128_of(pair) for pair in column] if np.ndim(column) == 2 else list(column)


class Run:
    """An engine, the steps it took, and the newest version of every row it put out."""

    def __init__(self, definitions: Definitions | None = None, engine: Engine | None = None) -> None:
        self.definitions = definitions or Definitions()
        self.engine = engine or Engine(key=KEY, partition=0, partitions=1, definitions=self.definitions)
        self.rows: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]] = defaultdict(dict)
        self.offsets: Counter[Topic] = Counter()
        self._image = Image(Sizes(is_checked=True))

    def step(
        self,
        *,
        assignments: Sequence[Event | Arrival] = (),
        impressions: Sequence[Event | Arrival] = (),
        interactions: Sequence[Event | Arrival] = (),
        planned_at: int | None = None,
        caught_up: tuple[bool, bool, bool] = (True, True, True),
    ) -> Outputs:
        """One step. An event without a record time was received when it happened."""
        given = {
            Topic.ASSIGNMENTS: assignments, Topic.IMPRESSIONS: impressions, Topic.INTERACTIONS: interactions,
        }  # fmt: skip
        batches: dict[Topic, list[Batch]] = {}
        latest = T0
        for topic, events in given.items():
            arrivals = [event if isinstance(event, tuple) else (event, event["at"]) for event in events]
            if arrivals:
                batches[topic] = [a_batch(topic, arrivals, self.offsets[topic])]
                self.offsets[topic] += len(arrivals)
                latest = max(latest, *(at for _, at in arrivals))
        return self.execute(batches, latest if planned_at is None else planned_at, caught_up)

    def execute(
        self, batches: Mapping[Topic, Sequence[Batch]], planned_at: int, caught_up: tuple[bool, bool, bool]
    ) -> Outputs:
        """One step of ready batches."""
        number = self.engine.step + 1
        outputs = self.engine.execute(Step(number, planned_at, caught_up, self.definitions), batches)
        if number % 16 == 0 or number.bit_count() == 1:  # now and then, for it is slow
            self._image.compare(self.engine.export(), limit=1 << 40)  # fails if a row changed without a mark
        self.keep(outputs)
        return outputs

    def keep(self, outputs: Outputs) -> None:
        """Take the rows of a step as the newest."""
        for name, (keys, values) in TABLES.items():
            table = outputs.tables[name]
            columns = [plain(table[column]) for column in (*keys, *values)]
            for row in zip(*columns, strict=True):
                self.rows[name][row[: len(keys)]] = row[len(keys) :]

    def totals(self) -> dict[tuple[str, str, str, str], Counter[str]]:
        """By (experiment, arm, dimension, value): the sum of the phases."""
        out: dict[Any, Counter[str]] = defaultdict(Counter)
        for key, counts in self.table("totals").items():
            out[key[:4]].update(counts)
        return {k: v for k, v in out.items() if any(v.values())}

    def table(self, name: str) -> dict[tuple[Any, ...], Counter[str]]:
        """The newest rows of a table that are not all zero, by their key."""
        names = TABLES[name][1]
        rows = {k: Counter(dict(zip(names, map(int, v), strict=True))) for k, v in self.rows[name].items()}
        return {k: v for k, v in rows.items() if any(v.values())}

    def total(self, experiment: str = "e1", arm: str = "treatment", slice: str = "all") -> Counter[str]:
        """The totals of one arm."""
        dimension, _, value = slice.partition("=")
        return self.totals().get((experiment, arm, dimension, value), Counter())

    def panes(self) -> dict[tuple[Any, ...], Counter[str]]:
        """By (experiment, arm, dimension, value, pane start): the sum of the fragments."""
        out: dict[Any, Counter[str]] = defaultdict(Counter)
        for (e, arm, dimension, value, _, start, _), counts in self.rows["panes"].items():
            out[e, arm, dimension, value, int(start)].update(dict(zip(COUNTS, map(int, counts), strict=True)))
        return {k: v for k, v in out.items() if any(v.values())}

    def ledger(self) -> dict[tuple[str, int], Counter[str]]:
        """By (topic, hour number)."""
        names = TABLES["ledger"][1]
        out: dict[Any, Counter[str]] = defaultdict(Counter)
        for (topic, hour, _), counts in self.rows["ledger"].items():
            out[topic, int(hour) // HOUR].update(dict(zip(names, map(int, counts), strict=True)))
        return {k: Counter({n: c for n, c in v.items() if c}) for k, v in out.items()}

    def outcomes(self, topic: Topic) -> Counter[str]:
        """The ledger of one topic over all hours."""
        out: Counter[str] = Counter()
        for (word, _), counts in self.ledger().items():
            if word == topic.word:
                out.update(counts)
        return +out

    def dead_letters(self) -> list[tuple[str, int, str, str]]:
        """(topic, offset, reason, field)."""
        return [(t, int(o), v[1], v[2]) for (t, o), v in sorted(self.rows["dead_letters"].items())]
