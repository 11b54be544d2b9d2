"""The peer: ClickHouse alone. Its Kafka engine fills three raw tables, and one query at the end counts.

Exact through ReplacingMergeTree and FINAL, but at-least-once, and only as fresh as the query is: for figures every ten
seconds it would run every ten seconds. Here it runs once. The server is one of its own; what is measured is
that server from the creation of the views, which begins the reading, to the result.
"""

import time
from collections.abc import Callable

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from confluent_kafka import Consumer, KafkaException, TopicPartition

from benchmarks.meter import MemoryAtHand, sample
from benchmarks.oracle import PANE_MS, Expected, impression_cells
from benchmarks.runs import PATIENCE_SECONDS, POLL_SECONDS, Run
from benchmarks.schema_registry import schema_registry
from benchmarks.services import Services
from benchmarks.workload import PARTITIONS
from stream.contracts.topics import Topic
from tests.services.clickhouse import ClickHouseServer

WORD = "LowCardinality(String)"
MAYBE = "LowCardinality(Nullable(String))"
COMMON = "event_id String, at DateTime64(3, 'UTC'), user_id String"
COLUMNS = {
    Topic.ASSIGNMENTS: f"{COMMON}, experiment {WORD}, arm {WORD}",
    Topic.IMPRESSIONS: (
        f"{COMMON}, impression_id String, request_id String, item_id String, surface {WORD}, position Int32, "
        f"model {WORD}, model_version {WORD}, score Nullable(Float64), latency_ms Nullable(Float64), "
        f"country {MAYBE}, device {MAYBE}"
    ),
    Topic.INTERACTIONS: (
        f"{COMMON}, impression_id Nullable(String), item_id Nullable(String), kind {WORD}, "
        f"value_minor Nullable(Int64), currency {MAYBE}"
    ),
}
# Kept by time, as one would who deletes by time; equal rows of one event_id become one.
ORDER = {
    Topic.ASSIGNMENTS: "user_id, experiment, event_id",
    Topic.IMPRESSIONS: "toStartOfMinute(at), event_id",
    Topic.INTERACTIONS: "toStartOfMinute(at), event_id",
}
GROUP = "clickhouse-{word}"
QUEUE = """
CREATE TABLE {word}_queue ({columns}) ENGINE = Kafka SETTINGS
  kafka_broker_list = '{bootstrap}', kafka_topic_list = '{prefix}{word}', kafka_group_name = '{group}',
  kafka_format = 'AvroConfluent', format_avro_schema_registry_url = '{registry}',
  kafka_num_consumers = 2, kafka_thread_per_consumer = 1,
  kafka_max_block_size = 262144, kafka_poll_max_batch_size = 65536, kafka_flush_interval_ms = 1000
"""
COUNT = f"""
WITH
  shown AS (
    SELECT impression_id, user_id, intDiv(toUnixTimestamp64Milli(at), {PANE_MS}) * {PANE_MS} AS pane_start_ms
    FROM impressions FINAL
  ),
  answered AS (
    SELECT impression_id, max(kind = 'click') AS is_clicked, max(kind = 'purchase') AS is_converted
    FROM interactions FINAL GROUP BY impression_id
  ),
  assigned AS (
    SELECT user_id, experiment, argMax(arm, (at, event_id)) AS arm FROM assignments GROUP BY user_id, experiment
  )
SELECT experiment, arm, pane_start_ms, count(), sum(is_clicked), sum(is_converted)
FROM shown LEFT JOIN answered USING impression_id INNER JOIN assigned USING user_id
GROUP BY experiment, arm, pane_start_ms
"""
CELLS = ("impressions", "clicked_impressions", "converted_impressions")
# Consumers of all three tables at a time; with fewer threads they wait for each other.
OPTIONS = ("--background_message_broker_schedule_pool_size=16",)


def run_clickhouse(services: Services, name: str, expected: Expected) -> Run:
    """Let ClickHouse read the topics `<name>.*` and count."""
    folder = services.folder / f"{name}-clickhouse"
    with schema_registry() as registry, ClickHouseServer(folder, options=OPTIONS) as server:
        client = clickhouse_connect.get_client(
            host="127.0.0.1", port=server.http_port, username=server.user, password=server.password
        )
        _create(client, services.bootstrap, f"{name}.", registry)
        MemoryAtHand().give_back()
        start = sample(server.process.pid)
        for topic in Topic:
            client.command(
                f"CREATE MATERIALIZED VIEW {topic.word}_view TO {topic.word} AS SELECT * FROM {topic.word}_queue"
            )
        _await(lambda: _written(services.bootstrap, f"{name}.") >= expected.events)
        found = {
            (column, experiment, arm, str(pane_start_ms)): count
            for experiment, arm, pane_start_ms, *counts in client.query(COUNT).result_rows
            for column, count in zip(CELLS, counts, strict=True)
            if count
        }
        cost = sample(server.process.pid).cost_since(start)
        client.close()
    wrong = () if found == impression_cells(expected) else ("ClickHouse's counts are wrong.",)
    return Run(expected.events, cost, wrong)


def _create(client: Client, bootstrap: str, prefix: str, registry: str) -> None:
    for topic in Topic:
        word, columns = topic.word, COLUMNS[topic]
        client.command(
            f"CREATE TABLE {word} ({columns}) ENGINE = ReplacingMergeTree ORDER BY ({ORDER[topic]})"
        )
        client.command(
            QUEUE.format(
                word=word,
                columns=columns,
                bootstrap=bootstrap,
                prefix=prefix,
                registry=registry,
                group=GROUP.format(word=word),
            )
        )


def _written(bootstrap: str, prefix: str) -> int:
    """Records whose rows are in the tables: only then are their offsets committed."""
    total = 0
    for topic in Topic:
        group = {"bootstrap.servers": bootstrap, "group.id": GROUP.format(word=topic.word)}
        consumer = Consumer(group)
        everything = [TopicPartition(prefix + topic.word, number) for number in range(PARTITIONS)]
        try:
            total += sum(max(0, partition.offset) for partition in consumer.committed(everything, timeout=10))
        except KafkaException:  # the broker makes itself ready for groups when the first one asks
            return 0
        finally:
            consumer.close()
    return total


def _await(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_done():
        if time.monotonic() > deadline:
            raise RuntimeError(f"ClickHouse did not finish in {PATIENCE_SECONDS} s.")
        time.sleep(POLL_SECONDS)
