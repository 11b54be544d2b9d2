"""What the step loop drives: the engine that executes steps and the sink that takes their outputs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.engine.batch import I64, Batch
from stream.engine.engine import Step
from stream.engine.outputs import Chunk, Outputs
from stream.engine.rows import Rows

Export = Mapping[str, Rows]  # a whole state as tables by name


class Machine(Protocol):
    """The pure engine of one partition: the same steps give the same outputs, byte by byte."""

    @property
    def nbytes(self) -> int:
        """Bytes of its state."""
        ...

    @property
    def newest_ms(self) -> tuple[int, int, int]:
        """The largest accepted `at` by topic, -1 for none."""
        ...

    def experiments_with_data(self) -> Collection[str]:
        """Names of the experiments that have ever had an assignment."""
        ...

    def execute(self, step: Step, batches: Mapping[Topic, Sequence[Batch]]) -> Outputs:
        """Take the step's records and return what changed."""
        ...

    def export(self) -> Export:
        """The whole state, valid until the next step."""
        ...

    def live_chunks(self) -> Sequence[Chunk]:
        """All partials that rolling windows may still need."""
        ...


class Machines(Protocol):
    """Makes a partition's engine."""

    def create(self, partition: int, definitions: Definitions) -> Machine:
        """One that has seen nothing."""
        ...

    def load(self, partition: int, definitions: Definitions, export: Export) -> Machine:
        """One from an export."""
        ...


class Reading(Protocol):
    """Which schemas one topic's records are decoded with."""

    @property
    def digest(self) -> str:
        """A name that two readings share only when they decode every record alike."""
        ...

    def to_json(self) -> bytes:
        """The stored form."""
        ...

    def decode_again(self, batch: Batch, partition: int) -> Batch:
        """The same records as this reading has them."""
        ...


class Readings(Protocol):
    """Finds a reading again."""

    def from_json(self, topic: Topic, data: bytes) -> Reading:
        """From the stored form; raises ValueError, KeyError or TypeError for anything else."""
        ...


@dataclass(frozen=True, slots=True)
class State:
    """Where a state stands in time: after which step, when that was planned, and how far events had come."""

    step: int
    planned_at_ms: int
    clock_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class Executed:
    """What one step has put out and when its records came.

    lag: records of the partition that wait behind the step. record_at_ms: int64 (records,), Kafka's times.
    """

    outputs: Outputs
    planned_at_ms: int
    lag: int
    record_at_ms: I64


class Sink(Protocol):
    """Takes outputs into a bounded outbox and writes them in its own time. No method waits.

    A sink takes the steps of a partition in order; the same step may come again from another process.
    """

    @property
    def is_full(self) -> bool:
        """No further step should be planned now."""
        ...

    def put(self, partition: int, executed: Executed) -> None:
        """Take a step's outputs."""
        ...

    def republish(self, partition: int, state: State, chunks: Sequence[Chunk]) -> None:
        """Take all live partials as they are in a state."""
        ...

    def acked(self, partition: int) -> int:
        """The step up to which all that was put is durable; -1 when nothing was."""
        ...
