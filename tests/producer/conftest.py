"""The same tests run on the embedded broker and on a real one."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from kafka import KafkaConsumer, TopicPartition

from stream.contracts.topics import Topic
from stream.local.broker import EmbeddedBroker

PARTITIONS = 6
READ_SECONDS = 30
_SILENT = logging.getLogger("librdkafka")  # it writes to stderr while a broker is away


class Broker:
    """Three topics with a prefix of their own, and all that was sent to them."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.bootstrap = bootstrap
        self.url = f"kafka://{bootstrap}"
        self.prefix = prefix
        admin = AdminClient({"bootstrap.servers": bootstrap}, logger=_SILENT)
        topics = [NewTopic(self.name(topic), PARTITIONS, 1) for topic in Topic]
        for created in admin.create_topics(topics).values():
            created.result(20)

    def name(self, topic: Topic) -> str:
        return f"{self.prefix}{topic.word}"

    def records(self, topic: Topic) -> list[Any]:
        """The topic's records in the order of partitions and offsets."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap, group_id=None, enable_auto_commit=False, fetch_max_wait_ms=10
        )
        partitions = [TopicPartition(self.name(topic), number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        found: list[Any] = []
        deadline = time.monotonic() + READ_SECONDS
        while any(consumer.position(partition) != consumer.highwater(partition) for partition in partitions):
            assert time.monotonic() < deadline, f"only {len(found)} records arrived"
            for records in consumer.poll(100).values():
                found += records
        consumer.close()
        return sorted(found, key=lambda record: (record.partition, record.offset))


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(params=["embedded", "kafka"])
def broker(request: pytest.FixtureRequest, unique: str) -> Broker:
    return Broker(request.getfixturevalue(request.param).bootstrap, f"{unique}.")
