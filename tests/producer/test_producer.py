import gc
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from kafka.errors import IncompatibleBrokerVersion
from kafka.net.compat import KafkaNetClient
from kafka.partitioner.default import murmur2

from stream.contracts.addresses import bootstrap_servers
from stream.contracts.avro import decode
from stream.contracts.topics import Topic
from stream.errors import ConfigurationError, Rejected, Unavailable
from stream.local.broker import EmbeddedBroker
from stream.producer import NotDelivered, Producer
from tests.contracts.makers import AT_MS, an_event
from tests.producer.conftest import PARTITIONS, Broker
from tests.services.kafka import KafkaServer

SLATE = {"user_id": "u-1", "request_id": "req-1", "surface": "home", "model": "m", "model_version": "1"}


def a_producer(broker: Broker, **options: Any) -> Producer:
    return Producer(broker.url, topic_prefix=broker.prefix, **options)


def events(broker: Broker, topic: Topic) -> list[dict[str, Any]]:
    return [decode(topic, record.value) for record in broker.records(topic)]


def test_every_kind_of_event_arrives_as_it_was_sent(broker: Broker) -> None:
    before = time.time() * 1000 - 1
    with a_producer(broker) as producer:
        assignment = producer.assignment(user_id="u-1", experiment="e", arm="b", country="PL", pre_value=-3)
        impression = producer.impression(
            **SLATE, item_id="sku-1", position=7, score=0.5, latency_ms=3, category="ü"
        )
        click = producer.interaction(
            user_id="u-1", kind="click", impression_id=impression, at="2026-03-01T08:00:00Z"
        )
    (sent,) = events(broker, Topic.ASSIGNMENTS)
    assert before <= sent.pop("at") <= time.time() * 1000
    assert sent == {
        "event_id": assignment, "user_id": "u-1", "experiment": "e", "arm": "b", "country": "PL", "device": None,
        "segment": None, "pre_value": -3,
    }  # fmt: skip
    (shown,) = events(broker, Topic.IMPRESSIONS)
    assert len({impression, shown.pop("event_id")}) == 2
    assert before <= shown.pop("at") <= time.time() * 1000
    assert shown == SLATE | {
        "impression_id": impression, "item_id": "sku-1", "position": 7, "score": 0.5, "latency_ms": 3.0,
        "country": None, "device": None, "category": "ü",
    }  # fmt: skip
    assert events(broker, Topic.INTERACTIONS) == [
        {
            "event_id": click, "at": AT_MS, "user_id": "u-1", "impression_id": impression, "item_id": None,
            "kind": "click", "value_minor": None, "currency": None,
        }
    ]  # fmt: skip


def test_a_slate_is_one_call(broker: Broker) -> None:
    with a_producer(broker) as producer:
        at = datetime(2026, 3, 1, 8, tzinfo=UTC)
        items = [
            "a",
            {"item_id": "b", "score": 0.25, "category": "shoes"},
            {"item_id": "c", "impression_id": "mine"},
        ]
        ids = producer.slate(**SLATE, items=items, device="ios", at=at)  # type: ignore[arg-type]
    shown = events(broker, Topic.IMPRESSIONS)
    assert [event["impression_id"] for event in shown] == ids
    assert ids[2] == "mine"
    assert [(event["item_id"], event["position"], event["score"]) for event in shown] == [
        ("a", 0, None),
        ("b", 1, 0.25),
        ("c", 2, None),
    ]
    assert {(event["at"], event["device"], event["request_id"]) for event in shown} == {
        (AT_MS, "ios", "req-1")
    }
    assert len({event["event_id"] for event in shown}) == 3


def test_all_events_of_a_user_are_in_the_partition_that_murmur2_says(broker: Broker) -> None:
    users = [f"użytkownik-{n}" for n in range(50)]
    with a_producer(broker) as producer:
        for user in users:
            producer.slate(**SLATE | {"user_id": user}, items=["a", "b"])
            producer.interaction(user_id=user, kind="click")
    for topic in (Topic.IMPRESSIONS, Topic.INTERACTIONS):
        records = broker.records(topic)
        assert {record.key.decode() for record in records} == set(users)
        for record in records:
            assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % PARTITIONS
            assert record.key.decode() == decode(topic, record.value)["user_id"]


def test_murmur2_gives_the_numbers_of_the_java_client() -> None:
    vectors = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"abc": 479470107,
    }
    assert {key: murmur2(key) for key in vectors} == {
        key: value & 0xFFFFFFFF for key, value in vectors.items()
    }


