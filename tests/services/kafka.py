"""A real Apache Kafka broker. By hand: `python -m tests.services.kafka [--folder DIR] [--port N]`."""

import argparse
import base64
import logging
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import run

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.services.downloads import kafka_jars
from tests.services.process import ServerProcess, free_port
from tests.services.tools import command_for

_SILENT = logging.getLogger(__name__)  # librdkafka would write to stderr while the broker is away

JVM = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
)  # quick to start; a benchmark passes its own

# The short broker session lets a killed broker register again at once.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms={rebalance_delay_ms}
log.cleaner.dedupe.buffer.size=16777216
"""


class KafkaServer:
    """One KRaft node on free ports of the loopback.

    Its data lives in `folder` (default: a temporary one) across restarts. `jvm` replaces the JVM options,
    for a benchmark; `rebalance_delay_ms`: how long an empty group waits for more than its first member;
    `more_properties`: lines that win over those above. Raises ServiceMissing where it cannot run.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        port: int | None = None,
        jvm: Iterable[str] = JVM,
        rebalance_delay_ms: int = 0,
        more_properties: str = "",
    ) -> None:
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="kafka-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._port = port or free_port()
        self.bootstrap = f"127.0.0.1:{self._port}"
        self._properties = self.folder / "server.properties"
        text = PROPERTIES.format(
            port=self._port,
            controller=free_port(),
            folder=self.folder,
            rebalance_delay_ms=rebalance_delay_ms,
        )
        self._properties.write_text(text + more_properties)
        jars = kafka_jars()
        container = f"kafka-{uuid.uuid4().hex[:12]}"
        java = command_for("java", writable=self.folder, readable=jars, container=container)
        words = [*java, *jvm, "-cp", f"{jars}/*"]
        self._format(words)
        self.process = ServerProcess(
            [*words, "kafka.Kafka", str(self._properties)],
            answers=self._answers,
            log=self.folder / "kafka.log",
            container=container,
        )

    def __enter__(self) -> "KafkaServer":
        self.start()
        return self

    def __exit__(self, *why: object) -> None:
        self.close()

    def start(self) -> None:
        """Start and wait until it answers."""
        self.process.start()

    def stop(self) -> None:
        """A clean stop; the data stays."""
        self.process.stop()

    def kill(self) -> None:
        """A crash; the data stays."""
        self.process.kill()

    def restart(self) -> None:
        """Stop (if it runs) and start on the same ports with the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End it for good; a temporary folder is deleted."""
        if not self._temporary:
            self.stop()
            return
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def create_topics(
        self, *names: str, partitions: int = 4, config: Mapping[str, str] | None = None
    ) -> None:
        """Create topics; retention is unlimited unless said, for tests send old timestamps."""
        settings = {"retention.ms": "-1", **(config or {})}
        admin = self.admin()
        topics = [NewTopic(name, partitions, 1, config=settings) for name in names]
        for made in admin.create_topics(topics).values():
            made.result(30)

    def admin(self) -> AdminClient:
        """A confluent-kafka admin client."""
        return AdminClient({"bootstrap.servers": self.bootstrap}, logger=_SILENT)

    def _format(self, words: list[str]) -> None:
        if (self.folder / "data" / "meta.properties").exists():
            return
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = [
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster}",
            f"--config={self._properties}",
        ]
        run([*words, *tool], check=True, capture_output=True, timeout=120)

    def _answers(self) -> bool:
        try:
            return bool(self.admin().list_topics(timeout=1).brokers)
        except KafkaException:
            return False


def main() -> None:
    """Run a broker until Ctrl-C and print where it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the data here")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with KafkaServer(options.folder, port=options.port) as kafka:
        print(f"kafka://{kafka.bootstrap}", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
