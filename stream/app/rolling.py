"""The second agent: partials in, rows of the rolling windows out."""

from collections.abc import Mapping
from typing import Any, Protocol

from stream.decisions.figures import WindowCounts
from stream.rolling.partials import partition_for
from stream.rolling.state import Rolling, RollingState

_NAMES = {60: "1m", 300: "5m", 3_600: "1h", 86_400: "24h"}
_COUNTED = ("impressions", "clicked_impressions", "converted_impressions")


class Rows(Protocol):
    """What we need of sink.writer.Writer."""

    @property
    def is_full(self) -> bool:
        """No more should be put now."""
        ...

    def put_rows(self, table: str, columns: Mapping[str, Any], *, generation: int, version: Any) -> None:
        """Take rows that belong to no step."""
        ...


class RollingWindows:
    """Keeps the partials of the assigned partitions and writes the windows that changed.

    A partition is read from its beginning. Until it is read up to the end it had then, its windows may lack what
    another worker has written already, under the same version: so none are written before.
    """

    def __init__(self, writer: Rows, *, partitions: int) -> None:
        """partitions: of the partials topic."""
        self.state = RollingState(partitions=partitions)
        self._writer = writer
        self._partitions = partitions
        self._assigned: set[int] = set()
        self._read: dict[
            int, int
        ] = {}  # the offset behind the last message, of partitions that are not complete
        self._ends: dict[int, int] = {}  # where they ended when they were assigned, as far as known
        self._newest: dict[str, tuple[Rolling, list[int]]] = {}  # by experiment: rows, and which are its own

    def windows_of(self, experiment: str) -> list[WindowCounts]:
        """The windows of an experiment as they were written last; from any thread."""
        rolling, own = self._newest.get(experiment, (None, []))
        if rolling is None:
            return []
        columns = rolling.columns
        return [
            WindowCounts(
                arm=columns["arm"][i],
                window=_NAMES[int(columns["window_seconds"][i])],
                **{name: int(columns[name][i]) for name in _COUNTED},
            )
            for i in own
        ]

    @property
    def without_end(self) -> set[int]:
        """Partitions of which it must be asked where they end: see `expect`."""
        return self._read.keys() - self._ends.keys()

    def assign(self, partitions: set[int]) -> None:
        """Begin with new ones, forget what other workers read now."""
        for partition in set(range(self._partitions)) - partitions:
            self.state.drop_partition(partition)
            self._complete(partition)
        for partition in partitions - self._assigned:
            self._read[partition] = 0
        self._newest = {
            name: newest
            for name, newest in self._newest.items()
            if partition_for(name, self._partitions) in partitions
        }
        self._assigned = partitions

    def expect(self, ends: Mapping[int, int]) -> None:
        """Say where partitions end now, 0 for one without any message."""
        for partition, end in ends.items():
            if partition in self._read:
                self._ends[partition] = end
                self._complete_at_end(partition)

    def take(self, partition: int, offset: int, key: bytes | None, value: bytes | None) -> None:
        """One message. Never raises for what it contains."""
        self.state.apply(key, value)
        if partition in self._read:
            self._read[partition] = max(offset + 1, self._read[partition])
            self._complete_at_end(partition)

    def write(self) -> None:
        """Put the rows of every experiment that changed, where all partials have been read."""
        if self._writer.is_full:
            return
        if due := self.state.take_due(self._assigned - self._read.keys()):
            rolling = self.state.rows(due)
            self._remember(rolling)
            self._writer.put_rows(
                "rolling", rolling.columns, generation=rolling.generation, version=rolling.version
            )

    def _complete_at_end(self, partition: int) -> None:
        if self._read[partition] >= self._ends.get(partition, self._read[partition] + 1):
            self._complete(partition)

    def _complete(self, partition: int) -> None:
        self._read.pop(partition, None)
        self._ends.pop(partition, None)

    def _remember(self, rolling: Rolling) -> None:
        rows: dict[str, list[int]] = {}
        for i, experiment in enumerate(rolling.columns["experiment"]):
            rows.setdefault(experiment, []).append(i)
        self._newest.update({experiment: (rolling, own) for experiment, own in rows.items()})