@pytest.mark.parametrize("compression", ["lz4", "gzip", None])
def test_nothing_is_lost_or_repeated_in_many_batches(broker: Broker, compression: str | None) -> None:
    events_sent = [
        an_event(Topic.INTERACTIONS, event_id=f"c-{n}", user_id=f"u-{n % 97}") for n in range(3000)
    ]
    with a_producer(broker, linger_ms=1, compression=compression, batch_size=4096) as producer:
        for event in events_sent:
            producer.send(Topic.INTERACTIONS, event)
    arrived = [event["event_id"] for event in events(broker, Topic.INTERACTIONS)]
    assert sorted(arrived) == sorted(event.event_id for event in events_sent)


def test_several_threads_may_share_a_producer(broker: Broker) -> None:
    with a_producer(broker) as producer:

        def send() -> None:
            for _ in range(200):
                producer.interaction(user_id=threading.current_thread().name, kind="click")

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(events(broker, Topic.INTERACTIONS)) == 800


def test_a_rejected_event_names_field_value_and_rule_and_is_not_sent(broker: Broker) -> None:
    with a_producer(broker) as producer:
        with pytest.raises(Rejected) as caught:
            producer.interaction(user_id="", kind="click", value_minor=10**13)
        assert str(caught.value) == (
            "Interaction rejected: user_id must not be empty (got '');"
            " value_minor must be at most 1000000000000 (got 10000000000000)"
        )
        with pytest.raises(Rejected, match="position must be at least 0"):
            producer.impression(**SLATE, item_id="a", position=-1)
        with pytest.raises(Rejected, match=r"at must be ISO 8601 text"):
            producer.assignment(user_id="u", experiment="e", arm="a", at="noon")
        with pytest.raises(Rejected, match="kind is required"):
            producer.send(Topic.INTERACTIONS, {"event_id": "x", "at": 0, "user_id": "u"})
        with pytest.raises(Rejected, match="Interaction rejected"):
            producer.send(Topic.INTERACTIONS, an_event(Topic.IMPRESSIONS))
    assert [events(broker, topic) for topic in Topic] == [[], [], []]


def test_a_slate_with_one_bad_item_is_not_sent_at_all(broker: Broker) -> None:
    with a_producer(broker) as producer, pytest.raises(Rejected, match="scroe is not a field of this event"):
        producer.slate(**SLATE, items=["a", {"item_id": "b", "scroe": 1}])  # type: ignore[typeddict-unknown-key]
    assert events(broker, Topic.IMPRESSIONS) == []


@pytest.mark.parametrize(
    ("items", "why"), [(["a", None], "item_id must be text"), ("abc", "must be a list"), ([7], "item_id")]
)
def test_a_slate_of_anything_but_items_is_rejected(broker: Broker, items: Any, why: str) -> None:
    with a_producer(broker) as producer, pytest.raises(Rejected, match=why):
        producer.slate(**SLATE, items=items)
    assert events(broker, Topic.IMPRESSIONS) == []


