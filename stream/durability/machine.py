"""What the step loop drives: the engine that executes steps and the sink that takes their outputs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.engine.batch import Batch
from stream.engine.outputs import Chunk, Outputs

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Step:
    """What an engine needs to know of a step beside its records."""

    number: int
    planned_at_ms: int
    caught_up: tuple[bool, bool, bool]
    definitions: Definitions


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

    @property
    def experiments(self) -> Collection[str]:
        """Names of the experiments that have data."""
        ...

    def execute(self, step: Step, batches: Mapping[Topic, Sequence[Batch]]) -> Outputs:
        """Take the step's records and return what changed."""
        ...

    def export(self) -> Arrays:
        """The whole state; the same state gives the same arrays."""
        ...

    def live_chunks(self) -> Sequence[Chunk]:
        """All partials that rolling windows may still need."""
        ...


class Machines(Protocol):
    """Makes a partition's engine."""

    def create(self, partition: int, definitions: Definitions) -> Machine:
        """One that has seen nothing."""
        ...

    def load(self, partition: int, definitions: Definitions, arrays: Arrays) -> Machine:
        """One from an export."""
        ...


class Sink(Protocol):
    """Takes outputs into a bounded outbox and writes them in its own time. No method waits.

    A sink takes the steps of a partition in order; the same step may come again from another process.
    """

    @property
    def is_full(self) -> bool:
        """No further step should be planned now."""
        ...

    def put(self, partition: int, outputs: Outputs) -> None:
        """Take a step's outputs."""
        ...

    def republish(self, partition: int, step: int, clock_ms: int, chunks: Sequence[Chunk]) -> None:
        """Take all live partials as they are after a step."""
        ...

    def acked(self, partition: int) -> int:
        """The step up to which all that was put is durable; -1 when nothing was."""
        ...
