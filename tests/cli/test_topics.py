"""Our topics: what is created, and what is said when they disagree."""

import pytest

from stream.contracts.topics import Topic
from stream.errors import ConfigurationError, Unavailable
from stream.settings import Settings
from stream.topics import create_topics, disagreements, partition_counts, planned_topics
from tests.services.kafka import KafkaServer
from tests.services.process import free_port

SETTINGS = Settings(topic_prefix="rec.", topic_partitions=4)
AGREED = {plan.name: 4 for plan in planned_topics(SETTINGS)}


def test_input_topics_have_the_same_number_of_partitions_and_broker_time() -> None:
    plans = {plan.name: plan for plan in planned_topics(SETTINGS)}
    inputs = [plans[SETTINGS.topic(topic)] for topic in Topic]
    assert {plan.partitions for plan in inputs} == {4}
    assert {plan.options["message.timestamp.type"] for plan in inputs} == {"LogAppendTime"}


def test_topics_as_planned_agree() -> None:
    assert disagreements(SETTINGS, AGREED) == []


def test_a_missing_topic_is_named() -> None:
    counts = {name: count for name, count in AGREED.items() if name != "rec.impressions"}
    assert disagreements(SETTINGS, counts) == ["Topics are missing: rec.impressions: run liftstream migrate."]


def test_different_partition_counts_are_said() -> None:
    (problem,) = disagreements(SETTINGS, AGREED | {"rec.impressions": 8})
    assert "rec.impressions has 8" in problem


def test_a_broker_that_is_away_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.topics.CONNECT_MS", 300)
    settings = Settings(broker=f"kafka://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match="did not answer for"):
        partition_counts(settings)


def test_topics_are_created_once(kafka: KafkaServer, unique: str) -> None:
    settings = Settings(broker=f"kafka://{kafka.bootstrap}", topic_prefix=f"{unique}.", topic_partitions=3)
    assert len(create_topics(settings)) == len(planned_topics(settings))
    assert create_topics(settings) == ()
    assert set(partition_counts(settings).values()) == {3}


def test_topics_that_disagree_are_refused(kafka: KafkaServer, unique: str) -> None:
    settings = Settings(broker=f"kafka://{kafka.bootstrap}", topic_prefix=f"{unique}.", topic_partitions=3)
    kafka.create_topics(settings.topic(Topic.IMPRESSIONS), partitions=1)
    with pytest.raises(ConfigurationError, match="same number of partitions"):
        create_topics(settings)


def test_a_refusal_of_the_broker_is_passed_on(kafka: KafkaServer, unique: str) -> None:
    settings = Settings(broker=f"kafka://{kafka.bootstrap}", topic_prefix=f"{unique}.", topic_replicas=3)
    with pytest.raises(ConfigurationError, match="refuses to create topic"):
        create_topics(settings)
