"""One partition number in this process: its step loop and what was fetched for it."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from stream.app.breaker import Breaker
from stream.app.feed import Feed
from stream.app.spread import ROWS, Spread
from stream.contracts.topics import Topic
from stream.durability.machine import Reading
from stream.durability.partition import Done, Partition, Pause
from stream.engine.batch import Batch
from stream.engine.outputs import Outputs, Tally
from stream.intake.transport import Fetched

ENOUGH_ROWS = 100_000  # queued in a partition: take a step at once
LEAST_SECONDS = 0.5  # between steps of a partition that has not enough
MOST_SECONDS = 10.0  # the same where its steps make very many rows
TURN_SECONDS = 0.5  # for one partition before the next one has its turn


class Decodes(Protocol):
    """See app.decoder."""

    def decode(self, topic: Topic, fetched: Fetched) -> Batch:
        """Every record with a status."""
        ...

    def reading(self, topic: Topic) -> Reading:
        """What the topic's last batch was decoded with."""
        ...


@dataclass(slots=True)
class Counters:
    """What a worker has done since it started."""

    steps: int = 0
    replayed_steps: int = 0
    records: int = 0
    rejected: int = 0
    assignments: int = 0
    takeovers: int = 0
    lost_fetches: int = 0
    tallies: dict[Tally, int] = field(default_factory=dict)
    step_seconds: Spread = field(default_factory=Spread)
    step_records: Spread = field(default_factory=lambda: Spread(ROWS))


@dataclass(slots=True)
class Held:
    """is_assigned: Kafka says it is ours. is_running: and it is loaded, sought, and takes data."""

    partition: Partition
    breaker: Breaker
    uptime: Callable[[], float] = time.monotonic
    feeds: tuple[Feed, Feed, Feed] = field(default_factory=lambda: (Feed(), Feed(), Feed()))
    is_assigned: bool = False
    is_running: bool = False
    is_replaying: bool = False  # what the journal held when it began is not all taken again yet
    rows_per_second: float = math.inf  # for the sink: steps that make more become longer
    pause: Pause | None = None  # why it takes no step now
    newest_record_ms: int = -1  # Kafka record time of the newest record that a step has taken
    stepped_at: float = 0.0  # by `uptime`; or when it last had nothing to do
    turned_at: float = 0.0  # by `uptime`: when its last turn, or attempt to load it, began
    _is_new: bool = True  # no step was taken since it began
    _rows_made: int = 0  # by the last step that had not enough

    @property
    def rows(self) -> int:
        """Records that wait for a step."""
        return self.partition.queued_rows + sum(feed.rows for feed in self.feeds)

    @property
    def is_hungry(self) -> bool:
        """Whatever arrives is wanted at once, for the partition stood still before."""
        return self._is_new or self.partition.has_replay

    @property
    def has_enough(self) -> bool:
        """Whether a step should not wait for more."""
        return self.is_hungry or self.rows >= ENOUGH_ROWS or not all(feed.has_room for feed in self.feeds)

    @property
    def is_due(self) -> bool:
        """Whether a turn is worth its cost: another partition's may have come only just after this one's."""
        return self.has_enough or self.uptime() - self.stepped_at >= self.interval_seconds

    @property
    def interval_seconds(self) -> float:
        """Between two steps, at least, of a partition that has not enough."""
        return interval_seconds(self._rows_made, self.rows_per_second)

    def next_at(self, step_seconds: float) -> float:
        """When its next turn should begin, by `uptime`: turns begin so long after each other, or are longer apart."""
        return max(self.turned_at + step_seconds, self.stepped_at + self.interval_seconds)

    def begin(self, *, is_ours: bool) -> None:
        """It is loaded and sought: take data, unless it went to another worker meanwhile."""
        self._is_new = True
        self.stepped_at = self.uptime()
        self.is_replaying = self.partition.has_replay
        self.is_running = is_ours

    def turn(self, decoder: Decodes, counters: Counters) -> bool:
        """Decode and take steps for a while; whether the next turn should come at once."""
        self.turned_at = self.uptime()
        until = self.turned_at + TURN_SECONDS
        while self.is_running:
            self._decode(decoder)
            had_enough = self.has_enough
            started = self.uptime()
            result = self.partition.advance()
            if isinstance(result, Pause):
                return self._note(result)
            self.pause = None
            self._is_new = False
            self.is_replaying = result.is_replay and self.partition.has_replay
            self.stepped_at = self.uptime()
            counters.step_seconds.add(self.stepped_at - started)
            self._count(result, counters)
            if not had_enough:  # a catch-up touches more panes in a step than what follows
                self._rows_made = rows_of(result.outputs)
            if self.rows < ENOUGH_ROWS and not self.partition.has_replay:
                return False
            if self.uptime() > until:
                return True
        return False

    def _note(self, pause: Pause) -> bool:
        self.pause = pause
        if pause is Pause.NOTHING_QUEUED:
            self.stepped_at = self.uptime()
        if pause is Pause.MUST_RECOVER:
            self.is_running = False
        return pause is Pause.MUST_RECOVER

    def _decode(self, decoder: Decodes) -> None:
        """Move what was fetched into the step loop's queues, as far as there is room."""
        for topic in Topic:
            feed = self.feeds[topic]
            while self.partition.room(topic) and (fetched := feed.peek()):
                batch = decoder.decode(topic, fetched)
                self.partition.offer(topic, batch, fetched.next_offset, decoder.reading(topic))
                feed.pop()
            self.partition.observe(topic, feed.end if feed.is_end_recent else None)

    def _count(self, done: Done, counters: Counters) -> None:
        letters: Mapping[str, Any] = done.outputs.tables.get("dead_letters", {})
        rejected = len(letters.get("offset", ()))
        counters.steps += 1
        counters.records += done.outputs.rows
        counters.rejected += rejected
        counters.step_records.add(done.outputs.rows)
        for tally, count in done.outputs.tallies.items():
            counters.tallies[tally] = counters.tallies.get(tally, 0) + count
        self.newest_record_ms = max(self.newest_record_ms, done.newest_record_ms)
        if done.is_replay:
            counters.replayed_steps += 1
        else:
            self.breaker.see(done.outputs.rows, rejected, letters["rule"][-1] if rejected else "")


def interval_seconds(rows_made: int, rows_per_second: float) -> float:
    """So long after a step that made so many rows comes the next one: what falls into a pane meanwhile is one row."""
    return min(MOST_SECONDS, max(LEAST_SECONDS, rows_made / rows_per_second))


def rows_of(outputs: Outputs) -> int:
    """Of all its tables."""
    return sum(len(next(iter(columns.values()))) for columns in outputs.tables.values())
