"""The step loop of one partition number, as a state machine without I/O of its own.

A step reads: plan, journal, execute, emit. Now and then the state is captured, and published once the sink has
acknowledged everything up to it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from stream.contracts.definitions import Definitions
from stream.contracts.topics import Topic
from stream.durability.checkpoint import Checkpoints
from stream.durability.compatibility import incompatible
from stream.durability.digest import digest
from stream.durability.journal import NEW_GENERATION, Entry, Journal, Range
from stream.durability.machine import Executed, Machine, Reading, State
from stream.durability.manifest import Mark, Offsets
from stream.durability.planner import Head, choose
from stream.durability.queue import Piece, Queue
from stream.durability.snapshot import Snapshots
from stream.durability.surroundings import Owner, Pace, Surroundings
from stream.engine.batch import Batch
from stream.engine.engine import Step
from stream.engine.outputs import Outputs
from stream.errors import ConfigurationError, DamagedStore

log = logging.getLogger(__name__)

_NO_LIMIT = 1 << 62


class Pause(StrEnum):
    """Why `advance` took no step."""

    NOTHING_QUEUED = "nothing queued"
    WAITING_FOR_RECORDS = "waiting for the records of a journaled step or of a topic that lies behind"
    SINK_IS_FULL = "the sink is full"
    MEMORY_LIMIT = "the state has reached the memory limit"
    MUST_RECOVER = "not started, or another owner is ahead"


@dataclass(frozen=True, slots=True)
class Done:
    """A step that was taken; `is_replay` when the journal had it before we planned it."""

    entry: Entry
    outputs: Outputs
    is_replay: bool
    newest_record_ms: int  # Kafka's time of its newest record; -1 without records


class Partition:
    """Drives one engine through the journaled steps of one partition number.

    Call `recover`, seek the topics to `offsets` (where that is None: to their beginnings) and `start` there;
    then `offer` what is fetched and `advance` again and again. Not thread-safe, but what it shows of itself (`step`,
    `clock_ms`, `offsets`, `state_bytes`, `queued_rows`, `has_replay`, `lag`) may be read by other threads meanwhile.
    """

    def __init__(
        self, number: int, folder: str, owner: Owner, around: Surroundings, pace: Pace | None = None
    ) -> None:
        self.number = number
        self.memory_limit = _NO_LIMIT  # bytes of state; at it, no further step is planned
        self.state_bytes = 0  # after the last step; 0 without a state
        self._owner = owner
        self._around = around
        self._pace = pace or Pace()
        self._definitions_digest = owner.definitions.digest  # costly
        self._journal = Journal(around.store, folder)
        self._snapshots = Snapshots(around.store, folder, self._pace.sizes)
        self._checkpoints = Checkpoints(number, self._journal, self._snapshots, around, self._pace)
        self._queues = tuple(Queue() for _ in Topic)
        self._machine: Machine | None = None
        self._mark: Mark | None = None
        self._replay: dict[int, Entry] = {}
        self._waiting_since_ms: int | None = None
        self._confirmed_ms = 0  # uptime at which the journal was known to end at the state or the replay
        self._is_running = False
        self._owes_partials = False  # they are republished where the journal ends, not over newer ones

    @property
    def machine(self) -> Machine:
        """The engine; only after `recover`."""
        assert self._machine is not None
        return self._machine

    @property
    def step(self) -> int:
        """The last executed step, 0 before the first."""
        mark = self._mark
        return mark.step if mark else 0

    @property
    def clock_ms(self) -> int:
        """How far event time has come; -1 before the first event."""
        mark = self._mark
        return mark.clock_ms if mark else -1

    @property
    def offsets(self) -> Offsets | None:
        """The next offset by topic; None while nothing says where to begin."""
        mark = self._mark
        if mark and mark.step:
            return mark.offsets
        if first := self._replay.get(1):
            return _offsets(first, "lo")
        return None

    @property
    def queued_rows(self) -> int:
        """Decoded records that wait."""
        return sum(queue.rows for queue in self._queues)

    @property
    def has_replay(self) -> bool:
        """The next step is in the journal already."""
        return self.step + 1 in self._replay

    @property
    def lag(self) -> int:
        """Records behind the last step, as far as is known; gaps in the topics count too."""
        return sum(max(0, (queue.end or queue.next) - queue.first) for queue in self._queues)

    # Ownership

    def recover(self) -> None:
        """Bring state and journal up to date: keep the state in memory unless a snapshot is newer.

        Raises DamagedStore or ConfigurationError with what must be done, Unavailable to be tried again.
        """
        self._is_running = False
        entries = None
        while entries is None:
            self._confirmed_ms = self._around.clock.uptime_ms()
            entries = self._load_and_read()
        self.state_bytes = self.machine.nbytes
        self._replay = {}
        self._adopt(*entries)
        if not entries:
            self._refuse_incompatible_definitions()

    def start(self, offsets: Offsets) -> None:
        """Begin to queue at these offsets; the live partials are republished once the journal is replayed."""
        if self.offsets is not None and self.offsets != offsets:
            raise ValueError(f"partition {self.number} must start at {self.offsets}, not at {offsets}")
        newest = self.machine.newest_ms
        for topic, queue in zip(Topic, self._queues, strict=True):
            queue.restart(offsets[topic], newest[topic])
        self._mark = replace(self._current, offsets=offsets)
        self._waiting_since_ms = None
        self._checkpoints.restart(self._snapshots.newest_step())
        self._owes_partials = True
        self._is_running = True

    def stop(self) -> None:
        """Take no step until recovered and started again; the state stays in memory."""
        self._is_running = False

    # Records

    def observe(self, topic: Topic, end: int | None) -> None:
        """Say where a topic ends: the offset after its newest record; None: nobody has said so lately."""
        self._queues[topic].hear_end(end)

    def offer(self, topic: Topic, batch: Batch, next_offset: int, reading: Reading) -> None:
        """Queue what was fetched after the last offer (or the start); `reading`: what it was decoded with."""
        self._queues[topic].offer(batch, next_offset, reading)

    def room(self, topic: Topic) -> int:
        """Offsets of a topic that are welcome: a step's worth, and whatever a journaled step still lacks."""
        queue = self._queues[topic]
        entry = self._replay.get(self.step + 1)
        lacking = entry.ranges[topic].hi - queue.next if entry else 0
        welcome = self._pace.max_rows - queue.rows if queue.nbytes < self._pace.max_queued_bytes else 0
        return max(welcome, lacking, 0)

    # Steps

    def advance(self) -> Done | Pause:
        """Take one step, or say why not. Raises Unavailable when the store does not answer: call again."""
        if not self._is_running:
            return Pause.MUST_RECOVER
        self._checkpoints.go_on(self._current, self.machine, self._owner.writer)
        if self._checkpoints.is_due(self.step):
            self._checkpoints.begin(self._current, self.machine, self._owner.writer)
            self._republish()
        if self._around.sink.is_full:
            return Pause.SINK_IS_FULL
        if self._owes_partials and not self.has_replay:
            self._republish()
        entry = self._replay.get(self.step + 1)
        is_replay = entry is not None
        if entry is None:
            planned = self._plan()
            if isinstance(planned, Pause):
                return planned
            # The time before writing: whoever stands still afterwards must not take what he knew for new.
            asked_ms = self._around.clock.uptime_ms()
            entry = self._journal.append(planned)
            if entry is None or self._is_stale(entry):
                return self._fall_behind()
            if entry is planned:
                self._confirmed_ms = asked_ms
            self._adopt(entry, *([] if entry is planned else self._journal.after(entry.number)))
        if any(queue.next < taken.hi for queue, taken in zip(self._queues, entry.ranges, strict=True)):
            return Pause.WAITING_FOR_RECORDS
        executed = self._execute(entry)
        self._around.sink.put(self.number, executed)
        newest_ms = int(executed.record_at_ms.max(initial=-1))
        return Done(entry, executed.outputs, is_replay, newest_ms)

    def capture(self) -> None:
        """Capture the state as it is now, whether or not it is time; published by `publish_when_acked`."""
        self._checkpoints.capture(self._current, self.machine, self._owner.writer)
        self._republish()

    def publish_when_acked(self) -> bool:
        """Publish what is captured if the sink has acknowledged all up to it; False while that waits."""
        return self._checkpoints.publish_when_acked()

    def _plan(self) -> Entry | Pause:
        heads = [queue.head(self._pace.max_rows) for queue in self._queues]
        if not any(len(head.reached_ms) for head in heads):
            return Pause.NOTHING_QUEUED
        self._refuse_incompatible_definitions()
        now_ms = self._around.clock.now_ms()
        rows = self._choose(heads, now_ms)
        if isinstance(rows, Pause):
            return rows
        self._waiting_since_ms = None
        self._journal.keep_definitions(self._owner.definitions)
        one, two, three = (
            self._journal.keep_reading(queue.reading_of(taken))
            for queue, taken in zip(self._queues, rows, strict=True)
        )
        return self._entry(rows, (one, two, three), now_ms)

    def _choose(self, heads: Sequence[Head], now_ms: int) -> list[int] | Pause:
        max_rows = self._pace.max_rows
        if self.state_bytes >= self.memory_limit:
            # Only what another topic has reached already: it lets the clock catch up, and so the state shrink.
            rows = choose(heads, max_rows, until_ms=max(self.machine.newest_ms))
            return rows if any(rows) else Pause.MEMORY_LIMIT
        rows = choose(heads, max_rows)
        if any(rows):
            return rows
        return (
            Pause.WAITING_FOR_RECORDS if self._is_patient(now_ms) else choose(heads, max_rows, aligned=False)
        )

    def _is_patient(self, now_ms: int) -> bool:
        if self._waiting_since_ms is None:
            self._waiting_since_ms = now_ms
        return 0 <= now_ms - self._waiting_since_ms < self._pace.patience_ms

    def _entry(self, rows: Sequence[int], readings: tuple[str, str, str], now_ms: int) -> Entry:
        first, second, third = (_range(queue, taken) for queue, taken in zip(self._queues, rows, strict=True))
        ranges = first, second, third
        one, two, three = (queue.is_end(taken.hi) for queue, taken in zip(self._queues, ranges, strict=True))
        return Entry(
            number=self.step + 1,
            ranges=ranges,
            caught_up=(one, two, three),
            definitions=self._definitions_digest,
            engine_version=self._owner.engine_version,
            planned_at_ms=now_ms,
            writer=self._owner.writer,
            readings=readings,
        )

    def _execute(self, entry: Entry) -> Executed:
        batches = {topic: self._records(topic, entry) for topic in Topic}
        definitions = self._definitions(entry.definitions)
        step = Step(entry.number, entry.planned_at_ms, entry.caught_up, definitions)
        outputs = self.machine.execute(step, batches)
        self.state_bytes = self.machine.nbytes
        self._mark = replace(
            self._current,
            step=entry.number,
            offsets=_offsets(entry, "hi"),
            planned_at_ms=entry.planned_at_ms,
            clock_ms=outputs.clock_ms,
            definitions=entry.definitions,
        )
        for queue, taken in zip(self._queues, entry.ranges, strict=True):
            queue.drop(taken.hi)
        del self._replay[entry.number]
        times = [batch.record_at_ms for taken in batches.values() for batch in taken]
        return Executed(
            outputs, entry.planned_at_ms, self.lag, np.concatenate(times or [np.empty(0, np.int64)])
        )

    def _records(self, topic: Topic, entry: Entry) -> Sequence[Batch]:
        """The records of an entry's range, which must be those it was planned on."""
        wanted = entry.ranges[topic]
        queue = self._queues[topic]
        pieces = queue.upto(wanted.hi)
        if _range_of(queue.first, wanted.hi, pieces) != wanted:
            raise DamagedStore(
                f"The {topic.word} of partition {self.number} from offset {wanted.lo} to {wanted.hi} are not "
                f"those that step {entry.number} was planned on: the topic was changed or cut, so restore it "
                f"{NEW_GENERATION}."
            )
        return [self._as_read(piece, topic, entry.readings[topic]) for piece in pieces]

    def _as_read(self, piece: Piece, topic: Topic, reading: str) -> Batch:
        """The records as the entry has them: a schema id may have become known, or unknown, since."""
        if reading in ("", piece.reading.digest):
            return piece.batch
        found = self._journal.reading(topic, reading, self._around.readings)
        return found.decode_again(piece.batch, self.number)

    # Other owners, other versions

    def _is_stale(self, entry: Entry) -> bool:
        """Is it written where a collected entry was, by us or another? Only after a long silence is that possible."""
        if self._around.clock.uptime_ms() - self._confirmed_ms < self._pace.silence_ms:
            return False
        if self._snapshots.newest_step() < entry.number:
            return False
        if entry.writer == self._owner.writer:
            self._journal.withdraw(entry.number)
        return True

    def _adopt(self, *entries: Entry) -> None:
        """Take these steps next. Whoever was quicker once may be far ahead, so all that is there is adopted at once."""
        for entry in entries:
            self._refuse_other_engine(entry)
            self._replay[entry.number] = entry

    def _fall_behind(self) -> Pause:
        log.warning("Partition %d: another worker is ahead; its state will be loaded.", self.number)
        self._is_running = False
        self._machine = self._mark = None
        self.state_bytes = 0
        self._checkpoints.discard()
        return Pause.MUST_RECOVER

    def _refuse_other_engine(self, entry: Entry) -> None:
        if entry.engine_version != self._owner.engine_version:
            raise ConfigurationError(
                f"Partition {self.number} has steps of engine version {entry.engine_version} behind its newest "
                f"snapshot and this is version {self._owner.engine_version}: stop the other version's workers "
                "with SIGTERM, or run one once more until it stops cleanly, and then start this one."
            )

    def _refuse_older_engine(self, mark: Mark) -> None:
        if mark.engine_version > self._owner.engine_version:
            raise ConfigurationError(
                f"Partition {self.number} was counted by engine version {mark.engine_version} and this is version "
                f"{self._owner.engine_version}: run the newer version, {NEW_GENERATION}."
            )

    def _refuse_incompatible_definitions(self) -> None:
        """Asked where the journal ends: there the new definitions take over."""
        if self._current.definitions == self._definitions_digest or not self.step:
            return
        old = self._definitions(self._current.definitions)
        machine = self.machine
        known, newest = machine.experiments_with_data(), max(machine.newest_ms)
        if refusal := incompatible(old, self._owner.definitions, known, newest):
            raise ConfigurationError(refusal)

    # State

    @property
    def _current(self) -> Mark:
        assert self._mark is not None
        return self._mark

    def _load_and_read(self) -> list[Entry] | None:
        """The journaled steps behind the state, which is loaded when a snapshot is newer.

        None when another worker has published a snapshot meanwhile: what it collected may be missing here.
        """
        newest = self._snapshots.newest_step()
        try:
            if self._machine is None or newest > self.step:
                self._load()
            entries = self._journal.after(self.step)
        except DamagedStore:
            if self._snapshots.newest_step() == newest:
                raise
            return None
        return entries if self._snapshots.newest_step() == newest else None

    def _load(self) -> None:
        self._checkpoints.discard()
        owner = self._owner
        if found := self._snapshots.newest():
            snapshot, export = found
            self._refuse_older_engine(snapshot.mark)
            definitions = self._definitions(snapshot.mark.definitions)
            self._machine = self._around.machines.load(self.number, definitions, export)
            self._mark = replace(snapshot.mark, engine_version=owner.engine_version)
            return
        self._machine = self._around.machines.create(self.number, owner.definitions)
        self._mark = Mark(
            0, (0, 0, 0), 0, -1, self._definitions_digest, owner.engine_version, 0, owner.writer
        )

    def _definitions(self, digest_of_them: str) -> Definitions:
        if digest_of_them == self._definitions_digest:
            return self._owner.definitions
        return self._journal.definitions(digest_of_them)

    def _republish(self) -> None:
        self._owes_partials = False
        if self.step:
            mark = self._current
            state = State(mark.step, mark.planned_at_ms, mark.clock_ms)
            self._around.sink.republish(self.number, state, self.machine.live_chunks())


def _range(queue: Queue, rows: int) -> Range:
    hi = queue.offset_after(rows)
    return _range_of(queue.first, hi, queue.upto(hi))


def _range_of(lo: int, hi: int, pieces: Sequence[Piece]) -> Range:
    batches = [piece.batch for piece in pieces]
    return Range(lo, hi, sum(map(len, batches)), digest(batches))


def _offsets(entry: Entry, side: str) -> Offsets:
    first, second, third = (getattr(taken, side) for taken in entry.ranges)
    return first, second, third
