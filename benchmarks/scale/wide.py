"""`python -m benchmarks.scale.wide`: many experiments at once: cost per event, and rows a second for ClickHouse.

Every user is in several experiments, every impression counts in each of them, and in a slice of every dimension. Steps
come as a worker takes them: one a second and partition, or longer ones where they would make more rows than
`rows_per_second`. Each is flushed, its rows made and packed as for ClickHouse. Time is the events' own.
"""

import argparse
import json
import math
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
from stream.app.held import interval_seconds, rows_of
from stream.app.warm import warm_up
from stream.app.worker import STEPS_SHARE
from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.engine.engine import Engine, Step
from stream.engine.outputs import Outputs
from stream.rolling.partials import encode
from stream.rolling.state import RollingState
from stream.settings import Settings
from stream.sink.connect import connect
from stream.sink.migrate import migrate
from stream.sink.row_limit import WINDOW_SECONDS
from stream.sink.tables import SHAPES
from tests.services.clickhouse import ClickHouseServer

DIMENSIONS = ("country", "device", "category", "surface", "model_version", "model")
VALUES = {"country": 20, "device": 3, "category": 30, "surface": 4, "model_version": 2, "model": 3}
CLICK_SHARE = 1 / 11
WARM_UP_SECONDS = 20  # tables have grown to what traffic needs, and steps have found their length


@dataclass(frozen=True, slots=True)
class Shape:
    """experiments_each: how many of them a user is in. rate: events a second of all partitions."""

    experiments: int
    experiments_each: int
    dimensions: int
    rate: int
    users: int = 400_000
    partitions: int = 4
    step_seconds: float = 1
    rows_per_second: float = math.inf
    seconds: int = 60

    @property
    def slices(self) -> int:
        """Of an arm, `all` among them."""
        return 1 + sum(VALUES[dimension] for dimension in DIMENSIONS[: self.dimensions])


@dataclass(slots=True)
class Spent:
    """CPU seconds of engines, of making rows, of partials and windows; rows by table, and by second of all tables."""

    events: int = 0
    steps: int = 0
    engine: float = 0.0
    rows_made: float = 0.0
    windows: float = 0.0
    rows: Counter[str] = field(default_factory=Counter)
    rows_by_second: list[int] = field(default_factory=list)
    sent_bytes: int = 0

    @property
    def most_per_second(self) -> float:
        """Over the worst window of the limit."""
        window = int(WINDOW_SECONDS)
        starts = range(max(1, len(self.rows_by_second) - window + 1))
        return max(sum(self.rows_by_second[start : start + window]) for start in starts) / window


@dataclass(slots=True)
class Stepped:
    """One partition: its engine and traffic, and when its next step is due, in seconds of the traffic."""

    partition: int
    engine: Engine
    maker: Maker
    stepped_at: int = 0
    due_at: float = 0.0


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
    words = WORDS | {
        name: tuple(b"%s-%d" % (name.encode(), i) for i in range(n)) for name, n in VALUES.items()
    }
    at_step_us = 1_000_000 * shape.partitions // shape.rate
    every = [
        Stepped(
            p, engines.create(p, rules), Maker(Crowd(shape.users, p, shape.partitions), at_step_us, words)
        )
        for p in range(shape.partitions)
    ]
    for one in every:
        _assign(one, shape, rules)
    spent = Spent()
    rolling = RollingState(partitions=1)
    for second in range(1, WARM_UP_SECONDS + shape.seconds + 1):
        if second == WARM_UP_SECONDS + 1:
            spent = Spent()
        before = spent.rows.total()
        for one in every:
            if second >= one.due_at:
                _step(one, second, shape, rules, spent, server, rolling)
        _write_windows(rolling, spent)
        spent.rows_by_second.append(spent.rows.total() - before)
    per_event = 1e6 / spent.events
    return {
        **asdict(shape),
        "slices": shape.slices,
        "step_took_seconds": round(shape.seconds * shape.partitions / spent.steps, 1),
        "engine_us_per_event": round(spent.engine * per_event, 2),
        "rows_us_per_event": round(spent.rows_made * per_event, 2),
        "windows_us_per_event": round(spent.windows * per_event, 2),
        "made_rows_per_second": round(spent.rows.total() / shape.seconds),
        "most_rows_per_second": round(spent.most_per_second),
        "bound_rows_per_second": bound(shape),
        "mb_per_second": round(spent.sent_bytes / shape.seconds / 1e6, 1),
        "clickhouse_us_per_row": round(server.cpu_us_per_row(), 2) if server else None,
        "rows_by_table": {name: round(rows / shape.seconds) for name, rows in spent.rows.most_common()},
        "state_mb": sum(one.engine.nbytes for one in every) >> 20,
        "load": round(os.getloadavg()[0], 1),
    }


