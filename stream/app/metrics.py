"""What a worker measures, for Prometheus: docs/metrics.md describes every one of these. All is computed when asked."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from stream.app.decoder import Decoder
from stream.app.ends import Ends
from stream.app.health import Health
from stream.app.held import Held
from stream.app.outlets import KafkaOutlet
from stream.app.spread import Spread
from stream.app.timed import SinkTimes, Spreads, TimedStore
from stream.app.worker import Worker
from stream.contracts.topics import Topic
from stream.durability.partition import Pause
from stream.engine import ENGINE_VERSION
from stream.sink.writer import Writer

PREFIX = "liftstream_"
Values = Mapping[Any, float]  # by the labels' values, a tuple

# Gauges with the label `partition`.
PER_PARTITION: tuple[tuple[str, str, Callable[[Held], float]], ...] = (
    ("step", "Number of the last step", lambda held: held.partition.step),
    ("queued_records", "Fetched records that wait for a step", lambda held: held.rows),
    (
        "queued_bytes",
        "Bytes of fetches not decoded yet",
        lambda held: sum(feed.nbytes for feed in held.feeds),
    ),
    ("step_interval_seconds", "Between two steps, at least", lambda held: held.interval_seconds),
    ("state_bytes", "Memory of the state", lambda held: held.partition.state_bytes),
    ("rejected_share", "Of the newest events, the part that was rejected", lambda held: held.breaker.share),
    (
        "breaker_tripped",
        "1 while that part is above breaker_share",
        lambda held: held.breaker.trouble is not None,
    ),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """The parts of a worker process that are measured."""

    worker: Worker
    decoder: Decoder
    writer: Writer
    outlet: KafkaOutlet
    store: TimedStore
    ends: Ends
    health: Health
    sink_times: SinkTimes
    names: Mapping[Topic, str]


class Metrics(Collector):
    """Families of a worker, and of its process."""

    def __init__(
        self,
        measured: Measured,
        *,
        now: Callable[[], float] = time.time,
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        self._m = measured
        self._now = now
        self._uptime = uptime
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> str:
        """Prometheus' text format."""
        return generate_latest(self._registry).decode()

    def collect(self) -> Iterator[Metric]:
        """All families, as they are now."""
        yield InfoMetricFamily(
            PREFIX + "build",
            "What runs here",
            {"version": version("liftstream"), "engine_version": str(ENGINE_VERSION)},
        )
        yield from self._counted()
        yield from self._partitions()
        yield from self._topics()
        yield from self._outboxes()
        yield from self._times()
        yield from self._condition()

    # Families

    def _counted(self) -> Iterator[Metric]:
        counters = self._m.worker.counters
        yield _counter("records", "Records that steps took", counters.tallies, "topic", "outcome", "reason")
        yield _counter("steps", "Steps taken", {(): counters.steps})
        yield _counter(
            "replayed_steps", "Of them, taken again from the journal", {(): counters.replayed_steps}
        )
        yield _counter("assignments", "Rebalances of the group", {(): counters.assignments})
        yield _counter("takeovers", "Partitions whose state was loaded or kept", {(): counters.takeovers})
        yield _counter("lost_fetches", "Fetches that were fetched again", {(): counters.lost_fetches})
        yield _counter(
            "fallback_records", "Records that were decoded the slow way", {(): self._m.decoder.slow_records}
        )
        yield _counter("clickhouse_rows", "Rows written", {(): self._m.writer.rows_written})
        yield _counter("store_written_bytes", "Bytes written to the checkpoint store",
                       {(kind,): n for kind, n in list(self._m.store.written_bytes.items())}, "kind")  # fmt: skip

    def _partitions(self) -> Iterator[Metric]:
        held = list(self._m.worker.held.items())
        running = {str(number): one for number, one in held if one.is_running}
        for name, meaning, of in PER_PARTITION:
            values = {(number,): of(one) for number, one in running.items()}
            yield _gauge(f"partition_{name}", meaning, values, "partition")
        clocks = {
            (n,): one.partition.clock_ms / 1000 for n, one in running.items() if one.partition.clock_ms >= 0
        }
        yield _gauge(
            "partition_watermark_seconds", "The clock in event time, since 1970", clocks, "partition"
        )
        ages = {number: self._now() - clock for number, clock in clocks.items()}
        yield _gauge(
            "partition_watermark_age_seconds", "How far it is behind the wall clock", ages, "partition"
        )
        uptime = self._uptime()
        waits = {(number,): uptime - one.stepped_at for number, one in running.items()}
        yield _gauge("partition_seconds_since_step", "Since a step, or nothing to do", waits, "partition")
        published = {(str(number),): uptime - at for number, at in list(self._m.store.published_at.items())}
        published = {key: age for key, age in published.items() if key[0] in running}
        yield _gauge(
            "partition_snapshot_age_seconds", "Since a snapshot was published", published, "partition"
        )
        pauses = {
            (number, pause.name.lower()): one.pause is pause
            for number, one in running.items()
            for pause in Pause
        }
        yield _gauge(
            "partition_paused", "1 for the reason why no step is taken", pauses, "partition", "reason"
        )
        assigned = sum(one.is_assigned for _, one in held)
        yield _gauge("assigned_partitions", "Partition numbers assigned to this worker", {(): assigned})
        yield _gauge("memory_limit_bytes", "For state of all partitions", {(): self._m.worker.memory_limit})

    def _topics(self) -> Iterator[Metric]:
        lags = {(tp.topic, str(tp.partition)): lag for tp, lag in self._m.health.lags().items()}
        yield _gauge("lag_records", "Records in Kafka that no step has taken", lags, "topic", "partition")
        silences = {(self._m.names[topic],): s for topic, s in self._m.health.silences().items()}
        yield _gauge("topic_silence_seconds", "Since records last came", silences, "topic")

    def _outboxes(self) -> Iterator[Metric]:
        writer, outlet = self._m.writer, self._m.outlet
        yield _gauge("outbox_rows", "Rows that wait for ClickHouse", {(): writer.waiting_rows})
        yield _gauge("outbox_bytes", "Bytes of these rows", {(): writer.waiting_bytes})
        yield _gauge(
            "outbox_age_seconds", "For how long some have been waiting", {(): writer.waiting_seconds}
        )
        yield _gauge(
            "clickhouse_rows_limit", "Rows a second that are sent at most", {(): writer.rows_per_second}
        )
        yield _gauge(
            "clickhouse_held_back_seconds",
            "For how long flush after flush has waited because of it",
            {(): writer.held_back_seconds},
        )
        yield _gauge("outbox_messages", "Messages that wait for Kafka", {(): outlet.waiting_messages})
        yield _gauge("outbox_message_bytes", "Bytes of these messages", {(): outlet.waiting_bytes})

    def _times(self) -> Iterator[Metric]:
        counters, sink = self._m.worker.counters, self._m.sink_times
        yield _histogram("step_seconds", "Time of a step", {(): counters.step_seconds})
        yield _histogram("step_records", "Records of a step", {(): counters.step_records})
        yield _histogram(
            "latency_seconds", "From Kafka to ClickHouse, of records", {(): sink.latency_seconds}
        )
        yield _histogram("clickhouse_insert_seconds", "Time of an insert", _by(sink.insert_seconds), "table")
        produced = {(): self._m.outlet.seconds}
        yield _histogram("kafka_produce_seconds", "Until a step's messages were acknowledged", produced)
        snapshots = {(): self._m.store.snapshot_seconds}
        yield _histogram("snapshot_seconds", "From a snapshot's first piece to its publication", snapshots)
        calls = _by(self._m.store.seconds)
        yield _histogram("store_seconds", "Time of a call of the checkpoint store", calls, "operation")

    def _condition(self) -> Iterator[Metric]:
        health = self._m.health
        yield _gauge("ready", "1 while /readyz has no reason against it", {(): not health.reasons()})
        yield _gauge("unavailable_seconds", "For how long it has not answered; 0 when it does",
                     {(service,): seconds for service, seconds in health.unavailable().items()}, "service")  # fmt: skip
        yield _gauge("stalled_seconds", "For how long this worker has not got on although it could",
                     {(): health.stalled_seconds()})  # fmt: skip


def _by(spreads: Spreads) -> dict[tuple[str, ...], Spread]:
    return {(name,): spread for name, spread in list(spreads.items())}


def _counter(name: str, meaning: str, values: Values, *labels: str) -> Metric:
    return _with(CounterMetricFamily(PREFIX + name, meaning, labels=labels), values)


def _gauge(name: str, meaning: str, values: Values, *labels: str) -> Metric:
    return _with(GaugeMetricFamily(PREFIX + name, meaning, labels=labels), values)


def _with(family: CounterMetricFamily | GaugeMetricFamily, values: Values) -> Metric:
    for labels, value in list(values.items()):
        family.add_metric(labels, float(value))
    return family


def _histogram(name: str, meaning: str, spreads: Mapping[Any, Spread], *labels: str) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, meaning, labels=labels)
    for label, spread in spreads.items():
        family.add_metric(label, list(_buckets(spread)), spread.total)
    return family


def _buckets(spread: Spread) -> Iterable[tuple[str, float]]:
    above = 0.0
    for bound, count in zip((*map(str, spread.bounds), "+Inf"), list(spread.counts), strict=True):
        above += count
        yield bound, above
