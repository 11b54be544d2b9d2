"""How far the source partitions have come that write to one partition of the partials topic."""

from dataclasses import dataclass, field

from stream.rolling.partials import PANE_MS, Partial, PartialKey

_VERSION_SHIFT = 14  # of a source's step in `Sources.version`
_MAX_PARTS = (1 << _VERSION_SHIFT) - 1


@dataclass(slots=True)
class _Source:
    """What the newest messages of one source partition say about it."""

    version: int = -1
    clock_ms: int = -1
    planned_at_ms: int = -1
    parts: set[tuple[str, int]] = field(default_factory=set)  # (experiment, chunk) of the newest version

    @property
    def rank(self) -> int:
        return self.version << _VERSION_SHIFT | min(len(self.parts), _MAX_PARTS)

    def see(self, about: PartialKey, partial: Partial) -> None:
        if partial.version > self.version:
            self.version, self.clock_ms, self.planned_at_ms = partial.version, -1, -1
            self.parts = set()
        if partial.version == self.version:
            self.clock_ms = max(self.clock_ms, partial.clock_ms)
            self.planned_at_ms = max(self.planned_at_ms, partial.planned_at_ms)
            self.parts.add((about.experiment, about.chunk_start_ms))


class Sources:
    """The newest of each source partition, whatever experiment it was about.

    So the time of an experiment without events goes on with that of the others.
    """

    def __init__(self) -> None:
        self._sources: dict[int, _Source] = {}

    @property
    def version(self) -> int:
        """Grows with every message that changes a number.

        The sum of the sources' newest steps, each followed by how many messages of that step have arrived: a step
        is published as several messages, and a state between two of them must not look like the whole.
        """
        return sum(source.rank for source in self._sources.values())

    def see(self, about: PartialKey, partial: Partial) -> None:
        """Take note of a message."""
        self._sources.setdefault(about.partition, _Source()).see(about, partial)

    def as_of_ms(self, idle_timeout_ms: int) -> int | None:
        """Smallest watermark of the sources that are not idle, floored to the pane; None without any."""
        newest = max((source.planned_at_ms for source in self._sources.values()), default=0)
        clocks = [
            source.clock_ms
            for source in self._sources.values()
            if source.clock_ms >= 0 and source.planned_at_ms >= newest - idle_timeout_ms
        ]
        return min(clocks) // PANE_MS * PANE_MS if clocks else None
