"""The second agent's state: partials in, rolling windows out; rows are a function of the partials alone."""

from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.engine.outputs import COUNTS, Table
from stream.rolling.panes import Counts, ExperimentPanes
from stream.rolling.partials import CHUNK_MS, Malformed, decode, decode_key, partition_for
from stream.rolling.sources import Sources

WINDOWS_SECONDS = (60, 300, 3_600, 86_400)
KEPT_MS = max(WINDOWS_SECONDS) * 1000 + CHUNK_MS
IDLE_TIMEOUT_MS = 15_000
REFRESH_MS = 60_000  # an experiment without messages is worth writing again when its windows are so old
MOST_REFRESHED = 50  # of those at a time
REMEMBERED = 2_048  # partials that are kept decoded as well: the next one of a key takes the last one back


@dataclass(frozen=True, slots=True)
class Rolling:
    """Rows of the `rolling` table: one per experiment, arm and window.

    columns: experiment, arm, dimension (`all`), value (''), window_seconds, as_of_ms and COUNTS.
    version: uint64, one per row; grows with every message of the experiment's partition of the partials topic.
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
        self._decode = lru_cache(REMEMBERED)(decode)
        self._idle_timeout_ms = idle_timeout_ms
        self._experiments: dict[str, ExperimentPanes] = {}
        self._home: dict[str, int] = {}  # the partition of the partials topic that is about an experiment
        self._sources: dict[int, Sources] = {}  # by home
        self._touched: set[str] = set()
        self._told_ms: dict[str, int] = {}  # as_of of an experiment's last rows

    @property
    def chunks_held(self) -> int:
        """How many chunks of all experiments are in memory."""
        return sum(panes.chunks_held for panes in self._experiments.values())

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Take one message of the partials topic. Never raises for what a message contains."""
        if value is None:  # a tombstone: only the topic's cleaning, panes expire by their own time here
            return
        try:
            about, partial = decode_key(key or b""), self._decode(value)
        except Malformed:
            self.malformed += 1
            return
        if partial.generation > self.generation:
            self.clear()
            self.generation = partial.generation
        if partial.generation < self.generation:
            self.stale += 1
            return
        panes = self._experiments.get(about.experiment)
        if panes is None:
            panes = self._experiments[about.experiment] = ExperimentPanes(self._decode)
        self._sources_of(about.experiment).see(about, partial)
        if panes.put(about.partition, about.chunk_start_ms, value, partial):
            self._touched.add(about.experiment)
        else:
            self.stale += 1

    def take_due(self, partitions: Container[int]) -> list[str]:
        """The experiments of these partitions of the partials topic whose rows are worth writing, sorted.

        They have changed since the last call, or had no event for a while and their windows have moved on.
        """
        touched = {name for name in self._touched if self._home[name] in partitions}
        self._touched -= touched
        old = {
            name: told_ms
            for name, told_ms in self._told_ms.items()
            if self._home[name] in partitions and (self._as_of_ms(name) or 0) >= told_ms + REFRESH_MS
        }
        return sorted(touched.union(sorted(old, key=lambda name: (old[name], name))[:MOST_REFRESHED]))

    def rows(self, experiments: Iterable[str] | None = None) -> Rolling:
        """What the `rolling` table should say about these experiments, or about all.

        A window is [as_of - length, as_of). as_of is the smallest watermark of the source partitions, floored to
        the pane; a partition whose last message was planned more than `idle_timeout_ms` before the newest one is
        idle and does not hold it back. An arm without data in a window has a row of zeros, also when the whole
        experiment has none any more. Frees what lies before every window.
        """
        names = sorted(self._experiments) if experiments is None else experiments
        table = _Rows()
        for name in names:
            panes = self._experiments.get(name)
            as_of_ms = self._as_of_ms(name) if panes else None
            if panes is None or as_of_ms is None:
                continue
            panes.expire(as_of_ms - KEPT_MS)
            self._told_ms[name] = as_of_ms
            table.add(name, panes, as_of_ms, self._sources_of(name).version)
        return table.rolling(self.generation)

    def drop_partition(self, partition: int) -> None:
        """Forget the experiments of one partition of the partials topic: another worker reads it now."""
        gone = [name for name in self._experiments if self._home[name] == partition]
        for name in gone:
            del self._experiments[name], self._home[name]
            self._told_ms.pop(name, None)
        self._touched.difference_update(gone)
        self._sources.pop(partition, None)

    def clear(self) -> None:
        """Forget every experiment."""
        for of in (self._experiments, self._home, self._sources, self._touched, self._told_ms):
            of.clear()

    def _sources_of(self, experiment: str) -> Sources:
        if experiment not in self._home:
            self._home[experiment] = partition_for(experiment, self._partitions)
        return self._sources.setdefault(self._home[experiment], Sources())

    def _as_of_ms(self, experiment: str) -> int | None:
        return self._sources_of(experiment).as_of_ms(self._idle_timeout_ms)


class _Rows:
    """Rows of the `rolling` table while they are collected."""

    def __init__(self) -> None:
        self._names: dict[str, list[Any]] = {
            name: [] for name in ("experiment", "arm", "window_seconds", "as_of_ms", "version")
        }
        self._counts: list[Counts] = []

    def add(self, experiment: str, panes: ExperimentPanes, as_of_ms: int, version: int) -> None:
        windows = panes.windows(as_of_ms, [seconds * 1000 for seconds in WINDOWS_SECONDS])
        order = sorted(panes.arms)
        index = [panes.arms[arm] for arm in order]
        rows = len(order) * len(windows)
        self._names["experiment"] += [experiment] * rows
        self._names["arm"] += [arm for arm in order for _ in WINDOWS_SECONDS]
        self._names["window_seconds"] += WINDOWS_SECONDS * len(order)
        self._names["as_of_ms"] += [as_of_ms] * rows
        self._names["version"] += [version] * rows
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
