"""`python -m benchmarks.scale.wide`: many experiments at once: cost per event, and rows a second for ClickHouse.

Every user is in several experiments, every impression counts in each of them, and in a slice of every dimension. Steps
come as a worker takes them, one a second and partition; each is flushed, its rows made and packed as for ClickHouse.
"""

import argparse
import json
import os
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.query import arrow_buffer

from benchmarks.meter import sample
from benchmarks.scale.made import START_MS, WORDS, Crowd, Maker
from stream.app.engines import Engines
from stream.app.warm import warm_up
from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.engine.engine import Engine, Step
from stream.engine.outputs import Outputs
from stream.sink.connect import connect
from stream.sink.migrate import migrate
from stream.sink.tables import SHAPES
from tests.services.clickhouse import ClickHouseServer

DIMENSIONS = ("country", "device", "category", "surface", "model_version", "model")
VALUES = {"country": 20, "device": 3, "category": 30, "surface": 4, "model_version": 2, "model": 3}
CLICK_SHARE = 1 / 11
WARM_UP_STEPS = 10


@dataclass(frozen=True, slots=True)
class Shape:
    """experiments_each: how many of them a user is in. rate: events a second of all partitions."""

    experiments: int
    experiments_each: int
    dimensions: int
    rate: int
    users: int = 400_000
    partitions: int = 4
    step_seconds: int = 1
    seconds: int = 60

    @property
    def slices(self) -> int:
        """Of an arm, `all` among them."""
        return 1 + sum(VALUES[dimension] for dimension in DIMENSIONS[: self.dimensions])


@dataclass(slots=True)
class Spent:
    """CPU seconds of engines and of making rows; rows by table."""

    events: int = 0
    engine: float = 0.0
    rows_made: float = 0.0
    rows: Counter[str] = field(default_factory=Counter)
    most_rows: int = 0  # of one step of all partitions
    sent_bytes: int = 0


class Server:
    """A real ClickHouse that takes the rows, and what that costs it."""

    def __init__(self, server: ClickHouseServer) -> None:
        with connect(server.url) as connection:
            connection.ask(migrate)
        self._client = clickhouse_connect.get_client(
            host="127.0.0.1", port=server.http_port, username=server.user, password=server.password,
            database="liftstream",
        )  # fmt: skip
        self._pid = server.process.pid
        self._start = sample(self._pid)
        self._rows = 0

    def insert(self, name: str, table: pa.Table) -> None:
        """One insert, acknowledged."""
        self._client.insert_arrow(SHAPES[name].name, table, settings={"async_insert": 0})
        self._rows += table.num_rows

    def cpu_us_per_row(self) -> float:
        """Inserts and merges so far."""
        return sample(self._pid).cost_since(self._start).cpu_seconds / max(1, self._rows) * 1e6


