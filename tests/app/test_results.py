"""When a worker draws conclusions, about whose experiments, and what becomes of it while the database is away."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest

from stream.app.results import SLICES_SECONDS, Results
from stream.contracts.definitions import Definitions
from stream.errors import Unavailable
from stream.results.rows import Standing
from stream.results.rules import Rules
from stream.rolling.partials import partition_for
from stream.sink.connect import Connection, connect
from stream.sink.migrate import migrate
from stream.sink.queries import Database
from stream.sink.tables import SHAPES
from stream.sink.writer import Writer
from tests.sink.makers import NOON_MS, a_total, an_emission

PARTITIONS = 4


@dataclass
class Sink:
    """Remembers which rows it was given."""

    is_full: bool = False
    slices: list[set[str]] = field(default_factory=list)

    def put_rows(self, table: str, columns: Mapping[str, Any], *, generation: int, version: Any) -> None:
        if table == "results":
            self.slices.append(set(columns["slice"]))


@dataclass
class Scene:
    connection: Connection
    now: float = 0.0
    is_away: bool = False
    told: list[list[Standing]] = field(default_factory=list)
    sink: Sink = field(default_factory=Sink)

    def __post_init__(self) -> None:
        self.results = Results(
            self.open, self.sink, Definitions(), Rules(), partitions=PARTITIONS, uptime=lambda: self.now
        )
        self.results.on_standings.append(self.told.append)
        self.results.keep_only(set(range(PARTITIONS)))

    def open(self) -> Database:
        if self.is_away:
            raise Unavailable("ClickHouse does not answer.")
        return Database(self.connection.read_only_client(), lambda: None)

    def write(self, step: int, *, experiment: str = "shelf", clock_ms: int = NOON_MS) -> None:
        rows = [
            a_total(experiment=experiment, arm=arm, assigned_users=step, exposed_users=step, **where)
            for arm in ("a", "b") for where in ({}, {"dimension": "country", "value": "DE"})
        ]  # fmt: skip
        with closing(Writer(self.connection.client, interval_seconds=0)) as writer:
            writer.put(an_emission(step, totals=rows, clock_ms=clock_ms))
            assert writer.drain(30)

    def round(self) -> list[str]:
        """The experiments concluded about in one more round."""
        before = len(self.told)
        self.results.round()
        return [one.experiment for told in self.told[before:] for one in told]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    with connect(f"chdb://{tmp_path_factory.mktemp('results')}/database") as connection:
        with closing(connection.client()) as client:
            migrate(client)
        yield connection


@pytest.fixture
def scene(connection: Connection) -> Scene:
    """An empty database and a worker's results."""
    with closing(connection.client()) as client:
        for table in ("generations", *(shape.name for shape in SHAPES.values())):
            client.command(f"TRUNCATE TABLE {table}")
    return Scene(connection)


def test_conclusions_are_drawn_when_something_changed_and_not_otherwise(scene: Scene) -> None:
    assert scene.round() == []
    scene.write(1)
    assert scene.round() == ["shelf"]
    assert scene.round() == []
    scene.write(2)
    assert scene.round() == ["shelf"]
    scene.write(3, experiment="other")
    assert scene.round() == ["other"]
    assert scene.told[-1][0].as_of_ms == NOON_MS


def test_slices_are_compared_less_often_and_never_forgotten(scene: Scene) -> None:
    for step in (1, 2, 3):
        scene.write(step)
        scene.round()
    scene.now += SLICES_SECONDS
    assert scene.round() == ["shelf"]
    assert scene.round() == []
    whole, both = {"all"}, {"all", "country=DE"}
    assert [found for found in scene.sink.slices if found] == [both, whole, whole, both]
    assert [len(told[0].health.slices) for told in scene.told if told] == [2, 2, 2, 2]


def test_a_worker_answers_for_the_experiments_whose_partials_it_reads(scene: Scene) -> None:
    scene.write(1)
    scene.write(2, experiment="other")
    mine = partition_for("other", PARTITIONS)
    assert partition_for("shelf", PARTITIONS) != mine
    scene.results.keep_only({mine})
    assert scene.round() == ["other"]
    scene.results.keep_only(set())
    assert scene.round() == []
    scene.results.keep_only({mine})
    assert scene.round() == ["other"]


def test_a_database_that_is_away_is_said_and_tried_again(scene: Scene) -> None:
    scene.write(1)
    scene.is_away = True
    assert scene.round() == []
    assert scene.results.trouble == "There are no new results: ClickHouse does not answer."
    scene.is_away = False
    assert scene.round() == ["shelf"]
    assert scene.results.trouble is None


def test_what_fails_among_results_is_said_and_stops_nothing(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.write(1)
    scene.results.on_standings.append(lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
    scene.round()
    scene.round()
    assert scene.results.trouble == "There are no new results: ZeroDivisionError('division by zero')"
    assert caplog.text.count("Traceback") == 1


def test_a_full_sink_gets_nothing(scene: Scene) -> None:
    scene.write(1)
    scene.sink.is_full = True
    assert scene.round() == []
    scene.sink.is_full = False
    assert scene.round() == ["shelf"]
