"""The second agent's state: partials in, rolling windows out; rows are a function of the partials alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.engine.outputs import COUNTS, Table
from stream.rolling.panes import Counts, ExperimentPanes
from stream.rolling.partials import CHUNK_MS, Malformed, decode, decode_key, partition_for

WINDOWS_SECONDS = (60, 300, 3_600, 86_400)
KEPT_MS = max(WINDOWS_SECONDS) * 1000 + CHUNK_MS
IDLE_TIMEOUT_MS = 15_000


@dataclass(frozen=True, slots=True)
class Rolling:
    """Rows of the `rolling` table: one per experiment, arm and window.

    columns: experiment, arm, dimension (`all`), value (''), window_seconds, as_of_ms and COUNTS.
    version: uint64, one per row; grows with every message that changes the experiment.
    """

    generation: int
    version: npt.NDArray[np.uint64]
    columns: Table


class RollingState:
    """The newest partials of all experiments whose messages this worker reads.

    Messages may come in any order and any number of times; a higher generation replaces all lower ones.
    malformed: messages that could not be read. stale: messages not newer than what was kept.
    """

    def __init__(self, *, partitions: int, idle_timeout_ms: int = IDLE_TIMEOUT_MS) -> None:
        """partitions: of the partials topic. idle_timeout_ms: see `rows`."""
        self.generation = 0
        self.malformed = 0
        self.stale = 0
        self._partitions = partitions
        self._idle_timeout_ms = idle_timeout_ms
        self._experiments: dict[str, ExperimentPanes] = {}
        self._touched: set[str] = set()

    @property
    def chunks_held(self) -> int:
        """How many chunks of all experiments are in memory."""
        return sum(panes.chunks_held for panes in self._experiments.values())

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Take one message of the partials topic. Never raises for what a message contains."""
        if value is None:  # a tombstone: only the topic's cleaning, panes expire by their own time here
            return
        try:
            about, partial = decode_key(key or b""), decode(value)
        except Malformed:
            self.malformed += 1
            return
        if partial.generation > self.generation:
            self.clear()
            self.generation = partial.generation
        if partial.generation < self.generation:
            self.stale += 1
            return
        panes = self._experiments.setdefault(about.experiment, ExperimentPanes())
        if panes.put(about.partition, about.chunk_start_ms, value, partial):
            self._touched.add(about.experiment)
        else:
            self.stale += 1

    def take_touched(self) -> list[str]:
        """The experiments that changed since the last call, sorted: the ones whose rows are worth writing."""
        touched, self._touched = sorted(self._touched), set()
        return touched

    def rows(self, experiments: Iterable[str] | None = None) -> Rolling:
        """What the `rolling` table should say about these experiments, or about all.

        A window is [as_of - length, as_of). as_of is the smallest watermark of the experiment's source
        partitions, floored to the pane; a partition whose last message was planned more than
        `idle_timeout_ms` before the newest one is idle and does not hold it back. An arm without data in a
        window has a row of zeros. Frees what lies before every window.
        """
        names = sorted(self._experiments) if experiments is None else experiments
        table = _Rows()
        for name in names:
            panes = self._experiments.get(name)
            as_of_ms = panes.as_of_ms(self._idle_timeout_ms) if panes else None
            if panes is None or as_of_ms is None:
                continue
            panes.expire(as_of_ms - KEPT_MS)
            table.add(name, panes, as_of_ms)
        return table.rolling(self.generation)

    def drop_partition(self, partition: int) -> None:
        """Forget the experiments of one partition of the partials topic: another worker reads it now."""
        gone = [name for name in self._experiments if partition_for(name, self._partitions) == partition]
        for name in gone:
            del self._experiments[name]
        self._touched.difference_update(gone)

    def clear(self) -> None:
        """Forget every experiment."""
        self._experiments.clear()
        self._touched.clear()


class _Rows:
    """Rows of the `rolling` table while they are collected."""

    def __init__(self) -> None:
        self._names: dict[str, list[Any]] = {
            name: [] for name in ("experiment", "arm", "window_seconds", "as_of_ms", "version")
        }
        self._counts: list[Counts] = []

    def add(self, experiment: str, panes: ExperimentPanes, as_of_ms: int) -> None:
        windows = panes.windows(as_of_ms, [seconds * 1000 for seconds in WINDOWS_SECONDS])
        order = sorted(panes.arms)
        index = [panes.arms[arm] for arm in order]
        rows = len(order) * len(windows)
        self._names["experiment"] += [experiment] * rows
        self._names["arm"] += [arm for arm in order for _ in WINDOWS_SECONDS]
        self._names["window_seconds"] += WINDOWS_SECONDS * len(order)
        self._names["as_of_ms"] += [as_of_ms] * rows
        self._names["version"] += [panes.version] * rows
        by_arm = np.stack([counts[index] for counts in windows], axis=1)
        self._counts.append(by_arm.reshape(rows, len(COUNTS)))

    def rolling(self, generation: int) -> Rolling:
        rows = len(self._names["arm"])
        counts = np.concatenate([np.empty((0, len(COUNTS)), np.int64), *self._counts])
        columns = {
            "experiment": self._names["experiment"],
            "arm": self._names["arm"],
            "dimension": ["all"] * rows,
            "value": [""] * rows,
            "window_seconds": np.array(self._names["window_seconds"], np.uint32),
            "as_of_ms": np.array(self._names["as_of_ms"], np.int64),
            **{name: counts[:, i] for i, name in enumerate(COUNTS)},
        }
        return Rolling(generation, np.array(self._names["version"], np.uint64), columns)