def measure(shape: Shape, server: Server | None = None) -> dict[str, object]:
    """Figures of steady traffic."""
    rules = Definitions(slice_dimensions=DIMENSIONS[: shape.dimensions])
    warm_up(rules)
    engines = Engines(key=bytes(16), partitions=shape.partitions)
    every = [engines.create(p, rules) for p in range(shape.partitions)]
    words = WORDS | {
        name: tuple(b"%s-%d" % (name.encode(), i) for i in range(n)) for name, n in VALUES.items()
    }
    at_step_us = 1_000_000 * shape.partitions // shape.rate
    makers = [
        Maker(Crowd(shape.users, p, shape.partitions), at_step_us, words) for p in range(shape.partitions)
    ]
    for engine, maker in zip(every, makers, strict=True):
        _assign(engine, maker, shape, rules)
    spent = Spent()
    for round_ in range(WARM_UP_STEPS + shape.seconds // shape.step_seconds):
        if round_ == WARM_UP_STEPS:  # tables have grown to what traffic needs
            spent = Spent()
        _steps(every, makers, shape, rules, spent, server)
    per_event = 1e6 / spent.events
    return {
        **asdict(shape),
        "slices": shape.slices,
        "engine_us_per_event": round(spent.engine * per_event, 2),
        "rows_us_per_event": round(spent.rows_made * per_event, 2),
        "rows_per_second": round(spent.rows.total() / shape.seconds),
        "most_rows_of_a_flush": spent.most_rows,
        "bound_rows_per_second": bound(shape),
        "mb_per_second": round(spent.sent_bytes / shape.seconds / 1e6, 1),
        "clickhouse_us_per_row": round(server.cpu_us_per_row(), 2) if server else None,
        "rows_by_table": {name: round(rows / shape.seconds) for name, rows in spent.rows.most_common()},
        "state_mb": sum(engine.nbytes for engine in every) >> 20,
        "load": round(os.getloadavg()[0], 1),
    }


def bound(shape: Shape) -> int:
    """More rows of panes a second cannot be: an event changes one pane of each slice that it is in, a click two.

    What falls into the same pane within a step is one row, so there are fewer.
    """
    changes = shape.rate * (1 + CLICK_SHARE) * shape.experiments_each
    return round(changes * (1 + shape.dimensions))


def _assign(engine: Engine, maker: Maker, shape: Shape, rules: Definitions) -> None:
    """Users come in groups, each in its own experiments."""
    members = maker.crowd.members()
    groups = shape.experiments // shape.experiments_each
    for e in range(shape.experiments):
        users = members[(members // shape.partitions) % groups == e // shape.experiments_each]
        batch = maker.assignments(users, b"experiment-%d" % e)
        step = Step(engine.step + 1, START_MS, (True, True, True), rules)
        engine.execute(step, {Topic.ASSIGNMENTS: [batch]})


def _steps(
    engines: list[Engine],
    makers: list[Maker],
    shape: Shape,
    rules: Definitions,
    spent: Spent,
    server: Server | None,
) -> None:
    rows = 0
    for p, (engine, maker) in enumerate(zip(engines, makers, strict=True)):
        events = shape.rate * shape.step_seconds // shape.partitions
        clicks = round(events * CLICK_SHARE)
        batches = {Topic.IMPRESSIONS: [maker.shown(events - clicks)]}
        batches[Topic.INTERACTIONS] = [maker.clicked(clicks, newest=100_000)]
        step = Step(engine.step + 1, maker.now_ms, (True, True, True), rules)
        began = time.thread_time()
        outputs = engine.execute(step, batches)
        made = time.thread_time()
        tables = _rows(outputs, p, spent)
        rows += sum(table.num_rows for table in tables.values())
        spent.engine += made - began
        spent.rows_made += time.thread_time() - made
        spent.events += events
        if server:
            for name, table in tables.items():
                server.insert(name, table)
    spent.most_rows = max(spent.most_rows, rows)


def _rows(outputs: Outputs, partition: int, spent: Spent) -> dict[str, pa.Table]:
    made = {}
    for name, columns in outputs.tables.items():
        table = SHAPES[name].rows(columns, generation=1, partition=partition, version=outputs.step)
        if table.num_rows:
            spent.sent_bytes += len(arrow_buffer(table, "lz4")[1])
            spent.rows[name] += table.num_rows
            made[name] = table
    return made


def main() -> None:
    """One JSON object a line: two experiments as a measure, then many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=20_000, help="events a second")
    parser.add_argument("--experiments", type=int, default=200)
    parser.add_argument("--each", type=int, default=5, help="experiments of a user")
    parser.add_argument("--dimensions", type=int, default=6)
    parser.add_argument("--step-seconds", type=int, default=1, help="as the setting step_seconds")
    parser.add_argument(
        "--clickhouse", action="store_true", help="insert into a real server and measure that too"
    )
    asked = parser.parse_args()
    narrow = Shape(2, 2, 5, asked.rate, step_seconds=asked.step_seconds)
    wide = Shape(asked.experiments, asked.each, asked.dimensions, asked.rate, step_seconds=asked.step_seconds)
    with ExitStack() as stack:
        server = Server(stack.enter_context(ClickHouseServer())) if asked.clickhouse else None
        for shape in (narrow, wide):
            print(json.dumps(measure(shape, server)), flush=True)


if __name__ == "__main__":
    main()
