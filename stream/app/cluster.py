"""What the broker says about itself and our input topics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stream.contracts.topics import Topic
from stream.durability.identity import Cluster, InputTopic
from stream.errors import ConfigurationError
from stream.settings import Settings
from stream.topics import admin_client, disagreements


@dataclass(frozen=True, slots=True)
class Broker:
    """The cluster with our input topics, and how many partitions the partials topic has."""

    cluster: Cluster
    partials_partitions: int


def describe_broker(settings: Settings) -> Broker:
    """Ask the broker. Raises Unavailable, or ConfigurationError when topics are missing or do not fit together."""
    topics, cluster_id = _ask(settings)
    counts = {name: len(topic["partitions"]) for name, topic in topics.items()}
    if problems := disagreements(settings, counts):
        raise ConfigurationError(" ".join(problems))
    first, second, third = (
        InputTopic(settings.topic(topic), _id(topics[settings.topic(topic)])) for topic in Topic
    )
    partitions = counts[settings.topic(Topic.IMPRESSIONS)]
    return Broker(Cluster(cluster_id, (first, second, third), partitions), counts[settings.partials_topic])


def _ask(settings: Settings) -> tuple[dict[str, dict[str, Any]], str | None]:
    with admin_client(settings) as admin:
        topics = {topic["name"]: topic for topic in admin.describe_topics()}
        return topics, admin.describe_cluster().get("cluster_id")


def _id(topic: Mapping[str, Any]) -> str | None:
    known = topic.get("topic_id")
    return str(known) if known else None