def test_the_producer_is_idempotent_where_the_broker_can(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with a_producer(broker) as producer:
        assert producer._kafka.config["enable_idempotence"]
        producer.interaction(user_id="u", kind="click")
    assert "cannot do idempotent sends" not in caplog.text


class WithoutIdempotence(KafkaNetClient):  # type: ignore[misc]
    """A client of a broker that has no InitProducerId."""

    def api_version(self, operation: Any, max_version: Any = None) -> Any:
        if operation.name.startswith("InitProducerId"):
            raise IncompatibleBrokerVersion("no InitProducerId")
        return super().api_version(operation, max_version)


def test_a_broker_without_idempotence_is_used_without_and_the_log_says_so(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with a_producer(broker, kafka_client=WithoutIdempotence) as producer:
        assert not producer._kafka.config["enable_idempotence"]
        producer.interaction(user_id="u", kind="click")
    assert "cannot do idempotent sends" in caplog.text
    assert len(events(broker, Topic.INTERACTIONS)) == 1


def test_a_missing_topic_is_said(kafka: KafkaServer) -> None:  # the embedded broker creates topics unasked
    producer = Producer(f"kafka://{kafka.bootstrap}", topic_prefix="missing.", start_timeout_seconds=1)
    with pytest.raises(Unavailable, match=r"has no topic missing\.interactions"):
        producer.interaction(user_id="u", kind="click")
    producer.close()


@pytest.fixture
def mortal(unique: str) -> Iterator[tuple[EmbeddedBroker, Broker]]:
    """A broker that a test may stop."""
    with EmbeddedBroker() as process:
        yield process, Broker(process.bootstrap, f"{unique}.")


def test_what_was_not_delivered_is_raised_by_the_next_call_and_at_the_end(
    mortal: tuple[EmbeddedBroker, Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.producer.FLUSH_GRACE_SECONDS", 1)
    process, broker = mortal
    producer = a_producer(broker, delivery_timeout_seconds=1, linger_ms=400)  # both events in one batch
    producer.interaction(user_id="u", kind="click")
    producer.flush()
    process.stop()
    lost = [producer.interaction(user_id="u", kind="click") for _ in range(2)]
    producer._kafka.flush(60)
    with pytest.raises(NotDelivered) as caught:
        producer.interaction(user_id="u", kind="click")  # this one is not taken: the caller must know first
    assert [failure.event_id for failure in caught.value.failures] == lost
    assert str(caught.value).startswith(
        f"2 events were not delivered, the first to {broker.prefix}interactions"
    )
    producer.interaction(user_id="u", kind="click")
    with pytest.raises(Unavailable):
        producer.close()


def test_an_error_in_the_with_block_is_not_hidden_by_what_was_not_delivered(
    mortal: tuple[EmbeddedBroker, Broker],
) -> None:
    process, broker = mortal

    def send_and_fail() -> None:
        with a_producer(broker, delivery_timeout_seconds=1) as producer:
            producer.interaction(user_id="u", kind="click")
            producer.flush()
            process.stop()
            producer.interaction(user_id="u", kind="click")
            raise RuntimeError("the first error")

    with pytest.raises(RuntimeError, match="the first error") as caught:
        send_and_fail()
    assert caught.value.__notes__[0].startswith("1 event was not delivered")


def test_a_flush_with_a_timeout_says_when_it_passes(mortal: tuple[EmbeddedBroker, Broker]) -> None:
    process, broker = mortal
    producer = a_producer(broker, delivery_timeout_seconds=2)
    producer.interaction(user_id="u", kind="click")
    producer.flush()
    process.stop()
    producer.interaction(user_id="u", kind="click")
    with pytest.raises(Unavailable, match="has not acknowledged all events yet"):
        producer.flush(timeout_seconds=0.1)
    with pytest.raises(NotDelivered):
        producer.close()


def test_closing_ends_although_kafka_s_client_never_answers(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.producer.FLUSH_GRACE_SECONDS", 0)
    producer = a_producer(broker, delivery_timeout_seconds=2)
    producer.interaction(user_id="u", kind="click")
    producer.flush(30)
    monkeypatch.setattr(producer._kafka._sender, "run_once", lambda: time.sleep(0.01))
    lost = producer.interaction(user_id="u", kind="click")
    with pytest.raises(NotDelivered) as caught:
        producer.close()
    assert [failure.event_id for failure in caught.value.failures] == [lost]


def test_a_producer_holds_a_bounded_number_of_events(
    mortal: tuple[EmbeddedBroker, Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, broker = mortal
    monkeypatch.setattr("stream.producer.MAX_WAITING", 3)
    producer = a_producer(broker, delivery_timeout_seconds=2)
    for _ in range(10):  # acknowledged ones make room
        producer.interaction(user_id="u", kind="click")
    producer.flush()
    process.stop()
    producer._delivery_timeout_seconds = 0.1
    for _ in range(3):
        producer.interaction(user_id="u", kind="click")
    with pytest.raises(Unavailable, match="takes no events; 3 are waiting"):  # waits for room, then gives up
        producer.interaction(user_id="u", kind="click")
    with pytest.raises(NotDelivered, match="3 events"):
        producer.close()


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_that_does_not_answer_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        url = f"kafka://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unavailable) as caught:
            Producer(url, start_timeout_seconds=0.5)
    assert str(caught.value).startswith(f"The broker {url} did not answer for 0.5 s (")
    assert "ECONNREFUSED" in str(caught.value)
    del caught
    gc.collect()  # kafka-python leaves sockets of failed attempts to the collector


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("kafka://a:9092", ["a:9092"]),
        ("kafka://a:9092,b:9093", ["a:9092", "b:9093"]),
        ("kafka://[::1]:9092", ["[::1]:9092"]),
    ],
)
def test_a_broker_s_url_names_its_servers(url: str, servers: list[str]) -> None:
    assert bootstrap_servers(url) == servers


@pytest.mark.parametrize("url", ["", "kafka://", "kafka://a", "a:9092", "http://a:9092", "kafka://a:9092,"])
def test_a_broker_s_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="must be kafka://host:port"):
        Producer(url)
