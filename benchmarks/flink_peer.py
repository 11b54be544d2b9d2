"""The peer: Flink SQL, with its cluster in one process, state on the heap, no checkpoints and no expiry.

The same job as three views and an INSERT: dedupe by event_id, arms, distinct clicked and converted impressions by arm
and 10 s pane, as an updating table in a topic. Measured is the process from the INSERT to its end.
"""

import json
import os
import subprocess
import time
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from benchmarks.meter import Cost, MemoryAtHand, sample
from benchmarks.oracle import PANE_MS, Expected, impression_cells
from benchmarks.runs import PATIENCE_SECONDS, START_POLL_SECONDS, Run
from benchmarks.schema_registry import schema_registry
from benchmarks.services import Services
from tests.services.downloads import flink_jars
from tests.services.tools import command_for

JVM = (
    "-Xmx6g",
    *(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("lang", "util", "time", "nio")),
)
MEMORY_BYTES = 8 << 30
CONFIGURATION = """\
parallelism.default: 2
execution.target: local
taskmanager.memory.network.max: 256mb
taskmanager.memory.network.min: 256mb
pipeline.object-reuse: true
table.dml-sync: true
table.exec.mini-batch.enabled: true
table.exec.mini-batch.allow-latency: 2 s
table.exec.mini-batch.size: 50000
table.optimizer.agg-phase-strategy: TWO_PHASE
"""
SOURCE = """
CREATE TABLE {word} ({columns}, pt AS PROCTIME()) WITH (
  'connector' = 'kafka', 'topic' = '{prefix}{word}', 'properties.bootstrap.servers' = '{bootstrap}',
  'properties.group.id' = 'flink', 'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset',
  'value.format' = 'avro-confluent', 'value.avro-confluent.url' = '{registry}'
);
"""
COLUMNS = {
    "assignments": "event_id STRING, user_id STRING, experiment STRING, arm STRING",
    "impressions": "event_id STRING, `at` BIGINT, user_id STRING, impression_id STRING",
    "interactions": "event_id STRING, impression_id STRING, kind STRING",
}
VIEWS = f"""
CREATE VIEW shown AS
SELECT impression_id, user_id, `at` - MOD(`at`, {PANE_MS}) AS pane FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY event_id ORDER BY pt) AS n FROM impressions) WHERE n = 1;
CREATE VIEW answered AS
SELECT impression_id, IF(kind = 'click', 'clicked_impressions', 'converted_impressions') AS what FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY impression_id, kind ORDER BY pt) AS n FROM interactions) WHERE n = 1;
CREATE VIEW assigned AS
SELECT user_id, experiment, arm FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY user_id, experiment ORDER BY pt) AS n FROM assignments) WHERE n = 1;
"""
SINK = """
CREATE TABLE counts (
  what STRING, experiment STRING, arm STRING, pane BIGINT, n BIGINT,
  PRIMARY KEY (what, experiment, arm, pane) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{bootstrap}',
  'key.format' = 'json', 'value.format' = 'json'
);
"""
BEGUN = "CREATE TABLE counts"  # what the client echoes before the INSERT
INSERT = """
INSERT INTO counts SELECT what, experiment, arm, pane, COUNT(*) FROM (
  SELECT e.what, a.experiment, a.arm, e.pane FROM (
    SELECT 'impressions' AS what, user_id, pane FROM shown
    UNION ALL
    SELECT answered.what, shown.user_id, shown.pane FROM shown JOIN answered USING (impression_id)
  ) AS e JOIN assigned AS a ON e.user_id = a.user_id
) GROUP BY what, experiment, arm, pane;
"""


def run_flink(services: Services, name: str, expected: Expected) -> Run:
    """Let Flink read the topics `<name>.*` and count."""
    folder = services.folder / f"{name}-flink"
    folder.mkdir()
    topic = f"{name}.flink"
    services.create_topic(topic)
    with schema_registry() as registry:
        about = {"prefix": f"{name}.", "bootstrap": services.bootstrap, "registry": registry, "topic": topic}
        sources = [SOURCE.format(word=word, columns=columns, **about) for word, columns in COLUMNS.items()]
        (folder / "job.sql").write_text("".join((*sources, VIEWS, SINK.format(**about), INSERT)))
        (folder / "config.yaml").write_text(CONFIGURATION)
        cost = _run(folder)
    found = _read(services.bootstrap, topic)
    wrong = () if found == impression_cells(expected) else ("Flink's counts are wrong.",)
    return Run(expected.events, cost, wrong)


def _run(folder: Path) -> Cost:
    """Run the job of a folder; what it took from its INSERT on."""
    jars, log = flink_jars(), folder / "flink.log"
    java = command_for("java", writable=folder, readable=jars)
    command = [*java, *JVM, "-cp", f"{jars}/*", "org.apache.flink.table.client.SqlClient", "embedded"]
    with MemoryAtHand(MEMORY_BYTES) as memory, log.open("wb") as out:
        child = subprocess.Popen(
            [*command, "-f", str(folder / "job.sql")],
            env=os.environ | {"FLINK_CONF_DIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        start = newest = sample(child.pid)
        has_begun = False
        deadline = time.monotonic() + PATIENCE_SECONDS
        while child.poll() is None:
            if time.monotonic() > deadline:
                child.kill()
                child.wait()
                raise RuntimeError(f"Flink did not finish:\n{log.read_text()[-3000:]}")
            now = sample(child.pid)
            newest = now if now.peak_rss_mb else newest  # it may just have ended
            if not has_begun:
                has_begun, start = BEGUN in log.read_text(), newest
                if has_begun:
                    memory.give_back()
            time.sleep(START_POLL_SECONDS)
    if "[ERROR]" in log.read_text():
        raise RuntimeError(f"Flink failed:\n{log.read_text()[-3000:]}")
    return newest.cost_since(start)


def _read(bootstrap: str, topic: str) -> dict[tuple[str, ...], int]:
    """The newest count of each key of the updating table."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic, "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, 0)])
    counts: dict[tuple[str, ...], int] = {}
    is_at_end = False
    while not is_at_end:
        for message in consumer.consume(10_000, timeout=5):
            is_at_end = message.error() is not None
            if not is_at_end:
                key = tuple(str(part) for part in json.loads(message.key()).values())
                counts[key] = json.loads(message.value())["n"] if message.value() else 0
    consumer.close()
    return {key: count for key, count in counts.items() if count}
