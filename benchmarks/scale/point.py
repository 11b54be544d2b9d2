"""One size: a process of its own that fills engines, measures them, and prints one JSON object.

`python -m benchmarks.scale.point count FOLDER SIZE` fills, measures and stores; `... restore FOLDER SIZE` loads again.
SIZE is a Size as JSON.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.meter import MemoryAtHand
from benchmarks.scale.made import START_MS, Crowd, Maker
from benchmarks.stages.budget import STAGES
from benchmarks.stages.clock import installed
from stream.app.engines import Engines
from stream.app.warm import warm_up
from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.durability.manifest import Mark
from stream.durability.snapshot import Snapshots
from stream.durability.store import open_store
from stream.engine import ENGINE_VERSION
from stream.engine.batch import Batch
from stream.engine.engine import Engine, Step

EXPERIMENTS = (b"ranker", b"layout")
EVENTS_PER_SECOND = 20_000  # by their own time: all sizes have the same panes open, and nothing expires
CLICK_SHARE = 1 / 11  # of events: ten impressions a click, as in the peers' workload
STEP_ROWS = 50_000  # of a partition
MEASURED = 200_000  # events of a round; the rounds are the last events of a size
MOST_ROUNDS = 10
MEASURED_BYTES = 1 << 30  # more than all rounds take anew
ACTIVE = 0.02  # users between two snapshots, and impressions of as many
# Which arrays of a state belong to what: by the beginning of their names.
KINDS = {
    "user": ("user",),
    "user in an experiment": ("assigned", "declared", "arena"),
    "remembered id": ("id_",),
    "impression": ("imp", "item_"),
    "interaction": ("int", "watch_"),
}


@dataclass(frozen=True, slots=True)
class Size:
    """users: each in both experiments. events: remembered ids, those of the assignments among them."""

    users: int
    events: int
    partitions: int = 4

    @property
    def rounds(self) -> int:
        """Rounds of measuring."""
        return min(MOST_ROUNDS, self.later_events // MEASURED)

    @property
    def later_events(self) -> int:
        """Impressions and clicks."""
        return max(0, self.events - len(EXPERIMENTS) * self.users)


class Filled:
    """An engine for each partition, with events behind it."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.rules = Definitions()
        engines = Engines(key=bytes(16), partitions=size.partitions)
        self.engines: list[Engine] = [engines.create(p, self.rules) for p in range(size.partitions)]
        at_step_us = 1_000_000 * size.partitions // EVENTS_PER_SECOND
        self.makers = [
            Maker(Crowd(size.users, p, size.partitions), at_step_us) for p in range(size.partitions)
        ]

    def fill(self) -> None:
        """Assign everybody, then let events come up to the size."""
        for engine, maker in zip(self.engines, self.makers, strict=True):
            members = maker.crowd.members()
            for users in np.array_split(members, -(-len(members) // STEP_ROWS)):
                for experiment in EXPERIMENTS:
                    self._step(engine, maker, {Topic.ASSIGNMENTS: maker.assignments(users, experiment)})
        left = (self.size.later_events - self.size.rounds * MEASURED) // self.size.partitions
        while left > 0:
            for engine, maker in zip(self.engines, self.makers, strict=True):
                self._step(engine, maker, _traffic(maker, min(left, STEP_ROWS)))
            left -= STEP_ROWS

    def cpu_us_per_event(self) -> dict[str, float]:
        """Of further traffic, in the engines alone: the best of a few rounds, by stage."""
        return min((self._round(MEASURED) for _ in range(self.size.rounds)), key=lambda us: sum(us.values()))

    def _round(self, events: int) -> dict[str, float]:
        done = 0
        with installed(STAGES) as clock:
            while done < events:
                for engine, maker in zip(self.engines, self.makers, strict=True):
                    self._step(engine, maker, _traffic(maker, STEP_ROWS))
                    done += STEP_ROWS
        return {stage: seconds / done * 1e6 for stage, seconds in clock.seconds.items()}

    def visit(self, share: float) -> None:
        """As many impressions as this share of the users."""
        rows = round(share * self.size.users / self.size.partitions)
        for engine, maker in zip(self.engines, self.makers, strict=True):
            self._step(engine, maker, _traffic(maker, rows))

    def bytes_by_kind(self) -> dict[str, float]:
        """Allocated bytes for each row that is in use; what is allocated ahead is touched only when it is needed."""
        rows = {
            "user": self.size.users,
            "user in an experiment": len(EXPERIMENTS) * self.size.users,
            "remembered id": len(EXPERIMENTS) * self.size.users + sum(m.impressions + m.clicks for m in self.makers),
            "impression": sum(maker.impressions for maker in self.makers),
            "interaction": sum(maker.clicks for maker in self.makers),
        }  # fmt: skip
        found = dict.fromkeys(KINDS, 0)
        for engine in self.engines:
            for name, array in engine._store.a.items():
                kind = next((kind for kind, heads in KINDS.items() if name.startswith(heads)), None)
                if kind:
                    found[kind] += array.nbytes
        return {kind: round(size / max(1, rows[kind]), 1) for kind, size in found.items()}

    def _step(self, engine: Engine, maker: Maker, batches: dict[Topic, Batch]) -> None:
        step = Step(engine.step + 1, max(START_MS, maker.now_ms), (True, True, True), self.rules)
        engine.execute(step, {topic: [batch] for topic, batch in batches.items()})


def _traffic(maker: Maker, rows: int) -> dict[Topic, Batch]:
    clicks = round(rows * CLICK_SHARE)
    shown = maker.shown(rows - clicks)
    return {Topic.IMPRESSIONS: shown, Topic.INTERACTIONS: maker.clicked(clicks, newest=5_000_000)}


def count(folder: str, size: Size) -> dict[str, Any]:
    """Fill, measure, store."""
    rules = Definitions()
    warm_up(rules)
    memory = MemoryAtHand(MEASURED_BYTES)
    empty_mb = _rss_mb()
    began = time.process_time()
    filled = Filled(size)
    filled.fill()
    fill_seconds = time.process_time() - began
    growth_mb = _peak_mb()
    memory.give_back()
    stages_us = filled.cpu_us_per_event()
    answer = {
        **asdict(size),
        "empty_rss_mb": empty_mb,
        "fill_cpu_s": round(fill_seconds, 1),
        "peak_after_growth_mb": growth_mb,
        "engine_us_per_event": round(sum(stages_us.values()), 3),
        "stages_us_per_event": {stage: round(us, 3) for stage, us in stages_us.items()},
        "steady_rss_mb": _rss_mb(),
        "state_mb": round(sum(engine.nbytes for engine in filled.engines) / 2**20),
        "bytes_per": filled.bytes_by_kind(),
    }
    return answer | _store(folder, filled) | {"peak_rss_mb": _peak_mb(), "load": round(os.getloadavg()[0], 1)}


def _store(folder: str, filled: Filled) -> dict[str, Any]:
    """A first snapshot of all, then of each partition one more after some traffic; the longest pauses of both."""
    store = open_store(folder)
    every = [Snapshots(store, f"g/p{p}") for p in range(filled.size.partitions)]
    first, later = Pauses(), Pauses()
    for engine, snapshots in zip(filled.engines, every, strict=True):
        first.snapshot(snapshots, engine)
    stored_mb = _stored_mb(folder)
    filled.visit(ACTIVE)
    for engine, snapshots in zip(filled.engines, every, strict=True):
        later.snapshot(snapshots, engine)
    return {
        "first_snapshot": first.to_json(),
        "stored_mb": stored_mb,
        "next_snapshot": later.to_json(),
        "next_wrote_mb": _stored_mb(folder) - stored_mb,
    }


class Pauses:
    """How long a snapshot keeps the step loop from its work at a time."""

    def __init__(self) -> None:
        self._copies: list[tuple[float, float]] = []
        self._writes: list[tuple[float, float]] = []

    def snapshot(self, snapshots: Snapshots, engine: Engine) -> None:
        """Copy and write in turns until it is whole, as the step loop does between steps."""
        is_whole = False
        while not is_whole:
            is_whole = _timed(self._copies, lambda: snapshots.copy(engine.export()))
            while not _timed(self._writes, lambda: snapshots.write("bench")):
                pass
        snapshots.publish(snapshots.finish(_mark(engine.step)))

    def to_json(self) -> dict[str, Any]:
        """Milliseconds, wall and CPU, of the longest copy and the longest write."""
        return {
            "copies": len(self._copies),
            "writes": len(self._writes),
            **{
                f"longest_{name}_{kind}_ms": round(max(each[place] for each in pauses) * 1000)
                for name, pauses in (("copy", self._copies), ("write", self._writes))
                for place, kind in enumerate(("wall", "cpu"))
            },
        }


def _timed(pauses: list[tuple[float, float]], work: Callable[[], bool]) -> bool:
    wall, cpu = time.perf_counter(), time.thread_time()
    answer = work()
    pauses.append((time.perf_counter() - wall, time.thread_time() - cpu))
    return answer


def restore(folder: str, size: Size) -> dict[str, Any]:
    """Load all partitions, one after the other."""
    rules = Definitions()
    warm_up(rules)
    store = open_store(folder)
    engines = Engines(key=bytes(16), partitions=size.partitions)
    wall, cpu = time.perf_counter(), time.process_time()
    loaded = []
    for p in range(size.partitions):
        found = Snapshots(store, f"g/p{p}").newest()
        assert found is not None
        loaded.append(engines.load(p, rules, found[1]))
    return {
        "restore_s": round(time.perf_counter() - wall, 1),
        "restore_cpu_s": round(time.process_time() - cpu, 1),
        "restore_rss_mb": _rss_mb(),
        "restore_peak_mb": _peak_mb(),
        "restore_load": round(os.getloadavg()[0], 1),
    }


def _mark(step: int) -> Mark:
    return Mark(step, (0, 0, 0), START_MS, START_MS, "", ENGINE_VERSION, START_MS, "bench")


def _stored_mb(folder: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) >> 20


def _rss_mb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    do = {"count": count, "restore": restore}[sys.argv[1]]
    print(json.dumps(do(sys.argv[2], Size(**json.loads(sys.argv[3])))))
