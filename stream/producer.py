"""The SDK: validate an event, encode it, send it to Kafka, and never lose it silently.

with Producer("kafka://localhost:9092") as producer:
    producer.assignment(user_id="u-1", experiment="home-ranker", arm="control")
    shown = producer.slate(user_id="u-1", surface="home", model="two-tower", model_version="7", items=["a", "b"])
    producer.interaction(user_id="u-1", kind="click", impression_id=shown[0])
"""

import logging
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from types import TracebackType
from typing import Any, NotRequired, Self, TypedDict

from kafka import KafkaProducer
from kafka.errors import IncompatibleBrokerVersion, KafkaError, KafkaTimeoutError
from kafka.net.compat import KafkaNetClient
from kafka.partitioner.default import DefaultPartitioner, murmur2
from kafka.protocol.producer import InitProducerIdRequest
from pydantic import ValidationError

from stream.access import Refusals
from stream.contracts.addresses import bootstrap_servers
from stream.contracts.avro import Encoder
from stream.contracts.models import MODELS, Event
from stream.contracts.registry import Registry
from stream.contracts.topics import Topic
from stream.contracts.versions import newest
from stream.contracts.violations import violations
from stream.errors import ConfigurationError, Rejected, Unavailable

log = logging.getLogger(__name__)

FLUSH_GRACE_SECONDS = 30.0
CLOSE_SECONDS = 10.0

At = datetime | str | int  # what an event's `at` may be written as

BATCH_BYTES = 256 * 1024  # per partition; a request carries one batch of each partition
MAX_WAITING = 50_000  # events handed over and not yet acknowledged; the next call then waits
MAX_FAILURES = 1_000  # kept with their event ids until they are raised; the rest is only counted
REMEMBERED_KEYS = 65_536


class SlateItem(TypedDict):
    """One shown item of a slate; what is absent comes from the slate."""

    item_id: str
    position: NotRequired[int]
    impression_id: NotRequired[str]
    event_id: NotRequired[str]
    score: NotRequired[float]
    category: NotRequired[str]


@dataclass(frozen=True, slots=True)
class Failure:
    """One event that Kafka did not take."""

    topic: str
    event_id: str
    why: str


class NotDelivered(Unavailable):
    """Kafka did not acknowledge `count` events within the delivery timeout; they may be sent again.

    failures: the first 1,000 of them. An event sent again with the same event_id cannot count twice.
    """

    def __init__(self, failures: Iterable[Failure], count: int) -> None:
        self.failures = tuple(failures)
        self.count = count
        first = self.failures[0]
        super().__init__(
            f"{count} event{'s were' if count > 1 else ' was'} not delivered,"
            f" the first to {first.topic} ({first.event_id}): {first.why}"
        )


