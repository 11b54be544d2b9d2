"""The same tests run on the embedded broker and on a real one."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stream.contracts.topics import Topic
from stream.local.broker import EmbeddedBroker

PARTITIONS = 4
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
        """The topic's messages as confluent-kafka reads them, partition by partition."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "unused", "enable.partition.eof": True},
            logger=_SILENT,
        )
        name = self.name(topic)
        consumer.assign([TopicPartition(name, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
        found: list[Any] = []
        ended: set[int] = set()
        while len(ended) < PARTITIONS:
            message = consumer.poll(10)
            assert message is not None, f"only partitions {ended} have ended"
            if not message.error():
                found.append(message)
            elif message.error().code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
        consumer.close()
        return sorted(found, key=lambda message: (message.partition(), message.offset()))


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(params=["embedded", "kafka"])
def broker(request: pytest.FixtureRequest, unique: str) -> Broker:
    return Broker(request.getfixturevalue(request.param).bootstrap, f"{unique}.")
