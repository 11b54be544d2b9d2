"""`python -m benchmarks.snapshots`: how long a snapshot stops the steps, what it writes, how fast it is loaded.

An engine is fed with users in one experiment, each with an assignment and some impressions. Then a share of them is
active between two snapshots. Times are of the calling thread's CPU beside the wall clock, for the machine may be busy.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream.app.engines import Engines
from stream.app.warm import warm_up
from stream.contracts.definitions import Definitions
from stream.contracts.topics import FIELDS, Topic
from stream.durability.manifest import Mark
from stream.durability.snapshot import Snapshots
from stream.durability.store import open_store
from stream.engine import ENGINE_VERSION
from stream.engine.batch import NULL, SPARE_BYTES, TEXT_SHIFT, Batch
from stream.engine.engine import Step

I64 = npt.NDArray[np.int64]
DIGITS = 12
START_MS = 1_800_000_000_000
STEP_ROWS = 100_000
WORDS = {"experiment": b"ranker", "arm": b"treatment", "surface": b"home", "kind": b"click"}


@dataclass(slots=True)
class Feed:
    """Batches of events whose ids are numbers; nothing is ever sent twice."""

    sent: int = 0

    def batch(self, topic: Topic, users: I64) -> Batch:
        """One event of each of these users."""
        n = len(users)
        ids = np.arange(self.sent, self.sent + n)
        self.sent += n
        words = b"".join(WORDS.values())
        columns = {"event_id": ids, "user_id": users, "impression_id": ids, "item_id": ids % 1_000}
        texts = np.concatenate([_digits(numbers).reshape(-1) for numbers in columns.values()])
        buf = np.concatenate([np.frombuffer(words, np.uint8), texts, np.zeros(SPARE_BYTES, np.uint8)])
        fields = np.full((n, len(FIELDS[topic])), NULL, np.int64)
        at = np.full(n, START_MS + self.sent // 1_000)
        for place, name in enumerate(FIELDS[topic]):
            if name == "at":
                fields[:, place] = at
            elif name in WORDS:
                start = words.index(WORDS[name])
                fields[:, place] = start << TEXT_SHIFT | len(WORDS[name])
            elif name in columns:
                start = len(words) + list(columns).index(name) * n * DIGITS
                fields[:, place] = (start + np.arange(n) * DIGITS) << TEXT_SHIFT | DIGITS
        zeros = np.zeros(n, np.int64)
        return Batch(topic, buf, ids, at, zeros, zeros, fields, zeros.copy(), np.zeros(n, np.bool_))


def _digits(numbers: I64) -> npt.NDArray[np.uint8]:
    powers = 10 ** np.arange(DIGITS - 1, -1, -1)
    return (numbers[:, None] // powers % 10 + ord("0")).astype(np.uint8)


@dataclass(slots=True)
class Times:
    """Milliseconds by what was done: (wall, CPU of the thread)."""

    shown: dict[str, tuple[float, float]] = field(default_factory=dict)

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.thread_time()
        yield
        self.shown[what] = (time.perf_counter() - wall) * 1e3, (time.thread_time() - cpu) * 1e3
        print(f"{what:32} {self.shown[what][0]:9,.0f} ms, CPU {self.shown[what][1]:9,.0f} ms", flush=True)


def main() -> None:
    """Print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--impressions", type=int, default=2, help="of each user")
    parser.add_argument("--active", type=float, default=0.02, help="share of users between two snapshots")
    asked = parser.parse_args()
    rules = Definitions(slice_dimensions=())
    engines, times, feed = Engines(key=bytes(16), partitions=1), Times(), Feed()
    warm_up(rules)
    engine = engines.create(0, rules)

    def step(topic: Topic, users: I64) -> None:
        batches = {topic: [feed.batch(topic, users)]}
        engine.execute(Step(engine.step + 1, START_MS + feed.sent, (True, True, True), rules), batches)

    everyone = np.arange(asked.users)
    with times.of("feed"):
        for topic, rounds in ((Topic.ASSIGNMENTS, 1), (Topic.IMPRESSIONS, asked.impressions)):
            for users in list(np.array_split(everyone, -(-asked.users // STEP_ROWS))) * rounds:
                step(topic, users)
    print(f"state {engine.nbytes / 1e6:,.0f} MB in memory, {asked.users:,} users")
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        snapshots = Snapshots(store, "p")
        with times.of("first snapshot, everything"):
            snapshots.publish(snapshots.capture(_mark(engine.step), engine.export()))
        print(f"stored {_stored(folder) / 1e6:,.0f} MB")
        draw = np.random.default_rng(1)
        for _ in range(3):
            active = draw.choice(everyone, round(asked.active * asked.users), replace=False)
            step(Topic.IMPRESSIONS, active)
            before = _stored(folder)
            with times.of("pause of the next snapshot"):
                is_whole = snapshots.copy(engine.export())
            with times.of("writing it, all pieces"):
                while not snapshots.write("bench"):
                    pass
            snapshots.publish(snapshots.finish(_mark(engine.step)))
            print(
                f"whole {is_whole}, wrote {(_stored(folder) - before) / 1e6:,.1f} MB for {len(active):,} events"
            )
            snapshots.collect()
        with times.of("read a snapshot"):
            found = Snapshots(store, "p").newest()
        assert found is not None
        with times.of("make an engine of it"):
            loaded = engines.load(0, rules, found[1])
        print(f"{asked.users:,} users restored; state {loaded.nbytes / 1e6:,.0f} MB")


def _mark(step: int) -> Mark:
    return Mark(step, (0, 0, 0), START_MS, START_MS, "", ENGINE_VERSION, START_MS, "bench")


def _stored(folder: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