class Producer:
    """Sends assignments, impressions and interactions, each to its topic, partitioned by user.

    Methods validate first and raise Rejected, which names field, value and rule; nothing is sent then. They return at
    once; events travel in compressed batches. Kafka retries by itself; what it has not acknowledged after
    `delivery_timeout_seconds` is raised as NotDelivered by the next call, by `flush` or at the end of the `with`
    block. While no broker answers, kafka-python keeps what was sent after a batch that failed: it goes out when one
    answers again, or is raised by `close`. Safe to use from several threads; not to be carried over a fork.

    broker: `kafka://host:port`, several separated by commas. Raises Unavailable when none answers within
    `start_timeout_seconds`.
    registry_url: a Confluent-compatible registry; the schemas are registered there when the producer starts.
    kafka: more options for kafka.KafkaProducer, for example security_protocol and sasl_mechanism.
    """

    def __init__(
        self,
        broker: str,
        *,
        topic_prefix: str = "rec.",
        registry_url: str | None = None,
        linger_ms: int = 20,
        compression: str | None = "lz4",
        delivery_timeout_seconds: float = 120,
        start_timeout_seconds: float = 20,
        **kafka: Any,
    ) -> None:
        self._broker = broker
        self._names = {topic: f"{topic_prefix}{topic.word}" for topic in Topic}
        self._encoders = _encoders(self._names, registry_url)
        self._delivery_timeout_seconds = delivery_timeout_seconds
        self._room = threading.BoundedSemaphore(MAX_WAITING)
        self._failures = _Failures()
        options: dict[str, Any] = {
            "bootstrap_servers": _servers(broker),
            "client_id": "liftstream",
            "acks": "all",
            "linger_ms": linger_ms,
            "batch_size": BATCH_BYTES,
            "max_request_size": 4 * BATCH_BYTES,
            "compression_type": compression,
            "partitioner": _ByUser(),
            "delivery_timeout_ms": int(delivery_timeout_seconds * 1000),
            "request_timeout_ms": int(min(30, delivery_timeout_seconds / 2) * 1000),  # one retry fits
            "max_block_ms": int(start_timeout_seconds * 1000),
            "bootstrap_timeout_ms": int(start_timeout_seconds * 1000),
            "allow_auto_create_topics": False,  # the broker's defaults would give the topics unequal partitions
            "metrics_enabled": False,
        }
        self._kafka = _connect(broker, options | kafka)

    def assignment(
        self,
        *,
        user_id: str,
        experiment: str,
        arm: str,
        country: str | None = None,
        device: str | None = None,
        segment: str | None = None,
        pre_value: int | None = None,
        at: At | None = None,
        event_id: str | None = None,
    ) -> str:
        """Say that a user is in an arm from `at` (default: now) on. Returns the event id (default: a new one)."""
        event_id = _new_id() if event_id is None else event_id
        self.send(
            Topic.ASSIGNMENTS,
            {
                "event_id": event_id,
                "at": _now_ms() if at is None else at,
                "user_id": user_id,
                "experiment": experiment,
                "arm": arm,
                "country": country,
                "device": device,
                "segment": segment,
                "pre_value": pre_value,
            },
        )
        return event_id

    def impression(
        self,
        *,
        user_id: str,
        request_id: str,
        item_id: str,
        surface: str,
        position: int,
        model: str,
        model_version: str,
        score: float | None = None,
        latency_ms: float | None = None,
        country: str | None = None,
        device: str | None = None,
        category: str | None = None,
        impression_id: str | None = None,
        at: At | None = None,
        event_id: str | None = None,
    ) -> str:
        """One item was shown to a user. Returns the impression id (default: a new one) for interactions to name."""
        (shown,) = self.slate(
            user_id=user_id,
            request_id=request_id,
            surface=surface,
            model=model,
            model_version=model_version,
            items=[_present(item_id=item_id, position=position, score=score, category=category,
                            impression_id=impression_id, event_id=event_id)],
            latency_ms=latency_ms,
            country=country,
            device=device,
            at=at,
        )  # fmt: skip
        return shown

    def slate(
        self,
        *,
        user_id: str,
        surface: str,
        model: str,
        model_version: str,
        items: Iterable[str | SlateItem],
        request_id: str | None = None,
        latency_ms: float | None = None,
        country: str | None = None,
        device: str | None = None,
        at: At | None = None,
    ) -> list[str]:
        """A user was shown these items together, at positions 0, 1, ... Returns their impression ids in that order.

        items: item ids, or SlateItems where an item has a score, a category or ids of its own. All are validated
        before the first is sent. request_id: default a new one.
        """
        shared = {
            "at": _now_ms() if at is None else at,
            "user_id": user_id,
            "request_id": _new_id() if request_id is None else request_id,
            "surface": surface,
            "model": model,
            "model_version": model_version,
            "latency_ms": latency_ms,
            "country": country,
            "device": device,
        }
        if isinstance(items, (str, bytes)):
            raise Rejected(
                f"Impression rejected: items must be a list of item ids, not one text (got {items!r})"
            )
        events = []
        for position, item in enumerate(items):
            own = item if isinstance(item, Mapping) else {"item_id": item}
            ids = {"event_id": _new_id(), "impression_id": _new_id(), "position": position}
            events.append(_validated(Topic.IMPRESSIONS, shared | ids | own))
        for event in events:
            self.send(Topic.IMPRESSIONS, event)
        return [event.impression_id for event in events]

    def interaction(
        self,
        *,
        user_id: str,
        kind: str,
        impression_id: str | None = None,
        item_id: str | None = None,
        value_minor: int | None = None,
        currency: str | None = None,
        at: At | None = None,
        event_id: str | None = None,
    ) -> str:
        """A user did something: `click`, `add_to_cart`, `purchase` or a word of yours. Returns the event id.

        It is credited to the impression it names, else to the user's latest impression of the item.
        """
        event_id = _new_id() if event_id is None else event_id
        self.send(
            Topic.INTERACTIONS,
            {
                "event_id": event_id,
                "at": _now_ms() if at is None else at,
                "user_id": user_id,
                "impression_id": impression_id,
                "item_id": item_id,
                "kind": kind,
                "value_minor": value_minor,
                "currency": currency,
            },
        )
        return event_id

    def send(self, topic: Topic, event: Event | Mapping[str, Any]) -> None:
        """Send a whole event: a model (already valid, not checked again) or its fields.

        Raises Rejected, NotDelivered for earlier events, and Unavailable when the topic does not exist or the broker
        takes nothing more.
        """
        self._failures.check()
        model = MODELS[topic]
        valid = event if isinstance(event, model) else _validated(topic, event)
        if not self._room.acquire(timeout=self._delivery_timeout_seconds):
            raise Unavailable(f"The broker {self._broker} takes no events; {MAX_WAITING:,} are waiting.")
        name = self._names[topic]
        try:
            future = self._kafka.send(
                name, key=valid.user_id.encode(), value=self._encoders[topic].encode(valid)
            )
        except KafkaTimeoutError as error:
            self._room.release()
            raise Unavailable(
                f"The broker {self._broker} does not answer or has no topic {name}; check it and create its topics."
            ) from error
        except KafkaError as error:
            self._room.release()
            raise Unavailable(f"{name}: {error}") from error
        except BaseException:
            self._room.release()
            raise
        future.add_callback(self._delivered)
        future.add_errback(partial(self._failed, name, valid.event_id))

    def flush(self, timeout_seconds: float | None = None) -> None:
        """Wait until every event so far is acknowledged or has failed.

        Raises NotDelivered for those that failed and Unavailable when `timeout_seconds` pass first (None: half a minute
        more than `delivery_timeout_seconds`, after which nothing can be on its way).
        """
        try:
            self._kafka.flush(self._most_seconds if timeout_seconds is None else timeout_seconds)
        except KafkaTimeoutError as error:
            raise self._unacknowledged() from error
        self._failures.check()

    def close(self) -> None:
        """Flush and disconnect. Raises NotDelivered, also for what has no answer when nothing can be on its way."""
        try:
            self._kafka.flush(self._most_seconds)
        except KafkaTimeoutError:  # kafka-python sometimes loses sight of a batch when its broker dies
            self._kafka._sender.force_close()  # now it fails
        try:
            self._kafka.close(CLOSE_SECONDS)  # without a number of seconds it may wait for ever
        except KafkaTimeoutError as error:
            raise self._unacknowledged() from error
        self._failures.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Unavailable as unsent:
            if error is None:
                raise
            error.add_note(str(unsent))  # the first error is the one to see, but this one is not swallowed

    def _unacknowledged(self) -> Unavailable:
        return Unavailable(f"The broker {self._broker} has not acknowledged all events yet.")

    @property
    def _most_seconds(self) -> float:
        """Until nothing can be on its way."""
        return self._delivery_timeout_seconds + FLUSH_GRACE_SECONDS

    def _delivered(self, _: object) -> None:
        self._room.release()

    def _failed(self, topic: str, event_id: str, error: BaseException) -> None:
        self._room.release()
        self._failures.add(Failure(topic, event_id, str(error)))


