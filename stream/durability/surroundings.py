"""What a partition's step loop is given: time, place, pace and who it is."""

from collections.abc import Callable
from dataclasses import dataclass, field

from stream.contracts.definitions import Definitions
from stream.durability.image import Sizes
from stream.durability.machine import Machines, Readings, Sink
from stream.durability.store import Store


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as two functions. `now_ms`: the wall clock. `uptime_ms`: never steps back, counts suspension."""

    now_ms: Callable[[], int]
    uptime_ms: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The outer world, as arguments."""

    store: Store
    machines: Machines
    readings: Readings
    sink: Sink
    clock: Clock


@dataclass(frozen=True, slots=True)
class Owner:
    """This process. `writer` differs between any two processes, ever."""

    writer: str
    engine_version: int
    definitions: Definitions


@dataclass(frozen=True, slots=True)
class Pace:
    """How large and how frequent things are."""

    max_rows: int = 150_000  # of a step
    max_queued_bytes: int = 64 << 20  # of a topic, unpacked
    patience_ms: int = 2_000  # how long a step waits for a topic that lies behind
    snapshot_every_ms: int = 60_000
    journal_kept_ms: int = 86_400_000  # longer than any pause of a process
    collect_every_ms: int = 3_600_000
    sizes: Sizes = field(default_factory=Sizes)  # of snapshots
    silence_ms: int = 5_000  # after it, a journal write is checked against the newest snapshot
