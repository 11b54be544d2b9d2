"""The Faust settings without which the driver, or exactness, does not work; each with its reason."""

import os
import tempfile
from pathlib import Path
from typing import Any

import faust
from faust.types import Message
from faust.types.auth import CredentialsT

from stream.access import BrokerAccess

SCHEME = "liftstream"


def faust_settings(
    broker: str,
    *,
    instance: str | None = None,
    session_seconds: float = 6.0,
    partition_fetch_bytes: int = 1 << 20,
) -> dict[str, Any]:
    """Keyword arguments for faust.App.

    broker: `kafka://host:port[,host:port...]`. instance: the stable name of this process (static membership: a quick
    restart gets its partitions back without a rebalance). session_seconds: after so much silence of a worker its
    partitions go to others; at least 6, which is the least that brokers take.
    """
    settings = {
        "broker": broker_urls(broker),
        # No Faust tables: state is ours, and there is nothing to recover.
        "store": "memory://",
        # Faust makes this folder at start, though nothing comes to be in it; its default is beside the user's files.
        "datadir": Path(tempfile.gettempdir()) / f"liftstream-faust-{os.getuid()}",
        # With 0 and no tables Faust takes aiokafka's round-robin assignor, and a partition's three topics part.
        "table_standby_replicas": 1,
        # No leader topic and no topics made by Faust: ours are made, and checked, before it starts.
        "topic_disable_leader": True,
        "topic_allow_declare": False,
        # A rebalance does not wait for messages to be acknowledged: ours never are (use topic(..., acks=False)).
        "stream_wait_empty": False,
        # Agents only queue, so a short buffer never fills.
        "stream_buffer_maxsize": 64,
        # aiokafka leaves the group when nothing was polled for so long, and Faust never makes it return.
        "broker_max_poll_interval": 1e9,
        # The least that brokers take. A busy machine that is taken for a dead one costs a rebalance and harms nothing.
        "broker_session_timeout": session_seconds,
        # Also how soon the others hear of a rebalance, and so how long partitions stand still that change hands.
        "broker_heartbeat_interval": session_seconds / 12,
        # How long the others wait in a rebalance for a worker that does not answer.
        "broker_rebalance_timeout": max(session_seconds, 10.0),
        # Partitions that somebody adds while we run are noticed, and refused, within this time.
        "consumer_metadata_max_age_ms": 60_000,
        # Counts fetches of the input topics, and records of others.
        "broker_max_poll_records": 20_000,
        # Bytes of a fetch of one topic-partition; small ones are slow, as the next fetch waits until all are drained.
        "consumer_max_fetch_size": partition_fetch_bytes,
        # Positions come from checkpoints; if Kafka no longer has one, that is an error and not a jump.
        "consumer_auto_offset_reset": "none",
    }
    if instance is not None:
        settings["consumer_group_instance_id"] = instance
    return settings


def credentials(access: BrokerAccess) -> CredentialsT | None:
    """What Faust wants for `broker_credentials`; None for a broker that is open to all. Raises ConfigurationError."""
    if access.sasl_username is not None:
        return faust.SASLCredentials(
            username=access.sasl_username,
            password=access.password,
            mechanism=access.sasl_mechanism,
            ssl_context=access.ssl_context,
        )
    return faust.SSLCredentials(access.ssl_context) if access.ssl_context else None


def broker_urls(broker: str) -> list[str]:
    """`kafka://a:1,b:2` as this driver's URLs, which is what makes Faust choose it."""
    hosts = broker.partition("://")[2] or broker
    return [f"{SCHEME}://{host}" for host in hosts.split(",")]


class AsFetched(faust.Schema):  # type: ignore[misc]
    """The schema of the input topics: the message's value, a Fetched, is handed to agents as it is."""

    def loads_key(self, app: Any, message: Message, **_: Any) -> None:
        """There is none."""

    def loads_value(self, app: Any, message: Message, **_: Any) -> Any:
        """The Fetched."""
        return message.value