class _Failures:
    """Failures that were not raised yet. Written by kafka-python's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first: list[Failure] = []
        self._count = 0

    def add(self, failure: Failure) -> None:
        with self._lock:
            self._count += 1
            if len(self._first) < MAX_FAILURES:
                self._first.append(failure)

    def check(self) -> None:
        """Raise what there is, once."""
        if not self._count:
            return
        with self._lock:
            failures, count = self._first, self._count
            self._first, self._count = [], 0
        if count:
            raise NotDelivered(failures, count)


class _ByUser(DefaultPartitioner):  # type: ignore[misc]
    """Kafka's own partitioning by key (murmur2), remembering the keys it has hashed: a slate is one user."""

    def partition(
        self, topic: str, key: Any, serialized_key: bytes, value: Any, serialized_value: bytes, cluster: Any
    ) -> int:
        return (_hash_of(serialized_key) & 0x7FFFFFFF) % len(cluster.partitions_for_topic(topic))


@lru_cache(maxsize=REMEMBERED_KEYS)
def _hash_of(key: bytes) -> int:
    return int(murmur2(key))


def _servers(broker: str) -> list[str]:
    try:
        return bootstrap_servers(broker)
    except ValueError as rule:
        raise ConfigurationError(f"The broker {broker!r} {rule}.") from None


def _connect(broker: str, options: dict[str, Any]) -> KafkaProducer:
    """A producer, idempotent where the broker can be."""
    make_client = options.pop("kafka_client", KafkaNetClient)
    clients: list[KafkaNetClient] = []

    def client(**config: Any) -> KafkaNetClient:
        clients.append(make_client(**config))
        return clients[-1]

    refusals = Refusals()
    try:
        with refusals:
            producer = KafkaProducer(kafka_client=client, **options)
    except KafkaTimeoutError as error:
        clients[-1].close()
        seconds = options["bootstrap_timeout_ms"] / 1000
        why = f" ({refusals.first})" if refusals.first else ""
        raise Unavailable(
            f"The broker {broker} did not answer for {seconds:g} s{why}; start it, or correct its address and login."
        ) from error
    try:
        clients[-1].api_version(InitProducerIdRequest, InitProducerIdRequest.max_version)
    except IncompatibleBrokerVersion:
        log.warning(
            "The broker %s cannot do idempotent sends; a retry may repeat an event, which is then counted once.",
            broker,
        )
        producer.close()
        return KafkaProducer(kafka_client=client, **options, enable_idempotence=False)
    return producer


def _encoders(names: Mapping[Topic, str], registry_url: str | None) -> dict[Topic, Encoder]:
    if registry_url is None:
        return {topic: Encoder(topic) for topic in Topic}
    registry = Registry(registry_url)
    try:
        return {
            topic: Encoder(topic, registry.register(f"{name}-value", newest(topic).schema))
            for topic, name in names.items()
        }
    finally:
        registry.close()


def _validated(topic: Topic, fields: Any) -> Any:
    model = MODELS[topic]
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        broken = "; ".join(str(violation) for violation in violations(error, model.model_fields))
        raise Rejected(f"{model.__name__} rejected: {broken}") from error


def _present(**fields: Any) -> Any:
    return {name: value for name, value in fields.items() if value is not None}


def _new_id() -> str:
    return str(uuid.uuid4())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
