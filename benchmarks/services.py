"""The real broker and database of a benchmark, and the environment of a worker that uses them."""

import os
import signal
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from benchmarks.workload import PARTITIONS, Record, send
from stream.contracts.topics import Topic
from tests.services.clickhouse import ClickHouseServer
from tests.services.kafka import KafkaServer

JVM = ("-Xmx1g", "-XX:+UseSerialGC")
REBALANCE_DELAY_MS = 3_000  # Kafka's default: workers that are started together get their partitions at once


class Services:
    """Real Kafka and real ClickHouse; `folder` is for whatever the runs leave behind."""

    def __init__(self, kafka: KafkaServer, clickhouse: ClickHouseServer, folder: Path) -> None:
        self.bootstrap = kafka.bootstrap
        self.folder = folder
        self._kafka = kafka
        self._clickhouse = clickhouse

    def create_topics(self, name: str) -> None:
        """Create the input topics `<name>.*`."""
        self._kafka.create_topics(*(f"{name}.{topic.word}" for topic in Topic), partitions=PARTITIONS)

    def create_topic(self, name: str) -> None:
        """Create one more topic, with one partition."""
        self._kafka.create_topics(name, partitions=1)

    def load(self, records: Iterable[Record], name: str) -> None:
        """Create the input topics `<name>.*` and fill them."""
        self.create_topics(name)
        send(records, self.bootstrap, f"{name}.")

    def environment(self, name: str) -> dict[str, str]:
        """Settings of a worker on the topics `<name>.*`, with a database and checkpoints of its own."""
        outer = {key: value for key, value in os.environ.items() if not key.startswith("LIFTSTREAM_")}
        return outer | {
            "LIFTSTREAM_BROKER": f"kafka://{self.bootstrap}",
            "LIFTSTREAM_CLICKHOUSE_URL": self._clickhouse.url_of(name),
            "LIFTSTREAM_CHECKPOINTS": str(self.folder / name / "checkpoints"),
            "LIFTSTREAM_TOPIC_PREFIX": f"{name}.",
            "LIFTSTREAM_TOPIC_PARTITIONS": str(PARTITIONS),
            "LIFTSTREAM_GROUP": name,
        }

    def client(self, name: str) -> Client:
        """A client of that worker's database."""
        url = urlsplit(self._clickhouse.url_of(name))
        return clickhouse_connect.get_client(
            host=url.hostname,
            port=url.port,
            username=self._clickhouse.user,
            password=self._clickhouse.password,
            database=name,
        )


@contextmanager
def services() -> Iterator[Services]:
    """Start both in a temporary folder. Raises ServiceMissing where they cannot run.

    SIGTERM is an interrupt from now on, so that everything that was started ends with this process.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="liftstream-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        kafka = stack.enter_context(
            KafkaServer(folder / "kafka", jvm=JVM, rebalance_delay_ms=REBALANCE_DELAY_MS)
        )
        clickhouse = stack.enter_context(ClickHouseServer(folder / "clickhouse"))
        yield Services(kafka, clickhouse, folder)