def bound(shape: Shape) -> int:
    """More rows of panes a second cannot be: an event changes one pane of each slice that it is in, a click two.

    What falls into the same pane within a step is one row, so there are fewer.
    """
    changes = shape.rate * (1 + CLICK_SHARE) * shape.experiments_each
    return round(changes * (1 + shape.dimensions))


def _assign(one: Stepped, shape: Shape, rules: Definitions) -> None:
    """Users come in groups, each in its own experiments."""
    members = one.maker.crowd.members()
    groups = shape.experiments // shape.experiments_each
    for e in range(shape.experiments):
        users = members[(members // shape.partitions) % groups == e // shape.experiments_each]
        batch = one.maker.assignments(users, b"experiment-%d" % e)
        step = Step(one.engine.step + 1, START_MS, (True, True, True), rules)
        one.engine.execute(step, {Topic.ASSIGNMENTS: [batch]})


def _step(
    one: Stepped,
    second: int,
    shape: Shape,
    rules: Definitions,
    spent: Spent,
    server: Server | None,
    rolling: RollingState,
) -> None:
    """Take all that came since the last step."""
    events = shape.rate * (second - one.stepped_at) // shape.partitions
    clicks = round(events * CLICK_SHARE)
    batches = {Topic.IMPRESSIONS: [one.maker.shown(events - clicks)]}
    batches[Topic.INTERACTIONS] = [one.maker.clicked(clicks, newest=100_000)]
    step = Step(one.engine.step + 1, one.maker.now_ms, (True, True, True), rules)
    began = time.thread_time()
    outputs = one.engine.execute(step, batches)
    made = time.thread_time()
    tables = _rows(outputs, one.partition, spent)
    spent.engine += made - began
    packed = time.thread_time()
    for chunk in outputs.chunks:
        stamps = {"version": outputs.step, "clock_ms": outputs.clock_ms, "planned_at_ms": one.maker.now_ms}
        rolling.apply(*encode(chunk, generation=1, partition=one.partition, **stamps))
    spent.rows_made += packed - made
    spent.windows += time.thread_time() - packed
    spent.events += events
    spent.steps += 1
    one.stepped_at = second
    share = STEPS_SHARE * shape.rows_per_second / shape.partitions
    one.due_at = second + max(shape.step_seconds, interval_seconds(rows_of(outputs), share))
    if server:
        for name, table in tables.items():
            server.insert(name, table)


def _write_windows(rolling: RollingState, spent: Spent) -> None:
    """Once a second, of the experiments that changed."""
    began = time.thread_time()
    found = rolling.rows(rolling.take_due({0}))
    table = SHAPES["rolling"].rows(found.columns, generation=1, partition=0, version=found.version)
    spent.sent_bytes += len(arrow_buffer(table, "lz4")[1])
    spent.windows += time.thread_time() - began
    spent.rows["rolling"] += table.num_rows


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
    parser.add_argument("--step-seconds", type=float, default=1, help="as the setting step_seconds")
    parser.add_argument(
        "--rows-per-second",
        type=float,
        default=Settings.model_fields["rows_per_second"].default,
        help="as the setting; inf: no limit",
    )
    parser.add_argument(
        "--clickhouse", action="store_true", help="insert into a real server and measure that too"
    )
    asked = parser.parse_args()
    pace = {"step_seconds": asked.step_seconds, "rows_per_second": asked.rows_per_second}
    narrow = Shape(2, 2, 5, asked.rate, **pace)
    wide = Shape(asked.experiments, asked.each, asked.dimensions, asked.rate, **pace)
    with ExitStack() as stack:
        server = Server(stack.enter_context(ClickHouseServer())) if asked.clickhouse else None
        for shape in (narrow, wide):
            print(json.dumps(measure(shape, server)), flush=True)


if __name__ == "__main__":
    main()
