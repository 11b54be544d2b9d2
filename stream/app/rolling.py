"""The second agent: partials in, rows of the rolling windows out."""

from collections.abc import Mapping
from typing import Any, Protocol

from stream.rolling.state import RollingState


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
    """Keeps the partials of the assigned partitions and writes the windows that changed."""

    def __init__(self, writer: Rows, *, partitions: int) -> None:
        """partitions: of the partials topic."""
        self.state = RollingState(partitions=partitions)
        self._writer = writer
        self._partitions = partitions

    def keep_only(self, partitions: set[int]) -> None:
        """Forget what other workers read now."""
        for partition in set(range(self._partitions)) - partitions:
            self.state.drop_partition(partition)

    def write(self) -> None:
        """Put the rows of every experiment that changed."""
        if self._writer.is_full:
            return
        if touched := self.state.take_touched():
            rolling = self.state.rows(touched)
            self._writer.put_rows(
                "rolling", rolling.columns, generation=rolling.generation, version=rolling.version
            )
