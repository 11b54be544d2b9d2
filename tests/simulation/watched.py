"""Engines that object when a step puts out two different things, whoever executes it."""

from collections.abc import Mapping, Sequence
from typing import Any

from stream.app.engines import LiveEngine
from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.durability.machine import Export
from stream.engine.batch import Batch
from stream.engine.engine import Step
from stream.engine.outputs import Outputs
from tests.engine.makers import KEY
from tests.simulation.schedule import Schedule


class WatchedEngines:
    """See durability.machine.Machines."""

    def __init__(self, schedule: Schedule, partitions: int) -> None:
        self.executions = 0
        self.repeats = 0
        self._schedule = schedule
        self._partitions = partitions
        self._seen: dict[tuple[int, int], int] = {}

    def create(self, partition: int, definitions: Definitions) -> "WatchedEngine":
        engine = WatchedEngine(
            key=KEY, partition=partition, partitions=self._partitions, definitions=definitions
        )
        engine.watch = self
        return engine

    def load(self, partition: int, definitions: Definitions, export: Export) -> "WatchedEngine":
        engine = WatchedEngine.load(
            export, key=KEY, partition=partition, partitions=self._partitions, definitions=definitions
        )
        engine.watch = self
        return engine

    def see(self, partition: int, outputs: Outputs) -> None:
        """Compare a step's outputs with those of its first execution."""
        self.executions += 1
        now = hash((_plain(outputs.tables), repr(outputs.chunks), outputs.rows, outputs.clock_ms))
        before = self._seen.setdefault((partition, outputs.step), now)
        self.repeats = self.executions - len(self._seen)
        if before != now:
            raise self._schedule.fail(f"step {outputs.step} of partition {partition} put out two things")


class WatchedEngine(LiveEngine):
    """Tells what it puts out."""

    watch: WatchedEngines

    def execute(self, step: Step, batches: Mapping[Topic, Sequence[Batch]]) -> Outputs:
        outputs = super().execute(step, batches)
        self.watch.see(self.partition, outputs)
        return outputs


def _plain(tables: Mapping[str, Mapping[str, Any]]) -> tuple[Any, ...]:
    return tuple(
        (table, name, _values(column))
        for table, columns in tables.items()
        for name, column in columns.items()
    )


def _values(column: Any) -> Any:
    if hasattr(column, "tobytes") and column.dtype != object:
        return column.tobytes()
    return tuple(column)
