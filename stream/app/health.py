"""How a worker is: should it be replaced, why are its numbers not up to date, and what should its owner know?"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from faust.types import TP

from stream.app.ends import Ends
from stream.app.held import Held
from stream.app.worker import Worker
from stream.contracts.topics import Topic
from stream.durability.partition import Pause
from stream.sink.writer import Writer

_UNANSWERED_SECONDS = 10.0  # a broker that restarts is away for as long
_LOOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds after which something is said. stalled: half of it makes a worker unhealthy, all of it ends it."""

    stalled: float
    behind: float
    silent: float


class Health:
    """Judges a worker by what its parts say of themselves. May be asked from any thread."""

    def __init__(
        self,
        worker: Worker,
        writer: Writer,
        ends: Ends,
        names: Mapping[Topic, str],
        patience: Patience,
        *,
        uptime: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.patience = patience
        self.others: list[Callable[[], str | None]] = []  # further reasons not to be ready, a sentence each
        self._worker = worker
        self._writer = writer
        self._ends = ends
        self._names = names
        self._uptime = uptime
        self._now = now
        self._beat_at = uptime()
        self._unfetched: dict[TP, tuple[int, float]] = {}  # where fetching stands, and since when

    # What is told

    def beat(self) -> None:
        """The event loop is alive: call it every second, in the loop."""
        self._beat_at = self._uptime()
        self._notice_unfetched()

    def remember_arrivals(self, arrived_ms: Mapping[Topic, int]) -> None:
        """When records of each topic last came, as earlier workers wrote it down."""
        for topic, at_ms in arrived_ms.items():
            self._worker.arrived_ms.setdefault(topic, at_ms)

    # Should it be replaced?

    def stalled_seconds(self) -> float:
        """For how long it has not got on although it could."""
        return max((seconds for seconds, _ in self._standstills()), default=0.0)

    def stalls(self, share: float = 0.5) -> list[str]:
        """What has stood still for that share of the patience, in words."""
        limit = share * self.patience.stalled
        return [f"{what} for {seconds:.0f} s" for seconds, what in self._standstills() if seconds > limit]

    def _standstills(self) -> Iterator[tuple[float, str]]:
        uptime = self._uptime()
        yield uptime - self._beat_at, "the event loop has stood still"
        if (since := self._worker.busy_since) is not None:
            yield uptime - since, "a step, or the loading of a partition, has not come to an end"
        if self._worker.trouble or self._ends.unanswered_since is not None:
            return  # it could not get on: that is no reason to be replaced
        for number, held in list(self._worker.held.items()):
            if held.is_running and held.rows and held.pause not in (Pause.SINK_IS_FULL, Pause.MEMORY_LIMIT):
                yield uptime - held.stepped_at, f"partition {number} has records and has taken no step"
        for tp, (_, since) in list(self._unfetched.items()):
            yield (
                uptime - since,
                f"nothing has been fetched of {tp.topic} partition {tp.partition}, which has more",
            )

    def _notice_unfetched(self) -> None:
        """Note where each topic-partition with room and more records stands, and since when."""
        found = {}
        for tp, feed in self._worker.feeds().items():
            if feed.has_room and self._ends.by_tp.get(tp, 0) > feed.next_offset:
                stood, since = self._unfetched.get(tp, (-1, 0.0))
                found[tp] = (
                    (stood, since) if stood == feed.next_offset else (feed.next_offset, self._uptime())
                )
        self._unfetched = found

    # Is it up to date?

    def reasons(self) -> list[str]:
        """Why results are not up to date, a sentence each; empty when they are."""
        return [*self._reasons()]

    def _reasons(self) -> Iterator[str]:
        worker, writer = self._worker, self._writer
        yield from (f"Stalled: {stall}." for stall in self.stalls())
        if (seconds := self._ends.unanswered_seconds) > _UNANSWERED_SECONDS:
            yield f"The broker has not answered for {seconds:.0f} s."
        if trouble := worker.trouble:
            yield trouble
        if (since := writer.unavailable_since) is not None:
            yield (
                f"ClickHouse cannot be written to for {self._now() - since:.0f} s ({writer.trouble}); "
                f"{writer.waiting_rows:,} rows wait."
            )
        yield from filter(None, (ask() for ask in self.others))
        if not worker.has_assignment:
            yield "No partitions are assigned yet."
        for number, held in list(worker.held.items()):
            if held.is_assigned:
                yield from self._about(number, held)

    def _about(self, number: int, held: Held) -> Iterator[str]:
        if not held.is_running:
            yield f"Partition {number} is being loaded."
            return
        if held.is_replaying:
            yield f"Partition {number} repeats journaled steps."
        if held.pause is Pause.SINK_IS_FULL:
            yield (
                f"Partition {number} pauses: what waits for ClickHouse or Kafka has reached its limit, so see why they "
                "do not take it, or whether rows_per_second is too small."
            )
        if held.pause is Pause.MEMORY_LIMIT:
            yield (
                f"Partition {number} pauses: its state is {held.partition.state_bytes:,} bytes and may be "
                f"{held.partition.memory_limit:,}: raise memory_limit, or start more workers. Nothing is dropped."
            )
        if trouble := held.breaker.trouble:
            yield trouble
        lag = sum(lag for tp, lag in self.lags().items() if tp.partition == number)
        age = self._now() - held.newest_record_ms / 1000
        if lag and held.newest_record_ms >= 0 and age > self.patience.behind:
            yield f"Partition {number} is behind: its newest counted record is {age:,.0f} s old and {lag:,} wait."

    def unavailable(self) -> dict[str, float]:
        """For how many seconds each service has not answered."""
        since, uptime = self._writer.unavailable_since, self._uptime()
        return {
            "broker": self._ends.unanswered_seconds,
            "clickhouse": 0.0 if since is None else self._now() - since,
            "store": uptime - self._worker.trouble_since if self._worker.trouble else 0.0,
        }

    # What should its owner know?

    def warnings(self) -> list[str]:
        """What is no fault of the worker: a topic that had data and has none, more rows than may be written."""
        return [*self._silent_topics(), *self._too_many_rows()]

    def _silent_topics(self) -> list[str]:
        return [
            f"No records of {self._names[topic]} for {seconds / 60:,.0f} min, though all that came is counted: "
            "does its producer run?"
            for topic, seconds in self.silences().items()
            if seconds > self.patience.silent and self._has_counted_all(topic)
        ]

    def _too_many_rows(self) -> Iterator[str]:
        writer = self._writer
        if (seconds := writer.held_back_seconds) > self.patience.behind:
            yield (
                f"ClickHouse would get more than rows_per_second = {writer.rows_per_second:,.0f} for "
                f"{seconds / 60:,.0f} min; {writer.waiting_rows:,} rows wait: raise it if ClickHouse carries more, "
                "start more workers, or count fewer slice_dimensions."
            )

    def silences(self) -> dict[Topic, float]:
        """Seconds since records of a topic last came, by topic that has ever had any."""
        now = self._now()
        return {topic: max(0.0, now - at_ms / 1000) for topic, at_ms in list(self._worker.arrived_ms.items())}

    def arrivals_ms(self) -> dict[Topic, int]:
        """When records of each topic last came."""
        return dict(self._worker.arrived_ms)

    def lags(self) -> dict[TP, int]:
        """Records that no step has taken, by topic-partition the broker was asked about."""
        counted = self._worker.offsets()
        return {tp: max(0, end - counted[tp]) for tp, end in list(self._ends.by_tp.items()) if tp in counted}

    def _has_counted_all(self, topic: Topic) -> bool:
        """Of what this worker is to count, as far as the broker has said; False when it has not."""
        lags = self.lags()
        ours = [tp for tp in self._worker.feeds() if tp.topic == self._names[topic]]
        return bool(ours) and all(lags.get(tp) == 0 for tp in ours)
